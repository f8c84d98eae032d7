FROM node:22-slim AS frontend
WORKDIR /web
COPY web/package*.json ./
RUN npm ci
COPY web ./
RUN npm run build
FROM golang:1.25 AS backend
WORKDIR /go/src/app
COPY go.* ./
RUN go mod download
COPY . .
COPY --from=frontend /web/dist ./internal/ui/dist
RUN CGO_ENABLED=0 go build -o /app .
FROM alpine:3.22 AS certs
RUN apk add --no-cache ca-certificates tzdata
FROM scratch
COPY --from=certs /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=certs /usr/share/zoneinfo /usr/share/zoneinfo
COPY --from=backend /app /app
USER 1000
ENTRYPOINT ["/app"]
