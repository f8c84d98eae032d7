"""docker-buildx with the remote driver, as the client of a daemon: `docker-buildx` of the directory that $PEER names.

    buildx = Buildx(tmp_path, daemon.address)
    buildx("build", "-o", f"type=local,dest={out}", context)       # what it printed; another status than 0 fails

It has a home, a builder and logins of its own. A missing program is a failure, never a skip; what a version of it does
not offer yet is skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

PATIENCE = 100.0  # seconds


def program() -> Path:
    found = Path(os.environ.get("PEER") or "/nowhere") / "docker-buildx"
    assert os.access(found, os.X_OK), f"no docker-buildx in PEER={found.parent}: Debian has a package of that name"
    return found


class Buildx:
    """One user with one builder, `pybuildd`; its files are below `home`, which is made."""

    def __init__(self, home: Path, address: str) -> None:
        home.mkdir(exist_ok=True)
        kept = {"HOME": str(home), "DOCKER_CONFIG": str(home / "docker"), "BUILDX_CONFIG": str(home / "buildx")}
        self.environment = {"PATH": os.environ["PATH"], "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "NO_COLOR": "1", **kept}
        remote = address.replace("unix:", "unix://")
        self("create", "--name", "pybuildd", "--driver", "remote", remote)
        self.environment["BUILDX_BUILDER"] = "pybuildd"  # also where an engine is named by $DOCKER_HOST

    def __call__(
        self, *words: object, status: int = 0, stdin: bytes = b"", cwd: Path | None = None, **environment: str
    ) -> str:
        """What it prints: standard output, then the rest."""
        done = self.run(*words, stdin=stdin, cwd=cwd, **environment)
        text = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == status, text
        return text

    def run(
        self, *words: object, stdin: bytes = b"", cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        argv, given = self.argv(*words), {**self.environment, **environment}
        return subprocess.run(argv, input=stdin, env=given, cwd=cwd, capture_output=True, check=False, timeout=PATIENCE)

    def argv(self, *words: object) -> list[str]:
        return [str(program()), *map(str, words)]

    def build(self, context: Path, *flags: object, status: int = 0, stdin: bytes = b"", **environment: str) -> str:
        words = ("build", "--progress=plain", *flags, context)
        return self(*words, status=status, stdin=stdin, **environment)

    def since(self, *version: int) -> None:
        """The test needs this version; an older one in PEER fails it."""
        told = self("version")
        found = re.search(r"(\d+)\.(\d+)\.\d+", told)
        assert found is not None, told
        if tuple(map(int, found.groups())) < version:
            pytest.fail(f"PEER holds a docker-buildx older than {'.'.join(map(str, version))}: {told.strip()}")
