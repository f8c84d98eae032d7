"""The way to a daemon on another host: `pybuild dial-stdio` there, started by ssh.

grpcio connects by itself and cannot be given a byte stream. So ssh is put behind a socket of ours, in the abstract
namespace (unix(7)): nothing is left of it whatever is killed, and only this process gets in.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from buildengine.client.address import Address
from buildengine.errors import HostError

_SAID = 4096  # bytes of what ssh complains about
_PATIENCE = 2.0  # seconds for ssh to end
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Ssh:
    """The abstract socket `name`: each connection to it is the standard input and output of an ssh of its own."""

    def __init__(self, address: Address) -> None:
        self.name = f"pybuild-{os.getpid()}-{os.urandom(16).hex()}"
        self._argv = command(address)
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
async def through_ssh(address: Address) -> AsyncIterator[Ssh]:
    if shutil.which("ssh") is None:
        raise HostError(f"{address} needs the program ssh", hint="install openssh-client")
    ssh = Ssh(address)
    serving = asyncio.create_task(ssh.serve())
    try:
        yield ssh
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await asyncio.shield(ssh.close())


def command(address: Address) -> tuple[str, ...]:
    """The command that carries the connection. (buildctl runs itself there; its option of that name is the same.)"""
    user = ("-l", address.user) if address.user else ()
    port = ("-p", str(address.port)) if address.port is not None else ()
    # ssh hands its words to a shell on the other side
    where = ("--addr", shlex.quote(f"unix://{address.path}")) if address.path else ()
    return ("ssh", *user, *port, "--", address.host, "pybuild", *where, "dial-stdio")
