FROM base AS tools
RUN mkdir -p /tools && printf '#!/bin/sh\nwc -l "$1"\n' > /tools/count && chmod 755 /tools/count

FROM tools AS build
WORKDIR /src
COPY lock ./
RUN /tools/count lock > /tmp/lines
COPY app ./app
RUN cat app/main.sh app/lib/*.sh > /srv.sh

FROM base
COPY --from=build --chmod=755 /srv.sh /usr/local/bin/srv
COPY --from=build /tmp/lines /etc/lines
ENTRYPOINT ["srv"]
CMD ["--help"]
