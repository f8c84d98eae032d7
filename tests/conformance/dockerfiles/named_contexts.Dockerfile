FROM base-image AS first
COPY --from=assets /logo.png /
COPY --from=alpine:3.22 /etc/os-release /
FROM tools AS second
RUN --mount=from=assets,target=/assets ls /assets
FROM replaced AS replaced
RUN never
FROM first
COPY --from=replaced / /r
COPY --from=second /bin /b
