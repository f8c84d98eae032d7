"""Layers that came as blobs, on others than their own base: what they hide is what they were made on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cache.layers import Layer, RemoteBlob
from cache.opened import Cache, open_cache
from tests.fakes.hostile_archives import tar
from tests.unit.test_cache_explicit import seen
from worker.oci import types
from worker.oci.chain import chain_ids
from worker.pulls import Pulls
from worker.trees import Trees

OPAQUE = "d/.wh..wh..opq"


class NothingToFetch:
    """All blobs are here."""

    pulls = Pulls()

    async def fetch(self, layer: Layer) -> None:
        pass


async def image(cache: Cache, *archives: bytes) -> tuple[str, ...]:
    """Lazy layers, whose blobs are in the store."""
    digests = [cache.store.put(archive).digest for archive in archives]
    stack: tuple[str, ...] = ()
    for archive, digest, chain in zip(archives, digests, chain_ids(digests), strict=True):
        blob = RemoteBlob(digest=digest, size=len(archive), media_type=types.OCI_LAYER)
        stack = (*stack, await cache.layers.add_remote(parent=stack, diff_id=digest, chain_id=chain, remote=blob))
    return stack


async def made(cache: Cache, *names: str) -> str:
    layer = await cache.layers.create(())
    for name in names:
        (layer.directory / name).parent.mkdir(exist_ok=True)
        (layer.directory / name).write_text(name)
    return await layer.commit()


def files(cache: Cache, *stack: str) -> list[str]:
    return sorted(path for path, kind in seen(*map(Path, cache.layers.tree(stack).lowers)).items() if kind is not None)


@pytest.mark.parametrize("with_base", [True, False])
async def test_an_opaque_directory_hides_its_own_base_alone(tmp_path: Path, with_base: bool) -> None:
    base = tar(("d", "folder"), ("d/a", "file", b"a"), ("d/x", "file", b"x"))
    top = tar(("d", "folder"), (OPAQUE, "file", b""), ("d/b", "file", b"b"))
    async with open_cache(tmp_path, snapshotter="overlay") as cache:
        below, above = await image(cache, base, top)
        other = await made(cache, "d/a", "d/z")
        await Trees(cache, NothingToFetch()).ensure((other, below, above) if with_base else (other, above))
        assert cache.layers.get(below).filled, "what it was made on is needed to know what it hides"
        assert files(cache, below, above) == ["d/b"]
        assert files(cache, other, above) == ["d/b", "d/z"]
        assert files(cache, other, below, above) == ["d/b", "d/z"]
        assert files(cache, above) == ["d/b"]


async def test_whiteouts_of_nothing_are_no_names(tmp_path: Path) -> None:
    async with open_cache(tmp_path, snapshotter="overlay") as cache:
        stack = await image(cache, tar(("d", "folder"), ("d/.wh.gone", "file", b""), ("d/a", "file", b"a")))
        await Trees(cache, NothingToFetch()).ensure(stack)
        top = Path(cache.layers.tree(stack).lowers[0])
        assert os.listdir(top / "d") == ["a"]
        assert sorted(os.listdir(cache.layers.directory(stack[0]) / "d")) == ["a", "gone"]
