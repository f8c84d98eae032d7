"""Standard input and output as a connection to a daemon on this host: the far end of `ssh://`.

sshd may give one socket for both (session.c, without USE_PIPES), or a pair of pipes, so nothing is assumed of them.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress

from buildengine.client.address import Address
from buildengine.errors import SourceError, UserError

_CHUNK = 256 << 10


def carry(address: Address) -> None:
    """Until the daemon hangs up. Raises UserError, SourceError."""
    if address.scheme != "unix":
        raise UserError(f"dial-stdio is for a socket on this host, not for {address}", hint="--addr unix://PATH")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        try:
            daemon.connect(address.path)
        except OSError as error:
            raise SourceError(f"cannot connect to the daemon at {address}: {error.strerror}") from error
        with suppress(ConnectionError):
            _relay(daemon, 0, 1)


def _relay(daemon: socket.socket, stdin: int, stdout: int) -> None:
    asking, answering = _Way(stdin, daemon.fileno()), _Way(daemon.fileno(), stdout)
    for fd in (daemon.fileno(), stdin, stdout):
        os.set_blocking(fd, False)
    while not answering.is_over:
        poll = select.poll()
        wanted: dict[int, int] = {}
        for way in (asking, answering):
            for fd, event in way.waits_for():
                wanted[fd] = wanted.get(fd, 0) | event
        for fd, events in wanted.items():
            poll.register(fd, events)
        for fd, _ in poll.poll():
            for way in (asking, answering):
                way.may_move(fd)
        if asking.is_over and not asking.is_told:
            asking.is_told = True
            daemon.shutdown(socket.SHUT_WR)


class _Way:
    """One direction: what was read waits until it is written."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._waiting = b""
        self._ended = False
        self.is_told = False  # the sink knows that it is over

    @property
    def is_over(self) -> bool:
        return self._ended and not self._waiting

    def waits_for(self) -> list[tuple[int, int]]:
        if self._waiting:
            return [(self._sink, select.POLLOUT)]
        return [] if self._ended else [(self._source, select.POLLIN)]

    def may_move(self, fd: int) -> None:
        with suppress(BlockingIOError):
            if self._waiting and fd == self._sink:
                self._waiting = self._waiting[os.write(self._sink, self._waiting) :]
            elif not self._waiting and not self._ended and fd == self._source:
                self._waiting = os.read(self._source, _CHUNK)
                self._ended = not self._waiting
