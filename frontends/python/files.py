"""Files of a tree: read, listed, looked at. The tree is solved when the first file is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from buildengine.errors import SourceError
from frontends.gateway import FileInfo, Reference
from llb.sourcemap import SourceFile

LARGEST = 16 << 20  # bytes that `read` takes unless it is told otherwise


class Files:
    """What is in the tree of a state. Made by `Context.files` and `Context.solve`.

    Paths are of the tree: `/etc/passwd` and `etc/passwd` are one, and no symbolic link leads out of it. What is not
    there raises SourceError; a tree that cannot be built raises SolveError.
    """

    def __init__(self, solve: Callable[[str], Awaitable[Reference]]) -> None:
        """`solve` gives a tree in which the path that it is given is, if it is anywhere."""
        self._solve = solve

    async def read(self, path: str, *, limit: int = LARGEST) -> bytes:
        """A regular file. Raises UserError for one that is longer than `limit` bytes."""
        return await (await self._solve(path)).read_file(path, limit=limit)

    async def read_text(self, path: str, *, limit: int = LARGEST) -> str:
        """A file of UTF-8 text. Raises UserError, with the place in the file, for one that is not."""
        data = await self.read(path, limit=limit)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            file = SourceFile(filename=path, data=data)
            line = data.count(b"\n", 0, error.start) + 1
            raise file.line(line).error(f"{path} is not UTF-8 text") from None

    async def source(self, path: str, *, language: str = "", limit: int = LARGEST) -> SourceFile:
        """A file that says something of the build: its lines can be shown where something is wrong with them.

        >>> file = await ctx.files(context).source("app.yaml", language="YAML")     # doctest: +SKIP
        >>> raise file.line(3).error("a port is a number", hint="e.g. port: 80")    # doctest: +SKIP

        `language` is as github-linguist spells it.
        """
        reference = await self._solve(path)
        data = await reference.read_file(path, limit=limit)
        return SourceFile(filename=path, data=data, language=language, definition=reference.definition.to_bytes())

    async def list(self, path: str = "/", *, include: str = "") -> Sequence[FileInfo]:
        """What a directory holds, sorted by name. `include` is a pattern for the names, `*.yaml`."""
        return await (await self._solve(path)).read_dir(path, include=include)

    async def stat(self, path: str) -> FileInfo:
        """A symbolic link is followed inside the tree."""
        return await (await self._solve(path)).stat_file(path)

    async def exists(self, path: str) -> bool:
        """Whether there is anything of this name."""
        reference = await self._solve(path)
        try:
            await reference.stat_file(path)
        except SourceError:
            return False
        return True
