"""Places inside a step's root: found, made where missing, and unmade when the step has ended.

Everything starts from a directory descriptor of the root and walks one name at a time without following links
on its own, so no symlink of an image, and none that another step swaps in meanwhile, leads out of it. Standard
library only; knows nothing of what will be mounted.
"""

from __future__ import annotations

import errno
import os
import stat

from worker.runtime import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # (parent, its path, name, is a directory, the parent before): called after each creation
    Made = Callable[[int, str, str, bool, os.stat_result], None]

_MAX_LINKS = 40  # as the kernel's path walk
# ENOENT is what procfs says to mkdir, EPERM and EACCES other file systems of the kernel
_CANNOT_MAKE = (
    errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EDQUOT, errno.ENOSPC, errno.ENOENT, errno.EPERM, errno.EACCES,
)  # fmt: skip

_DEAD = {errno.ENOENT: "which leads nowhere", errno.ELOOP: "which leads in circles"}

# (parent's path, name, is a directory, inode, parent's atime and mtime before, parent's mtime after), in the
# order of creation. A plain tuple: it travels from PID 1 to the supervisor.
Stub = tuple[str, str, bool, int, int, int, int]


class Refused(Exception):
    """The user's image or mounts make this impossible; the message says which and why, the hint what to try."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def find(root: int, path: str, *, directory: bool, nofollow: bool = False) -> int | None:
    """An O_PATH descriptor of the existing place, or None. Raises Refused when it cannot carry the mount."""
    try:
        fd = syscalls.open_beneath(root, path, os.O_PATH | (os.O_NOFOLLOW if nofollow else 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            raise Refused(f"{path} cannot be reached: {_above(root, path) or error.strerror}") from None
        raise
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode) != directory or stat.S_ISLNK(mode):
        os.close(fd)
        found = "a symbolic link" if stat.S_ISLNK(mode) else "a directory" if stat.S_ISDIR(mode) else "not a directory"
        raise Refused(
            f"{path} is {found} in the image, where a {'directory' if directory else 'file'} is to be mounted"
        )
    return fd


def _above(root: int, path: str) -> str:
    return obstacle(root, os.path.dirname(path.rstrip("/")))


def obstacle(root: int, path: str, *, where: str = "in the image") -> str:
    """What on the way to the directory `path` below `root` is in the way, for messages.

    Nothing when that is not to be seen. `where` says whose tree it is.
    """
    walked = ""
    for name in [part for part in path.split("/") if part not in ("", ".")]:
        walked += f"/{name}"
        try:
            fd = syscalls.open_beneath(root, walked, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return ""
        try:
            mode, link = os.fstat(fd).st_mode, ""
            if stat.S_ISLNK(mode):
                link = f"{walked} is a symbolic link to {os.readlink('', dir_fd=fd)} {where}"
                os.close(fd)
                fd = -1
                fd = syscalls.open_beneath(root, walked, os.O_PATH)
                mode = os.fstat(fd).st_mode
            if not stat.S_ISDIR(mode):
                return f"{link}, which is no directory" if link else f"{walked} is no directory {where}"
        except OSError as error:
            return f"{link}, {_DEAD.get(error.errno or 0, 'which cannot be followed')}"
        finally:
            if fd >= 0:
                os.close(fd)
    return ""


def make(root: int, path: str, *, directory: bool, made: Made) -> int:
    """Make `path` and its missing parents (0755, root's), following links inside `root`. An O_PATH descriptor."""
    held = [os.dup(root)]
    names: list[str] = []
    rest = [part for part in path.split("/") if part not in ("", ".")][::-1]
    links = 0
    try:
        while rest:
            name = rest.pop()
            if name == "..":
                if names:
                    names.pop()
                    os.close(held.pop())
                continue
            fd = _enter(held[-1], "/".join(names), name, directory or bool(rest), made)
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                text = os.readlink("", dir_fd=fd)
                os.close(fd)
                links += 1
                if links > _MAX_LINKS:
                    raise Refused(f"{path} cannot be reached: {_above(root, path) or os.strerror(errno.ELOOP)}")
                rest += [part for part in text.split("/") if part not in ("", ".")][::-1]
                if text.startswith("/"):
                    names.clear()
                    while len(held) > 1:
                        os.close(held.pop())
                continue
            names.append(name)
            held.append(fd)
        return held.pop()
    except OSError as error:
        if error.errno in _CANNOT_MAKE:
            raise Refused(f"{path} cannot be made: {_above(root, path) or error.strerror}") from None
        raise
    finally:
        for fd in held:
            os.close(fd)


def _enter(parent: int, parent_path: str, name: str, directory: bool, made: Made) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        pass
    before = os.fstat(parent)
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
        made(parent, parent_path, name, directory, before)
    except FileExistsError:  # another step that shares this cache mount was faster
        pass
    return os.open(name, flags, dir_fd=parent)


class Stubs:
    """The mount points that had to be made in the root layer itself."""

    def __init__(self, root: int) -> None:
        self._device = os.fstat(root).st_dev
        self.made: list[Stub] = []

    def note(self, parent: int, parent_path: str, name: str, directory: bool, before: os.stat_result) -> None:
        if before.st_dev != self._device:
            return  # in a cache mount or another tree: not part of the layer
        inode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
        after = os.fstat(parent).st_mtime_ns
        self.made.append((parent_path, name, directory, inode, before.st_atime_ns, before.st_mtime_ns, after))


def remove(root: int, stubs: list[Stub]) -> None:
    """Unmake stubs that are still empty and ours, and give each parent the times that it would have had.

    `root` shows the root layer without the mounts. What the step put there or replaced stays.
    """
    for parent_path, name, directory, inode, atime, mtime, mtime_after in reversed(stubs):
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY
            parent = syscalls.open_beneath(root, parent_path, flags, resolve=syscalls.RESOLVE_NO_SYMLINKS)
        except OSError:
            continue
        try:
            _remove_stub(parent, name, directory, inode, (atime, mtime, mtime_after))
        finally:
            os.close(parent)


def _remove_stub(parent: int, name: str, directory: bool, inode: int, times: tuple[int, int, int]) -> None:
    atime, mtime, mtime_after = times
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        expected = stat.S_ISDIR(found.st_mode) if directory else stat.S_ISREG(found.st_mode) and not found.st_size
        if found.st_ino != inode or not expected:
            return
        current = os.fstat(parent)
        if directory:
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    except OSError:  # gone, or no longer empty: the step's own work
        return
    untouched = current.st_mtime_ns == mtime_after
    os.utime(parent, ns=(atime, mtime) if untouched else (current.st_atime_ns, current.st_mtime_ns))
