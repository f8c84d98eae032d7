ARG BASE=alpine TAG=3.22
ARG FULL=${BASE}:${TAG}
FROM ${FULL} AS one
ARG TAG
ARG NAME=app-${TAG}
ENV NAME=$NAME TAG="${TAG}"
RUN echo $NAME $BASE
FROM one AS two
ARG EXTRA
ARG NAME=${NAME}-two
RUN echo "$NAME ${EXTRA:-none} ${TAG:?must be set}"
ENV LONG=${NAME#app-} UP=${NAME%%-*} REP=${NAME/-/_} ALL=${NAME//-/_} PLUS=${EXTRA:+set} QUOTED='$NAME' ESC=\$NAME
LABEL name=$NAME "quoted key"="a b" joined=a\ b \
      next="$LONG/$UP"
FROM two
ARG HTTP_PROXY
RUN env
