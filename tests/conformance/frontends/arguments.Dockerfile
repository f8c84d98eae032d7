ARG VERSION=0
ARG FLAVOUR=base
FROM ${FLAVOUR} AS one
ARG VERSION
ARG EXTRA=no
ENV APP_VERSION=${VERSION:-none} MAJOR=${VERSION%%.*}
RUN echo "$APP_VERSION $MAJOR $EXTRA" > /version
FROM base
ARG VERSION
LABEL org.opencontainers.image.version="$VERSION" shape="${VERSION:+given}"
COPY --from=one /version /v-$VERSION
