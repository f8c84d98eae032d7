"""The ssh agents of this host, for steps elsewhere: each `ForwardAgent` call is one connection to an agent's socket.

Facts: BuildKit session/sshforward (ssh.go, copy.go).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from buildengine.api import rpc
from buildengine.api.rpc import Code, RpcError, ServerCall
from buildengine.api.ssh_pb2 import BytesMessage, CheckAgentRequest, CheckAgentResponse
from buildengine.builder import SshSource
from buildengine.errors import UserError

_SERVICE = "moby.sshforward.v1.SSH"
_AGENT_ID = "buildkit.ssh.id"
_CHUNK = 32 << 10

_Call = ServerCall[BytesMessage, BytesMessage]


class SshAgents:
    def __init__(self, sources: Iterable[SshSource]) -> None:
        self._sources = {source.id: source for source in sources}

    @property
    def services(self) -> rpc.Services:
        methods: rpc.Services = {
            "CheckAgent": rpc.unary(CheckAgentRequest, CheckAgentResponse, self._check),
            "ForwardAgent": rpc.stream(BytesMessage, BytesMessage, self._forward),
        }
        return rpc.service(_SERVICE, methods)

    async def _check(
        self, request: CheckAgentRequest, call: ServerCall[CheckAgentRequest, CheckAgentResponse]
    ) -> CheckAgentResponse:
        self._socket(request.ID)
        return CheckAgentResponse()

    def _socket(self, agent_id: str) -> Path:
        """Raises RpcError when there is no such agent, UserError when it is none."""
        source = self._sources.get(agent_id or "default")
        if source is None or not source.paths:
            raise RpcError(Code.NOT_FOUND, f"unset ssh forward key {agent_id}")
        path = source.paths[0]
        if len(source.paths) > 1 or not path.is_socket():
            raise UserError(f"ssh agent {source.id!r}: {path} is not the socket of an agent")
        return path

    async def _forward(self, call: _Call) -> None:
        path = self._socket(rpc.value(call.metadata, _AGENT_ID))
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise UserError(f"cannot connect to the ssh agent at {path}: {error.strerror}") from error
        asking = asyncio.create_task(_ask(call, writer))
        answering = asyncio.create_task(_answer(reader, call))
        try:
            await answering  # an agent that hangs up has the last word
        finally:
            for task in (asking, answering):
                task.cancel()
            await asyncio.gather(asking, answering, return_exceptions=True)
            writer.close()


async def _ask(call: _Call, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while messages := await call.receive_many():
            writer.write(b"".join(message.data for message in messages))
            await writer.drain()
        writer.write_eof()


async def _answer(reader: asyncio.StreamReader, call: _Call) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            await call.send(BytesMessage(data=data))
