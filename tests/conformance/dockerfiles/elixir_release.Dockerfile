ARG ELIXIR=1.19
ARG BUILDER="elixir:${ELIXIR}"
ARG RUNNER="debian:bookworm-slim"
FROM ${BUILDER} AS builder
WORKDIR /app
ENV MIX_ENV="prod"
RUN mix local.hex --force && mix local.rebar --force
COPY mix.exs mix.lock ./
RUN mix deps.get --only $MIX_ENV
RUN mkdir config
COPY config/config.exs config/${MIX_ENV}.exs config/
RUN mix deps.compile
COPY priv priv
COPY lib lib
RUN mix compile && mix release
FROM ${RUNNER} AS final
ENV LANG=en_US.UTF-8 LANGUAGE=en_US:en
WORKDIR "/app"
RUN chown nobody /app
COPY --from=builder --chown=nobody:root /app/_build/${MIX_ENV}/rel/demo ./
USER nobody
CMD ["/app/bin/server"]
