FROM base AS deps
RUN --mount=type=bind,source=lock,target=/lock \
    --mount=type=cache,id=conformance-deps,target=/cache,sharing=locked \
    while read -r name version; do echo "$name" >> /cache/seen; echo "$name=$version" >> /deps; done < /lock
FROM base
RUN --mount=from=deps,source=/deps,target=/deps --mount=type=tmpfs,target=/scratch \
    cp /deps /scratch/deps && sort /scratch/deps > /installed
WORKDIR /work
RUN --mount=type=bind,target=.,rw cd app && echo local > marker && cat marker > /marker
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
RUN --network=none ls /sys/class/net > /interfaces
