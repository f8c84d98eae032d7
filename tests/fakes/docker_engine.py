"""Docker's engine for a test: dockerd in namespaces of its own, so that nothing of it is seen outside or left there.

    with docker_engine(tmp_path) as docker:
        docker("image", "ls")

Its network namespace has no interface that is up, its mounts and processes end with it. What it writes in places that
no flag moves goes into memory of its own. It is for images: a container that is created is fine, one that is started
would leave control groups.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.image_tools import run

_NAMESPACES = (
    "unshare",
    "--mount",
    "--propagation=private",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
_PRIVATE = """\
mount -t tmpfs none /run && mount -t tmpfs none /opt && mkdir /run/upper /run/work &&
mount -t overlay none -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc && exec dockerd "$@"
"""
_WITHOUT_NETWORK = ("--bridge=none", "--iptables=false", "--storage-driver=vfs")
_PATIENCE = 60.0


class Docker:
    """The `docker` command before an engine of its own."""

    def __init__(self, home: Path, host: str) -> None:
        self.host = host
        self.environment = {"DOCKER_HOST": host, "HOME": str(home)}

    def __call__(self, *words: str | Path) -> bytes:
        """Standard output; another status than 0 fails the test."""
        return run("docker", *words, environment=self.environment)


@contextmanager
def docker_engine(work: Path) -> Iterator[Docker]:
    """An engine without images, all of its files in `work`/docker, for this block."""
    place = work / "docker"
    place.mkdir()
    socket, log = place / "docker.sock", place / "dockerd.log"
    argv = [
        *_NAMESPACES,
        "sh",
        "-c",
        _PRIVATE,
        "dockerd",
        *_WITHOUT_NETWORK,
        f"--host=unix://{socket}",
        f"--pidfile={place}/pid",
    ]
    argv += [f"--data-root={place}/data", f"--exec-root={place}/exec"]
    with open(log, "wb") as sink:
        engine = subprocess.Popen(argv, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
    docker = Docker(place, f"unix://{socket}")
    try:
        _wait_for(docker, engine, log)
        yield docker
    finally:
        engine.kill()  # unshare: PID 1 of the namespace dies with it, and so does everybody there
        engine.wait()


def _wait_for(docker: Docker, engine: subprocess.Popen[bytes], log: Path) -> None:
    """Until the engine answers."""
    deadline = time.monotonic() + _PATIENCE
    ping, environment = ["docker", "version"], {**os.environ, **docker.environment}
    while time.monotonic() < deadline and engine.poll() is None:
        if subprocess.run(ping, env=environment, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"dockerd does not answer: {log.read_text()[-2000:]}")
