# syntax=docker/dockerfile:1-labs
FROM alpine:3.22
RUN --network=none make offline
RUN --network=host curl localhost
RUN --security=insecure mount -t tmpfs none /mnt
RUN --security=sandbox --network=default true
