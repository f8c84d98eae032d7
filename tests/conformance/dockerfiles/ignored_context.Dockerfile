FROM alpine:3.22
COPY src /src
COPY docs/readme.md /docs/
RUN --mount=source=scripts,target=/s sh /s/run.sh
