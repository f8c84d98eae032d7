"""One error out of a pipeline: of the tasks that fail together, the first that says whose fault it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from buildengine.errors import BuildError


@contextmanager
def one_error() -> Iterator[None]:
    """Replaces the ExceptionGroup of a nursery by its leading error."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _leading(group) from None


def _leading(group: BaseExceptionGroup[BaseException]) -> BaseException:
    leaves = list(_leaves(group))
    for wanted in (BuildError, Exception, BaseException):
        for leaf in leaves:
            if isinstance(leaf, wanted):
                return leaf
    raise AssertionError("an empty exception group")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
