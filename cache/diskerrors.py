"""What the operating system says of the store's disk, as a StoreError with what to try."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from buildengine.errors import StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """`doing` is what failed, as in "cannot write a blob"."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise StoreError(
            f"{doing}: {error.strerror or error}",
            hint="free some space, or run `pybuild prune`" if full else "see the kernel's log for errors of that disk",
        ) from error
