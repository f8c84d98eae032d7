"""The secrets of a build, read when a step asks for one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from buildengine.api import rpc
from buildengine.api.rpc import Code, RpcError, ServerCall
from buildengine.api.secrets_pb2 import GetSecretRequest, GetSecretResponse
from buildengine.builder import SecretSource
from buildengine.client.offload import offload
from buildengine.secretfile import read_secret

_SERVICE = "moby.buildkit.secrets.v1.Secrets"


class Secrets:
    """`environment` holds the values of secrets that are variables."""

    def __init__(self, sources: Iterable[SecretSource], environment: Mapping[str, str]) -> None:
        self._sources = {source.id: source for source in sources}
        self._environment = environment

    @property
    def services(self) -> rpc.Services:
        return rpc.service(_SERVICE, {"GetSecret": rpc.unary(GetSecretRequest, GetSecretResponse, self._get)})

    async def _get(
        self, request: GetSecretRequest, call: ServerCall[GetSecretRequest, GetSecretResponse]
    ) -> GetSecretResponse:
        source = self._sources.get(request.ID)
        value = None if source is None else await offload(read_secret, source, self._environment)
        if value is None:
            raise RpcError(Code.NOT_FOUND, f"secret {request.ID}: not found")
        return GetSecretResponse(data=value)
