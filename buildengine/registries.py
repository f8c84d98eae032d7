"""The seam between the command line and registries: what needs neither an engine nor its state. As `builder`, but a
module of its own, since no build pays for it.

`Registries` are logins, `ImageTools` images where they are. Both are implemented in `buildengine.daemon`; calls
block, and raise BuildError.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import field
from pathlib import Path
from typing import Protocol

from buildengine.digest import Digest
from buildengine.events import EventSink
from buildengine.platform import Platform
from buildengine.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who somebody says to be at a registry."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A login that the registry took. `unencrypted` is the file that its password was written to as it is, if any."""

    host: str
    unencrypted: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """A logout. `key` is how docker calls the registry; `problems` why a credential helper may hold it still."""

    key: str
    problems: tuple[str, ...] = ()


class Registries(Protocol):
    """Logins, kept where docker keeps them. A server is a host, or a URL of one; "" is Docker Hub."""

    def known_user(self, server: str) -> str | None:
        """Whose password is kept for `server`; None when none is."""
        ...

    def log_in(self, server: str, login: Login | None) -> Kept:
        """Ask the registry, then keep the login; None: with what is kept already. Raises RegistryError."""
        ...

    def log_out(self, server: str) -> Forgotten: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteDocument:
    """A manifest or an index as its registry sent it. `name` is the reference in full."""

    name: str
    media_type: str
    digest: Digest
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """An image to be made of others, in registries only.

    A source is a reference, a digest, or a descriptor as JSON; the last two belong to the one repository that is
    named. `append` takes what the first target names now before everything else. `annotations` are spelled as
    attributes of an image output: `annotation-index.KEY`, `annotation-manifest-descriptor[PLATFORM].KEY`.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...] = ()
    append: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[Platform, ...] = ()
    prefer_index: bool = True
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """What came out: the document, and the repositories that have it now."""

    descriptor: Mapping[str, object]
    repositories: tuple[str, ...]
    raw: bytes = field(repr=False)


class ImageTools(Protocol):
    """Images in registries, looked at and put together where they are."""

    def inspect(self, reference: str) -> RemoteDocument: ...

    def describe(self, reference: str, parts: Collection[str]) -> Mapping[str, object]:
        """`name` and `manifest`, and of `image`, `SBOM` and `Provenance` those in `parts`.

        These are objects by platform, or one object when the image is for one platform only.
        """
        ...

    def create(
        self, combination: Combination, on_event: EventSink, on_tick: Callable[[], None] | None = None
    ) -> Combined: ...
