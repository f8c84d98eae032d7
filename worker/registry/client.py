"""One registry endpoint: requests with authentication, answers as errors or as open responses.

Knows the paths of the distribution-spec and nothing of images.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import trio

from buildengine.digest import Digest
from buildengine.errors import RegistryError
from worker.registry.auth import Authorizer, merged_scopes
from worker.registry.errors import RegistryRefused, refusal
from worker.registry.hosts import Endpoint
from worker.registry.transport import Body, Response, Transport, is_same_origin, joined, redacted
from worker.session import Credentials

PULL = "pull"
PUSH = "pull,push"
_MAX_SENDS = 3


class EndpointClient:
    """An endpoint with what it has taught us about authentication."""

    def __init__(self, endpoint: Endpoint, authorizer: Authorizer, transport: Transport, user_agent: str) -> None:
        self.endpoint = endpoint
        self._authorizer = authorizer
        self._transport = transport
        self._user_agent = user_agent

    @classmethod
    def of(cls, endpoint: Endpoint, transport: Transport, credentials: Credentials, user_agent: str) -> EndpointClient:
        """A client that has learnt nothing yet."""
        authorizer = Authorizer(
            endpoint.host,
            key=endpoint.credential_key,
            is_plain=endpoint.is_plain,
            transport=transport,
            credentials=credentials,
        )
        return cls(endpoint, authorizer, transport, user_agent)

    def get(
        self,
        repository: str,
        path: str,
        *,
        subject: str,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[Response]:
        """The open response to a pull request below `repository`: see `request`."""
        return self.request("GET", repository, path, subject=subject, headers=headers)

    def request(
        self,
        method: str,
        repository: str,
        target: str,
        *,
        subject: str,
        actions: str = PULL,
        mount_from: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
    ) -> AbstractAsyncContextManager[Response]:
        """The open response, of status 2xx, to one request that is allowed `actions` on `repository`.

        `target` is a path below the repository, or a whole URL that the registry gave out (`location`): one that
        leads to another host gets no credentials. `mount_from` are further repositories that are read. Raises
        RegistryError for every other status, SourceError when the transport fails. `subject` names in errors what
        was asked for.
        """
        scope = merged_scopes(f"repository:{repository}:{actions}", *(f"repository:{r}:{PULL}" for r in mount_from))
        url = target if "://" in target else self.endpoint.url(f"{repository}/{target}")
        return self._send(method, url, scope, subject=subject, headers=headers, body=body, push=actions == PUSH)

    def ping(self, *, subject: str) -> AbstractAsyncContextManager[Response]:
        """The open response to `GET /v2/`, which needs a login and nothing more. Raises as `request`."""
        return self._send("GET", f"{self.endpoint.base}/", "", subject=subject)

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: str,
        scope: str,
        *,
        subject: str,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        push: bool = False,
    ) -> AsyncIterator[Response]:
        since = trio.current_time()
        for send in range(_MAX_SENDS):
            sent = {"user-agent": self._user_agent, **(headers or {})}
            authorization = await self._authorizer.header(scope) if self._is_ours(url) else None
            if authorization is not None:
                sent["authorization"] = authorization
            async with self._transport.send(method, url, sent, body) as response:
                if 200 <= response.status < 300:
                    yield response
                    return
                # A 401 from wherever a redirect led is not this registry's: its challenge gets no credentials.
                if response.status != 401 or not self._is_ours(response.url) or send == _MAX_SENDS - 1:
                    raise await self._refusal(response, subject, push=push)
                challenge = response.headers.get("www-authenticate", "")
            await self._authorizer.answer(challenge, scope, sent=authorization, since=since)

    def location(self, response: Response) -> str:
        """Where the registry wants the next request of an upload, as a URL. Raises RegistryError.

        A registry behind a proxy that ends TLS often takes itself for a plain one: what it names is then reached
        as it was reached before.
        """
        given = response.headers.get("location", "")
        if not given:
            raise RegistryError(f"{self.endpoint.host} began an upload without saying where it goes on")
        url, base = joined(response.url, given), urlsplit(self.endpoint.base)
        parts = urlsplit(url)
        if base.scheme == "https" and parts.scheme == "http":
            if parts.hostname != base.hostname:
                raise RegistryError(f"{self.endpoint.host} wants an upload to {redacted(url)}, which is not encrypted")
            return urlunsplit((base.scheme, base.netloc, parts.path, parts.query, ""))
        if parts.scheme not in ("http", "https"):
            raise RegistryError(f"{self.endpoint.host} wants an upload to {redacted(url)}, which is not an http URL")
        return url

    def _is_ours(self, url: str) -> bool:
        return is_same_origin(url, self.endpoint.base)

    async def _refusal(self, response: Response, subject: str, *, push: bool) -> RegistryRefused:
        return await refusal(
            response, host=self.endpoint.host, subject=subject, advice=self._authorizer.advice, push=push
        )


def manifest_path(target: str | Digest) -> str:
    return f"manifests/{target}"


def blob_path(digest: Digest) -> str:
    return f"blobs/{digest}"
