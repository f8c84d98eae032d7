"""Pulling and pushing an image of eight layers of 40 MB over loopback: whole commands, side by side, in one run.

Everybody keeps the layers as they came, compressed, in a place of his own on one file system: our store, an OCI layout
(skopeo), BuildKit's content store and from there an archive; buildah's store unpacks them. All sync what they keep:
we all of it at once before the command ends, the others each blob. A push goes to a registry that is new each time,
so that nobody finds or mounts anything.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.bases import docker_registry
from tests.bench.bases import LARGE_LAYERS
from tests.bench.engines import Daemon

NAME = f"{LARGE_LAYERS} layers of 40 MB"


class Mover(Protocol):
    """A program that moves images, as the commands a user would type. `image` is `host:port/repository:tag`."""

    name: str

    def pull(self, image: str) -> Sequence[str]: ...

    def push(self, image: str, to: str) -> Sequence[str]:
        """What was pulled last, as `image`, goes to another registry."""
        ...

    def forget(self) -> None:
        """Remove what was pulled."""
        ...


class PybuildMover:
    name = "pybuild"

    def __init__(self, work: Path) -> None:
        self._root = work / "moved-pybuild"
        self._command = [str(Path(sys.executable).parent / "pybuild"), "--root", str(self._root)]

    def pull(self, image: str) -> Sequence[str]:
        return [*self._command, "pull", image]

    def push(self, image: str, to: str) -> Sequence[str]:
        return [*self._command, "push", image, to]

    def forget(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


class Skopeo:
    name = "skopeo"

    def __init__(self, work: Path) -> None:
        self._layout = work / "moved-skopeo"

    def pull(self, image: str) -> Sequence[str]:
        return ["skopeo", "copy", "--src-tls-verify=false", f"docker://{image}", f"oci:{self._layout}:it"]

    def push(self, image: str, to: str) -> Sequence[str]:
        return ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{self._layout}:it", f"docker://{to}"]

    def forget(self) -> None:
        shutil.rmtree(self._layout, ignore_errors=True)


class BuildahMover:
    """`storage` are the options that name its store."""

    name = "buildah"

    def __init__(self, storage: Sequence[str]) -> None:
        self._storage = storage

    def pull(self, image: str) -> Sequence[str]:
        return ["buildah", *self._storage, "pull", "--tls-verify=false", image]

    def push(self, image: str, to: str) -> Sequence[str]:
        return ["buildah", *self._storage, "push", "--tls-verify=false", image, f"docker://{to}"]

    def forget(self) -> None:
        subprocess.run(["buildah", *self._storage, "rmi", "--all", "--force"], capture_output=True, check=True)


class BuildKitMover:
    """A build of nothing but the image, which fetches it to export it."""

    name = "buildkit"

    def __init__(self, work: Path, engine: Daemon) -> None:
        self._engine = engine
        self._context = work / "moved-context"
        self._archive = work / "moved-buildkit.tar"
        self._context.mkdir()

    def _build(self, image: str, output: str) -> Sequence[str]:
        (self._context / "Dockerfile").write_text(f"FROM {image}\n")
        local = [f"--local={name}={self._context}" for name in ("context", "dockerfile")]
        return [*self._engine.ctl(), "build", "--frontend", "dockerfile.v0", *local, "--output", output]

    def pull(self, image: str) -> Sequence[str]:
        return self._build(image, f"type=oci,dest={self._archive}")

    def push(self, image: str, to: str) -> Sequence[str]:
        return self._build(image, f"type=image,name={to},push=true")

    def forget(self) -> None:
        self._engine.forget()
        self._archive.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command: how long it took, and the most memory that it had, in bytes."""

    seconds: float
    peak: int


def measure(movers: Sequence[Mover], work: Path, registry: str, runs: int) -> Iterator[tuple[str, list[float]]]:
    """What was done, with the peak memory of the first mover, and the median seconds of each."""
    source = f"{registry}/bench/large:latest"

    def pull_once(mover: Mover) -> Run:
        mover.forget()
        return _run(mover.pull(source))

    def push_once(mover: Mover) -> Run:
        with tempfile.TemporaryDirectory(dir=work) as directory, docker_registry(Path(directory)) as host:
            return _run(mover.push(source, f"{host}/bench/pushed:1"))

    for what, once in (("pull", pull_once), ("push", push_once)):
        done = _in_turn(movers, once, runs)
        peak = max(run.peak for run in done[0]) >> 20
        yield f"{what} {NAME} (our peak: {peak} MB)", [statistics.median(r.seconds for r in each) for each in done]
    for mover in movers:
        mover.forget()


def _in_turn(movers: Sequence[Mover], once: Callable[[Mover], Run], runs: int) -> list[list[Run]]:
    """The first round warms the machine's caches and counts for nobody; every other one goes backwards."""
    done: dict[str, list[Run]] = {mover.name: [] for mover in movers}
    for number in range(runs + 1):
        for mover in movers if number % 2 else reversed(movers):
            run = once(mover)
            done[mover.name] += [run] if number else []
    return [done[mover.name] for mover in movers]


def _run(argv: Sequence[str]) -> Run:
    """Run a command whose predecessors leave nothing for the disk to do."""
    os.sync()
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{' '.join(argv)}\n{output.read().decode(errors='replace')[-3000:]}")
    return Run(seconds=seconds, peak=usage.ru_maxrss << 10)
