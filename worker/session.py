"""What a build may ask of whoever started it, as Protocols.

Implemented in-process by `buildengine/daemon/local_session.py`; whoever implements them otherwise passes the same
contract test (tests/contracts/test_session.py). Absence is a value (None), never an exception:
a client that does not offer secrets has no secrets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, Protocol

from buildengine.digest import Digest
from buildengine.values import dataclass

if TYPE_CHECKING:
    from cache.localscan import LocalScan
    from worker.sources.origin import LocalOrigin

_NOTHING: Mapping[str, str] = MappingProxyType({})


class SecretBytes:
    """Bytes that never show: repr and str are `***`. `reveal()` is for the one place that uses them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


IDENTITY_TOKEN = "<token>"
"""The user name under which an identity token is kept (docker's credential helpers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Who we are at one registry host. An identity token has the user name `IDENTITY_TOKEN`."""

    username: str
    password: SecretBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedDirectory:
    """A directory of the store that is a copy of the client's, filtered as was asked. `release` it, once, when nobody
    reads it any more: until then nobody else writes to it. `scan`, which the caller closes, is of what has come."""

    path: str
    scan: LocalScan
    release: Callable[[], None]


class Directories(Protocol):
    """The directories the client offers by name (`context`, `dockerfile`, ...)."""

    async def inline_files(self, name: str) -> Mapping[str, bytes]:
        """Files of the directory that are nowhere on disk: a Dockerfile from standard input."""
        ...

    async def local_path(self, name: str) -> str | None:
        """The absolute path of directory `name` when it lies on this host; None when it does not, or is not offered."""
        ...

    async def receive(self, origin: LocalOrigin, progress: Callable[[int], None]) -> ReceivedDirectory | None:
        """What `origin` asks for, sent by a client elsewhere; None when it is not offered. Raises ContextError.

        `progress` gets the number of bytes that have come, those of the protocol too.
        """
        ...


class Secrets(Protocol):
    async def get(self, secret_id: str) -> SecretBytes | None: ...


class SshAgents(Protocol):
    async def open(self, agent_id: str) -> AbstractAsyncContextManager[str] | None:
        """A socket path that forwards to the agent, for as long as the block lasts."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token, good for `life` seconds."""

    value: SecretBytes
    life: float


class Tokens(Protocol):
    async def fetch(self, host: str, *, realm: str, service: str, scopes: tuple[str, ...]) -> Token | None:
        """A token for the registry `host` from its token service `realm`; None: it is for us to fetch, with what
        `Credentials.get` gives. Raises SourceError."""
        ...


class Credentials(Protocol):
    @property
    def tokens(self) -> Tokens | None:
        """A client that fetches tokens itself, so that its secret stays with it; None: there is none."""
        ...

    async def get(self, host: str) -> Credential | None:
        """Credentials for one registry host (`docker.io` is `https://index.docker.io/v1/` in docker's file)."""
        ...


class BlobSink(Protocol):
    """A content store of the client's own."""

    async def put(self, digest: Digest, size: int, open: Callable[[], BinaryIO]) -> None:
        """One blob, unless it is there already. Raises SourceError."""
        ...


class Sinks(Protocol):
    """Where exports go. A file sink is one stream; a directory sink is a directory on this host, for a while."""

    def file(self, export_id: int, about: Mapping[str, str] = _NOTHING) -> AbstractAsyncContextManager[int] | None:
        """A writable file descriptor; what was written appears whole when the block ends without error.

        `about`: what the exporter will say of it, for whoever decides by that whether he needs it.
        """
        ...

    def directory(self, export_id: int) -> AbstractAsyncContextManager[str] | None:
        """The path of a directory; what was written there has reached the client when the block ends without error."""
        ...

    def blobs(self, export_id: int) -> BlobSink | None:
        """Where the blobs of an OCI layout go, of which the client writes all else; None: into `directory`."""
        ...


class Uploads(Protocol):
    """Streams that a client offers under URLs of its own, each once."""

    def pull(self, host: str, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The pieces of one stream. Raises SourceError."""
        ...


class BlobSource(Protocol):
    """A content store of the client's to read from. Whoever reads verifies what comes."""

    def open(self, digest: Digest) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The pieces of one blob. Raises SourceError when it is not there, or breaks off."""
        ...


class Layouts(Protocol):
    """The OCI layouts that a client offers."""

    def find(self, store: str, session: str) -> BlobSource:
        """The one that is called `store`, of the client's `session`; "" is the build's own. It may turn out to have
        nothing."""
        ...


class Session(Protocol):
    """All of the above, for one build."""

    @property
    def id(self) -> str: ...

    @property
    def place(self) -> str:
        """What the directories of this client are known by, from build to build; "" where nobody knows."""
        ...

    @property
    def directories(self) -> Directories: ...

    @property
    def secrets(self) -> Secrets: ...

    @property
    def ssh_agents(self) -> SshAgents: ...

    @property
    def credentials(self) -> Credentials: ...

    @property
    def sinks(self) -> Sinks: ...

    @property
    def layouts(self) -> Layouts: ...

    @property
    def uploads(self) -> Uploads | None:
        """None: this client has everything where it can be read."""
        ...
