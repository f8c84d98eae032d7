FROM busybox AS b
FROM alpine:3.22
COPY --from=busybox /bin/busybox /bin/
COPY --from=docker.io/library/busybox:latest /bin/sh /bin/sh2
COPY --from=b /bin/busybox /bin/bb
COPY --from=b:1 /x /x
COPY --from=golang:1.25 --link /usr/local/go /usr/local/go
RUN --mount=from=node:22-slim,src=/usr/local/bin/node,dst=/n /n --version
