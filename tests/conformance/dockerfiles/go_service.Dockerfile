# syntax=docker/dockerfile:1
ARG GO_VERSION=1.25
ARG ALPINE_VERSION=3.22

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-alpine${ALPINE_VERSION} AS base
WORKDIR /src
RUN apk add --no-cache git file

FROM base AS modules
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download

FROM base AS build
ARG TARGETOS TARGETARCH TARGETVARIANT
ARG VERSION=dev
ENV CGO_ENABLED=0
RUN --mount=type=bind,target=. \
    --mount=type=bind,from=modules,source=/go/pkg/mod,target=/go/pkg/mod,rw \
    --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/service ./cmd/service

FROM build AS test
RUN --mount=type=cache,target=/root/.cache/go-build go test ./...

FROM gcr.io/distroless/static:nonroot
COPY --from=build --link /out/service /service
USER 65532:65532
EXPOSE 8080 9090/udp
ENTRYPOINT ["/service"]
CMD ["--listen", ":8080"]
