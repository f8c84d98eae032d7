FROM alpine:3.22
ENV NAÏVE=ä SNOW=☃
RUN echo "häß ☃" $SNOW
COPY ünïcode.txt /☃/
LABEL emoji="🚀 <&>"
RUN printf '%s\n' "<html>&amp;</html>"
