"""What a build in this very process may ask of its caller: the request's directories, secrets and sinks.

An implementation of `worker.session`, held to its promises by tests/contracts/test_session.py.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from buildengine.builder import BuildRequest, Export, SecretSource, SshSource
from buildengine.digest import Digest
from buildengine.errors import ContextError, SourceError, UserError
from buildengine.limits import DISK, PIPE, offload
from buildengine.secretfile import read_secret
from buildengine.values import dataclass
from buildengine.wholefile import destination, standard_output
from worker.session import Credential, Credentials, ReceivedDirectory, SecretBytes

if TYPE_CHECKING:
    from worker.sources.origin import LocalOrigin

_PIECE = 1 << 20  # bytes of an upload or a blob, at once

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDirectories:
    paths: Mapping[str, Path]
    inline: Mapping[str, Mapping[str, bytes]]

    async def inline_files(self, name: str) -> Mapping[str, bytes]:
        return self.inline.get(name, {})

    async def local_path(self, name: str) -> str | None:
        path = self.paths.get(name)
        if path is None:
            return None
        if not path.is_dir():
            raise ContextError(f"{name}: {path} is not a directory", hint="give the path of a directory to build from")
        return str(path.absolute())

    async def receive(self, origin: LocalOrigin, progress: Callable[[int], None]) -> ReceivedDirectory | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSecrets:
    sources: Mapping[str, SecretSource]
    environment: Mapping[str, str]

    async def get(self, secret_id: str) -> SecretBytes | None:
        source = self.sources.get(secret_id)
        if source is None:
            return None
        value = await offload(read_secret, source, self.environment, limiter=DISK)
        return None if value is None else SecretBytes(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSshAgents:
    """Agents of this host, by their own sockets: whoever gives one to a step puts a socket of his own before it."""

    sources: Mapping[str, SshSource]

    async def open(self, agent_id: str) -> AbstractAsyncContextManager[str] | None:
        source = self.sources.get(agent_id or "default")
        if source is None or not source.paths:
            return None
        path = source.paths[0]
        if len(source.paths) > 1 or not path.is_socket():
            raise UserError(f"ssh agent {source.id!r}: {path} is not the socket of an agent")
        return nullcontext(str(path.absolute()))


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSinks:
    exports: tuple[Export, ...]
    stdout: int

    def file(self, export_id: int, about: Mapping[str, str] = _NOTHING) -> AbstractAsyncContextManager[int] | None:
        dest = self.exports[export_id].dest
        if dest is None:
            return None
        return _stream(self.stdout) if dest == "-" else _file(Path(dest))

    def directory(self, export_id: int) -> AbstractAsyncContextManager[str] | None:
        dest = self.exports[export_id].dest
        return None if dest is None else nullcontext(dest)

    def blobs(self, export_id: int) -> None:
        """A layout is written whole."""


@asynccontextmanager
async def _stream(fd: int) -> AsyncIterator[int]:
    with standard_output(fd):
        yield fd


@asynccontextmanager
async def _file(path: Path) -> AsyncIterator[int]:
    with destination(path) as fd:
        yield fd


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalUploads:
    """The one stream of a request whose context is an archive. `read` blocks, and gives b"" at the end."""

    read: Callable[[int], bytes]

    @asynccontextmanager
    async def pull(self, host: str, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            while data := await offload(self.read, _PIECE, limiter=PIPE):
                yield data

        yield pieces()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLayouts:
    paths: Mapping[str, Path]

    def find(self, store: str, session: str) -> LocalLayout:
        return LocalLayout(name=store, path=self.paths.get(store))


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLayout:
    """A layout of this host; without a path there is nothing in it."""

    name: str
    path: Path | None

    @asynccontextmanager
    async def open(self, digest: Digest) -> AsyncIterator[AsyncIterator[bytes]]:
        if self.path is None:
            raise SourceError(f"there is no OCI layout called {self.name!r}")
        from buildengine.ocilayout import DiskLayout

        with DiskLayout(self.path).blob(digest) as fd:
            if fd is None:
                raise SourceError(f"the OCI layout {self.path} has no blob {digest}")
            yield _pieces(fd)


async def _pieces(fd: int) -> AsyncIterator[bytes]:
    while data := await offload(os.read, fd, _PIECE, limiter=DISK):
        yield data


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSession:
    """`worker.session.Session` for one request in this process."""

    id: str
    place: str
    directories: LocalDirectories
    secrets: LocalSecrets
    ssh_agents: LocalSshAgents
    credentials: Credentials
    sinks: LocalSinks
    layouts: LocalLayouts
    uploads: LocalUploads | None = None


class DockerConfigCredentials:
    """What docker's configuration file says of a registry; read when the first registry asks."""

    tokens: None = None

    def __init__(self, file: Path, environment: Mapping[str, str]) -> None:
        self._file = file
        self._environment = environment
        self._docker: Credentials | None = None

    async def get(self, host: str) -> Credential | None:
        if self._docker is None:
            from worker.registry import configfile
            from worker.registry.creds import DockerCredentials
            from worker.registry.dockerconfig import parse_docker_config

            raw = await offload(configfile.read, self._file, limiter=DISK)
            self._docker = DockerCredentials(parse_docker_config(raw, filename=str(self._file)), env=self._environment)
        return await self._docker.get(host)


def _inline(request: BuildRequest) -> Mapping[str, Mapping[str, bytes]]:
    """A Dockerfile from standard input is a file of the directory `dockerfile`."""
    if request.inline_dockerfile is None:
        return {}
    return {"dockerfile": {request.options.get("filename", "Dockerfile"): request.inline_dockerfile}}


def local_session(
    request: BuildRequest, *, credentials: Credentials, environment: Mapping[str, str], stdout: int = 1
) -> LocalSession:
    return LocalSession(
        id=request.ref,
        place="\0".join(str(request.directories.get(name, "")) for name in ("context", "dockerfile")),
        directories=LocalDirectories(paths=request.directories, inline=_inline(request)),
        secrets=LocalSecrets(sources={s.id: s for s in request.secrets}, environment=environment),
        ssh_agents=LocalSshAgents(sources={agent.id: agent for agent in request.ssh}),
        credentials=credentials,
        sinks=LocalSinks(exports=request.exports, stdout=stdout),
        layouts=LocalLayouts(paths=request.layouts),
        uploads=LocalUploads(read=request.context_archive) if request.context_archive is not None else None,
    )
