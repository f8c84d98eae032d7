"""One registry endpoint: requests with authentication, answers as errors or as open responses, retries.

Knows the paths of the distribution-spec and nothing of images.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from buildengine.digest import Digest
from buildengine.errors import SourceError
from worker.registry.auth import Authorizer
from worker.registry.errors import RegistryRefused, deserves_retry, refusal
from worker.registry.hosts import Endpoint
from worker.registry.transport import Response, Transport

_MAX_SENDS = 3
_T = TypeVar("_T")


class EndpointClient:
    """An endpoint with what it has taught us about authentication."""

    def __init__(self, endpoint: Endpoint, authorizer: Authorizer, transport: Transport, user_agent: str) -> None:
        self.endpoint = endpoint
        self._authorizer = authorizer
        self._transport = transport
        self._user_agent = user_agent

    @asynccontextmanager
    async def get(
        self,
        repository: str,
        path: str,
        *,
        subject: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Response]:
        """The open response to a pull request below `repository`, of status 2xx.

        Raises RegistryError for every other status, SourceError when the transport fails. `subject` names in
        errors what was asked for.
        """
        scope = f"repository:{repository}:pull"
        url = self.endpoint.url(f"{repository}/{path}")
        since = trio.current_time()
        for send in range(_MAX_SENDS):
            authorization = await self._authorizer.header(scope)
            sent = {"user-agent": self._user_agent, **(headers or {})}
            if authorization is not None:
                sent["authorization"] = authorization
            async with self._transport.send(method, url, sent) as response:
                if 200 <= response.status < 300:
                    yield response
                    return
                # A 401 from wherever a redirect led is not this registry's: its challenge gets no credentials.
                is_ours = response.url.startswith(self.endpoint.base)
                if response.status != 401 or not is_ours or send == _MAX_SENDS - 1:
                    raise await refusal(response, host=self.endpoint.host, subject=subject)
                challenge = response.headers.get("www-authenticate", "")
            await self._authorizer.answer(challenge, scope, sent=authorization, since=since)


async def retrying(attempt: Callable[[], Awaitable[_T]], delays: tuple[float, ...]) -> _T:
    """What `attempt` returns, tried again after each of `delays` while its error deserves that."""
    for delay in (*delays, None):
        try:
            return await attempt()
        except SourceError as error:
            if delay is None or not deserves_retry(error):
                raise
            await trio.sleep(max(delay, error.retry_after if isinstance(error, RegistryRefused) else 0.0))
    raise AssertionError("the last attempt returns or raises")


def manifest_path(target: str | Digest) -> str:
    return f"manifests/{target}"


def blob_path(digest: Digest) -> str:
    return f"blobs/{digest}"
