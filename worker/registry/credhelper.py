"""One credential helper: the program `docker-credential-NAME`, which keeps secrets where the file would not.

Facts: docker/docker-credential-helpers (client/client.go, credentials/credentials.go). What is secret goes through
its standard input and comes from its standard output, never through its arguments.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from buildengine.errors import HostError, RegistryError, SourceError
from worker.oci import jsonbytes
from worker.oci.document import Fields
from worker.session import Credential, SecretBytes

_MAX_ANSWER = 1 << 20
_TIMEOUT = 60.0
_NOT_FOUND = b"credentials not found in native keychain"


class Ended(Protocol):
    """How the program ended."""

    @property
    def code(self) -> int: ...

    @property
    def stdout(self) -> bytes: ...

    @property
    def stderr(self) -> bytes: ...


Run = Callable[..., Awaitable[Ended]]
"""`buildengine.programs.run`, or what stands for it where another loop runs."""


async def run_program(argv: list[str], **options: Any) -> Ended:
    """In trio."""
    from buildengine.programs import run

    return await run(argv, **options)


class CredentialHelper:
    """`env` is the whole environment of the program. `server` is a key as docker spells it (`dockerconfig.key_of`)."""

    def __init__(self, name: str, env: Mapping[str, str], run: Run = run_program) -> None:
        self._program = f"docker-credential-{name}"
        self._env = env
        self._run = run

    async def get(self, server: str) -> Credential | None:
        """Raises RegistryError, HostError."""
        answer = await self._ask("get", server, server.encode())
        if answer is None:
            return None
        try:
            fields = Fields.parse(answer, what=f"the answer of {self._program}", limit=_MAX_ANSWER)
            username, secret = fields.text("Username", default=""), fields.text("Secret", default="")
        except SourceError:
            raise HostError(f"{self._program} gave an answer that is not a credential") from None
        return Credential(username=username, password=SecretBytes(secret.encode())) if secret else None

    async def store(self, server: str, credential: Credential) -> None:
        """Raises RegistryError, HostError."""
        secret = credential.password.reveal().decode()
        order = {"ServerURL": server, "Username": credential.username, "Secret": secret}
        await self._ask("store", server, jsonbytes.compact(order))

    async def erase(self, server: str) -> None:
        """Raises RegistryError, HostError."""
        await self._ask("erase", server, server.encode())

    async def _ask(self, action: str, server: str, input: bytes) -> bytes | None:
        """What the program answers; None when it knows nothing of `server`."""
        completed = await self._run(
            [self._program, action], input=input, env=self._env, limit=_MAX_ANSWER, timeout=_TIMEOUT
        )
        if completed.code == 0:
            return completed.stdout
        if _NOT_FOUND in completed.stdout + completed.stderr:
            return None
        # What a helper prints may be a secret: only its exit code is told.
        raise RegistryError(
            f"{self._program} {action} failed for {server} with exit code {completed.code}",
            hint=f"try it: echo {server} | {self._program} get",
        )
