"""What failed steps of one build have left behind, for a client that wants to look at it."""

from __future__ import annotations

from buildengine.values import dataclass
from solver.vertex import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Of an exec, by the position of its mounts: what they were made of, and what they held when it failed. Of a file
    op the inputs, and what each action has made; number `action` failed. Of one whose key could not be computed, the
    one input that was to be digested, number `dependency`. None is the empty tree, or what is no tree."""

    inputs: tuple[Result | None, ...]
    mounts: tuple[Result | None, ...] = ()
    action: int | None = None
    dependency: int | None = None

    def release(self) -> None:
        for result in (*self.inputs, *self.mounts):
            if result is not None:
                result.release()


class Failures:
    """By the digest of the vertex. Nothing is kept unless somebody wants it: it costs a layer for each mount."""

    def __init__(self) -> None:
        self._wanting = 0
        self._kept: dict[str, Failed] = {}

    @property
    def wanted(self) -> bool:
        return self._wanting > 0

    def want(self) -> None:
        """Until `forget`, as often as this was called."""
        self._wanting += 1

    def keep(self, vertex: str, failed: Failed) -> None:
        """`failed` is this object's from here on."""
        old = self._kept.pop(vertex, None)
        if old is not None:
            old.release()
        self._kept[vertex] = failed

    def of(self, vertex: str) -> Failed | None:
        return self._kept.get(vertex)

    def forget(self) -> None:
        """Keep nothing any more, and let go what was kept, once everybody who wanted it says so."""
        self._wanting -= 1
        if self._wanting:
            return
        for failed in self._kept.values():
            failed.release()
        self._kept.clear()
