FROM trigger-base:2
COPY own /own
