"""The frontends built into the engine, by the names that BuildKit's clients use."""

from __future__ import annotations

from buildengine import reference
from buildengine.errors import UserError, meant
from frontends.gateway import Frontend

NAMES = ("dockerfile.v0",)
_IMAGES = {f"docker.io/docker/{name}": "dockerfile.v0" for name in ("dockerfile", "dockerfile-upstream")}


def find(name: str) -> Frontend:
    """The frontend of this name. Imported only now: lark is not for those who do not parse.

    Raises UserError for one that there is not. Facts: BuildKit solver/llbsolver/provenance.go.
    """
    if name == "dockerfile.v0":
        from frontends.dockerfile.build import DockerfileFrontend

        return DockerfileFrontend()
    close = meant(name, NAMES)
    raise UserError(f"invalid frontend: {name}", hint=f"did you mean {close}?" if close else f"try {NAMES[0]}")


def built_in(image: str) -> str | None:
    """The name of the frontend of ours that speaks the language of this frontend image, whatever its version.

    An image that is named by its digest is meant as it is. Raises UserError for what is no reference.
    """
    wanted = reference.parse_repository(image)
    return None if wanted.digest else _IMAGES.get(wanted.name)
