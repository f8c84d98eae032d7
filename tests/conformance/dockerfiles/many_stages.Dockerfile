FROM busybox AS s1
RUN echo 1 > /1
FROM s1 AS s2
RUN echo 2 > /2
FROM busybox AS s3
COPY --from=s1 /1 /
COPY --from=s2 /2 /
FROM scratch AS s4
COPY --from=s3 / /three
COPY --from=s2 / /two
FROM s4 AS unused
RUN false
FROM s3
COPY --from=s4 /three/1 /two/2 /
COPY --from=s2 /2 /again
