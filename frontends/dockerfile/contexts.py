"""Named contexts: what `--build-context name=...` puts in the place of a stage or of an image. Pure."""

from __future__ import annotations

from buildengine import reference
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.dockerfile.options import Options

_NEVER = ("scratch", "context")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedContext:
    """`label` is the name under which it was given, with a platform or without; `value` is `scheme:...`."""

    name: str
    label: str
    value: str

    @property
    def scheme(self) -> str:
        scheme, colon, _ = self.value.partition(":")
        if not colon:
            raise UserError(
                f"invalid context specifier {self.value} for {self.label}",
                hint="a context is docker-image://ref, a URL, local:name, oci-layout://name@digest or input:name",
            )
        return "git" if scheme.startswith("git@") else scheme  # git@host:path has no scheme of its own

    @property
    def rest(self) -> str:
        return self.value.partition(":")[2].removeprefix("//")


def find(options: Options, name: str, platform: Platform) -> NamedContext | None:
    """The context that stands for the stage or image `name`: one for this very platform first."""
    if not options.contexts or name.lower() in _NEVER:
        return None
    try:
        short = familiar(name)
    except UserError:
        return None
    for label in (f"{short}::{platform}", short):
        if label in options.contexts:
            return NamedContext(name=short, label=label, value=options.contexts[label])
    return None


def familiar(name: str) -> str:
    """The short spelling of an image, without `:latest`. Raises UserError."""
    full = reference.normalize(name).removesuffix(":latest")
    return full.removeprefix("docker.io/library/").removeprefix("docker.io/")


def with_digest(name: str, digest: str) -> str:
    """The full spelling of `name`, with its tag, and its digest."""
    return f"{reference.normalize(name).partition('@')[0]}@{digest}"
