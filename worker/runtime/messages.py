"""Messages with descriptors between engine, launcher, supervisor and PID 1: marshal over SOCK_SEQPACKET sockets.

marshal, because it is built in, knows bytes, and both ends are the same interpreter of the same engine: nothing
that an image or a user wrote is ever unmarshalled. What may be large (a request with its secrets) travels as a
memfd. `_socket` is what `socket` wraps; the wrapper costs 10 ms to import and this is on the launcher's path.
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMIT = 128 << 10  # of one message; the default socket buffer holds 208 KiB
_MAX_FDS = 253  # SCM_MAX_FD, unix(7)


class Lost(Exception):
    """The other end is gone."""


def pair() -> tuple[_socket.socket, _socket.socket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def adopt(fd: int) -> _socket.socket:
    """The socket that came as descriptor `fd`."""
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)


def send(channel: _socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Raises Lost when nobody will ever read it."""
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"={len(fds)}i", *fds))] if fds else []
    try:
        channel.sendmsg([marshal.dumps(message)], rights)
    except (BrokenPipeError, ConnectionResetError):
        raise Lost from None


def tell(channel: _socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """`send`, for what is of no use to anybody once nobody reads it."""
    try:
        send(channel, message, fds)
    except Lost:
        pass


def receive(channel: _socket.socket, flags: int = 0) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors (close-on-exec). Raises Lost at the end, BlockingIOError as told."""
    space = _socket.CMSG_SPACE(_MAX_FDS * 4)
    try:
        data, rights, _, _ = channel.recvmsg(_LIMIT, space, flags | _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # said once, and first, when the other end died with unread messages of ours
        data, rights, _, _ = channel.recvmsg(_LIMIT, space, flags | _socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise Lost
    fds = [fd for _level, _type, raw in rights for (fd,) in struct.iter_unpack("=i", raw[: len(raw) - len(raw) % 4])]
    return marshal.loads(data), fds


def is_readable(fd: int) -> bool:
    """Whether there is something, or the end of it, now."""
    poll = select.poll()  # select(2) knows no descriptor above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def envelope(content: dict[str, Any]) -> int:
    """A memfd with `content`, of any size."""
    fd = os.memfd_create("step", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        marshal.dump(content, file)
    return fd


def open_envelope(fd: int) -> dict[str, Any]:
    content: dict[str, Any] = marshal.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    return content


def rehearse() -> None:
    """Send ourselves a message. After a fork the first write to each page of the heap costs 3 us, and a process
    that waits for its request has time for that now."""
    ours, theirs = pair()
    fd = envelope({"rehearsal": [(str(number), {"number": number}) for number in range(100)]})
    send(ours, {}, (fd,))
    for received in receive(theirs)[1]:
        open_envelope(received)
        os.close(received)
    os.close(fd)
    ours.close()
    theirs.close()
