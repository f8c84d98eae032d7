FROM alpine:3.22 AS files
RUN mkdir -p /a/b /c && touch /a/b/x /c/y
FROM alpine:3.22
COPY --link a.txt /linked/
COPY --link --chown=1000:1000 b.txt c.txt /linked/
COPY --link --chmod=755 d.sh /bin/
COPY --link --from=files /a /c /joined/
COPY --exclude=*.md --exclude=**/node_modules src/ /src/
COPY --chmod=u+rwX,go-w bin /bin2
COPY --chmod=1777 tmp /tmp2
COPY --parents ./x/a.txt ./y/a.txt /parents/
COPY --parents --from=files /a/./b/x /c/y /parents/
COPY --parents lib/**/*.py /py/
COPY --chown=daemon:daemon --chmod=0750 etc /etc/app
COPY ["with space.txt", "and another", "/spaces/"]
COPY dir/* file? [ab].txt /globs/
COPY . .
