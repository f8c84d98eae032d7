FROM node:20 as deps
ENV NODE_ENV=production \
    PATH="/app/node_modules/.bin:$PATH"
WORKDIR /app
COPY --chown=node:node package*.json ./
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc,required \
    --mount=type=ssh \
    npm ci --omit=dev

FROM deps AS build
COPY --exclude=**/*.test.js . .
RUN <<EOF
set -eu
npm run build
rm -rf src
EOF

FROM node:20
LABEL org.opencontainers.image.title="App" org.opencontainers.image.version="${VERSION:-0}"
ARG VERSION
LABEL version $VERSION
COPY --from=deps --link /app/node_modules /app/node_modules
COPY --from=build --parents /app/./dist/ /app/./public/*.html /srv/
VOLUME ["/data"]
STOPSIGNAL SIGINT
CMD node /srv/dist/main.js
