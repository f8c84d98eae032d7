"""The git and http sources of one build, made when the first op asks for one of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from buildengine.wholefile import whole_file
from cache.opened import Cache
from worker.registry.hosts import RegistryConfig, tls
from worker.registry.transport import open_transport
from worker.session import Secrets, Uploads
from worker.sources.git import Access, GitRevision, GitSource
from worker.sources.gitcli import Git
from worker.sources.http import HttpRevision, HttpSource, Transport
from worker.sources.origin import GitOrigin, HttpOrigin
from worker.sources.uploads import UploadTransport


@asynccontextmanager
async def open_remotes(
    cache: Cache, config: RegistryConfig, environment: Mapping[str, str], uploads: Uploads | None = None
) -> AsyncIterator[Remotes]:
    """The remote sources of one build; `environment` gives git its PATH and proxies."""
    async with AsyncExitStack() as stack:
        yield Remotes(cache, config, environment, uploads, stack)


class Remotes:
    """Made by `open_remotes`."""

    def __init__(
        self,
        cache: Cache,
        config: RegistryConfig,
        environment: Mapping[str, str],
        uploads: Uploads | None,
        stack: AsyncExitStack,
    ) -> None:
        self._cache = cache
        self._config = config
        self._environment = environment
        self._uploads = uploads
        self._stack = stack
        self._lock = trio.Lock()
        self._http: HttpSource | None = None
        self._git: GitSource | None = None
        self._downloads: dict[HttpOrigin, HttpRevision] = {}
        self._commits: dict[tuple[str, str, str], GitRevision] = {}

    async def resolve_http(self, origin: HttpOrigin, secrets: Secrets) -> HttpRevision:
        """What the URL holds for this build: what the first who asked was told. Raises HttpError."""
        key = replace(origin, mode=0, uid=0, gid=0)
        if key not in self._downloads:
            found = await (await self.http()).resolve(origin, secrets)
            self._downloads.setdefault(key, found)
        return self._downloads[key]

    async def resolve_git(self, origin: GitOrigin, access: Access) -> GitRevision:
        """The commit that the ref means for this build: what the first who asked was told. Raises GitError."""
        key = (origin.remote, origin.ref, origin.checksum)  # and not with what one asks
        if key not in self._commits:
            found = await self.git().resolve(origin, access)
            self._commits.setdefault(key, found)
        return self._commits[key]

    async def http(self) -> HttpSource:
        async with self._lock:
            if self._http is None:
                transport: Transport = await self._stack.enter_async_context(
                    open_transport(lambda host: tls(host, self._config), self._config.proxies.choose)
                )
                spool = os.open(self._cache.root / "ingest", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._stack.callback(os.close, spool)
                transport = UploadTransport(transport, self._uploads)
                self._http = HttpSource(transport, _Files(self._cache.root / "http"), spool)
                self._stack.callback(self._http.close)
        return self._http

    def git(self) -> GitSource:
        if self._git is None:
            self._git = GitSource(self._cache.root / "git", self._cache.locks, Git(self._environment))
        return self._git


class _Files:
    """A key-value store of small files: what servers said of their bodies. Losing one costs a download."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, key: str) -> bytes | None:
        try:
            return self._path(key).read_bytes()
        except OSError:
            return None

    def put(self, key: str, value: bytes) -> None:
        self._directory.mkdir(exist_ok=True)
        with whole_file(self._path(key), mode=0o600) as fd, os.fdopen(fd, "wb", closefd=False) as file:
            file.write(value)

    def _path(self, key: str) -> Path:
        return self._directory / hashlib.sha256(key.encode()).hexdigest()
