"""A user's home as docker, skopeo and we see it: the file with the logins, and helpers that keep passwords."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.commands import Commands, Ended


@dataclass
class Home:
    """A user's directory, with what is in docker's file there."""

    path: Path
    commands: Commands

    @property
    def file(self) -> Path:
        return self.path / ".docker/config.json"

    @property
    def auths(self) -> Mapping[str, Mapping[str, str]]:
        found: Mapping[str, Mapping[str, str]] = json.loads(self.file.read_bytes())["auths"]
        return found

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.path), "PATH": f"{self.path}/bin:{os.environ['PATH']}"}

    def run(self, *args: str, stdin: bytes = b"", prefix: tuple[str, ...] = ()) -> Ended:
        return self.commands.run(*args, environment=self.environment, stdin=stdin, prefix=prefix)

    def log_in(self, host: str, password: bytes = b"secret\n") -> Ended:
        return self.run("login", "-u", "user", "--password-stdin", host, stdin=password)

    def docker(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = {**self.environment, "DOCKER_HOST": f"unix://{self.path}/no-engine"}
        return subprocess.run(["docker", *args], input=stdin, env=environment, capture_output=True, check=False)

    def skopeo(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        command = ["skopeo", *args, "--authfile", str(self.file)]
        return subprocess.run(command, input=b"", env=self.environment, capture_output=True, check=False)

    def add_helper(self) -> Path:
        """docker-credential-test: keeps what it is told in a directory, and writes down how it was started."""
        kept, program = self.path / "kept", self.path / "bin/docker-credential-test"
        kept.mkdir()
        program.parent.mkdir()
        program.write_text(
            f"""#!/bin/sh
cd {kept}; tr '\\0' ' ' </proc/$$/cmdline >>../started; input=$(cat)
case $1 in
store) printf %s "$input" >"$(printf %s "$input" | sed 's/.*"ServerURL":"\\([^"]*\\)".*/\\1/' | tr / _)";;
get) cat "$(echo "$input" | tr / _)" 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }};;
erase) rm "$(echo "$input" | tr / _)" 2>/dev/null || {{ echo no such entry; exit 1; }};;
esac
"""
        )
        program.chmod(0o755)
        return kept
