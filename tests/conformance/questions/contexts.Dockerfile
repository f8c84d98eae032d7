# assets come from elsewhere
FROM base AS assets
ARG ASSET=1
RUN echo $ASSET
FROM base AS other
ARG OTHER=1
RUN echo $OTHER
FROM base
ARG MINE
# MINE_TOO has no default
ARG MINE_TOO
COPY --from=assets /etc/passwd /a
COPY --from=other --chown=$MINE_TOO /etc/passwd /b
RUN --mount=type=bind,from=assets,target=/x --network=none echo $MINE
ONBUILD RUN echo $MINE
