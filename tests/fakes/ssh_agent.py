"""An ssh agent with a key, and the program that asks it, as files to put into an image.

with ssh_agent(tmp_path) as agent:
    agent.fingerprint          # what `ssh-add -l` prints where agent.socket can be reached
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.image_tools import run


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    socket: Path
    fingerprint: str


@contextmanager
def ssh_agent(work: Path) -> Iterator[Agent]:
    """For this block. Its files are in `work`."""
    socket, key = work / "agent.sock", work / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it says where its socket is
        run("ssh-add", "-q", key, environment={"SSH_AUTH_SOCK": str(socket)})
        yield Agent(socket=socket, fingerprint=run("ssh-keygen", "-l", "-f", key).decode().split()[1])
    finally:
        process.terminate()
        process.communicate()


def installed(program: str) -> dict[str, bytes]:
    """A program of the host with its libraries, as the files of a tree: with nothing else it runs there."""
    path = shutil.which(program)
    assert path is not None, f"no {program}"
    libraries = re.findall(r"(/\S+) \(", run("ldd", path).decode())
    return {name.lstrip("/"): Path(os.path.realpath(name)).read_bytes() for name in (path, *libraries)}
