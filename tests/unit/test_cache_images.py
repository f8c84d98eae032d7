"""The local image store: names move, blobs stay as long as an image wants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildengine.builder import PrunePolicy
from buildengine.digest import Digest
from buildengine.errors import StoreError
from cache import prune
from cache.opened import Cache, open_cache
from cache.usage import disk_usage


async def image(cache: Cache, text: str, *names: str) -> Digest:
    layer = cache.store.put(f"layer of {text}".encode())
    manifest = cache.store.put(text.encode())
    await cache.images.add(manifest.digest, names=names, blobs=[layer.digest], chains=[Digest.sha256(text.encode())])
    return manifest.digest


def names(cache: Cache) -> set[tuple[str, Digest]]:
    return {(found.name, found.digest) for found in cache.images.list()}


async def test_names_move_and_leave_a_dangling_image(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        one = await image(cache, "one", "app:1", "app:latest")
        two = await image(cache, "two", "app:latest")
        assert names(cache) == {("app:1", one), ("app:latest", two)}
        three = await image(cache, "three", "app:1")
        assert names(cache) == {("app:1", three), ("app:latest", two), ("", one)}
        await cache.images.tag(one, "app:old")
        assert names(cache) == {("app:1", three), ("app:latest", two), ("app:old", one)}
        await image(cache, "one")
        assert names(cache) == {("app:1", three), ("app:latest", two), ("app:old", one)}
        found = cache.images.find("app:old")
        assert found is not None
        assert (found.digest, found.size) == (one, len("layer of one") + len("one"))
        assert cache.images.find("") is None
        assert [each.name for each in cache.images.by_digest(one.hex[:12])] == ["app:old"]
        assert cache.images.by_digest(one)[0].name == "app:old"
        with pytest.raises(StoreError):
            await cache.images.tag(Digest.sha256(b"nothing"), "x")


async def test_documents_count_for_the_repositories_that_have_them(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        named = await image(cache, "named", "docker.io/library/app:1")
        cache.documents.keep([b"sent"], "docker.io/library/other")
        cache.db.write_nowait(lambda c: c.execute("DROP TABLE document_origins"))
    async with open_cache(tmp_path) as cache:  # a store from before there was the table
        assert known(cache, named) == ["app"]
        assert known(cache, Digest.sha256(b"layer of named")) == ["app"], "all of an image counts where it has a name"
        assert known(cache, Digest.sha256(b"sent")) == []
        cache.documents.keep([b"sent", b"named"], "docker.io/library/other")
        await cache.images.tag(named, "docker.io/library/again:1")
        assert known(cache, named) == ["app", "other", "again"]
        assert known(cache, Digest.sha256(b"sent")) == ["other"]
        cache.holds.expire()
        await prune.collect(cache, everything=False)
        assert known(cache, named) == ["app", "other", "again"]
        rows = cache.db.read(lambda c: c.execute("SELECT count(*) FROM document_origins").fetchone())
        assert rows == (3,), "and nothing is known of what is gone"


def known(cache: Cache, digest: Digest) -> list[str]:
    repositories = ("app", "other", "again", "ap")
    return [r for r in repositories if cache.documents.read(digest, f"docker.io/library/{r}", limit=100) is not None]


async def test_an_image_is_whole_or_not_stored(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        manifest = cache.store.put(b"manifest")
        with pytest.raises(StoreError, match="lacks its blob"):
            await cache.images.add(manifest.digest, names=["x"], blobs=[Digest.sha256(b"missing")])
        assert cache.images.list() == ()


async def test_blobs_go_with_the_last_image_that_has_them(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        shared = cache.store.put(b"shared")
        first, second = cache.store.put(b"m1"), cache.store.put(b"m2")
        await cache.images.add(first.digest, names=["a"], blobs=[shared.digest])
        await cache.images.add(second.digest, names=["b", "c"], blobs=[shared.digest])
        await prune.prune(cache, PrunePolicy(all=True), lambda info: None)
        assert len(list(cache.store.list())) == 3
        assert await cache.images.untag("a") == first.digest
        assert await cache.images.untag("b") is None
        assert await cache.images.untag("nothing") is None
        assert await prune.collect(cache) == 2
        assert set(await cache.images.remove(second.digest)) == {"c"}
        assert await prune.collect(cache) == len(b"m2shared")
        assert list(cache.store.list()) == []


async def test_pruning_images(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        one, two = await image(cache, "one", "a"), await image(cache, "two")
        assert [found.digest for found in await cache.images.prune()] == [two]
        assert names(cache) == {("a", one)}
        assert [found.name for found in await cache.images.prune(all=True)] == ["a"]
        assert cache.images.list() == ()


async def test_layers_of_images_are_shared(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        base = await (await cache.layers.create(())).commit()
        top = await (await cache.layers.create((base,))).commit()
        own = await (await cache.layers.create((top,))).commit()
        await cache.layers.set_diff_ids({top: (Digest.sha256(b"x"), Digest.sha256(b"one"))})
        await image(cache, "one", "a")
        assert {info.id for info in disk_usage(cache, ["shared"])} == {base, top}
        assert {info.id for info in disk_usage(cache, ["private"])} == {own}
        gone: list[str] = []
        await prune.prune(cache, PrunePolicy(), lambda info: gone.append(info.id))
        assert gone == [own]
        await prune.prune(cache, PrunePolicy(all=True), lambda info: gone.append(info.id))
        assert gone == [own, top, base]
        assert len(list(cache.store.list())) == 2
