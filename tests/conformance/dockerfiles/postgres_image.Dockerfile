FROM debian:bookworm-slim
RUN set -eux; groupadd -r postgres --gid=999; useradd -r -g postgres --uid=999 --home-dir=/var/lib/postgresql postgres
ENV GOSU_VERSION 1.17
RUN set -eux; \
	savedAptMark="$(apt-mark showmanual)"; \
	# what follows is removed again
	apt-get update; \
	dpkgArch="$(dpkg --print-architecture | awk -F- '{ print $NF }')"; \

	echo "$dpkgArch $savedAptMark $GOSU_VERSION"; \
	rm -rf /var/lib/apt/lists/*
ENV PG_MAJOR 17
ENV PG_VERSION 17.6-1.pgdg12+1
ENV PATH $PATH:/usr/lib/postgresql/$PG_MAJOR/bin
ENV PGDATA /var/lib/postgresql/data
RUN install --directory --owner postgres --group postgres --mode 1777 "$PGDATA"
VOLUME ["/var/lib/postgresql/data"]
COPY docker-entrypoint.sh docker-ensure-initdb.sh /usr/local/bin/
RUN ln -sT docker-ensure-initdb.sh /usr/local/bin/docker-enforce-initdb.sh
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
