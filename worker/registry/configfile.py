"""Docker's `config.json` on the disk: read as it is, and edited by one process at a time.

    edit(path, lambda raw: with_credential(raw, host, credential))

The new file takes the place of the old one at once and belongs to the same user. Its mode is always 0600, since it
may hold passwords (docker keeps the mode that it finds). A symbolic link stays, what it leads to is replaced. An
exclusive lock on the directory (flock(2)) keeps editors of ours apart; docker knows none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from buildengine.errors import ConfigError
from buildengine.wholefile import whole_file_at

_DIRECTORY_MODE = 0o700
_MODE = 0o600


def read(path: Path) -> bytes:
    """The bytes of the file, none when it is not there. Raises ConfigError."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def edit(path: Path, change: Callable[[bytes], bytes]) -> bool:
    """Replace what is in the file by what `change` makes of it; whether anything changed. Raises ConfigError."""
    try:
        real = Path(os.path.realpath(path))  # a link may lead to a file that is not there yet
        real.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        with _locked(real.parent) as directory:
            old = read(real)
            new = change(old)
            if new != old:
                _replace(directory, real.name, new)
            return new != old
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", hint="$DOCKER_CONFIG names another directory for it"
        ) from None


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _replace(directory: int, name: str, data: bytes) -> None:
    with whole_file_at(directory, name, mode=_MODE, locked=True) as fd, open(fd, "wb", closefd=False) as file:
        with suppress(FileNotFoundError, PermissionError):
            old = os.stat(name, dir_fd=directory)
            os.fchown(fd, old.st_uid, old.st_gid)  # root may write to the file of somebody else
        os.fchmod(fd, _MODE)  # whatever the umask is
        file.write(data)
        file.flush()
        os.fsync(fd)
