"""Dockerfiles of realistic variety, each with its context: built by us and by buildah, and compared."""

from __future__ import annotations

from tests.fakes import image_contexts as contexts
from tests.fakes.image_case import LEFT_BEHIND, NEW_DIRECTORY, Case

# --- 1: an application of several stages --------------------------------------------------------------------


_APPLICATION = r"""
# a stage that compiles, one that nobody needs, one that runs
ARG VERSION=1.2
FROM debian AS build
ARG VERSION
ENV PREFIX=/opt/app VERSION=${VERSION}
WORKDIR /src
COPY src/ ./
RUN mkdir -p $PREFIX/bin $PREFIX/share && \
    install -m 4755 main.sh $PREFIX/bin/greet && \
    ln $PREFIX/bin/greet $PREFIX/bin/hello && \
    ln -s greet $PREFIX/bin/hi && \
    cat lib/*.txt > $PREFIX/share/all.txt && \
    echo "$VERSION" > $PREFIX/share/version && chmod 640 $PREFIX/share/version

FROM build AS unused
RUN exit 1

FROM busybox
ARG VERSION
LABEL org.opencontainers.image.version="${VERSION:-none}" maintainer='A "quoted" name'
COPY --from=build --chown=1000:33 /opt/app /opt/app
COPY --from=build --chmod=0700 /src/lib /opt/lib
COPY --from=busybox /bin/busybox /opt/tools/box
COPY --chown=mail:www-data LICENSE /opt/app/share/
ENV GREETING="hello, world" PATH=/opt/app/bin:$PATH
USER 1000:33
ENTRYPOINT ["greet"]
"""


# --- 2: contexts -------------------------------------------------------------------------------------------


_CONTEXT = r"""
FROM busybox
COPY . /everything
COPY app /app/
COPY a?.conf b[0-9].conf /etc/conf.d/
COPY ["app/with space.txt", "/space dir/"]
COPY app/directory-link/ /through-link/
COPY app/link /copied-link
COPY --chown=8 --chmod=755 docs /docs
COPY app/main.py app/empty.txt /several/
COPY app/main.py renamed.py
"""


# --- 3: archives -------------------------------------------------------------------------------------------


_ARCHIVES = r"""
FROM busybox
RUN mkdir -p /plain/etc && echo before > /plain/etc/replaced && mkdir /plain/tree && touch /plain/tree/old
ADD plain.tar /plain
ADD packed.tar.gz /gzip/
ADD packed.tar.bz2 /bzip2/
ADD --chown=8:33 packed.tar.xz /xz/
ADD not-an-archive.tar.gz single.gz /files/
"""


# --- 4: deletions ------------------------------------------------------------------------------------------

_DELETIONS = r"""
FROM debian
RUN rm -rf /usr/share/doc/dash /etc/motd && rm /usr/bin/tac && \
    rm -rf /etc/default && mkdir /etc/default && echo new > /etc/default/only && \
    rm -rf /usr/share/info && echo "a file now" > /usr/share/info && \
    rm /etc/issue && mkdir /etc/issue && touch /etc/issue/inside && \
    rm -rf /usr/share/menu && ln -s doc /usr/share/menu
RUN mv /usr/share/lintian /usr/share/renamed && mv /etc/issue.net /etc/moved && \
    mkdir -p /made/a/b && touch /made/a/b/c && rm -rf /made/a && touch /made/gone
RUN rm -rf /made /etc/default && mkdir /made && touch /made/again && rm /usr/share/info && mkdir /usr/share/info
RUN chmod 600 /etc/debian_version && chown -R 7:7 /usr/share/base-files && touch -d @1400000000 /etc/host.conf && \
    ln /etc/os-release /etc/os-release.link && ln /usr/bin/cat /usr/bin/kitten && \
    echo more >> /usr/lib/os-release && rm -f /usr/share/doc/*/copyright
"""

# --- 5: special files --------------------------------------------------------------------------------------

_SPECIAL = r"""
FROM debian
RUN mkdir /special && cd /special && mknod null c 1 3 && mknod disk b 7 77 && mkfifo -m 622 pipe && \
    cp /usr/bin/true capable && setcap cap_net_bind_service+ep capable && \
    ln capable second && truncate -s 5M sparse && echo end >> sparse && \
    dd if=/dev/zero of=large bs=1M count=3 2>/dev/null && \
    chmod 1777 . && touch -d @1234567890.123456789 stamped && \
    touch "$(printf 'not-\377-utf8')" "$(printf 'new\nline')" && \
    ln -s "$(printf 'to-\376')" link && mkdir set-gid && chmod 2775 set-gid && chown 1:2 -h link
RUN cp -a /special /copied && rm /special/second
COPY --from=debian /usr/sbin/setcap /usr/local/bin/
"""

