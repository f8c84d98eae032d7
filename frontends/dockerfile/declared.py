"""Which variables a Dockerfile declares, and by which instruction: for whoever has to call one by its right name."""

from __future__ import annotations

from buildengine.errors import ParseError
from buildengine.values import dataclass
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.lines import SourceFile, split
from frontends.dockerfile.parse import instructions


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    arguments: frozenset[str] = frozenset()
    environment: frozenset[str] = frozenset()


def declared(text: bytes, filename: str = "Dockerfile") -> Names:
    """As far as the file can be read."""
    arguments: set[str] = set()
    environment: set[str] = set()
    try:
        for each in instructions(split(SourceFile(filename=filename, data=text))):
            if isinstance(each, ins.Arg):
                arguments.update(pair.key for pair in each.pairs)
            elif isinstance(each, ins.Env):
                environment.update(pair.key for pair in each.pairs)
    except ParseError:
        pass
    return Names(arguments=frozenset(arguments), environment=frozenset(environment))
