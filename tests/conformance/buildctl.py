"""buildctl before a daemon of ours: `buildctl` of the directory that $PEER names."""

from __future__ import annotations

import subprocess

from tests.conformance.peer import directory
from tests.fakes.daemon import Daemon


def ctl(running: Daemon, *words: object, stdin: bytes = b"", status: int = 0) -> str:
    """What it prints, on both streams."""
    done = raw(running.address, *words, stdin=stdin)
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == status, text
    return text


def raw(address: str, *words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = [str(directory() / "buildctl"), "--addr", address.replace("unix:", "unix://"), *map(str, words)]
    return subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=100)
