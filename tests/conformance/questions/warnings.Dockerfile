FROM --platform=linux/amd64 base as Mixed
from base AS scratch
maintainer me
ENV a b
LABEL c d
CMD echo x
ENTRYPOINT echo y
ENTRYPOINT ["z"]
WORKDIR rel
COPY --from=Mixed /etc/passwd ${nowhere}/x
ARG PASSWORD=1
ENV SECRET_KEY=2
EXPOSE 80/TCP
RUN true \

    && true
FROM base AS MIXED
FROM base AS mixed
HEALTHCHECK CMD a
HEALTHCHECK CMD b
FROM $undefined
