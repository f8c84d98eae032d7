# syntax=docker/dockerfile:1.7
FROM debian:bookworm-slim
RUN rm -f /etc/apt/apt.conf.d/docker-clean; echo 'Binary::apt::APT::Keep-Downloaded-Packages "true";' > /etc/apt/apt.conf.d/keep-cache
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
  --mount=type=cache,target=/var/lib/apt,sharing=locked \
  apt-get update && apt-get --no-install-recommends install -y gcc make
RUN --mount=type=cache,target=/root/.cache,uid=1000,gid=1000,mode=0700 --mount=type=tmpfs,target=/tmp,size=64m make
