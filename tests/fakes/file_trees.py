"""What a directory holds, entry by entry, and how two directories differ: the judge of "the same image".

Everything an image can say of a file is compared but the times of what was made while the build ran.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """`link` is a symlink's target; `same_file` the first name, in order, of a file that has several."""

    kind: str
    mode: str
    owner: tuple[int, int]
    size: int = 0
    mtime: int = 0
    content: str = ""
    link: str = ""
    same_file: str = ""
    device: tuple[int, int] | None = None
    xattrs: Mapping[str, bytes] | None = None


def listing(root: Path) -> dict[str, Entry]:
    """Every path below `root`, and `root` itself as "."; names are as Python decodes the kernel's bytes."""
    found: dict[str, Entry] = {}
    first: dict[int, str] = {}
    for path in _paths(root):
        name = os.path.relpath(path, root)
        info = os.lstat(path)
        kind = _KINDS[stat.S_IFMT(info.st_mode)]
        several = info.st_nlink > 1 and kind != "directory"
        found[name] = Entry(
            kind=kind,
            mode=f"{stat.S_IMODE(info.st_mode):04o}",
            owner=(info.st_uid, info.st_gid),
            size=info.st_size if kind == "file" else 0,
            mtime=int(info.st_mtime),
            content=hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12] if kind == "file" else "",
            link=os.readlink(path) if kind == "symlink" else "",
            same_file=first.setdefault(info.st_ino, name) if several else "",
            device=(os.major(info.st_rdev), os.minor(info.st_rdev)) if kind in ("char", "block") else None,
            xattrs={
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            },
        )
    return found


def _paths(root: Path) -> Iterator[str]:
    yield str(root)
    for parent, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            yield os.path.join(parent, name)


def differences(ours: Mapping[str, Entry], theirs: Mapping[str, Entry], *, since: float) -> list[str]:
    """`PATH: FIELD OURS THEIRS` for each; two times are as good as one another when both are after `since`."""
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        if mine is None or other is None:
            found.append(f"{name}: {'missing' if mine is None else 'only'} here")
            continue
        for field in fields(Entry):
            one, two = getattr(mine, field.name), getattr(other, field.name)
            if one != two and not (field.name == "mtime" and one >= since <= two):
                found.append(f"{name}: {field.name} {one!r} {two!r}")
    return found
