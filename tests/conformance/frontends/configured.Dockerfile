FROM base
MAINTAINER somebody@example.com
ENV A=1 B="two words" C=$A
ENV D three
LABEL com.example.vendor="ACME" com.example.list="1,2"
EXPOSE 80 443/tcp 53/udp 8000-8002
VOLUME ["/data", "/var/log"]
VOLUME /cache
USER 1000:1000
WORKDIR /home
WORKDIR app
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s --retries=2 CMD wget -q localhost || exit 1
SHELL ["/bin/sh", "-ec"]
CMD echo "$A" && exec sleep 1
ONBUILD COPY . /late
ONBUILD RUN echo late
