# syntax=docker/dockerfile:1
ARG GO=1.22
FROM --platform=$BUILDPLATFORM golang:${GO} AS build
WORKDIR /src
# Dependencies first: they change less often than the code.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download
ARG VERSION=dev TARGETOS TARGETARCH
RUN --mount=target=. \
    --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build,sharing=locked \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -ldflags "-X main.version=$VERSION" -o /out/ ./cmd/...

FROM build AS test
RUN go test ./...

FROM scratch
COPY --from=build /out/ /usr/bin/
COPY --link --chmod=0644 <<-"EOF" /etc/service.conf
	listen = $PORT
	EOF
USER 65532:65532
EXPOSE 8080 9090-9092/udp
HEALTHCHECK --interval=10s --timeout=500ms CMD ["/usr/bin/service", "-check"]
ENTRYPOINT ["/usr/bin/service"]
CMD ["-v"]
