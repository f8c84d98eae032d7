"""The way to a daemon: a socket, TCP with or without TLS, or `pybuild dial-stdio` on another host through ssh.

    async with connect("unix:///run/buildkit/buildkitd.sock") as daemon:
        ...

grpcio connects by itself, when the first call is made. It cannot be given a byte stream; so ssh is put behind a socket
of ours, in the abstract namespace (unix(7)): nothing is left of it whatever is killed, and only this process gets in.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from buildengine import __version__
from buildengine.api.rpc import MAX_MESSAGE, Code, RpcError
from buildengine.client.address import Address, TlsFiles, parse
from buildengine.client.connection import Connection
from buildengine.errors import BuildError, ConfigError, HostError, SourceError, UserError

if TYPE_CHECKING:
    import grpc.aio

_MOST_METADATA = 16 << 20  # bytes: a status carries the build file, and grpcio takes 8 KiB where nobody says more
_SAID = 4096  # bytes of what ssh complains about
_PATIENCE = 2.0  # seconds for ssh to end
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


@asynccontextmanager
async def connect(address: Address | str) -> AsyncIterator[Connection]:
    """Nothing is sent before the first call. What a call in the block raises leaves it as a BuildError.

    Raises ConfigError for an address that is none, HostError when there is no ssh.
    """
    if isinstance(address, str):
        address = parse(address)
    async with AsyncExitStack() as stack:
        ssh: _Ssh | None = None
        if address.scheme == "ssh":
            ssh = await stack.enter_async_context(_through_ssh(address))
        channel = _channel(address, ssh)
        await stack.enter_async_context(channel)
        try:
            yield Connection(channel, str(address))
        except RpcError as error:
            raise await _explained(address, ssh, error) from error


def _channel(address: Address, ssh: _Ssh | None) -> grpc.aio.Channel:
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


async def _explained(address: Address, ssh: _Ssh | None, error: RpcError) -> BuildError:
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


# --- ssh ---------------------------------------------------------------------------------------------------------


class _Ssh:
    """The abstract socket `name`: each connection to it is the standard input and output of an ssh of its own."""

    def __init__(self, address: Address) -> None:
        self.name = f"pybuild-{os.getpid()}-{secrets.token_hex(16)}"
        self._argv = ssh_command(address)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._said = os.memfd_create("ssh")
        self._running: list[subprocess.Popen[bytes]] = []

    async def complaint(self) -> str:
        """What ssh printed, in one line, once it has ended."""
        with suppress(subprocess.TimeoutExpired):
            for ssh in self._running:
                await asyncio.to_thread(ssh.wait, _PATIENCE)
        said = os.pread(self._said, _SAID, 0).decode(errors="replace")
        return " ".join(said.split()).removeprefix("error: ")

    async def serve(self) -> None:
        self._listener.bind("\0" + self.name)
        self._listener.listen()
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            with connection:
                peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                if _CREDENTIALS.unpack(peer)[0] == os.getpid():
                    self._start(connection)

    def _start(self, connection: socket.socket) -> None:
        """In a session of its own: Ctrl-C at our terminal is for us, and the build is cancelled through ssh."""
        connection.setblocking(True)
        self._running.append(
            subprocess.Popen(
                self._argv,
                stdin=connection.fileno(),
                stdout=connection.fileno(),
                stderr=self._said,
                start_new_session=True,
            )
        )

    async def close(self) -> None:
        self._listener.close()
        for ssh in self._running:
            ssh.terminate()
            try:
                await asyncio.to_thread(ssh.wait, _PATIENCE)
            except subprocess.TimeoutExpired:
                ssh.kill()
                ssh.wait()
        os.close(self._said)


@asynccontextmanager
async def _through_ssh(address: Address) -> AsyncIterator[_Ssh]:
    if shutil.which("ssh") is None:
        raise HostError(f"{address} needs the program ssh", hint="install openssh-client")
    ssh = _Ssh(address)
    serving = asyncio.create_task(ssh.serve())
    try:
        yield ssh
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await asyncio.shield(ssh.close())


def ssh_command(address: Address) -> tuple[str, ...]:
    """The command that carries the connection. (buildctl runs itself there; its option of that name is the same.)"""
    user = ("-l", address.user) if address.user else ()
    port = ("-p", str(address.port)) if address.port is not None else ()
    # ssh hands its words to a shell on the other side
    where = ("--addr", shlex.quote(f"unix://{address.path}")) if address.path else ()
    return ("ssh", *user, *port, "--", address.host, "pybuild", *where, "dial-stdio")
