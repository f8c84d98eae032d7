"""A file that takes its name only when it is whole: a reader sees the old one or the new one, whoever is killed when.

    with whole_file(path) as fd: write(fd, ...)

Until then it has no name at all (open(2), O_TMPFILE), so that not even SIGKILL leaves a part of it behind. What is
there and no regular file of its own (a pipe, a device, a symbolic link such as /dev/stdout) is written in place.
Raises OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from buildengine.errors import UserError
from buildengine.tracepoints import reach

TRACEPOINTS = (
    "file.written",  # whole, without a name
    "file.linked",  # it has a name beside the old file's
)
"""Where a test can kill the process (see buildengine.tracepoints)."""


@contextmanager
def whole_file(path: Path, *, mode: int = 0o666) -> Iterator[int]:
    """A descriptor of the new content of `path`. When the block fails, what was there stays."""
    if _is_written_in_place(path):
        with _opened(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)) as fd:
            yield fd
        return
    with (
        _opened(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory,
        whole_file_at(directory, path.name, mode=mode) as fd,
    ):
        yield fd


@contextmanager
def destination(path: Path) -> Iterator[int]:
    """The same for a file that the user has named. Raises UserError."""
    with named_by_user(str(path), hint="the directory must exist and be writable"), whole_file(path) as fd:
        yield fd


@contextmanager
def standard_output(fd: int) -> Iterator[int]:
    """The same for `fd`, which the user has named with `-`. Raises UserError."""
    with named_by_user("to standard output"):
        yield fd


@contextmanager
def named_by_user(place: str, hint: str | None = None) -> Iterator[None]:
    """An OSError inside is about `place`, which the user has named: a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space there"
        raise UserError(f"cannot write {place}: {error.strerror}", hint=hint) from error


@contextmanager
def whole_file_at(directory: int, name: str, *, mode: int = 0o666, locked: bool = False) -> Iterator[int]:
    """The same for `name` in `directory`, a descriptor. Whatever is there is replaced, never followed.

    `locked` says that the caller holds the directory's lock (flock(2)) already.
    """
    unnamed = _unnamed(directory, mode)
    if unnamed is None:
        with _named(directory, name, mode) as fd:
            yield fd
        return
    with _opened(unnamed) as fd:
        yield fd
        reach("file.written")
        with nullcontext() if locked else _locked(directory):
            _publish(f"/proc/self/fd/{fd}", directory, name)


def _is_written_in_place(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


@contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _unnamed(directory: int, mode: int) -> int | None:
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return None
        raise


@contextmanager
def _named(directory: int, name: str, mode: int) -> Iterator[int]:
    """For file systems without O_TMPFILE (NFS, 9p, vfat): a second name that may outlive SIGKILL."""
    own = f"{_beside(name)}.{os.urandom(6).hex()}"
    fd = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=directory)
    try:
        with _opened(fd):
            yield fd
        os.rename(own, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(own, dir_fd=directory)
        raise


def _publish(source: str, directory: int, name: str) -> None:
    """linkat(2) cannot replace, so an old file is replaced through a second name and a rename.

    That name is always the same, so that the next who writes here clears away what was killed between the two. A
    lock of the directory keeps those apart who do it at once: a file that has lost its only name gets no other.
    """
    beside = _beside(name)
    with suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=directory)
    try:
        os.link(source, name, dst_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        os.link(source, beside, dst_dir_fd=directory, follow_symlinks=True)
        reach("file.linked")
        os.rename(beside, name, src_dir_fd=directory, dst_dir_fd=directory)


@contextmanager
def _locked(directory: int) -> Iterator[None]:
    with _opened(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)) as lock:
        with suppress(OSError):  # not every file system has locks; those that have not lack O_TMPFILE too
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _beside(name: str) -> str:
    return os.fsdecode(b"." + os.fsencode(name)[:200] + b".pybuild")
