FROM --platform=$BUILDPLATFORM node:22-slim AS assets
WORKDIR /a
COPY assets .
RUN npm run build
FROM golang:1.25 AS native
ARG TARGETPLATFORM
ARG BUILDPLATFORM
RUN echo "$BUILDPLATFORM -> $TARGETPLATFORM"
WORKDIR /n
COPY . .
RUN go build -o /bin/n
FROM alpine:3.22
ARG TARGETARCH
ENV ARCH=${TARGETARCH}
COPY --link --from=assets /a/dist /srv
COPY --link --from=native /bin/n /bin/n
CMD ["/bin/n"]
