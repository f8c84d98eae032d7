"""What the operating system says of the store's disk, as an error with what to try."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from buildengine.errors import HostError, StoreError, UserError

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
        if error.errno == errno.ENAMETOOLONG:  # a step can go deeper than any path, one directory at a time
            hint = "no tool could read that; delete the directory in the step that made it"
            raise UserError(f"{doing}: a path is longer than Linux allows", hint=hint) from error
        full = error.errno in _FULL
        raise StoreError(
            f"{doing}: {error.strerror or error}",
            hint="free some space, or run `pybuild prune`" if full else "see the kernel's log for errors of that disk",
        ) from error
