"""The flags of pushing, and what the cache remembers of where blobs are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from buildengine.builder import Export
from buildengine.digest import Digest
from buildengine.errors import SourceError
from cache.layers import LayerBlob, RemoteBlob
from cache.opened import Cache, open_cache
from tests.fakes.builder import FakeBuilder, run_cli


def exports(directory: Path, *flags: str) -> list[tuple[str, Mapping[str, str]]]:
    builder = FakeBuilder()
    (directory / "Dockerfile").write_text("FROM scratch\n")
    ran = run_cli(builder, "build", *flags, str(directory))
    assert ran.status == 0, ran.stderr
    asked: tuple[Export, ...] = builder.requests[0].exports
    return [(export.type, export.attrs) for export in asked]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--push"], [("image", {"push": "true", "name": "app"})]),
        (["-o", "type=registry"], [("image", {"push": "true", "name": "app"})]),
        (["-o", "type=registry,push=false"], [("image", {"push": "false", "name": "app"})]),
        (["--push", "-o", "type=image,store=1"], [("image", {"store": "1", "push": "true", "name": "app"})]),
        (["--push", "-o", "type=local,dest=/out"], [("local", {}), ("image", {"push": "true", "name": "app"})]),
        (["--push", "--load"], [("image", {"store": "true", "push": "true", "name": "app"})]),
        (["--load", "-o", "type=registry,store=0"], [("image", {"store": "0", "push": "true", "name": "app"})]),
        (["--load"], [("image", {"name": "app"})]),
    ],
)  # fmt: skip
def test_outputs_that_push(flags: list[str], expected: list[tuple[str, dict[str, str]]], tmp_path: Path) -> None:
    assert exports(tmp_path, "-t", "app", *flags) == expected


@pytest.mark.parametrize("flags", [["--push"], ["-o", "type=registry"], ["-o", "type=image,push=true"]])
def test_what_is_pushed_needs_a_name(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    builder = FakeBuilder()
    ran = run_cli(builder, "build", *flags, str(tmp_path))
    assert ran.status == 2
    assert "error: an image that is pushed needs a name\nhint: e.g. -t " in ran.stderr
    assert builder.requests == []


def test_push_says_what_was_pushed() -> None:
    builder = FakeBuilder()
    ran = run_cli(builder, "push", "app:1")
    assert (ran.status, ran.stdout) == (0, f"app:1@{Digest.sha256(b'app:1')}\n")
    assert builder.pushes == [("app:1",)]


def test_push_under_other_names() -> None:
    builder = FakeBuilder()
    ran = run_cli(builder, "push", "-q", "3f1c", "r.io/a", "r.io/b:2")
    digest = Digest.sha256(b"3f1c")
    assert ran.stdout == f"r.io/a@{digest}\nr.io/b:2@{digest}\n"
    assert builder.pushes == [("3f1c", "r.io/a", "r.io/b:2")]


def test_push_that_is_refused() -> None:
    builder = FakeBuilder(error=SourceError("r.io: no", hint="log in"))
    digest = Digest.sha256(b"other")
    ran = run_cli(builder, "push", "r.io/a")
    assert (ran.status, ran.stdout) == (1, "")
    assert "error: r.io: no\nhint: log in" in ran.stderr
    ran = run_cli(FakeBuilder(), "push", "app", f"r.io/a@{digest}")
    assert (ran.status, f"the name 'r.io/a@{digest}' has a digest" in ran.stderr) == (2, True)


# --- origins ------------------------------------------------------------------------------------------------

BLOB = Digest.sha256(b"blob")


async def remote_layer(cache: Cache, *origins: str) -> str:
    remote = RemoteBlob(digest=BLOB, size=4, media_type="x", origins=origins)
    return await cache.layers.add_remote(
        parent=(), diff_id=Digest.sha256(b"diff"), chain_id=Digest.sha256(b"diff"), remote=remote
    )


async def test_a_layer_that_came_from_a_registry_has_one_more_origin(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root", snapshotter="copy") as cache:
        assert cache.layers.origins(BLOB) == ()
        id = await remote_layer(cache, "r.io/base")
        await cache.layers.add_origin(BLOB, "r.io/app")
        await cache.layers.add_origin(BLOB, "r.io/app")
        assert cache.layers.origins(BLOB) == ("r.io/base", "r.io/app")  # it is fetched from where it came from
        found = cache.layers.of_blob(BLOB)
        assert found is not None
        assert found.id == id
    async with open_cache(tmp_path / "root", snapshotter="copy") as cache:
        assert cache.layers.origins(BLOB) == ("r.io/base", "r.io/app")


async def test_however_often_a_layer_is_pushed_whence_it_came_is_not_forgotten(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root", snapshotter="copy") as cache:
        await remote_layer(cache, "r.io/base")
        for number in range(12):
            await cache.layers.add_origin(BLOB, f"r.io/app{number}")
        assert cache.layers.origins(BLOB) == ("r.io/base", *(f"r.io/app{number}" for number in range(3, 12)))


async def test_a_blob_that_was_made_here_remembers_its_pushes(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root", snapshotter="copy") as cache:
        id = await remote_layer(cache)
        made = cache.store.put(b"made")
        blob = LayerBlob(compression="gzip", digest=made.digest, size=4, media_type="x", annotations={"a": "b"})
        await cache.layers.add_blob(id, blob)
        for number in range(12):
            await cache.layers.add_origin(made.digest, f"r.io/app{number}")
        await cache.layers.add_origin(made.digest, "other.io:5000/team/app")
        await cache.layers.add_origin(Digest.sha256(b"unknown"), "r.io/app")
        origins = cache.layers.origins(made.digest)
        assert origins[:2] == ("r.io/app11", "r.io/app10")
        assert origins[-1] == "other.io:5000/team/app"
        assert len(origins) == 11
        (kept,) = cache.layers.blobs(id)
        assert kept.annotations["a"] == "b"
        assert cache.layers.origins(Digest.sha256(b"unknown")) == ()
