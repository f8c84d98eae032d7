"""Where the daemon is reached: unix sockets, TCP with TLS, sockets that systemd has opened.

    unix:///run/buildkit/buildkitd.sock     tcp://127.0.0.1:1234     fd:// or fd://NAME or fd://3

Facts: BuildKit cmd/buildkitd/main.go (getListener, serverCredentials).
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from buildengine.daemon.certificates import TlsFiles, server_context
from buildengine.errors import ConfigError, HostError
from buildengine.values import dataclass

_BACKLOG = 1024
_SCHEMES = ("unix", "tcp", "fd")
# Of TCP, in seconds: silence before the other host is asked for a sign, between two questions, and until it counts as
# gone, also when it does not acknowledge what we have sent. What only its clients wanted ends then. tcp(7)
_SILENCE, _AGAIN, _QUESTIONS, _GONE = 15, 10, 3, 45


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use a unix socket: its owner and its group."""

    uid: int
    gid: int


class Listener:
    """A socket that is bound, and listens after `listen`. `close` gives its path back."""

    def __init__(self, sock: socket.socket, address: str, tls: ssl.SSLContext | None = None, path: str = "") -> None:
        self.address = address
        self._socket = sock
        self._tls = tls
        self._path = path

    @property
    def is_open(self) -> bool:
        """Whether nothing but the address keeps anybody out."""
        return self.address.startswith("tcp://") and (self._tls is None or self._tls.verify_mode != ssl.CERT_REQUIRED)

    def listen(self) -> None:
        """To be called in trio."""
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            _notice_the_gone(self._socket)
        self._socket.listen(_BACKLOG)
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))

    async def accept(self) -> trio.abc.Stream:
        stream = await self._listener.accept()
        return stream if self._tls is None else trio.SSLStream(stream, self._tls, server_side=True)

    def close(self) -> None:
        """May be called twice: the path may be another daemon's by then."""
        path, self._path = self._path, ""
        if path:
            with suppress(OSError):
                os.unlink(path)
        self._socket.close()


def _notice_the_gone(listening: socket.socket) -> None:
    """Every connection has these from its listening socket."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _AGAIN)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _QUESTIONS)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE * 1000)


def bind(
    addresses: Sequence[str], access: Access, tls: TlsFiles | None, inherited: Mapping[int, str]
) -> list[Listener]:
    """Bind all of them, or none. Raises ConfigError, UserError and HostError."""
    context = None if tls is None else server_context(tls, ["h2"])
    bound: list[Listener] = []
    try:
        for address in addresses:
            bound += _bind(address, access, context, inherited)
    except BaseException:
        for listener in bound:
            listener.close()
        raise
    return bound


def _bind(address: str, access: Access, tls: ssl.SSLContext | None, inherited: Mapping[int, str]) -> list[Listener]:
    scheme, separator, place = address.partition("://")
    if not separator:
        raise ConfigError(f"address {address} does not contain proto, you meant unix://{address} ?")
    if scheme == "unix":
        return [_unix(address, place, access)]
    if scheme == "tcp":
        return [Listener(_tcp(address, place), address, tls)]
    if scheme == "fd":
        return [Listener(socket.socket(fileno=fd), f"fd://{fd}", tls) for fd in _chosen(place, inherited)]
    raise ConfigError(f"cannot listen at {address}", hint=f"the schemes are {', '.join(_SCHEMES)}")


def _unix(address: str, path: str, access: Access) -> Listener:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _take_away(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o777)  # nobody gets in before it has its owner
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        os.chown(path, access.uid, access.gid)
        os.chmod(path, 0o660)
    except OSError as error:
        raise HostError(f"cannot listen at {address}: {error.strerror or error}") from error
    return Listener(sock, address, path=path)


def _take_away(path: str) -> None:
    """The socket of a daemon that is gone. Raises HostError for one that answers."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise HostError(f"another process serves {path}", hint="end it, or name another --addr")


def _tcp(address: str, place: str) -> socket.socket:
    host, colon, port = place.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"cannot listen at {address}", hint="a TCP address is tcp://HOST:PORT")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
    except OSError as error:
        raise HostError(f"cannot listen at {address}: {error.strerror or error}") from error
    return sock


def _chosen(place: str, inherited: Mapping[int, str]) -> list[int]:
    """All inherited sockets, or the one of that number or name."""
    found = [fd for fd, name in inherited.items() if place in ("", "*", name, str(fd))]
    if not found:
        raise ConfigError(
            f"no socket was passed to us as fd://{place}", hint="systemd passes those of the unit's .socket file"
        )
    return found
