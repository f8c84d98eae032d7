"""systemd's two protocols: sockets that it has opened for us, and what it wants to know of our state.

Facts: sd_listen_fds(3), sd_notify(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_FIRST = 3  # SD_LISTEN_FDS_START


def inherited(environment: Mapping[str, str]) -> dict[int, str]:
    """The descriptors that were passed to this very process, with their names; they are closed on exec from now on."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = environment.get("LISTEN_FDS", "")
    if not count.isdigit():
        return {}
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found = {}
    for number in range(int(count)):
        os.set_inheritable(_FIRST + number, False)
        found[_FIRST + number] = names[number] if number < len(names) else ""
    return found


def notify(environment: Mapping[str, str], state: str) -> None:
    """Tell `READY=1` or `STOPPING=1`. Who is not there to hear it misses nothing."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
