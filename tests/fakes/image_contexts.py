"""What is in the build contexts of image_cases.py: every kind of file that a context can have, with old times."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

from tests.builds import write

_OLD = 1_500_000_000


def age(directory: Path) -> None:
    """Give everything below an old time of its own: copies keep it."""
    paths = sorted(Path(directory).rglob("*"), reverse=True)
    for number, path in enumerate(paths):
        os.utime(path, (_OLD + number, _OLD + number), follow_symlinks=False)


def application(context: Path) -> None:
    write(
        context,
        {
            "src/main.sh": '#!/bin/sh\necho "$GREETING from ${0##*/}"\n',
            "src/lib/a.txt": "a\n",
            "src/lib/b.txt": "b\n",
            "LICENSE": "free\n",
        },
    )
    (context / "src/main.sh").chmod(0o755)


def context(context: Path) -> None:
    long = "l" * 120
    deep = "/".join(f"directory-number-{n:02}" for n in range(16))
    write(
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


def archives(context: Path) -> None:
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


def accounts(context: Path) -> None:
    write(context, {"config/app.ini": "x=1\n", "config/more/nested.ini": "y=2\n"})


def mounts(context: Path) -> None:
    write(context, {"inputs/a": "a\n", "inputs/b": "b\n", "token": "s3cret\n"})


def nothing_below(context: Path) -> None:
    write(context, {"etc/passwd": "root:x:0:0::/:/bin/sh\n", "file with  two spaces": "x\n"})
    (context / "bin").mkdir()
    (context / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (context / "bin/busybox").chmod(0o755)


def child(context: Path) -> None:
    write(context, {"app/index.html": "<p>\n", "package.json": "{}\n"})


def modern(context: Path) -> None:
    write(context, {"app/index.html": "<p>\n", "app/deep/er.txt": "deeper\n", "conf": "c\n"})


def overlaps(context: Path) -> None:
    write(
        context,
        {
            "bin-tool": "#!/bin/sh\n",
            "f": "f\n",
            "g": "g\n",
            "dir/a": "a\n",
            "dir/sub/b": "b\n",
            "dir/sub/c/d": "d\n",
            "other/a": "other a\n",
            "other/x/y": "y\n",
            "w1/one": "1",
            "w2/one": "2",
            "w2/two": "2",
        },
    )
    (context / "dir/link-to-sub").symlink_to("sub")
    (context / "link-to-dir").symlink_to("dir")
    (context / "link-out").symlink_to("../../etc/passwd")
