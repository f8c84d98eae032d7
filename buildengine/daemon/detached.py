"""A pybuildd that runs on by itself: started, found and ended from a command, without systemd.

There is no pid file: whoever listens at a unix socket is known to the kernel (unix(7), SO_PEERCRED), so nobody else is
ever taken for the daemon, and nothing of a killed one is left to be believed. That it serves it tells as it tells
systemd (sd_notify(3)).
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from buildengine.errors import BuildError, HostError, InternalError, StoreError, UserError
from buildengine.values import dataclass

LOG = Path("/var/log/pybuildd.log")
_MODULE = "buildengine.daemon.main"
_STARTING, _ENDING = 60.0, 20.0  # seconds; a daemon that is told to end takes ten at most
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_SHOWN = 64 << 10  # bytes at the end of a log
_ERRORS: Mapping[int, type[BuildError]] = {1: UserError, 2: UserError, 3: HostError, 4: StoreError}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Who listens at a socket. `pid` 0: it is not in our pid namespace. `words` are its command line."""

    pid: int
    words: tuple[str, ...]

    @property
    def is_pybuildd(self) -> bool:
        return _MODULE in self.words or any(Path(word).name == "pybuildd" for word in self.words[:2])

    @property
    def root(self) -> str:
        """Its state directory, where its command line says so."""
        return next((after for word, after in zip(self.words, self.words[1:], strict=False) if word == "--root"), "")


def find(path: str) -> Found | None:
    """Who listens at the socket `path`; None when nobody does. Raises HostError when we may not know."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except PermissionError as error:
            raise HostError(f"the socket {path} is for root and its group", hint="use sudo") from error
        except OSError:
            return None
        pid, _, _ = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    words: tuple[str, ...] = ()
    with suppress(OSError):
        words = tuple(os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).rstrip("\0").split("\0"))
    return Found(pid=pid, words=words)


def start(root: Path, path: str, log: Path, flags: Sequence[str], environment: Mapping[str, str]) -> Found:
    """Start pybuildd on the socket `path` and wait until it serves. What it says goes to the end of `log`.

    `flags` are more of its own. Raises what keeps it from serving.
    """
    argv = [sys.executable, "-P", "-m", _MODULE, "--root", str(root), "--addr", f"unix://{path}", *flags]
    name = f"pybuild-start-{secrets.token_hex(16)}"
    with _log_file(log) as sink, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        before = os.fstat(sink.fileno()).st_size
        told.bind(f"\0{name}")
        given = {**environment, "NOTIFY_SOCKET": f"@{name}"}
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd="/", env=given, start_new_session=True
        )
        try:
            _until_ready(process, told)
        except BaseException as error:
            if process.poll() is None:
                process.kill()
            status = process.wait()
            if isinstance(error, _Ended):
                raise _why(status, log, before) from None
            raise
    found = find(path)
    if found is None:
        raise HostError(f"pybuildd ended as soon as it served at {path}", hint=f"see {log}")
    return found


def stop(path: str) -> Found | None:
    """End the daemon at the socket `path` and wait until it has ended; None when there is none. Raises UserError."""
    found = find(path)
    if found is None:
        return None
    if not found.is_pybuildd or not found.pid:
        name = Path(found.words[0]).name if found.words else "a process elsewhere"
        raise UserError(f"{path} is served by {name} (pid {found.pid}), which is no pybuildd of ours to end")
    try:
        process = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return found
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], _ENDING)[0]:
            raise HostError(f"pybuildd (pid {found.pid}) does not end", hint="kill -9 ends it; nothing is lost")
    finally:
        os.close(process)
    return found


class _Ended(Exception):
    """The daemon ended before it served."""


def _until_ready(process: subprocess.Popen[bytes], told: socket.socket) -> None:
    """Raises _Ended, HostError."""
    watched = os.pidfd_open(process.pid)
    try:
        end = time.monotonic() + _STARTING
        while (left := end - time.monotonic()) > 0:
            ready = select.select([told.fileno(), watched], [], [], left)[0]
            if told.fileno() in ready and b"READY=1" in told.recv(4096).split(b"\n"):
                return
            if watched in ready:
                raise _Ended
        raise HostError(f"pybuildd does not serve after {_STARTING:g} seconds")
    finally:
        os.close(watched)


def _why(status: int, log: Path, before: int) -> BuildError:
    """What the daemon said when it ended: its error and its hint."""
    with open(log, "rb") as file:
        file.seek(max(before, os.fstat(file.fileno()).st_size - _SHOWN))
        lines = file.read().decode(errors="replace").splitlines()
    message = next((line for line in reversed(lines) if line.startswith("pybuildd: ")), "")
    hint = next((line for line in reversed(lines) if line.startswith("hint: ")), f"hint: see {log}")
    text = message.removeprefix("pybuildd: ") or f"pybuildd ended with status {status} before it served"
    return _ERRORS.get(status, InternalError)(text, hint=hint.removeprefix("hint: "))


def _log_file(log: Path) -> IO[bytes]:
    try:
        return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640), "ab")
    except OSError as error:
        raise UserError(f"cannot write the log {log}: {error.strerror}", hint="name another file with --log") from error
