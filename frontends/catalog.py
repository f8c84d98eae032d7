"""The frontends built into the engine, by the names that BuildKit's clients use."""

from __future__ import annotations

from collections.abc import Set

from buildengine.errors import UserError, meant
from frontends.gateway import Frontend

_NAMES = ("dockerfile.v0",)
_NONE: Set[str] = frozenset()


def find(name: str, *, disabled: Set[str] = _NONE) -> Frontend:
    """The frontend of this name. Imported only now: lark is not for those who do not parse.

    Raises UserError for one that there is not or that is `disabled`. Facts: BuildKit solver/llbsolver/provenance.go.
    """
    if name in disabled:
        raise UserError(f"invalid frontend: {name}", hint="the configuration of the build daemon disables it")
    if name == "dockerfile.v0":
        from frontends.dockerfile.build import DockerfileFrontend

        return DockerfileFrontend()
    close = meant(name, _NAMES)
    raise UserError(f"invalid frontend: {name}", hint=f"did you mean {close}?" if close else f"try {_NAMES[0]}")
