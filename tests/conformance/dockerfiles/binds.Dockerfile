FROM alpine:3.22 AS src
RUN touch /f
FROM alpine:3.22
WORKDIR /w
RUN --mount=source=a,target=b --mount=target=/c,source=/x/../y,ro=false cat b
RUN --mount=type=bind,from=src,source=/f,target=/f,readwrite --mount=type=cache,from=src,source=/etc,target=/etc2 true
RUN --mount=type=cache,target=rel,id=my-$PATH,readonly --mount=type=cache,target=/k,from=src true
RUN --mount=type=bind,from=scratch,target=/empty,rw ls /empty
