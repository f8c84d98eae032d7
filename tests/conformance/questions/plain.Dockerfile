FROM base
COPY Dockerfile /
