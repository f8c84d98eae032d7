FROM rust:1.90 AS chef
RUN cargo install cargo-chef
WORKDIR /work

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS builder
COPY --from=planner /work/recipe.json recipe.json
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=shared \
    --mount=type=cache,target=/work/target,id=target-$TARGETARCH \
    cargo chef cook --release
COPY . .
ARG FEATURES
RUN cargo build --release ${FEATURES:+--features "$FEATURES"} && cp target/release/cli /cli

FROM scratch AS binary
COPY --from=builder /cli /

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=binary /cli /usr/local/bin/cli
ENTRYPOINT ["cli"]
