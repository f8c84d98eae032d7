FROM onbuild:latest AS build
RUN make
FROM build AS second
ONBUILD COPY --from=busybox /bin/busybox /bin/bb
ONBUILD RUN --mount=type=bind,from=build,target=/b cat <<EOF
from $HOME
EOF
ONBUILD ENV CHILD=yes
FROM second
RUN echo $CHILD
