"""More Dockerfiles that are compared with buildah's: thorough, and a minute long."""

from __future__ import annotations

from tests.fakes import image_contexts as contexts
from tests.fakes.image_case import LEFT, LEFT_BEHIND, NEW_DIRECTORY, Case

# --- 12 and 13: copies over what is there, and every way to change a tree ------------------------------------

_OVERLAPS = r"""
FROM debian AS src
RUN mkdir -p /s/real/deep && echo r > /s/real/file && ln -s real /s/alias && ln -s /s/real/file /s/absolute && \
    ln -s nowhere /s/dangling && echo x > /s/real/deep/x && ln /s/real/file /s/hard && \
    mkdir -m 711 /s/odd && chown 3:4 /s/odd /s/real/file && chmod u+s /s/real/file
FROM debian
RUN mkdir -p /t/dir /t/existing && ln -s existing /t/to-existing && ln -s /t/existing/target /t/to-file && \
    echo old > /t/existing/target && ln -s missing /t/to-missing && echo file > /t/plain && \
    chown 9:9 /t/existing && chmod 751 /t/existing
COPY bin-tool /bin/
COPY f /t/to-file
COPY dir /t/to-existing
COPY dir/ /t/dir
COPY w? /t/merged/
COPY f g /t/two/
COPY link-to-dir /t/followed
COPY link-to-dir/a /t/followed-a
COPY --from=src /s/alias /t/alias
COPY --from=src /s/absolute /t/absolute
COPY --from=src /s /t/all
COPY --from=src --chown=21:22 /s /t/all-owned
COPY --from=src /s/real/file /s/hard /t/hards/
COPY other /t/dir/
WORKDIR /t/wd
COPY f .
COPY g sub/
COPY f ./renamed
COPY . /t/whole
RUN rm -r /t/whole/dir && rm /t/whole/f
COPY dir /t/whole/dir
COPY f /t/whole/
ADD f /t/added
ADD dir /t/added-dir
"""

_METADATA = r"""
FROM debian
RUN mkdir -p /m/d1/d2 && cd /m && touch a b c && ln a a2 && ln a a3 && echo content > b && ln b b2 && ln c c2 && \
    touch -d '1960-01-01 UTC' ancient && touch -d '2200-01-01 UTC' future && chmod 7777 ancient && \
    chown 4000000000:3000000000 b && chmod 000 c
RUN chmod 700 /m/d1 && chown 5:6 /m/d1/d2 && echo more >> /m/a2 && rm /m/b
RUN touch -d @1000000000 /m/d1/d2 && chmod g+s /m/d1 && chown 77 /m/c2 && mv /m/future /m/d1/d2/future
RUN mkdir /m/empty && touch /m/empty/x && rm /m/empty/x && rm -rf /m/d1/d2 && mkdir -p /m/d1/d2/d3
RUN mv /m/d1 /m/moved && cp -a /m/moved /m/copy && \
    rm -rf /usr/share/doc && mkdir /usr/share/doc && chmod 701 /usr/share/doc
RUN touch /m/.hidden /m/-dash "/m/*star" && printf x > "/m/.wh-not" && mkdir -p "/m/wh/.x" && \
    ln -s / /m/root && ln -s . /m/dot && ln -s .. /m/dotdot
RUN : > /m/a3 && truncate -s 100K /m/holes && printf end | dd of=/m/holes bs=1 seek=50000 conv=notrunc 2>/dev/null
"""

# --- 14: all of Debian ---------------------------------------------------------------------------------------

_WHOLE = r"""
FROM whole
RUN useradd -m -s /bin/bash someone && usermod -aG mail someone && \
    dpkg-divert --add --rename --divert /usr/bin/yes.real /usr/bin/yes && ln -s true /usr/bin/yes && \
    dpkg --purge --force-all tzdata && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*
RUN cp -a /usr/lib /copy && rm -rf /usr/share/doc /usr/share/locale && find /copy -name '*.so*' -exec touch -d @99 {} +
USER someone
CMD ["id", "-un"]
"""

SLOW_CASES = (
    Case(
        name="overlaps",
        dockerfile=_OVERLAPS,
        context=contexts.overlaps,
        tree={
            **LEFT_BEHIND,
            r"t/(added-dir|dir|followed|merged|whole/dir): mtime": NEW_DIRECTORY,
            r"t/existing: mtime": "so does one that is there already",
            r"t/(to-file|existing/target): ": "a symlink as destination is followed (BuildKit); buildah replaces it",
        },
    ),
    Case(name="metadata", dockerfile=_METADATA, tree=LEFT_BEHIND),
)

WHOLE_DEBIAN = Case(name="whole-debian", dockerfile=_WHOLE, tree=LEFT)
