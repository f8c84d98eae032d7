"""What both sides are shown: definitions made with `llb.state`, among them every operation that there is.

`SHOWN` are looked at and never solved. `SOLVED` need nothing but the local directory `rootfs`, and files of one time.
"""

from __future__ import annotations

from buildengine.digest import Digest
from buildengine.errors import SourceRange
from buildengine.events import ProgressGroup
from buildengine.platform import Platform
from llb.definition import Definition
from llb.ops import CacheSharing, NetMode, SecurityMode
from llb.sourcemap import SourceFile
from llb.sources import git, http, image, local
from llb.state import Bind, Cache, Secret, Ssh, State, Tmpfs, copy, diff, merge, mkdir, mkfile, rm, scratch, symlink

ROOTFS = "rootfs"
TIME = 1_600_000_000
_NS = TIME * 1_000_000_000
_ARM = Platform(os="linux", architecture="arm", variant="v7")
_DOCKERFILE = SourceFile(filename="Dockerfile", data=b"FROM busybox\nRUN make\n", language="Dockerfile")


def _sources() -> State:
    return merge(
        [
            image("busybox", platform=_ARM, resolve_mode="pull", layer_limit=2),
            local("context", include=["src/*.go"], exclude=[".git", "a<b"], follow_paths=["link"], shared_key_hint="c"),
            http("https://example.com/a.tar?x=1", checksum=Digest.sha256(b"a"), filename="a.tar", mode=0o600, uid=3),
            git("https://example.com/me/repo.git", "main", subdir="docs", keep_git_dir=True),
            git("git@example.com:me/other.git", "v1", known_ssh_hosts="example.com ssh-rsa AAAA", ssh_agent="deploy"),
        ]
    )


def _exec() -> State:
    base = image("debian:12").with_env("A", "1").with_dir("src").with_user("app:5").with_hostname("builder")
    base = base.with_extra_host("db", "10.0.0.1").with_ulimit("nofile", 1024, 4096).with_cgroup_parent("/builds")
    return base.run(
        'make "all" <&2',
        mounts=[
            Bind(target="/ctx", source=local("context"), selector="sub", readonly=True),
            Bind(target="/out"),
            Cache(target="/root/.cache", sharing=CacheSharing.LOCKED, base=scratch().file(mkdir("/x"))),
            Tmpfs(target="/tmp", size=1 << 20),
            Secret(id="key"),
            Secret(id="token", env="TOKEN", optional=True),
            Ssh(),
        ],
        network=NetMode.NONE,
        security=SecurityMode.INSECURE,
        valid_exit_codes=[0, 3],
        name="[2/2] RUN make",
        description={"com.docker.dockerfile.v1.command": "RUN make"},
        ignore_cache=True,
        export_cache=False,
        progress_group=ProgressGroup(id="g", name="group", weak=True),
        place=_DOCKERFILE.at(SourceRange(start_line=2, end_line=2)),
        require=["label.a==b"],
    ).mount("/out")


def _files() -> State:
    base = image("debian:12")
    return base.file(
        mkdir("/a", parents=True, owner="app:5", timestamp=7)
        .mkfile("/a/f", b"\x00\xff", mode=0o1644, owner="5:staff")
        .symlink("f", "/a/l", owner="0:0")
        .rm("/a/*", missing_ok=True, wildcard=True)
        .copy(
            image("busybox"),
            "/bin/*",
            "/b/",
            owner="app",
            mode="u+x",
            follow_symlink=True,
            contents=True,
            unpack=True,
            parents=True,
            wildcard=True,
            allow_empty_wildcard=True,
            timestamp=1 << 60,
            include=["*.go"],
            exclude=["vendor"],
            required=["go.mod"],
            replace_existing=True,
        )
    )


SHOWN: dict[str, Definition] = {
    "sources": _sources().marshal(),
    "exec": _exec().marshal(),
    "files": _files().marshal(),
    "merge and diff": merge([diff(image("a"), image("a").run("b")), scratch().file(mkfile("/c", b""))]).marshal(),
}


# --- what both can build --------------------------------------------------------------------------------------


def _made() -> State:
    """Files of every kind and owner, from nothing, all with one time."""
    return scratch().file(
        mkdir("/a", mode=0o750, owner="3:4", timestamp=_NS)
        .mkdir("/a/b/c", parents=True, timestamp=_NS)
        .mkfile("/a/b/c/file", b"content\n", mode=0o4711, owner="3:4", timestamp=_NS)
        .mkfile("/a/empty", b"", timestamp=_NS)
        .symlink("../empty", "/a/b/link", timestamp=_NS)
    )


def _copied() -> State:
    """Selections of another tree, under new names, owners and modes."""
    return scratch().file(
        copy(_made(), "/a", "/all", timestamp=_NS)
        .copy(_made(), "/a", "/some", contents=True, include=["b/**"], exclude=["**/link"], parents=True, timestamp=_NS)
        .copy(_made(), "/a/b/c/*", "/flat/", wildcard=True, parents=True, owner="7:8", mode=0o640, timestamp=_NS)
        .copy(_made(), "/a/b/link", "/followed", follow_symlink=True, timestamp=_NS)
    )


def _removed() -> State:
    return _copied().file(rm("/all/b", missing_ok=True).rm("/some/*", wildcard=True).rm("/nothing", missing_ok=True))


def _rootfs() -> State:
    return scratch().file(copy(local(ROOTFS), "/", "/", contents=True, timestamp=_NS), name="the root file system")


def _ran() -> State:
    """A command that writes, replaces and removes; what it takes from a mount, and what it leaves in one."""
    script = """
        umask 027; mkdir /made; cp /in/a/b/c/file /made/; ln /made/file /made/hard; ln -s file /made/soft
        rm /etc/passwd; chmod 700 /tmp; mkfifo /made/pipe; echo "$GREETING" > /made/greeting
        pwd > /out/where; id -u > /out/who; hostname > /out/host; ls /proc/1/exe > /dev/null && echo yes > /out/proc
        find /made /out -exec touch -h -d @1600000000 {} +
    """
    base = _rootfs().with_env("PATH", "/bin").with_env("GREETING", "hello").with_dir("/work")
    ran = base.run(
        script,
        mounts=[
            Bind(target="/in", source=_made(), readonly=True),
            Bind(target="/out", source=scratch().file(mkfile("/before", b"", timestamp=_NS))),
            Cache(target="/cache"),
            Tmpfs(target="/memory"),
        ],
        network=NetMode.NONE,
    )
    return scratch().file(copy(ran.root, "/", "/root", timestamp=_NS).copy(ran.mount("/out"), "/", "/out"))


def _changed() -> State:
    """Only what a command has changed."""
    base = _rootfs().with_env("PATH", "/bin")
    return diff(base, base.run("rm -r /etc; mkdir /new; echo x > /new/file", network=NetMode.NONE))


SOLVED: dict[str, Definition] = {
    "made": _made().marshal(),
    "copied": _copied().marshal(),
    "removed": _removed().marshal(),
    "local": _rootfs().marshal(),
    "merged": merge([_made(), _removed(), scratch().file(symlink("a", "/b"))]).marshal(),
    "ran": _ran().marshal(),
    "changed": _changed().marshal(),
    "merged changes": merge([_made(), _changed()]).marshal(),
}
