FROM alpine:3.22
RUN set -eux; addgroup -S -g 1000 redis; adduser -S -G redis -u 999 redis
ENV REDIS_DOWNLOAD_URL http://download.example.com/redis-8.tar.gz
ENV REDIS_DOWNLOAD_SHA 8f81e3c5a5b0e8d0b3a5b7a6
RUN set -eux; wget -O redis.tar.gz "$REDIS_DOWNLOAD_URL"; echo "$REDIS_DOWNLOAD_SHA *redis.tar.gz" | sha256sum -c -
RUN mkdir /data && chown redis:redis /data
VOLUME /data
WORKDIR /data
COPY docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 6379
CMD ["redis-server"]
