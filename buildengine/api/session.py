"""`worker.session.Session` for a client elsewhere: what a build asks for is asked through its session's tunnel.

What a client does not serve it does not have: Unimplemented is an absence, not an error. Nothing is asked before the
build wants it, and each question waits a while for the session, which may come after the build.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from buildengine.api.auth_pb2 import (
    CredentialsRequest,
    CredentialsResponse,
    FetchTokenRequest,
    FetchTokenResponse,
    GetTokenAuthorityRequest,
    GetTokenAuthorityResponse,
)
from buildengine.api.clientstore import ClientLayout
from buildengine.api.forwarding import agent_socket, has_agent
from buildengine.api.received import NotOffered, ReceivedDirectories
from buildengine.api.rpc import Code, RpcError
from buildengine.api.secrets_pb2 import GetSecretRequest, GetSecretResponse
from buildengine.api.sessions import ClientSession, SessionGone, Sessions
from buildengine.api.sinks import RemoteSinks
from buildengine.api.status import OURS, from_rpc
from buildengine.api.upload_pb2 import BytesMessage
from buildengine.errors import BuildError, ContextError, SourceError, UserError
from buildengine.reference import DOCKER_HUB
from buildengine.values import dataclass
from cache.opened import Cache
from worker.session import IDENTITY_TOKEN, Credential, ReceivedDirectory, SecretBytes, Token
from worker.sources.origin import LocalOrigin

_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
_FETCH_TOKEN, _AUTHORITY = "/moby.filesync.v1.Auth/FetchToken", "/moby.filesync.v1.Auth/GetTokenAuthority"
_CLIENT_ID, _SALT, _TOKEN_LIFE = "buildkit-client", 32, 60.0  # as clients know it; bytes; seconds where none are said
_PULL = "/moby.upload.v1.Upload/Pull"
_HUB_API = "registry-1.docker.io"  # by this name BuildKit's clients know Docker Hub's credentials
_SECRET_LIMIT = 500 << 10
_ABSENT = (Code.NOT_FOUND, Code.UNIMPLEMENTED)


class _Client:
    """The client of one build, through the session `id`."""

    def __init__(self, sessions: Sessions, id: str) -> None:
        self.sessions = sessions
        self.id = id

    async def session(self) -> ClientSession:
        """Raises SessionGone."""
        return await self.sessions.get(self.id)


class RemoteDirectories:
    def __init__(self, client: _Client, received: ReceivedDirectories) -> None:
        self._client = client
        self._received = received

    async def inline_files(self, name: str) -> Mapping[str, bytes]:
        return {}

    async def local_path(self, name: str) -> str | None:
        return None

    async def receive(self, origin: LocalOrigin, progress: Callable[[int], None]) -> ReceivedDirectory | None:
        """From the session that the source names, or the build's own: whichever has it first."""
        absent: ContextError | SessionGone | None = None
        for id in dict.fromkeys(filter(None, (origin.session, self._client.id))):
            try:
                return await self._received.receive(await self._client.sessions.get(id), origin, progress)
            except (NotOffered, SessionGone) as error:
                absent = error
        if absent is None:
            return None
        raise absent


class RemoteSecrets:
    def __init__(self, client: _Client) -> None:
        self._client = client

    async def get(self, secret_id: str) -> SecretBytes | None:
        session = await self._client.session()
        try:
            answer = await session.channel.unary(_SECRET, GetSecretRequest(ID=secret_id), GetSecretResponse)
        except RpcError as error:
            if error.code in _ABSENT:
                return None
            raise _refused(session, f"secret {secret_id}", error) from error
        if len(answer.data) > _SECRET_LIMIT:
            raise UserError(f"secret {secret_id} is larger than {_SECRET_LIMIT // 1024} KiB")
        return SecretBytes(answer.data)


class RemoteCredentials:
    def __init__(self, client: _Client) -> None:
        self._client = client
        self.tokens = RemoteTokens(client)

    async def get(self, host: str) -> Credential | None:
        session = await self._client.session()
        request = CredentialsRequest(Host=_known_as(host))
        try:
            answer = await session.channel.unary(_CREDENTIALS, request, CredentialsResponse)
        except RpcError as error:
            if error.code is Code.UNIMPLEMENTED:
                return None
            raise _refused(session, f"credentials for {host}", error) from error
        if not answer.Secret:
            return None
        return Credential(username=answer.Username or IDENTITY_TOKEN, password=SecretBytes(answer.Secret.encode()))


