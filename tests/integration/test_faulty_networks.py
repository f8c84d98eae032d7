"""Whole commands through a network that cuts, delays, reorders, refuses and truncates; skopeo says what came of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import trio

from buildengine.digest import Digest
from tests.builds import PYBUILD, write
from tests.fakes.faulty_proxy import FAULTS, SHORTENED, FaultyProxy, faulty_proxy
from tests.integration.test_push import Side, inspect, serving

pytestmark = pytest.mark.slow

ROUNDS = 6
_DOCKERFILE = "FROM scratch\nCOPY shared /\nARG TARGETARCH\nCOPY own.$TARGETARCH /own\nLABEL platform=$TARGETARCH\n"


@pytest.fixture(params=["docker", "own"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    with serving(request.param, tmp_path / "registry") as running:
        yield running


def context_of(seed: int, directory: Path) -> Path:
    """Two platforms with one layer in common. No two seeds have a blob in common."""
    dice = random.Random(seed)
    files = {"shared": dice.randbytes(3_000_000), "own.amd64": dice.randbytes(300_000), "own.arm64": b"%d" % seed}
    return write(directory, {"Dockerfile": _DOCKERFILE, **files})


class Rounds:
    """Commands of a state directory, each through a proxy of its own, and which of them failed."""

    def __init__(self, registry: Side, work: Path) -> None:
        self._registry = registry
        self._work = work
        self.failed: list[str] = []
        self.met: set[str] = set()

    async def push(self, seed: int) -> str:
        """Build and push; the digest that the command reports, or "" when it failed."""
        context, told = context_of(seed, self._work / f"context{seed}"), self._work / f"told{seed}"
        async with self._proxy(seed) as proxy:
            flags = ("--platform", "linux/amd64,linux/arm64", "--metadata-file", told)
            pushed = await self._run("build", *flags, "-t", f"{proxy.host}/app:{seed}", "--push", context)
            self.met |= {seen.fault.kind for seen in proxy.seen}
        return str(json.loads(told.read_bytes())["containerimage.digest"]) if pushed else ""

    async def pull(self, seed: int) -> bytes:
        """Pull all platforms and save them; the index in the archive, or nothing when the pull failed."""
        archive = self._work / f"saved{seed}.tar"
        async with self._proxy(seed + 1000) as proxy:
            pulled = await self._run("pull", "--all-platforms", f"{proxy.host}/app:{seed}")
            self.met |= {seen.fault.kind for seen in proxy.seen}
        if not pulled:
            return b""
        assert await self._run("image", "save", f"{proxy.host}/app:{seed}", "-o", archive)
        return everything_of(f"oci-archive:{archive}", self._work / f"of-archive{seed}")

    def _proxy(self, seed: int) -> AbstractAsyncContextManager[FaultyProxy]:
        return faulty_proxy(self._registry.host, seed=seed, rate=0.2, kinds=(*FAULTS, SHORTENED))

    async def _run(self, *arguments: object) -> bool:
        argv = [str(word) for word in (PYBUILD, "--root", self._work / "root", *arguments)]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._work)}
        run = partial(subprocess.run, argv, env=environment, capture_output=True, text=True, check=False)
        ended = await trio.to_thread.run_sync(run)
        if ended.returncode != 0:
            assert ended.returncode == 1, ended.stderr
            self.failed.append(ended.stderr[-300:])
        return ended.returncode == 0


def everything_of(source: str, directory: Path) -> bytes:
    """Copy an index with all its platforms, and return it. skopeo holds every blob against its digest."""
    command = ["skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", source, f"oci:{directory}:all"]
    subprocess.run(command, check=True, capture_output=True)
    (entry,) = json.loads((directory / "index.json").read_bytes())["manifests"]
    return (directory / "blobs/sha256" / entry["digest"].removeprefix("sha256:")).read_bytes()


async def test_no_command_makes_a_wrong_image_and_hardly_one_fails(side: Side, tmp_path: Path) -> None:
    rounds = Rounds(side, tmp_path)
    for seed in range(ROUNDS):
        digest = await rounds.push(seed)
        if not digest:
            continue
        index = inspect(f"{side.host}/app:{seed}")
        assert Digest.sha256(index) == digest
        assert everything_of(f"docker://{side.host}/app:{seed}", tmp_path / f"of-registry{seed}") == index
        assert await rounds.pull(seed) in (index, b"")
    assert len(rounds.met - {""}) > ROUNDS
    assert len(rounds.failed) <= 1, rounds.failed
