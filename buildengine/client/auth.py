"""The user's logins, for registries that a daemon elsewhere pulls from and pushes to: as docker keeps them.

A daemon first asks for an authority (`client.authority`). Where there is one it asks for tokens, and the password stays
here; the password itself it asks for where a registry knows no tokens, or where BUILDKIT_NO_CLIENT_TOKEN is set, for
clients that cannot reach the token services.

Facts: BuildKit session/auth/authprovider/authprovider.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from buildengine.api import rpc
from buildengine.api.auth_pb2 import (
    CredentialsRequest,
    CredentialsResponse,
    FetchTokenRequest,
    FetchTokenResponse,
    GetTokenAuthorityRequest,
    GetTokenAuthorityResponse,
    VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
)
from buildengine.api.rpc import Code, RpcError, ServerCall
from buildengine.client.offload import offload
from buildengine.errors import HostError, SourceError
from buildengine.values import dataclass
from worker.session import IDENTITY_TOKEN, Credential, Credentials

if TYPE_CHECKING:  # few builds need any of it
    from buildengine.client.authority import AuthorityKey
    from buildengine.config import RegistryConfig

_SERVICE = "moby.filesync.v1.Auth"
_TRUE = ("1", "t", "T", "TRUE", "true", "True")  # strconv.ParseBool


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """`directory` is docker's, `environment` that of its helpers, `registries` how token services are reached."""

    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    registries: Mapping[str, RegistryConfig] = field(default_factory=dict)


class Auth:
    """docker's config.json is read when the first registry asks."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
        self._credentials: Credentials | None = None
        self._seeds: dict[str, bytes] = {}

    @property
    def services(self) -> rpc.Services:
        return rpc.service(
            _SERVICE,
            {
                "Credentials": rpc.unary(CredentialsRequest, CredentialsResponse, self._get),
                "FetchToken": rpc.unary(FetchTokenRequest, FetchTokenResponse, self._fetch),
                "GetTokenAuthority": rpc.unary(GetTokenAuthorityRequest, GetTokenAuthorityResponse, self._public),
                "VerifyTokenAuthority": rpc.unary(
                    VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse, self._signed
                ),
            },
        )

    async def _get(
        self, request: CredentialsRequest, call: ServerCall[CredentialsRequest, CredentialsResponse]
    ) -> CredentialsResponse:
        found = await self._credential(request.Host)
        if found is None:
            return CredentialsResponse()
        username = "" if found.username == IDENTITY_TOKEN else found.username
        return CredentialsResponse(Username=username, Secret=found.password.reveal().decode())

    async def _fetch(
        self, request: FetchTokenRequest, call: ServerCall[FetchTokenRequest, FetchTokenResponse]
    ) -> FetchTokenResponse:
        from buildengine.client.tokens import fetch

        issued = await fetch(self._logins, request, await self._credential(request.Host))
        return FetchTokenResponse(Token=issued.token.reveal().decode(), ExpiresIn=issued.life)

    async def _public(
        self, request: GetTokenAuthorityRequest, call: ServerCall[GetTokenAuthorityRequest, GetTokenAuthorityResponse]
    ) -> GetTokenAuthorityResponse:
        key = await self._key(request.Host, request.Salt)
        return GetTokenAuthorityResponse(PublicKey=key.public)

    async def _signed(
        self,
        request: VerifyTokenAuthorityRequest,
        call: ServerCall[VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse],
    ) -> VerifyTokenAuthorityResponse:
        key = await self._key(request.Host, request.Salt)
        return VerifyTokenAuthorityResponse(Signed=key.signed(request.Payload))

    async def _key(self, host: str, salt: bytes) -> AuthorityKey:
        """Raises RpcError(UNAVAILABLE) where there shall be none."""
        if self._logins.environment.get("BUILDKIT_NO_CLIENT_TOKEN") in _TRUE:
            raise RpcError(Code.UNAVAILABLE, "client side tokens disabled")
        from buildengine.client.authority import AuthorityKey, seed

        if host not in self._seeds:
            has_login = await self._credential(host) is not None
            self._seeds[host] = await offload(seed, self._logins.directory, host) if has_login else b""
        return AuthorityKey(salt, self._seeds[host])

    async def _credential(self, host: str) -> Credential | None:
        from worker.registry.dockerconfig import host_of

        if self._credentials is None:
            self._credentials = await offload(self._read)
        return await self._credentials.get(host_of(host))

    def _read(self) -> Credentials:
        from worker.registry import configfile
        from worker.registry.creds import DockerCredentials
        from worker.registry.dockerconfig import parse_docker_config

        file = self._logins.directory / "config.json"
        config = parse_docker_config(configfile.read(file), filename=str(file))
        return DockerCredentials(config, env=self._logins.environment, run=run_program)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    code: int
    stdout: bytes
    stderr: bytes


async def run_program(
    argv: Sequence[str], *, input: bytes, env: Mapping[str, str], limit: int, timeout: float
) -> Ended:
    """A credential helper to its end; it is killed when we are cancelled. Raises HostError, SourceError."""
    import shutil  # 3 ms, and few have a helper

    program = shutil.which(argv[0], path=env.get("PATH"))
    if program is None:
        raise HostError(f"the program {argv[0]!r} is not installed", hint=f"install {argv[0]} or add it to PATH")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, *argv[1:], stdin=pipe, stdout=pipe, stderr=pipe, env=dict(env), limit=limit
    )
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(input)
    except TimeoutError:
        raise SourceError(f"{argv[0]} did not end within {timeout:g} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if len(stdout) > limit:
        raise SourceError(f"{argv[0]} printed more than {limit} bytes")
    return Ended(code=process.returncode or 0, stdout=stdout, stderr=stderr)
