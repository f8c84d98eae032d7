"""Which variables a Dockerfile declares, and by which instruction: for whoever has to call one by its right name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from buildengine.errors import ParseError
from buildengine.values import dataclass
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.lines import SourceFile, split
from frontends.dockerfile.parse import instructions


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Build arguments with their defaults as they are written, "" where there is none."""

    arguments: Mapping[str, str] = field(default_factory=dict)
    environment: frozenset[str] = frozenset()


def declared(text: bytes, filename: str = "Dockerfile") -> Names:
    """As far as the file can be read."""
    arguments: dict[str, str] = {}
    environment: set[str] = set()
    try:
        for each in instructions(split(SourceFile(filename=filename, data=text))):
            if isinstance(each, ins.Arg):
                arguments.update({pair.key: pair.value or arguments.get(pair.key, "") for pair in each.pairs})
            elif isinstance(each, ins.Env):
                environment.update(pair.key for pair in each.pairs)
    except ParseError:
        pass
    return Names(arguments=arguments, environment=frozenset(environment))
