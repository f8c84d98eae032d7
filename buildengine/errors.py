"""Every error that a user can meet. The class says whose it is; fields say where and what to try.

    BuildError                     message, hint, locations, vertex -> gRPC code, exit status
     |- UserError                  the file or a value is wrong                               exit 1
     |   |- ParseError, InvalidDefinition, ConfigError, Unsupported
     |- ExecFailed                 the user's process failed                                  exit 1
     |- SourceError                something outside said no                                  exit 1
     |   |- RegistryError, GitError, HttpError, ContextError
     |- HostError                  this host cannot do it, and what would make it able        exit 3
     |- StoreError                 digest mismatch, corrupt or full store                     exit 4
     |- SolveError(failures)       the job's outcome: the first failure leads
     '- InternalError              our bug                                                    exit 70

Raise at the lowest place that knows the user's noun. Add context once per package seam, through `located`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Self

from buildengine.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRange:
    """Lines count from 1, columns from 0; a column range of (0, 0) means whole lines."""

    start_line: int
    end_line: int
    start_column: int = 0
    end_column: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A place in a file that the user wrote. `text` is the whole file, for the excerpt.

    `language` is as github-linguist spells it; `definition` is the serialised one that the file was read from.
    """

    filename: str
    ranges: tuple[SourceRange, ...]
    text: bytes = b""
    language: str = ""
    definition: bytes = b""


def meant(word: str, known: Iterable[str]) -> str | None:
    """For a hint: the known name that is spelt much like `word`; None when none is."""
    import difflib  # only a mistake needs it

    return next(iter(difflib.get_close_matches(word, sorted(known), 1)), None)


class BuildError(Exception):
    """The root. `message` is one sentence without a final stop; `hint` says what to try."""

    exit_status: ClassVar[int] = 1
    grpc_code: ClassVar[int] = 2  # UNKNOWN, as of most errors of BuildKit: its clients print the name of any other
    is_clients = False  # another client, with other logins, secrets and directories, may succeed

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        locations: tuple[Location, ...] = (),
        vertex: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.locations = locations
        self.vertex = vertex

    def located(self, *locations: Location, vertex: str | None = None) -> Self:
        """This same error with a location and vertex, where it had none: the first to know wins."""
        if not self.locations:
            self.locations = locations
        if self.vertex is None:
            self.vertex = vertex
        return self

    def __str__(self) -> str:
        return self.message


class UserError(BuildError):
    """The file or a value is wrong."""


class ParseError(UserError):
    """A build file cannot be read as its language."""


class InvalidDefinition(UserError):
    """An LLB definition that cannot be a graph: bytes, cycle, dangling digest, unknown op."""


class Unsupported(UserError):
    """A frontend is asked what it does not know: a `request` other than a build, or a `capability`."""

    grpc_code = 12  # UNIMPLEMENTED

    def __init__(self, message: str, *, request: str = "", capability: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.request = request
        self.capability = capability


class NotGiven(UserError):
    """The client does not have what the build needs of it: a secret, an agent."""

    is_clients = True


class ConfigError(UserError):
    """A configuration file, flag or environment variable is wrong."""


class ExecFailed(BuildError):
    """The user's process failed. `exit_code` is 0 when a signal ended it."""

    grpc_code = 2

    def __init__(
        self,
        message: str,
        *,
        argv: tuple[str, ...] = (),
        exit_code: int = 0,
        signal: int = 0,
        output: bytes = b"",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.argv = argv
        self.exit_code = exit_code
        self.signal = signal
        self.output = output


class SourceError(BuildError):
    """Something outside said no: a registry, a git remote, a web server, the build context."""


class RegistryError(SourceError):
    """A registry refused, failed, or sent what it should not have. `code` is the distribution-spec code."""

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.is_clients = status in _DENIED


class GitError(SourceError):
    """git said no."""


class HttpError(SourceError):
    """An http(s) source said no, or sent other bytes than the checksum promised."""

    def __init__(self, message: str, *, status: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.is_clients = status in _DENIED


_DENIED = (401, 403, 404)  # what one must not see may be said not to be there


class ContextError(SourceError):
    """The build context lacks a file, or is not what it should be."""

    is_clients = True


class MissingPath(ContextError):
    """There is no `path` in a tree that files are taken from."""

    def __init__(self, message: str, *, path: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class ContextChanged(ContextError):
    """A file of the build context changed while it was read: to build once more may help."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} changed while it was read", hint="do not write to the build context during a build")
        self.path = path


class HostError(BuildError):
    """This host cannot do it; the hint says what would make it able."""

    exit_status = 3
    grpc_code = 9  # FAILED_PRECONDITION


class StoreError(BuildError):
    """The store is corrupt, full, or of another version."""

    exit_status = 4
    grpc_code = 15  # DATA_LOSS


class InternalError(BuildError):
    """Our bug."""

    exit_status = 70
    grpc_code = 13  # INTERNAL


class SolveError(BuildError):
    """The outcome of a failed job: every failure that was collected, the first of them leading."""

    def __init__(self, failures: tuple[BuildError, ...]) -> None:
        first = failures[0]
        super().__init__(first.message, hint=first.hint, locations=first.locations, vertex=first.vertex)
        self.failures = failures

    @property
    def first(self) -> BuildError:
        return self.failures[0]


def leading(error: BaseException, *kinds: type[BaseException]) -> BaseException:
    """Of errors that came together, the one to tell: one of the first of `kinds` that there is, else the first."""
    leaves = list(_leaves(error))
    for kind in kinds:
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
