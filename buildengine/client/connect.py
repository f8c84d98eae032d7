"""The way to a daemon: a socket, TCP with or without TLS, or another host through ssh.

    async with connect("unix:///run/buildkit/buildkitd.sock") as daemon:
        ...

grpcio connects by itself, when the first call is made.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from buildengine import __version__
from buildengine.api.rpc import MAX_MESSAGE, Code, RpcError
from buildengine.client.address import Address, TlsFiles, parse
from buildengine.client.connection import Connection
from buildengine.errors import BuildError, ConfigError, SourceError, UserError

if TYPE_CHECKING:
    import grpc.aio

    from buildengine.client.throughssh import Ssh

_MOST_METADATA = 16 << 20  # bytes: a status carries the build file, and grpcio takes 8 KiB where nobody says more


@asynccontextmanager
async def connect(address: Address | str) -> AsyncIterator[Connection]:
    """Nothing is sent before the first call. What a call in the block raises leaves it as a BuildError.

    Raises ConfigError for an address that is none, HostError when there is no ssh.
    """
    if isinstance(address, str):
        address = parse(address)
    async with AsyncExitStack() as stack:
        ssh: Ssh | None = None
        if address.scheme == "ssh":
            from buildengine.client.throughssh import through_ssh

            ssh = await stack.enter_async_context(through_ssh(address))
        channel = _channel(address, ssh)
        await stack.enter_async_context(channel)
        try:
            yield Connection(channel, str(address))
        except RpcError as error:
            raise await _explained(address, ssh, error) from error


def _channel(address: Address, ssh: Ssh | None) -> grpc.aio.Channel:
    # grpcio reads both when it is imported: nobody forks here, and what it logs we tell ourselves.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc.aio

    options: list[tuple[str, object]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.max_send_message_length", MAX_MESSAGE),
        ("grpc.max_metadata_size", _MOST_METADATA),
        ("grpc.absolute_max_metadata_size", _MOST_METADATA),
        ("grpc.primary_user_agent", f"pybuild/{__version__}"),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if ssh is not None:
        return grpc.aio.insecure_channel(f"unix-abstract:{ssh.name}", options)
    if address.scheme == "unix":
        return grpc.aio.insecure_channel(f"unix:{address.path}", options)
    host = f"[{address.host}]" if ":" in address.host else address.host
    target = f"dns:///{host}:{address.port}"
    if address.tls is None:
        return grpc.aio.insecure_channel(target, options)
    if address.tls.server_name:
        options.append(("grpc.ssl_target_name_override", address.tls.server_name))
    return grpc.aio.secure_channel(target, _credentials(address.tls), options)


def _credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    import grpc

    if (tls.certificate is None) != (tls.key is None):
        raise ConfigError("a TLS client certificate needs its key, and a key its certificate")
    return grpc.ssl_channel_credentials(_pem(tls.authority), _pem(tls.key), _pem(tls.certificate))


def _pem(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None


# --- why there is no connection ----------------------------------------------------------------------------------


async def _explained(address: Address, ssh: Ssh | None, error: RpcError) -> BuildError:
    from buildengine.api.status import from_rpc

    if error.code is Code.UNIMPLEMENTED and (service := error.message.partition("unknown service ")[2]):
        return UserError(
            f"the daemon at {address} has no service {service}",
            hint="BuildKit's API has no word for this, and pybuildd has: is it one, and as new as this pybuild?",
        )
    if error.code is not Code.UNAVAILABLE or error.details:
        return from_rpc(error)
    if ssh is not None:
        return SourceError(
            f"cannot reach the daemon at {address}: {await ssh.complaint() or error.message}",
            hint=f"ssh {address.host} must work without a password, and pybuild must be installed there",
        )
    if address.scheme == "unix":
        return await _socket_problem(address, error)
    return SourceError(f"cannot reach the daemon at {address}: {error.message}")


async def _socket_problem(address: Address, error: RpcError) -> BuildError:
    """What connect(2) says of the socket; when it says nothing the daemon went away meanwhile."""
    try:
        _, writer = await asyncio.open_unix_connection(address.path)
    except OSError as problem:
        hint = "is it running? start pybuildd, or leave --addr out: the command builds by itself"
        if isinstance(problem, PermissionError):
            hint = "the socket is for root and its group: use sudo"
        return SourceError(f"cannot connect to the daemon at {address}: {os.strerror(problem.errno or 0)}", hint=hint)
    writer.close()
    return SourceError(f"the daemon at {address} broke the connection: {error.message}")
