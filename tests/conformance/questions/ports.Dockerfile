FROM base AS a
ARG PORT=5
EXPOSE 1-3 $PORT/udp
ARG API_TOKEN
RUN --security=insecure echo $API_TOKEN
