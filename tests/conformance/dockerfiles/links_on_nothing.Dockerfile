FROM scratch AS bare
COPY --link a /a
FROM scratch
COPY --link --from=bare /a /b
COPY --link --chown=1:2 c d /e/
FROM --platform=linux/arm/v7 alpine:3.22 AS other
COPY --link a /
FROM scratch
ADD --link https://example.com/x.tar.gz /x/
COPY --link --from=other /a /o/
COPY --link --from=bare /a /b