class RemoteTokens:
    """Tokens that the client fetches: what it has an authority for, whose key proves to a daemon which clients may use
    the same token. Ours are of one build and never shared, so that it has one is all that we need to know.

    Facts: BuildKit session/auth/auth.go, util/resolver/authorizer.go (AddResponses, fetchToken).
    """

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._salt = os.urandom(_SALT)
        self._authorities: dict[str, bool] = {}

    async def fetch(self, host: str, *, realm: str, service: str, scopes: tuple[str, ...]) -> Token | None:
        session = await self._client.session()
        try:
            if not await self._has_authority(session, host):
                return None
            request = FetchTokenRequest(
                ClientID=_CLIENT_ID, Host=_known_as(host), Realm=realm, Service=service, Scopes=scopes
            )
            answer = await session.channel.unary(_FETCH_TOKEN, request, FetchTokenResponse)
        except RpcError as error:
            raise _refused(session, f"a token for {host}", error) from error
        return Token(value=SecretBytes(answer.Token.encode()), life=answer.ExpiresIn or _TOKEN_LIFE)

    async def _has_authority(self, session: ClientSession, host: str) -> bool:
        if host not in self._authorities:
            request = GetTokenAuthorityRequest(Host=_known_as(host), Salt=self._salt)
            try:
                answer = await session.channel.unary(_AUTHORITY, request, GetTokenAuthorityResponse)
            except RpcError as error:
                if error.code not in (Code.UNIMPLEMENTED, Code.UNAVAILABLE) or session.ended:
                    raise
                answer = GetTokenAuthorityResponse()
            self._authorities[host] = bool(answer.PublicKey)
        return self._authorities[host]


def _known_as(host: str) -> str:
    return _HUB_API if host in (DOCKER_HUB, "index.docker.io") else host


class RemoteSshAgents:
    """Sockets of the forwarded agents lie in `spool` and carry the name of the lease `owner`."""

    def __init__(self, client: _Client, *, spool: Path, owner: str) -> None:
        self._client = client
        self._spool = spool
        self._owner = owner

    async def open(self, agent_id: str) -> AbstractAsyncContextManager[str] | None:
        session = await self._client.session()
        agent = agent_id or "default"
        try:
            if not await has_agent(session.channel, agent):
                return None
        except RpcError as error:
            raise _refused(session, f"ssh agent {agent}", error) from error
        return agent_socket(session.channel, agent, spool=self._spool, owner=self._owner)


class Uploads:
    """Streams that a client offers under a URL of its own (`http://buildkit-session/...`)."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    @asynccontextmanager
    async def pull(self, host: str, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of one upload. Raises SourceError."""
        session = await self._client.session()
        metadata = (("urlpath", path), ("urlhost", host))
        try:
            async with session.channel.stream(_PULL, BytesMessage, BytesMessage, metadata=metadata) as call:

                async def pieces() -> AsyncIterator[bytes]:
                    while (message := await call.receive()) is not None:
                        yield message.data

                yield pieces()
        except RpcError as error:
            raise _refused(session, f"upload {path}", error) from error


class RemoteLayouts:
    def __init__(self, client: _Client) -> None:
        self._client = client

    def find(self, store: str, session: str) -> ClientLayout:
        return ClientLayout(partial(self._client.sessions.get, session or self._client.id), store)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSession:
    """`worker.session.Session` for one build of a client elsewhere."""

    client: _Client
    id: str
    directories: RemoteDirectories
    secrets: RemoteSecrets
    ssh_agents: RemoteSshAgents
    credentials: RemoteCredentials
    sinks: RemoteSinks
    layouts: RemoteLayouts
    uploads: Uploads

    @property
    def place(self) -> str:
        """What the client says for this purpose (BuildKit session/manager.go: SharedKey)."""
        session = self.client.sessions.get_nowait(self.id)
        return session.shared_key if session is not None else ""


def remote_session(sessions: Sessions, id: str, *, cache: Cache, received: ReceivedDirectories) -> RemoteSession:
    """The session `id`, which may not be there yet."""
    client = _Client(sessions, id)
    return RemoteSession(
        client=client,
        id=id,
        directories=RemoteDirectories(client, received),
        secrets=RemoteSecrets(client),
        ssh_agents=RemoteSshAgents(client, spool=cache.root / "ingest", owner=cache.lease.id),
        credentials=RemoteCredentials(client),
        sinks=RemoteSinks(client.session, cache.layers),
        layouts=RemoteLayouts(client),
        uploads=Uploads(client),
    )


def remote_credentials(sessions: Sessions, id: str) -> RemoteCredentials:
    """What the client of session `id` knows of registries, for a call that is no build."""
    return RemoteCredentials(_Client(sessions, id))


def _refused(session: ClientSession, what: str, error: RpcError) -> BuildError:
    """A client of ours says itself what is wrong."""
    if session.ended or error.code is Code.UNAVAILABLE:
        return SessionGone(f"{what}: the client has gone")
    ours = any(detail.type_url == OURS for detail in error.details)
    refused = from_rpc(error) if ours else SourceError(f"{what}: {error.message}")
    refused.is_clients = True
    return refused
