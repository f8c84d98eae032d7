"""Arguments that exist before the first stage: platforms, and the ARGs above the first FROM. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from buildengine.errors import ParseError
from buildengine.platform import Platform
from frontends.dockerfile.instructions import Arg
from frontends.dockerfile.words import Lexer


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
