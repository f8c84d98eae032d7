"""`pybuild registry serve` for a test: the program itself on a port of its own, and what it has logged.

    with own_registry(tmp_path / "registry") as registry:
        ... registry.address ...                      # 127.0.0.1:40123
        assert [r.method for r in registry.log()] == ["HEAD", "PUT"]

`log()` is complete: every request whose client has its answer is in it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.commands import PYBUILD

_MARK = "own-registry mark"
_PATIENCE = 30.0


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One line of the access log. `path` has the query too; `received` and `sent` count the bytes of the bodies."""

    number: int
    time: str
    remote: str
    method: str
    path: str
    status: int
    received: int
    sent: int
    seconds: float
    agent: str
    problem: str


class OwnRegistry:
    """A running registry. `url` has the scheme, `address` is host:port."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path, errors: Path) -> None:
        self.process = process
        self.url = url
        self.address = url.partition("://")[2]
        self._log = log
        self._errors = errors
        self._marks = 0

    def log(self, *, after: int = 0) -> list[Logged]:
        """The requests in the order in which they began, those with a number above `after`."""
        self._marks += 1
        mark = f"{_MARK} {self._marks}"
        _ask(self.url, mark)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            lines = sorted(self._lines(), key=lambda line: line.number)
            marked = next((line.number for line in lines if line.agent == mark), None)
            numbers = {line.number for line in lines}
            if marked is not None and numbers.issuperset(range(1, marked)):
                return [line for line in lines if after < line.number < marked and not line.agent.startswith(_MARK)]
            time.sleep(0.002)
        raise AssertionError("a request has not ended: " + "\n".join(map(str, lines)))

    @property
    def complaints(self) -> str:
        """What it said on standard error, after where it serves."""
        return self._errors.read_text().partition("\n")[2]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE)

    def _lines(self) -> list[Logged]:
        text = self._log.read_text()
        return [Logged(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]


@contextmanager
def own_registry(
    root: Path, *flags: object, environment: Mapping[str, str] | None = None, prefix: tuple[object, ...] = ()
) -> Iterator[OwnRegistry]:
    """The registry on the state directory `root`, on any free port unless `flags` say otherwise, for this block.

    `prefix` are words in front of the program, which has to exec it.
    """
    log, errors = root.with_name(f"{root.name}.access.log"), root.with_name(f"{root.name}.errors")
    log.write_bytes(b"")
    argv = [*prefix, PYBUILD, "--root", root, "registry", "serve", "--addr", "127.0.0.1:0", "--access-log", log, *flags]
    given = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(environment or {})}
    with open(errors, "wb") as sink:
        process = subprocess.Popen(
            [str(word) for word in argv], stdin=subprocess.DEVNULL, stderr=sink, env=given, cwd="/"
        )
    try:
        yield OwnRegistry(process, _serving(process, errors), log, errors)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            finally:
                process.kill()
                process.wait()


def _serving(process: subprocess.Popen[bytes], errors: Path) -> str:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None
        found = re.search(r"^serving (\S+)\n", errors.read_text(), re.MULTILINE)
        if found is not None:
            return found[1]
        if has_ended:
            break
        time.sleep(0.005)
    raise RuntimeError("pybuild registry serve did not start: " + errors.read_text()[-2000:])


def _ask(url: str, agent: str) -> None:
    scheme, _, address = url.partition("://")
    if scheme == "https":
        trusting = ssl._create_unverified_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(address, context=trusting)
    else:
        connection = http.client.HTTPConnection(address)
    try:
        connection.request("GET", "/v2/", headers={"User-Agent": agent, "Connection": "close"})
        connection.getresponse().read()
    finally:
        connection.close()
