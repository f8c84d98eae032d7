FROM base AS made
ARG SOURCE_DATE_EPOCH
RUN echo "$SOURCE_DATE_EPOCH" > /when && touch -d "@$SOURCE_DATE_EPOCH" /when
FROM scratch
COPY --from=made /when /when
COPY lock /lock
