"""BuildKit as the other side: its client and its daemon, from the directory that $PEER names.

A missing peer is a failure, never a skip: whoever runs these tests wants the comparison.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llb.definition import Definition
from tests.bench.engines import Daemon, buildkitd


def directory() -> Path:
    """Where `buildctl` and `buildkitd` are."""
    found = Path(os.environ.get("PEER") or "/nowhere")
    for name in ("buildctl", "buildkitd"):
        assert os.access(found / name, os.X_OK), f"no {name} in PEER={found}: make conformance PEER=DIRECTORY"
    return found


def dumped(definition: Definition) -> list[dict[str, Any]]:
    """What `buildctl debug dump-llb` makes of a definition: a document for each operation."""
    argv = [str(directory() / "buildctl"), "debug", "dump-llb"]
    done = subprocess.run(argv, input=definition.to_bytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def daemon(work: Path, *flags: object) -> Iterator[Daemon]:
    """A buildkitd of our own, all of its files below `work`, for this block."""
    with buildkitd(work, directory(), *flags).running() as running:
        yield running


def solve(peer: Daemon, definition: Definition, archive: Path, rootfs: Path) -> None:
    """Build a definition, with the local directory `rootfs`, into a tar archive."""
    argv = [*peer.ctl(), "build", "--progress", "plain", "--local", f"rootfs={rootfs}"]
    argv += ["--output", f"type=tar,dest={archive}"]
    done = subprocess.run(argv, input=definition.to_bytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-4000:]
