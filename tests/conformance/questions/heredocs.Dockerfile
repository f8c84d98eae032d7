# escape=`
ARG BASE=base
ARG SHELL_OF=sh
FROM ${BASE:-scratch} AS made
ARG SHELL_OF
ARG LIST=a,b
ARG FLAG
RUN <<EOT $SHELL_OF
echo $LIST ${FLAG:-none}
EOT
COPY <<A <<B /etc/
${LIST}
A
b
B
FROM made AS last
ARG DEEP=${LIST}-x
WORKDIR /w/$DEEP
