FROM alpine:3.22 AS one
RUN first
FROM one AS two
RUN second
COPY x /x
FROM two
WORKDIR /w
RUN third