# --- 6: every setting --------------------------------------------------------------------------------------

_SETTINGS = r"""
FROM busybox
MAINTAINER Somebody <some@body.example>
ARG PORT=8080
ARG UNSET
ENV ONE=1 TWO="two words" THREE=$PORT
ENV OLD style with spaces
ENV ONE=uno FOUR=${ONE}-${UNSET:-default}-${PORT:+set}
LABEL single=value
LABEL "with space"="a b" multi="line one \
line two" from-arg=$PORT
EXPOSE $PORT 53/udp 9000-9002
VOLUME /data /$ONE
VOLUME ["/json", "/with space"]
WORKDIR /srv
WORKDIR app
WORKDIR ../$ONE
USER mail:33
STOPSIGNAL SIGQUIT
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=5m --timeout=3s --start-period=1s --retries=7 CMD wget -q localhost:$PORT
ONBUILD COPY . /app
ONBUILD RUN echo "$THREE"
ENTRYPOINT exec env "$@"
CMD ["--", "a b"]
"""

# --- 7: users and directories ------------------------------------------------------------------------------


_ACCOUNTS = r"""
FROM busybox
RUN echo 'builder:x:1234:1234::/home/builder:/bin/sh' >> /etc/passwd && mkdir -p /home/builder && \
    printf 'builder:x:1234:\ncrew:x:4321:mail,builder\n' >> /etc/group && mkdir -m 750 /owned && \
    chown builder:builder /home/builder
RUN chown builder:crew /owned
USER builder
WORKDIR /home/builder/work
RUN id -u > who && id -G >> who && umask > mask && echo "$HOME" > home && mkdir d && touch d/f
USER builder:crew
RUN id -g > group
COPY config /home/builder/config
COPY --chown=builder config /owned/config
COPY --chown=builder:crew --chmod=u=rwX,go=rX config/app.ini /owned/new/deep/app.ini
COPY --chown=1234 config/app.ini /home/builder/work/
USER root
RUN chown -R builder /home/builder/config && chgrp -R 4321 /owned && chmod -R g+w /owned
WORKDIR /owned
"""

# --- 8: mounts ---------------------------------------------------------------------------------------------


_MOUNTS = r"""
FROM debian AS tools
RUN echo tool > /tool
FROM busybox
RUN --mount=type=cache,target=/root/.cache echo 1 > /root/.cache/one && ls /root/.cache > /seen
RUN --mount=type=bind,source=inputs,target=/in cat /in/* > /joined
RUN --mount=type=bind,from=tools,source=/tool,target=/mnt/tool cp /mnt/tool /tool.copy
RUN --mount=type=tmpfs,target=/scratch/deep touch /scratch/deep/x && ls /scratch/deep > /listed
RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length
RUN --network=none ls /sys/class/net > /interfaces
"""

# --- 9: from nothing ---------------------------------------------------------------------------------------


_NOTHING_BELOW = r"""
FROM scratch
COPY bin/ /bin/
COPY etc /etc
RUN ["/bin/busybox", "mkdir", "-p", "/a/b"]
SHELL ["/bin/busybox", "sh", "-c"]
RUN for name in sh ls cat; do busybox ln -s busybox /bin/$name; done
RUN cat /etc/passwd > /copy && ls -a / > /dev/null
ADD ["file with  two spaces", "/x"]
ENV PATH=/bin
CMD ["ls", "/"]
"""

# --- 10: a child of an image with triggers -----------------------------------------------------------------


_CHILD = r"""
FROM triggers
RUN cat /srv/package.json /srv/installed > /joined
COPY --chown=33:33 app /srv/again
"""

# --- 11: what buildah 1.28 does not know, and the same in its words ------------------------------------------


_MODERN = r"""
# syntax-free: nothing is fetched
FROM busybox AS base
ARG NAME=you
RUN <<EOF
set -e
mkdir -p /linked
ln -s linked /through
echo "from a heredoc" > /script
EOF
RUN <<'EOF' cat > /command
literal $NAME
EOF
COPY <<one <<-"two" /inline/
hello $NAME
one
	tabs of $NAME go
	two
COPY --link --chown=5:6 app /linked/app
COPY --link conf /through/conf
COPY --parents app/deep/*.txt /parents/
COPY --chmod=750 <<script.sh /bin/script.sh
#!/bin/sh
echo run
script.sh
"""

