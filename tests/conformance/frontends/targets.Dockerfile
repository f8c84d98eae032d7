FROM base AS lint
RUN exit 1
FROM base AS test
COPY app /app
RUN sh -n /app/main.sh
FROM scratch AS release
COPY --from=test /app /app
FROM base AS never
RUN exit 2
