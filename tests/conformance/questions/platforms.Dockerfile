ARG XX=base
FROM --platform=$BUILDPLATFORM $XX AS tools
FROM --platform=${BUILDPLATFORM} base AS build
ARG TARGETOS
ARG TARGETARCH
ARG TARGETPLATFORM
ARG BUILDKIT_SANDBOX_HOSTNAME=h
COPY --from=tools / /t
RUN echo $TARGETOS $TARGETARCH
FROM base AS run-linux
FROM scratch AS run-windows
FROM run-${TARGETOS:-linux} AS run
COPY --link --from=build /etc/passwd /p
FROM run
