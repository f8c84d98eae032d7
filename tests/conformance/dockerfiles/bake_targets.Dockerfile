FROM alpine:3.22 AS base
RUN apk add --no-cache make
FROM base AS lint
RUN --mount=target=. make lint
FROM base AS vendor
RUN --mount=target=/ctx,rw --mount=target=.git,type=bind,source=.git make vendor && mkdir /out && cp -r vendor /out
FROM scratch AS vendor-update
COPY --from=vendor /out /
FROM vendor AS vendor-validate
RUN --mount=target=. diff -r vendor /out/vendor
FROM base AS release
ARG TARGETPLATFORM
RUN echo "$TARGETPLATFORM" > /platform
