"""Dockerfiles of realistic variety, each with its context: built by us and by buildah, and compared.

`tree` and `config` are the differences that are right, as a pattern for a line of `file_trees.differences` (or of
the config's) and the reason. `theirs` rewrites the Dockerfile into what buildah 1.28 understands.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_OLD = 1_500_000_000


def _nothing(context: Path) -> None:
    """No files but the Dockerfile."""


def _same(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    dockerfile: str
    context: Callable[[Path], None] = _nothing
    flags: tuple[str, ...] = ()
    their_flags: tuple[str, ...] = ()
    theirs: Callable[[str], str] = _same
    tree: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)

    def prepare(self, context: Path) -> Path:
        context.mkdir(parents=True)
        self.context(context)
        (context / "Dockerfile").write_text(self.dockerfile)
        (context / "Dockerfile.theirs").write_text(self.theirs(self.dockerfile))
        age(context)
        return context


def age(directory: Path) -> None:
    """Give everything below an old time of its own: copies keep it."""
    paths = sorted(Path(directory).rglob("*"), reverse=True)
    for number, path in enumerate(paths):
        os.utime(path, (_OLD + number, _OLD + number), follow_symlinks=False)


def _files(context: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


# --- 1: an application of several stages --------------------------------------------------------------------


def _application(context: Path) -> None:
    _files(
        context,
        {
            "src/main.sh": '#!/bin/sh\necho "$GREETING from ${0##*/}"\n',
            "src/lib/a.txt": "a\n",
            "src/lib/b.txt": "b\n",
            "LICENSE": "free\n",
        },
    )
    (context / "src/main.sh").chmod(0o755)


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


def _context(context: Path) -> None:
    long = "l" * 120
    deep = "/".join(f"directory-number-{n:02}" for n in range(16))
    _files(
        context,
        {
            "app/main.py": "print(1)\n",
            "app/main.pyc": "x",
            "app/__pycache__/main.pyc": "x",
            "app/keep/keep.pyc": "kept\n",
            "app/with space.txt": "space\n",
            "app/ünïcødé-日本.txt": "names\n",
            f"app/{long}.txt": "long name\n",
            f"app/{deep}/leaf.txt": "deep\n",
            "app/node_modules/x/index.js": "x",
            "app/empty.txt": "",
            ".git/config": "secret",
            ".env": "secret",
            "docs/README.md": "read\n",
            "docs/other.md": "other\n",
            "a1.conf": "1\n",
            "a2.conf": "2\n",
            "b3.conf": "3\n",
            "app/[brackets]*.txt": "4\n",
            ".dockerignore": (
                "# not for the image\n.git\n.env*\n**/*.pyc\n!app/keep/*.pyc\n**/__pycache__\n*/node_modules\n"
                "docs/*\n!docs/README.md\nDockerfile*\n.dockerignore\n"
            ),
        },
    )
    (context / "app/empty-directory").mkdir()
    (context / "app/link").symlink_to("main.py")
    (context / "app/dangling").symlink_to("/nowhere/at/all")
    (context / "app/long-link").symlink_to("x" * 180)
    (context / "app/directory-link").symlink_to("keep")
    os.link(context / "app/main.py", context / "app/second-name.py")
    (context / "app/set-id").write_text("#!/bin/sh\n")
    (context / "app/set-id").chmod(0o6755)
    (context / "app/private").mkdir(mode=0o700)
    (context / "app/sticky").mkdir()
    (context / "app/sticky").chmod(0o1777)
    (context / "app/read-only.txt").write_text("r\n")
    (context / "app/read-only.txt").chmod(0o400)


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


def _archives(context: Path) -> None:
    plain = _archive()
    (context / "plain.tar").write_bytes(plain)
    for suffix, program in (("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")):
        packed = subprocess.run([program, "-c"], input=plain, capture_output=True, check=True).stdout
        (context / f"packed.tar.{suffix}").write_bytes(packed)
    (context / "not-an-archive.tar.gz").write_text("only its name is\n")
    (context / "single.gz").write_bytes(subprocess.run(["gzip", "-nc"], input=b"one", capture_output=True).stdout)


def _archive() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: object) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode, info.mtime = kind, len(data), 0o644, _OLD
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))

        add("tree/", tarfile.DIRTYPE, mode=0o750, uid=1000, gid=1000)
        add("tree/file", data=b"file\n", uid=1000, gid=33, uname="nobody", mode=0o604)
        add("tree/hard", tarfile.LNKTYPE, linkname="tree/file", uid=1000, gid=33, mode=0o604)
        add("tree/soft", tarfile.SYMTYPE, linkname="../tree/file", mode=0o777)
        add("tree/set-id", data=b"#!/bin/sh\n", mode=0o4755)
        add("tree/fifo", tarfile.FIFOTYPE, mode=0o600)
        add("implied/parents/" + "n" * 150, data=b"long")
        add("tree/ünï", data=b"name", uid=3_000_000)
        add("tree/attributes", data=b"x", pax_headers={"SCHILY.xattr.user.colour": "blue"})
        add("etc/replaced", data=b"from the archive\n")
    return sink.getvalue()


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


def _accounts(context: Path) -> None:
    _files(context, {"config/app.ini": "x=1\n", "config/more/nested.ini": "y=2\n"})


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


def _mounts(context: Path) -> None:
    _files(context, {"inputs/a": "a\n", "inputs/b": "b\n", "token": "s3cret\n"})


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


def _nothing_below(context: Path) -> None:
    _files(context, {"etc/passwd": "root:x:0:0::/:/bin/sh\n", "file with  two spaces": "x\n"})
    (context / "bin").mkdir()
    (context / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (context / "bin/busybox").chmod(0o755)


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


def _child(context: Path) -> None:
    _files(context, {"app/index.html": "<p>\n", "package.json": "{}\n"})


_CHILD = r"""
FROM triggers
RUN cat /srv/package.json /srv/installed > /joined
COPY --chown=33:33 app /srv/again
"""

# --- 11: what buildah 1.28 does not know, and the same in its words ------------------------------------------


def _modern(context: Path) -> None:
    _files(context, {"app/index.html": "<p>\n", "app/deep/er.txt": "deeper\n", "conf": "c\n"})


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

_LEFT_BEHIND = {
    r"(dev|proc|sys|run|run/secrets|etc/(hosts|hostname|resolv.conf)): missing here": "buildah's mounts leave these",
    r"(etc|run|root): mtime": "and with that changes these directories' times",
}
_NEW_DIRECTORY = (
    "a directory that COPY makes for one it copies gets its time (BuildKit, fsutil copy.go); buildah's is new"
)
_IMPLIED = "directories an archive only implies have no time: 1970 here, so that layers are the same every time"

_CONTEXT_DIFFERENCES = {
    r"(app|docs|through-link): mtime": _NEW_DIRECTORY,
    r"(everything/)?app/set-id: mode '6755' '0755'": "modes are copied (BuildKit); buildah takes set-id bits away",
}
_ARCHIVE_DIFFERENCES = {
    **_LEFT_BEHIND,
    r"(gzip|bzip2|plain|xz)/(etc|implied|implied/parents): mtime 0 ": _IMPLIED,
    r"xz/.*: owner \(8, 33\) ": "--chown counts inside an archive (BuildKit, unpack.go); buildah keeps its owners",
}
_SETTINGS_DIFFERENCES = {
    r"srv(/app|/uno)?: only here": "WORKDIR makes the directory (BuildKit); buildah does when a RUN enters it",
}
EVERY_CONFIG = {
    r"Labels\.io\.buildah\.version: ": "buildah signs its images",
    r"Hostname: None '[0-9a-f]{12}'": "and leaves the name of its container in them",
    r"ArgsEscaped: True None": "BuildKit sets it with every CMD and ENTRYPOINT",
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
        context=_application,
        tree={
            r"opt/lib: mode '0700' '0755'": "--chmod counts for the directory that is made, too (BuildKit)",
            r"opt/lib: mtime": _NEW_DIRECTORY,
        },
    ),
    Case(name="context", dockerfile=_CONTEXT, context=_context, tree=_CONTEXT_DIFFERENCES),
    Case(name="archives", dockerfile=_ARCHIVES, context=_archives, tree=_ARCHIVE_DIFFERENCES),
    Case(name="deletions", dockerfile=_DELETIONS, tree=_LEFT_BEHIND),
    Case(name="special", dockerfile=_SPECIAL, their_flags=("--cap-add", "CAP_MKNOD"), tree=_LEFT_BEHIND),
    Case(name="settings", dockerfile=_SETTINGS, tree=_SETTINGS_DIFFERENCES, config=_SETTINGS_CONFIG),
    Case(
        name="accounts",
        dockerfile=_ACCOUNTS,
        context=_accounts,
        theirs=lambda text: text.replace("u=rwX,go=rX", "644"),  # it knows numbers only
        tree={**_LEFT_BEHIND, r"(home/builder|owned)/config: mtime": _NEW_DIRECTORY},
    ),
    Case(
        name="mounts",
        dockerfile=_MOUNTS,
        context=_mounts,
        flags=("--secret", "id=token,src={context}/token"),
        theirs=lambda text: text.replace("--network=none ls /sys/class/net", "echo lo"),  # it has no such flag
        tree={**_LEFT_BEHIND, r"(mnt|scratch): missing here": "and the directories above its mounts"},
    ),
    Case(
        name="nothing-below",
        dockerfile=_NOTHING_BELOW,
        context=_nothing_below,
        tree=_LEFT_BEHIND,
        config={r"WorkingDir: '/' None": "BuildKit's config of scratch has it"},
    ),
    Case(name="child", dockerfile=_CHILD, context=_child, tree={**_LEFT_BEHIND, r"srv/again: mtime": _NEW_DIRECTORY}),
    Case(
        name="modern",
        dockerfile=_MODERN,
        context=_modern,
        theirs=lambda _: _MODERN_IN_OLD_WORDS,
        tree={
            **_LEFT_BEHIND,
            r"linked: owner \(5, 6\)": "--link makes its directories anew, and --chown counts for them (BuildKit)",
            r"linked/app: mtime": _NEW_DIRECTORY,
            r"parents/app(/deep)?: mtime": _NEW_DIRECTORY,
        },
    ),
)
