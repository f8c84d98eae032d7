"""What goes wrong in a build file, as errors that point into it; and the line of it that is being executed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType

from buildengine.client.buildmodules import DIRECTORY, is_own
from buildengine.errors import BuildError, Location, SourceRange, UserError, leading
from llb.sourcemap import Place, SourceFile

_LONGEST = 4000  # characters of a message
_NO_FILES = (
    "a build file sees no files of the host: read what is beside it with `await ctx.here.read(path)`, "
    "and what is in the build context with `await ctx.files(await ctx.context()).read(path)`"
)


_NO_NETWORK = "a build file has no network: what is downloaded is `llb.http(url)`, and what a step downloads itself"
_NETWORKS = frozenset(("socket", "ssl", "urllib", "http", "requests", "httpx"))  # whose errors are of a network
_NO_MODULE = (
    "what stands beside the build file can be imported, and what is installed with pybuild, where the engine is"
)


class Mistakes:
    """`sources` are the author's files that were read, by the names that code has. `is_authors` tells those of any
    other file of his."""

    def __init__(self, sources: Mapping[str, bytes], is_authors: Callable[[str], bool] = is_own) -> None:
        self._sources = sources
        self._is_authors = is_authors
        self._files: dict[str, SourceFile] = {}

    def place(self) -> tuple[Place, ...]:
        """Where the build file is: for operations whose author does not say where they come from."""
        frame = sys._getframe(1)
        while frame.f_back is not None:
            frame = frame.f_back
            if self._is_authors(frame.f_code.co_filename):
                return (self._file(frame.f_code.co_filename).line(frame.f_lineno),)
        return ()

    def told(self, error: BaseException) -> BuildError:
        """The error that a user sees."""
        leaf = leading(error, BuildError, Exception)
        if isinstance(leaf, BuildError):
            return leaf.located(*self._where(leaf))
        if isinstance(leaf, SyntaxError) and leaf.filename in self._sources:
            return UserError(f"{type(leaf).__name__}: {leaf.msg}", locations=self._of_syntax(leaf))
        return UserError(_message(leaf), hint=_hint(leaf), locations=self._where(leaf))

    def show(self, error: BaseException) -> None:
        """Print how the author's code came to what it did not mean to raise."""
        leaf = leading(error, BuildError, Exception)
        frames = [
            frame for frame in traceback.extract_tb(leaf.__traceback__) if self._is_authors(frame.filename)
        ]  # fmt: skip
        if isinstance(leaf, BuildError) or not frames:
            return
        print("Traceback (most recent call last):", file=sys.stderr)
        print("".join(traceback.format_list(frames[-50:])) + _message(leaf), file=sys.stderr, flush=True)

    def _where(self, error: BaseException) -> tuple[Location, ...]:
        """The last line of the author's that the error came through."""
        found: tuple[Location, ...] = ()
        at = error.__traceback__
        while at is not None:
            name = at.tb_frame.f_code.co_filename
            if self._is_authors(name):
                found = (self._file(name).at(_range(at)).location,)
            at = at.tb_next
        return found

    def _of_syntax(self, error: SyntaxError) -> tuple[Location, ...]:
        line, column = error.lineno or 1, max((error.offset or 1) - 1, 0)
        end = max((error.end_offset or 0) - 1, column + 1)
        where = SourceRange(start_line=line, end_line=line, start_column=column, end_column=end)
        return (self._file(str(error.filename)).at(where).location,)

    def _file(self, name: str) -> SourceFile:
        known = self._files.get(name)
        if known is None:
            data = self._sources.get(name)
            if data is None:
                import linecache

                data = "".join(linecache.getlines(name)).encode(errors="replace")
            known = SourceFile(filename=name.removeprefix(DIRECTORY + "/"), data=data, language="Python")
            self._files[name] = known
        return known


def _range(at: TracebackType) -> SourceRange:
    """The expression that was executed, where it is on one line."""
    positions = list(at.tb_frame.f_code.co_positions())
    line, end_line, column, end_column = positions[at.tb_lasti // 2]
    if line is None or line != end_line or column is None or end_column is None:
        return SourceRange(start_line=at.tb_lineno, end_line=at.tb_lineno)
    return SourceRange(start_line=line, end_line=line, start_column=column, end_column=end_column)


def _message(error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        return f"the build file has ended its process: {kind}"
    try:
        text = str(error)[:_LONGEST]
    except BaseException as another:  # of the author's own making
        text = f"it cannot be shown: {type(another).__name__}"
    return f"{kind}: {text}" if text else kind


def _hint(error: BaseException) -> str | None:
    if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
        return _NO_FILES
    if isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in _NETWORKS:
        return _NO_NETWORK
    if isinstance(error, ModuleNotFoundError):
        return _NO_MODULE
    if isinstance(error, AttributeError | TypeError) and "'coroutine'" in str(error):
        return "there is an await missing"
    if isinstance(error, MemoryError):
        return "a build file may use so much memory as `[worker] build-file-memory` says"
    return None
