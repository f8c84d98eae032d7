FROM --platform=linux/arm64 alpine:3.22 AS arm
RUN uname -m
FROM --platform=$TARGETPLATFORM alpine:3.22 AS target
RUN uname -m
FROM --platform=linux/arm/v7 busybox AS v7
FROM alpine:3.22
COPY --from=arm /etc/apk/arch /arm
COPY --from=v7 /bin/busybox /v7
COPY --from=target /etc/apk/arch /target
