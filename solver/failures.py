"""From whatever an op raises to what a user may see: BuildErrors, one for each cause, never an ExceptionGroup."""

from __future__ import annotations

from buildengine.errors import BuildError, InternalError, Location, SolveError
from buildengine.values import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """A vertex failed with this. The error may be shared between jobs, so it is never changed: see `located`."""

    vertex: str
    error: BuildError


def causes(error: BaseException) -> tuple[BuildError, ...]:
    """The errors inside `error`. What is no BuildError is our bug, and says so."""
    if isinstance(error, SolveError):
        return error.failures
    if isinstance(error, BuildError):
        return (error,)
    if isinstance(error, BaseExceptionGroup):
        return tuple([cause for one in error.exceptions for cause in causes(one)])
    bug = InternalError(f"unexpected {type(error).__name__}: {error}")
    bug.__cause__ = error
    return (bug,)


def may_differ(error: Exception) -> bool:
    """Whether another job's client may have what was missing."""
    return any(cause.is_clients for cause in causes(error))


def located(failure: Failure, locations: tuple[Location, ...]) -> BuildError:
    """A copy of the error that says where in *this* job's files the vertex comes from.

    Two jobs may share a vertex that comes from a different file in each; neither must see the other's.
    """
    error = failure.error
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__, copy.__context__, copy.__traceback__ = error.__cause__, error.__context__, error.__traceback__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.located(*locations, vertex=failure.vertex)
