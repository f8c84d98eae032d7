"""The images of a store in async calls, and `buildengine.builder.Images` in blocking ones on top of them.

The engine inside the command has trio's, the client of a daemon asyncio's; what blocks is the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

from buildengine.builder import ImageInfo
from buildengine.platform import Platform

_T = TypeVar("_T")


class AsyncImages(Protocol):
    """`buildengine.builder.Images`. `write` and `read` are called by a thread, and block. Raises BuildError."""

    async def list(self) -> Sequence[ImageInfo]: ...

    async def inspect(self, reference: str, *, platform: Platform | None = None) -> Mapping[str, object]: ...

    async def history(self, reference: str, *, platform: Platform | None = None) -> Sequence[Mapping[str, object]]: ...

    async def tag(self, source: str, target: str) -> None: ...

    async def remove(self, reference: str, *, force: bool = False) -> Sequence[str]: ...

    async def prune(self, *, all: bool = False) -> Sequence[ImageInfo]: ...

    async def save(self, references: Sequence[str], write: Callable[[bytes], object]) -> None: ...

    async def load(self, read: Callable[[int], bytes]) -> Sequence[str]: ...


Use = Callable[[AsyncImages], Awaitable[_T]]


class BlockingImages:
    """`run` opens a store or connects to one, calls an async function with its images, and lets go of it."""

    def __init__(self, run: Callable[[Use[object]], object]) -> None:
        self._run_any = run

    def _run(self, fn: Use[_T]) -> _T:
        return cast(_T, self._run_any(fn))

    def list(self) -> Sequence[ImageInfo]:
        return self._run(lambda images: images.list())

    def inspect(self, reference: str, *, platform: Platform | None = None) -> Mapping[str, object]:
        return self._run(lambda images: images.inspect(reference, platform=platform))

    def history(self, reference: str, *, platform: Platform | None = None) -> Sequence[Mapping[str, object]]:
        return self._run(lambda images: images.history(reference, platform=platform))

    def tag(self, source: str, target: str) -> None:
        self._run(lambda images: images.tag(source, target))

    def remove(self, reference: str, *, force: bool = False) -> Sequence[str]:
        return self._run(lambda images: images.remove(reference, force=force))

    def prune(self, *, all: bool = False) -> Sequence[ImageInfo]:
        return self._run(lambda images: images.prune(all=all))

    def save(self, references: Sequence[str], write: Callable[[bytes], object]) -> None:
        self._run(lambda images: images.save(references, write))

    def load(self, read: Callable[[int], bytes]) -> Sequence[str]:
        return self._run(lambda images: images.load(read))
