"""One error out of a pipeline: of the tasks that fail together, the first that says whose fault it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from buildengine.errors import BuildError, leading


@contextmanager
def one_error() -> Iterator[None]:
    """Replaces the ExceptionGroup of a nursery by its leading error."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise leading(group, BuildError, Exception) from None
