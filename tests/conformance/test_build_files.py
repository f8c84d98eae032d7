"""Build files in Python by clients that know nothing of them: buildctl and docker-buildx before our daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.builds import FIXTURES, Store, write
from tests.conformance.buildctl import ctl
from tests.conformance.buildx import Buildx
from tests.fakes.daemon import Daemon, daemon

pytest_plugins = [FIXTURES]

FILES: Mapping[str, str] = {
    "build.py": """
import llb
from frontends import Context, Image, each_platform
from words import GREETING

@each_platform
async def build(ctx: Context) -> Image:
    source = await ctx.context(include=["greeting"])
    base = await ctx.dockerfile("base.Dockerfile", args={"WHO": ctx.arg("WHO")})
    print("for", ctx.platform)
    return base.file(llb.copy(source, "greeting", "/greeting")).run(f"cat /who /greeting; echo {GREETING}")
""",
    "wrong.py": "async def build(ctx):\n    return ctx.nothing\n".replace("\\\n", "\n"),
    "words.py": "GREETING = 'hello'\n",
    "base.Dockerfile": "FROM base\nARG WHO\nRUN echo $WHO > /who\n",
    "greeting": "good morning\n",
}


class World(NamedTuple):
    running: Daemon
    buildx: Buildx
    context: Path
    work: Path


@pytest.fixture(scope="module")
def world(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    work = tmp_path_factory.mktemp("files")
    context = write(work / "context", FILES)
    with daemon(store_with_base.copy(work / "root").root, work) as running:
        yield World(running, Buildx(work / "home", running.address), context, work)


def by_buildctl(world: World, file: str, *flags: object, status: int = 0) -> str:
    places = ("--local", f"context={world.context}", "--local", f"dockerfile={world.context}")
    asked = ("--frontend=dockerfile.v0", f"--opt=filename={file}", "--opt=build-arg:WHO=me", "--progress=plain")
    return ctl(world.running, "build", *asked, *places, *flags, status=status)


def by_buildx(world: World, file: str, *flags: object, status: int = 0) -> str:
    return world.buildx.build(
        world.context, "-f", world.context / file, "--build-arg=WHO=me", "--progress=plain", *flags, status=status
    )


def test_the_same_image_by_either_client(world: World) -> None:
    digests = set()
    for number, build in enumerate((by_buildctl, by_buildx, by_buildctl)):
        metadata = world.work / f"metadata{number}"
        said = build(world, "build.py", "--metadata-file", metadata, "--output", f"type=oci,dest={world.work / 'out'}")
        assert "[internal] run build.py" in said
        assert "for linux/" in said
        digests.add(json.loads(metadata.read_text())["containerimage.digest"])
    assert len(digests) == 1


@pytest.mark.parametrize("build", [by_buildctl, by_buildx])
def test_a_mistake_is_shown_in_the_authors_file(world: World, build: object) -> None:
    assert callable(build)
    said = build(world, "wrong.py", status=1)
    assert "AttributeError: 'Context' object has no attribute 'nothing'" in said
    assert "wrong.py:2" in said
    assert ">>>     return ctx.nothing" in said
