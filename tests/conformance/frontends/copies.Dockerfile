FROM base AS files
COPY --chown=1000:2000 --chmod=u=rw,go=r app/lib/*.sh /lib/
COPY --exclude=*.md . /whole/
COPY --link config /etc/config
COPY --link --chown=7 lock kept.lo[g] /linked/
ADD --chmod=0640 docs /docs/
FROM scratch
COPY --from=files /lib/ /lib/
COPY --from=files /whole /whole
COPY --from=files /etc/config/settings.ini /settings.ini
COPY --from=files /linked /linked
COPY --from=files --parents /docs/./readme.md /read/