_MODERN_IN_OLD_WORDS = r"""
FROM busybox
ARG NAME=you
RUN mkdir -p /linked /through && echo "from a heredoc" > /script
RUN echo 'literal $NAME' > /command
RUN mkdir /inline && echo 'hello you' > /inline/one && echo 'tabs of $NAME go' > /inline/two
COPY --chown=5:6 app /linked/app
COPY conf /through/conf
COPY app/deep/er.txt /parents/app/deep/er.txt
RUN printf '#!/bin/sh\necho run\n' > /bin/script.sh && chmod 750 /bin/script.sh
"""

# --- what is right and differs -------------------------------------------------------------------------------

_IMPLIED = "directories an archive only implies have no time: 1970 here, so that layers are the same every time"

_CONTEXT_DIFFERENCES = {
    r"(app|docs|through-link): mtime": NEW_DIRECTORY,
    r"(everything/)?app/set-id: mode '6755' '0755'": "modes are copied (BuildKit); buildah takes set-id bits away",
}
_ARCHIVE_DIFFERENCES = {
    **LEFT_BEHIND,
    r"(gzip|bzip2|plain|xz)/(etc|implied|implied/parents): mtime 0 ": _IMPLIED,
    r"xz/.*: owner \(8, 33\) ": "--chown counts inside an archive (BuildKit, unpack.go); buildah keeps its owners",
}
_SETTINGS_DIFFERENCES = {
    r"srv(/app|/uno)?: only here": "WORKDIR makes the directory (BuildKit); buildah does when a RUN enters it",
}
_SETTINGS_CONFIG = {
    r"Entrypoint: .*'-ec'.* .*'-c'": "SHELL counts for ENTRYPOINT too; buildah forgets it",
    r"ExposedPorts\.9000-9002/tcp: None ": "a range is its ports (BuildKit); buildah keeps it as written",
    r"ExposedPorts\.900[012]/tcp: .* None": "the same",
    r"history: 22 24": "ONBUILD leaves no history (BuildKit)",
}

CASES = (
    Case(
        name="application",
        dockerfile=_APPLICATION,
        context=contexts.application,
        tree={
            r"opt/lib: mode '0700' '0755'": "--chmod counts for the directory that is made, too (BuildKit)",
            r"opt/lib: mtime": NEW_DIRECTORY,
        },
    ),
    Case(name="context", dockerfile=_CONTEXT, context=contexts.context, tree=_CONTEXT_DIFFERENCES),
    Case(name="archives", dockerfile=_ARCHIVES, context=contexts.archives, tree=_ARCHIVE_DIFFERENCES),
    Case(name="deletions", dockerfile=_DELETIONS, tree=LEFT_BEHIND),
    Case(name="special", dockerfile=_SPECIAL, their_flags=("--cap-add", "CAP_MKNOD"), tree=LEFT_BEHIND),
    Case(name="settings", dockerfile=_SETTINGS, tree=_SETTINGS_DIFFERENCES, config=_SETTINGS_CONFIG),
    Case(
        name="accounts",
        dockerfile=_ACCOUNTS,
        context=contexts.accounts,
        theirs=lambda text: text.replace("u=rwX,go=rX", "644"),  # it knows numbers only
        tree={**LEFT_BEHIND, r"(home/builder|owned)/config: mtime": NEW_DIRECTORY},
    ),
    Case(
        name="mounts",
        dockerfile=_MOUNTS,
        context=contexts.mounts,
        flags=("--secret", "id=token,src={context}/token"),
        theirs=lambda text: text.replace("--network=none ls /sys/class/net", "echo lo"),  # it has no such flag
        tree={**LEFT_BEHIND, r"(mnt|scratch): missing here": "and the directories above its mounts"},
    ),
    Case(
        name="nothing-below",
        dockerfile=_NOTHING_BELOW,
        context=contexts.nothing_below,
        tree=LEFT_BEHIND,
        config={r"WorkingDir: '/' None": "BuildKit's config of scratch has it"},
    ),
    Case(
        name="child",
        dockerfile=_CHILD,
        context=contexts.child,
        tree={**LEFT_BEHIND, r"srv/again: mtime": NEW_DIRECTORY},
    ),
    Case(
        name="modern",
        dockerfile=_MODERN,
        context=contexts.modern,
        theirs=lambda _: _MODERN_IN_OLD_WORDS,
        tree={
            **LEFT_BEHIND,
            r"linked: owner \(5, 6\)": "--link makes its directories anew, and --chown counts for them (BuildKit)",
            r"linked/app: mtime": NEW_DIRECTORY,
            r"parents/app(/deep)?: mtime": NEW_DIRECTORY,
        },
    ),
)
