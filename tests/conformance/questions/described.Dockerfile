
# VERSION of the release
ARG VERSION=1.0
# UNUSED by anybody
ARG UNUSED

# base-image is where all begin
FROM base AS base-image

# build makes the program
# in two steps
FROM base-image AS build
# TARGET names what is made
ARG TARGET
# MODE of the compiler
ARG MODE=fast
ARG VERSION
RUN --mount=type=cache,target=/cache,id=$TARGET echo $MODE $VERSION

# release is what is shipped
FROM scratch AS release
COPY --from=build /etc/passwd /
# not a description, because of the gap

ARG LATE="a b"
ENV A=$LATE
