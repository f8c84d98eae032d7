"""Where a blob can be had: in a repository of an endpoint, or at a URL that its descriptor names.

A URL is where layers are that a registry may not distribute (image-spec, descriptor.md, "urls"). It is asked without
credentials; URLs of this very machine are left out, unless the registry is on it as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

from buildengine.values import dataclass
from worker.oci.types import Descriptor
from worker.registry.client import EndpointClient, blob_path
from worker.registry.errors import refusal
from worker.registry.hosts import is_loopback
from worker.registry.transport import Response, Transport, redacted


class Place(Protocol):
    """`name` says in errors what was asked for where; `delays` are the seconds before each further attempt."""

    @property
    def host(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def delays(self) -> tuple[float, ...]: ...

    def open(self, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Response]:
        """The open response of status 2xx. Raises SourceError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InRepository:
    client: EndpointClient
    repository: str
    descriptor: Descriptor
    delays: tuple[float, ...]

    @property
    def host(self) -> str:
        return self.client.endpoint.host

    @property
    def name(self) -> str:
        return f"{self.host}: {self._subject}"

    @property
    def _subject(self) -> str:
        return f"blob {self.descriptor.digest} of {self.repository}"

    def open(self, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Response]:
        path = blob_path(self.descriptor.digest)
        return self.client.get(self.repository, path, subject=self._subject, headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class AtUrl:
    transport: Transport
    url: str
    user_agent: str
    delays: tuple[float, ...]

    @property
    def host(self) -> str:
        return _host(self.url)

    @property
    def name(self) -> str:
        return redacted(self.url)

    @asynccontextmanager
    async def open(self, headers: Mapping[str, str]) -> AsyncIterator[Response]:
        async with self.transport.send("GET", self.url, {"user-agent": self.user_agent, **headers}) as response:
            if not 200 <= response.status < 300:
                raise await refusal(response, host=self.host, subject=self.name)
            yield response


def usable_urls(urls: Iterable[str], *, local: bool) -> tuple[str, ...]:
    """The URLs that may be asked: http ones, of this machine only when the registry is `local` as well."""
    return tuple(url for url in urls if (host := _host(url)) and (local or not is_loopback(host)))


def _host(url: str) -> str:
    """Host and port of an http URL; "" for anything else."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    is_http = parts.scheme in ("http", "https") and parts.hostname
    return parts.netloc.rpartition("@")[2] if is_http else ""
