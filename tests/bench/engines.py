"""The engines that are timed, each as the whole command a user would type: ours, buildah, buildctl before a daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.bench.scenarios import Scenario


class Engine(Protocol):
    name: str

    def build(self, scenario: Scenario, context: Path, *, timed: bool) -> None: ...

    def forget(self) -> None:
        """Begin with an empty state directory. The old one stays: ext4 takes long to make files where many have just
        been deleted, and it would be the next engine that pays."""
        ...


def _run(argv: list[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(argv, capture_output=True, env={**os.environ, **(environment or {})}, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}\n{done.stderr.decode(errors='replace')[-3000:]}")


def _new_directory(work: Path, name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))


class Pybuild:
    name = "pybuild"

    def __init__(self, work: Path) -> None:
        self._work = work
        self._archive = work / "pybuild.tar"
        self.forget()

    def build(self, scenario: Scenario, context: Path, *, timed: bool) -> None:
        program = str(Path(sys.executable).parent / "pybuild")
        output = f"type=oci,dest={self._archive}" if scenario.archive else "type=cacheonly"
        argv = [program, "--root", str(self._root), "build", "--progress", "plain", "-o", output]
        if timed and scenario.no_cache:
            argv.append("--no-cache")
        _run([*argv, str(context)])

    def forget(self) -> None:
        self._root = _new_directory(self._work, self.name)


class Buildah:
    name = "buildah"

    def __init__(self, work: Path) -> None:
        self._work = work
        self._archive = work / "buildah.tar"
        self.forget()

    def build(self, scenario: Scenario, context: Path, *, timed: bool) -> None:
        argv = ["buildah", *self.storage, "bud", "--layers", "--isolation", "oci", "--runtime", "runc", "-q"]
        argv += ["--tls-verify=false", "--jobs", "8"]
        if timed and scenario.no_cache:
            argv.append("--no-cache")
        if scenario.archive:
            self._archive.unlink(missing_ok=True)
            argv += ["-t", f"oci-archive:{self._archive}"]
        _run([*argv, str(context)])

    def forget(self) -> None:
        directory = _new_directory(self._work, self.name)
        self.storage = ["--root", str(directory / "root"), "--runroot", str(directory / "run")]

    @contextmanager
    def running(self) -> Iterator[Buildah]:
        """Afterwards nothing of it is mounted any more: its store is a mount of its own, with overlays below."""
        try:
            yield self
        finally:
            subprocess.run(["buildah", *self.storage, "rm", "--all"], capture_output=True, check=False)
            for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
                if line.split()[4].startswith(f"{self._work}/{self.name}-"):
                    subprocess.run(["umount", line.split()[4]], check=False)


class Daemon:
    """A daemon that serves BuildKit's API, warm, and `buildctl` as its client. `directory` holds that and buildkitd."""

    def __init__(self, name: str, program: Path, work: Path, directory: Path, flags: Sequence[object] = ()) -> None:
        self.name = name
        self._flags = [str(flag) for flag in flags]
        self._program = program
        self._ctl = directory / "buildctl"
        self._work = work
        self._address = f"unix://{work}/{name}.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        self.forget()
        try:
            yield self
        finally:
            self._stop()

    def forget(self) -> None:
        self._stop()
        argv = [str(self._program), "--root", str(_new_directory(self._work, self.name)), "--addr", self._address]
        argv += ["--containerd-worker=false", "--oci-worker=true", "--oci-worker-gc=false", *self._flags]
        said = self._work / f"{self.name}.log"
        with open(said, "wb") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        while subprocess.run([*self.ctl(), "debug", "workers"], capture_output=True, check=False).returncode:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {said.read_text()[-2000:]}")
            time.sleep(0.1)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def ctl(self) -> list[str]:
        return [str(self._ctl), "--addr", self._address]

    def build(self, scenario: Scenario, context: Path, *, timed: bool) -> None:
        argv = [*self.ctl(), "build", "--progress", "plain", "--frontend", "dockerfile.v0"]
        argv += ["--local", f"context={context}", "--local", f"dockerfile={context}"]
        if timed and scenario.no_cache:
            argv.append("--no-cache")
        if scenario.archive:
            argv += ["--output", f"type=oci,dest={self._work / f'{self.name}.tar'}"]
        _run(argv)


def buildkitd(work: Path, peer: Path, *flags: object) -> Daemon:
    return Daemon("buildkitd", peer / "buildkitd", work, peer, flags)


def pybuildd(work: Path, peer: Path, *flags: object) -> Daemon:
    return Daemon("pybuildd", Path(sys.executable).parent / "pybuildd", work, peer, flags)
