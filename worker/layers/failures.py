"""What an OSError of a file operation means to the user: whose fault it is, and what to try."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from buildengine.errors import BuildError, ContextError, HostError, StoreError, UserError

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_FORBIDDEN = frozenset((errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EROFS))
_USERS = frozenset(
    (
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EFBIG,
        errno.EMLINK,
        errno.EXDEV,
        errno.EBUSY,
        errno.E2BIG,
        errno.ERANGE,
    )
)


def explain(error: OSError, doing: str, users: type[BuildError] = UserError) -> BuildError:
    """The error as `<doing>: <reason>`; `users` is the class when the fault is in what the user gave."""
    text = f"{doing}: {error.strerror}"
    if error.errno in _FULL:
        return StoreError(text, hint="free some space, or run `pybuild prune`")
    if error.errno in _FORBIDDEN:
        return HostError(text, hint="the engine needs root's capabilities and a file system with extended attributes")
    if error.errno == errno.ENOENT:
        return (ContextError if users is UserError else users)(f"{text}{_named(error, doing)}")
    if error.errno in _USERS:
        return users(f"{text}{_named(error, doing)}")
    return HostError(text)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turns every OSError inside into a BuildError."""
    try:
        yield
    except OSError as error:
        raise explain(error, doing) from error


def _named(error: OSError, doing: str) -> str:
    """The file, where that is news and short enough to be read."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return f" ({name})" if name and name not in doing and len(name) < 256 else ""
