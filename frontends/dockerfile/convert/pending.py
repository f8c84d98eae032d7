"""A directory of the client whose wanted paths are known only when the whole file has been converted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from buildengine.errors import InternalError
from buildengine.values import dataclass
from llb import paths
from llb.ops import Op
from llb.state import State
from llb.vertices import About, Inputs, OperationVertex, Output, Target


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PendingLocal(OperationVertex):
    """Becomes what `make(follow_paths)` gives when it is marshalled; `used` grows until then."""

    make: Callable[[tuple[str, ...]], State]
    used: set[str]
    about: About

    @property
    def sources(self) -> tuple[Output, ...]:
        return ()

    def op(self, inputs: Inputs, target: Target) -> Op:
        output = self.make(follow_paths(self.used)).output
        if output is None or not isinstance(output.vertex, OperationVertex):
            raise InternalError("a local directory without an operation")
        return output.vertex.op(inputs, target)


def pending_local(make: Callable[[tuple[str, ...]], State], used: set[str]) -> State:
    """The state of a directory that will be asked for the paths in `used`."""
    plain = make(()).output
    about = plain.vertex.about if plain else About()
    return State(output=Output(vertex=PendingLocal(make=make, used=used, about=about)))


def follow_paths(used: Iterable[str]) -> tuple[str, ...]:
    """The paths relative to the directory, sorted; none at all when the whole directory is used."""
    if "/" in used:
        return ()
    return tuple(sorted({path.lstrip("/") for path in used}))


def rooted(path: str) -> str:
    """A source path as `used` holds it."""
    return paths.resolve("/", path)
