FROM alpine:3.22 AS a
COPY --link one /
COPY --link two /
FROM a AS b
RUN cat /one
COPY --link --from=a /two /two2
ADD --link https://files.example.com/x.tgz /x.tgz
ADD --link https://git.example.com/org/repo.git#main /repo
COPY --link <<EOF /inline
text $PATH
EOF
FROM b
COPY --link --parents d/e/f /
