"""Paths that come from an image, a context or an archive, resolved so that none can leave its root.

Everything goes through `openat2(2)` with RESOLVE_IN_ROOT: `..` stops at the root, absolute symlinks start at
the root, and magic links are refused. A path is never joined as a string. Descriptors are O_CLOEXEC; whoever
gets one closes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

from buildengine.errors import UserError

_SYS_OPENAT2 = 437  # the same number on every architecture, include/uapi/asm-generic/unistd.h
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def open_in_root(root: int, path: str | bytes, flags: int = os.O_PATH, mode: int = 0, *, follow: bool = True) -> int:
    """Open `path` as if `root` (a directory descriptor) were `/`. Raises OSError with the path in it.

    `follow=False` does not follow a symlink in the last component (O_NOFOLLOW); with O_PATH the link itself
    is opened. Symlinks on the way are always followed, inside the root.
    """
    raw = os.fsencode(path).lstrip(b"/") or b"."
    if b"\0" in raw:  # C would take it for the end
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fsdecode(path))
    if not follow:
        flags |= os.O_NOFOLLOW
    creating = flags & os.O_CREAT or (flags & os.O_TMPFILE) == os.O_TMPFILE
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode if creating else 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    while True:
        fd = int(_syscall(_SYS_OPENAT2, ctypes.c_int(root), ctypes.c_char_p(raw), how, ctypes.c_size_t(len(how))))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        # EAGAIN: a rename raced with `..` in the walk; the manual page says to try again.
        if code not in (errno.EINTR, errno.EAGAIN):
            raise OSError(code, os.strerror(code), os.fsdecode(path))


def read_regular(root: int, path: str | bytes, *, limit: int, offset: int = 0, length: int | None = None) -> bytes:
    """The contents of a regular file from `offset` on, or an error: never blocks on a FIFO, never reads a device.

    With `length` at most so many bytes. Raises OSError when it cannot be opened, UserError when it is not regular or
    there are more than `limit` bytes to read.
    """
    fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise UserError(f"{os.fsdecode(path)} is not a regular file")
        with open(fd, "rb", closefd=False) as file:
            file.seek(offset)
            data = file.read(limit + 1 if length is None else min(length, limit + 1))
    finally:
        os.close(fd)
    if len(data) > limit:
        raise UserError(f"{os.fsdecode(path)} is larger than {limit} bytes")
    return data


def make_dirs(root: int, path: str, mode: int = 0o755) -> int:
    """Make `path` and its missing parents inside `root` and open the last one (O_PATH | O_DIRECTORY).

    Existing symlinks to directories are followed inside the root. Raises OSError (ENOTDIR when a file is in
    the way).
    """
    current = os.dup(root)
    walked = ""
    try:
        for name in (part for part in path.split("/") if part not in ("", ".")):
            walked += "/" + name
            try:
                following = open_in_root(root, walked, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                os.mkdir(name, mode, dir_fd=current)
                following = open_in_root(current, name, os.O_PATH | os.O_DIRECTORY, follow=False)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current
