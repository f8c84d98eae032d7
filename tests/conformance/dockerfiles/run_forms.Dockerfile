FROM alpine:3.22
RUN ["echo", "exec $HOME", "é\u00e9"]
RUN [ "$(id -u)" = 0 ] && echo root
RUN ["not", json]
RUN echo "a   b"   'c'	tab
RUN \
    echo start \
    && echo "x\
y"
RUN echo \$HOME "\$HOME" '$HOME' \\
RUN    leading
