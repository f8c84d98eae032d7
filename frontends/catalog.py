"""The frontends built into the engine, by the names that BuildKit's clients use."""

from __future__ import annotations

from buildengine.errors import UserError, meant
from frontends.gateway import Frontend

_NAMES = ("dockerfile.v0",)


def find(name: str) -> Frontend:
    """The frontend of this name. Imported only now: lark is not for those who do not parse.

    Raises UserError for one that there is not. Facts: BuildKit solver/llbsolver/provenance.go.
    """
    if name == "dockerfile.v0":
        from frontends.dockerfile.build import DockerfileFrontend

        return DockerfileFrontend()
    close = meant(name, _NAMES)
    raise UserError(f"invalid frontend: {name}", hint=f"did you mean {close}?" if close else f"try {_NAMES[0]}")
