# escape=`
# check=skip=JSONArgsRecommended
FROM debian:stable AS base
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
ONBUILD COPY --from=tools /tool /usr/local/bin/
ONBUILD RUN tool --init

FROM debian:stable AS tools
ADD --checksum=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa https://example.com/tool-1.tgz /tool
ADD --keep-git-dir=true https://github.com/example/repo.git#main:docs /docs
ADD rootfs.tar.xz /
RUN --network=none --security=insecure make `
    install

FROM base
ARG TARGETARCH
RUN echo "$TARGETARCH" > /arch && `
    echo $HOME
RUN <<PY
#!/usr/bin/env python3
print("hi")
PY
RUN cat <<A <<'B' > /both
one $X
A
two $X
B
WORKDIR etc
RUN --mount=type=tmpfs,target=/scratch,size=64m --mount=type=bind,from=tools,source=/docs,target=/d,rw ls
ENV a=1
ENV a=2 b=$a
ENTRYPOINT exec top -b
