FROM scratch
ARG A
ARG B=2
# C
ARG C="three 3"
LABEL x=$C
FROM base AS unnamed_follows
FROM scratch
