FROM --platform=$BUILDPLATFORM tonistiigi/xx:1.6 AS xx
FROM --platform=$BUILDPLATFORM golang:1.25 AS build
COPY --from=xx / /
ARG TARGETPLATFORM
WORKDIR /src
RUN --mount=target=. --mount=type=cache,target=/root/.cache xx-go build -o /out/app . && xx-verify /out/app
FROM alpine:3.22
ARG TARGETARCH
COPY --from=build /out/app /bin/app-$TARGETARCH
RUN /bin/app-$TARGETARCH --version
