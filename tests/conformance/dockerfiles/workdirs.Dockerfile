FROM alpine:3.22
WORKDIR relative
WORKDIR /abs
WORKDIR ../up
USER nobody:nogroup
WORKDIR sub/dir
ENV D=/from/env
WORKDIR $D/x
WORKDIR /
RUN pwd
WORKDIR /a b/c
COPY x .
COPY x ./
COPY x ../y
COPY x dir/

WORKDIR /with/slash/
RUN pwd
WORKDIR ./below/
COPY a b/
WORKDIR /a//b/../c/.
RUN pwd
