"""What the operating system says of the store's disk, as an error with what to try."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from buildengine.errors import HostError, StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """`doing` is what failed, as in "cannot write a blob"."""
    try:
        yield
    except OSError as error:
        if error.errno in _FORBIDDEN:
            hint = "the state directory must be writable; name another one with --root"
            raise HostError(f"{doing}: {error.strerror}", hint=hint) from error
        full = error.errno in _FULL
        raise StoreError(
            f"{doing}: {error.strerror or error}",
            hint="free some space, or run `pybuild prune`" if full else "see the kernel's log for errors of that disk",
        ) from error
