FROM node:22-slim AS deps
WORKDIR /app
ENV NPM_CONFIG_FUND=false NPM_CONFIG_AUDIT=false
COPY package.json package-lock.json ./
RUN --mount=type=cache,id=npm,target=/root/.npm,sharing=locked npm ci

FROM deps AS build
COPY . .
ARG PUBLIC_URL=/
RUN npm run build && npm prune --omit=dev

FROM node:22-slim
ENV NODE_ENV=production
WORKDIR /app
RUN groupadd -r web && useradd -r -g web web
COPY --from=build --chown=web:web /app/node_modules ./node_modules
COPY --from=build --chown=web:web /app/dist ./dist
COPY --chown=web:web package.json .
USER web
EXPOSE 3000
HEALTHCHECK --interval=30s --timeout=3s --start-period=1m --retries=5 CMD node healthcheck.js || exit 1
STOPSIGNAL SIGTERM
CMD ["node", "dist/server.js"]
