"""Arguments that exist before the first stage: platforms, and the ARGs above the first FROM. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from buildengine.errors import Location, ParseError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.dockerfile.instructions import Arg, description
from frontends.dockerfile.words import Lexer


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A declared ARG, as it was declared last. `needs` are the arguments that its default names."""

    value: str
    description: str
    location: Location
    needs: frozenset[str] = frozenset()


def platform_args(build: Platform, target: Platform, stage: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """The arguments that are always there for FROM, and for a stage that declares them with ARG."""
    values = {
        "BUILDPLATFORM": str(replace(build, os_version="")),
        "BUILDOS": build.os,
        "BUILDOSVERSION": build.os_version,
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": str(target),
        "TARGETOS": target.os,
        "TARGETOSVERSION": target.os_version,
        "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant,
        "TARGETSTAGE": stage or "default",
    }
    return {name: overrides.get(name, value) for name, value in values.items()}


def global_args(
    predefined: Mapping[str, str], declared: Sequence[Arg], given: Mapping[str, str], lexer: Lexer
) -> dict[str, str]:
    """What FROM can use: `given` (--build-arg) wins over a default. Raises ParseError at a bad default."""
    args = dict(predefined)
    for instruction in declared:
        for pair in instruction.pairs:
            value = given.get(pair.key)
            if value is None and pair.value is not None:
                try:
                    value = lexer.expand(pair.value, args)
                except ParseError as error:
                    raise error.located(instruction.location) from None
            if value is not None:
                args.pop(pair.key, None)
                args[pair.key] = value
    return args


def described(
    predefined: Mapping[str, str], declared: Sequence[Arg], given: Mapping[str, str], lexer: Lexer
) -> dict[str, Argument]:
    """What there is to say of each global argument; `global_args` has raised what is wrong with them."""
    values = dict(predefined)
    found: dict[str, Argument] = {}
    for instruction in declared:
        for pair in instruction.pairs:
            value, needs = given.get(pair.key), frozenset[str]()
            if value is None and pair.value is not None:
                expansion = lexer.process(pair.value, values)
                value, needs = expansion.text, expansion.matched
            if pair.key in needs:  # `ARG A=${A}x`: the A before it
                needs = needs - {pair.key} | (found[pair.key].needs if pair.key in found else frozenset())
            if value is not None:
                values[pair.key] = value
            found[pair.key] = Argument(
                value=value or "",
                description=description(instruction.line, pair.key),
                location=instruction.location,
                needs=needs,
            )
    return found
