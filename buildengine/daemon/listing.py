"""Files of a tree, described for whoever is not in this process: what `stat` and `ls -l` say."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from buildengine.inroot import open_in_root
from cache.selection import PatternFilter, Verdict
from frontends.gateway import FileInfo
from worker.layers import xattrs


def stat_file(root: int, path: str) -> FileInfo:
    """What `path` leads to inside `root`. Raises OSError."""
    fd = open_in_root(root, path, os.O_PATH)
    try:
        at = f"/proc/self/fd/{fd}"
        name = os.path.basename(os.readlink(at)) if path.strip("/.") else "."
        return _info(name, os.fstat(fd), at, attributes=_attributes(at, follow=True))
    finally:
        os.close(fd)


def read_dir(root: int, path: str, *, include: str = "") -> Sequence[FileInfo]:
    """What the directory `path` inside `root` holds, sorted by the bytes of the names. Raises OSError."""
    keep = PatternFilter([include]) if include else None
    fd = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as scan:
            found = sorted(scan, key=lambda entry: os.fsencode(entry.name))
        return [
            _entry(f"/proc/self/fd/{fd}/{entry.name}", entry)
            for entry in found
            if keep is None or keep(entry.name, entry.is_dir(follow_symlinks=False)) is Verdict.KEEP
        ]
    finally:
        os.close(fd)


def _entry(at: str, entry: os.DirEntry[str]) -> FileInfo:
    info = entry.stat(follow_symlinks=False)
    return _info(entry.name, info, at, attributes=_attributes(at, follow=False))


def _info(name: str, info: os.stat_result, at: str, *, attributes: Mapping[str, bytes]) -> FileInfo:
    mode = info.st_mode
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return FileInfo(
        path=name,
        mode=mode,
        uid=info.st_uid,
        gid=info.st_gid,
        size=0 if stat.S_ISDIR(mode) else info.st_size,
        modified=info.st_mtime_ns,
        link=os.readlink(at) if stat.S_ISLNK(mode) else "",
        device=(os.major(info.st_rdev), os.minor(info.st_rdev)) if is_device else (0, 0),
        xattrs=attributes,
    )


def _attributes(at: str, *, follow: bool) -> Mapping[str, bytes]:
    try:
        names = [name for name in os.listxattr(at, follow_symlinks=follow) if xattrs.is_kept(name)]
        return {name: os.getxattr(at, name, follow_symlinks=follow) for name in names}
    except OSError:  # none on this file system
        return {}
