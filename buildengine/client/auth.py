"""The user's logins, for registries that a daemon elsewhere pulls from and pushes to: as docker keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from buildengine.api import rpc
from buildengine.api.auth_pb2 import CredentialsRequest, CredentialsResponse
from buildengine.api.rpc import ServerCall
from buildengine.client.offload import offload
from buildengine.errors import HostError, SourceError
from buildengine.values import dataclass
from worker.session import IDENTITY_TOKEN, Credentials

_SERVICE = "moby.filesync.v1.Auth"


class Auth:
    """`file` is docker's config.json, read when the first registry asks; `environment` is that of its helpers."""

    def __init__(self, file: Path, environment: Mapping[str, str]) -> None:
        self._file = file
        self._environment = environment
        self._credentials: Credentials | None = None

    @property
    def services(self) -> rpc.Services:
        return rpc.service(_SERVICE, {"Credentials": rpc.unary(CredentialsRequest, CredentialsResponse, self._get)})

    async def _get(
        self, request: CredentialsRequest, call: ServerCall[CredentialsRequest, CredentialsResponse]
    ) -> CredentialsResponse:
        from worker.registry.dockerconfig import host_of

        if self._credentials is None:
            self._credentials = await offload(self._read)
        found = await self._credentials.get(host_of(request.Host))
        if found is None:
            return CredentialsResponse()
        username = "" if found.username == IDENTITY_TOKEN else found.username
        return CredentialsResponse(Username=username, Secret=found.password.reveal().decode())

    def _read(self) -> Credentials:
        from worker.registry import configfile
        from worker.registry.creds import DockerCredentials
        from worker.registry.dockerconfig import parse_docker_config

        config = parse_docker_config(configfile.read(self._file), filename=str(self._file))
        return DockerCredentials(config, env=self._environment, run=run_program)


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
