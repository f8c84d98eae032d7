"""Layers: made, filled and held, by several processes at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from buildengine.builder import PrunePolicy
from buildengine.digest import Digest
from buildengine.errors import InternalError
from cache import prune
from cache.layers import Filling, LayerBlob, LayerMissing, Layers, RemoteBlob
from cache.opened import Cache, open_cache
from cache.usage import disk_usage

EVERYTHING = PrunePolicy(all=True)


def digest(number: int) -> Digest:
    return Digest.of_hex(f"{number:064x}")


def remote(number: int, *origins: str) -> RemoteBlob:
    return RemoteBlob(digest=digest(number), size=number, media_type="application/x", origins=origins)


async def lazy(layers: Layers, number: int, *origins: str, parent: tuple[str, ...] = ()) -> str:
    return await layers.add_remote(
        parent=parent, diff_id=digest(number), chain_id=digest(100 + number), remote=remote(number, *origins)
    )


async def test_a_new_layer_is_seen_when_it_is_committed(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        new = await cache.layers.create((), kind="source.local", description="files")
        (new.directory / "file").write_text("x")
        assert not cache.layers.exists(new.id)
        with pytest.raises(LayerMissing):
            cache.layers.get(new.id)
        assert await new.commit(size=17) == new.id
        await new.discard()
        layer = cache.layers.get(new.id)
        assert (layer.kind, layer.description, layer.size, layer.filled) == ("source.local", "files", 17, True)
        assert cache.layers.tree((new.id,)).lowers == (str(new.directory),)
        with pytest.raises(InternalError):
            await new.commit()


async def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        base = await (await cache.layers.create(())).commit()
        new = await cache.layers.create((base,))
        assert sorted(os.listdir(tmp_path / "layers")) == sorted([base, new.id])
        assert sorted(os.listdir(tmp_path / "layers" / new.id)) == ["fs", "work"]
        await new.discard()
        await new.discard()
        with pytest.raises(InternalError):
            await new.commit()
        assert os.listdir(tmp_path / "layers") == [base]
        with trio.CancelScope() as scope:
            new = await cache.layers.create((base,))
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                await new.discard()
        assert os.listdir(tmp_path / "layers") == [base]


async def test_what_nobody_committed_goes_with_the_store(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        await cache.layers.create(())
    assert os.listdir(tmp_path / "layers") == []
    async with open_cache(tmp_path) as cache:
        assert disk_usage(cache) == []


async def test_a_lazy_layer_is_filled_once(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as one, open_cache(tmp_path) as two:
        id = await lazy(one.layers, 1, "docker.io/library/a")
        assert [layer.id for layer in one.layers.missing((id,))] == [id]
        with pytest.raises(InternalError, match="before they are filled"):
            one.layers.tree((id,))
        fillings: list[Filling | None] = []

        async def fill(cache: Cache) -> None:
            filling = await cache.layers.fill(id)
            fillings.append(filling)
            if filling is not None:
                (filling.directory / "file").write_text("x")
                await trio.sleep(0.005)
                await filling.commit(size=1)
                await filling.discard()

        async with trio.open_nursery() as nursery:
            for cache in (one, one, two, two):
                nursery.start_soon(fill, cache)
        assert len([filling for filling in fillings if filling is not None]) == 1
        assert two.layers.missing((id,)) == ()
        # An image's lowest layer may hold whiteouts, so it is shown through an overlay.
        assert len(two.layers.tree((id,)).lowers) == 2


async def test_a_filling_given_up_can_be_done_again(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        id = await lazy(cache.layers, 1)
        filling = await cache.layers.fill(id)
        assert filling is not None
        (filling.directory / "half").write_text("x")
        await filling.discard()
        filling = await cache.layers.fill(id)
        assert filling is not None
        assert os.listdir(filling.directory) == []
        await filling.commit()
        with pytest.raises(InternalError):
            await filling.commit()
        assert cache.layers.get(id).filled


async def test_one_chain_is_one_layer(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        first = await lazy(cache.layers, 1, "a/x", "b/x")
        assert await lazy(cache.layers, 1, "c/x", "a/x") == first
        assert cache.layers.get(first).remote == remote(1, "c/x", "a/x", "b/x")
        other = await cache.layers.add_remote(
            parent=(), diff_id=digest(1), chain_id=digest(101), remote=remote(7, "d/x"), description="repacked"
        )
        assert other == first
        assert cache.layers.get(first).remote == remote(7, "d/x")
        child = await lazy(cache.layers, 2, parent=(first,))
        assert cache.layers.get(child).parent == first
        with pytest.raises(LayerMissing):
            await lazy(cache.layers, 3, parent=("nobody",))


async def test_of_all_places_that_a_layer_was_met_at_the_newest_are_remembered(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        ids = [await lazy(cache.layers, 1, f"r.io/app{number}") for number in range(12)]
        assert len(set(ids)) == 1
        assert cache.layers.get(ids[0]).remote == remote(1, *(f"r.io/app{number}" for number in range(11, 1, -1)))


async def test_blobs_and_diff_ids(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        id = await (await cache.layers.create(())).commit()
        await cache.layers.set_diff_ids({id: (digest(1), digest(2))})
        await cache.layers.set_diff_ids({id: (digest(1), None)})
        assert (cache.layers.get(id).diff_id, cache.layers.get(id).chain_id) == (digest(1), digest(2))
        zstd = LayerBlob(compression="zstd", level=3, digest=digest(3), size=3, media_type="z", annotations={"a": "b"})
        gzip = LayerBlob(compression="gzip", digest=digest(4), size=4, media_type="g")
        for blob in (zstd, gzip, zstd):
            await cache.layers.add_blob(id, blob)
        assert cache.layers.blobs(id) == (gzip, zstd)
        with pytest.raises(LayerMissing):
            await cache.layers.add_blob("nobody", gzip)


async def test_a_layer_remembers_the_stack_it_was_made_on(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:

        async def on(*stack: str) -> str:
            return await (await cache.layers.create(stack)).commit()

        a = await on()
        b = await on(a)
        c = await on()
        merged = await on(b, c)
        top = await on(b, c, merged)
        parents = {info.id: info.parents for info in disk_usage(cache)}
        assert (parents[a], parents[b], parents[merged], parents[top]) == ((), (a,), (b, c), (merged,))


# --- holding ----------------------------------------------------------------------------------------------


async def left(cache: Cache) -> set[str]:
    await prune.prune(cache, EVERYTHING, lambda info: None)
    return set(os.listdir(cache.root / "layers"))


async def test_what_is_held_stays(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache, open_cache(tmp_path) as other:
        a = await (await cache.layers.create(())).commit()
        b = await (await cache.layers.create((a,))).commit()
        assert await left(other) == {a, b}  # made a moment ago, and nobody can have held it yet
        cache.layers.hold((a, b))
        cache.layers.hold((a, b))
        assert await left(other) == {a, b}
        cache.layers.release((a, b))
        assert await left(other) == {a, b}
        cache.layers.hold((a,))
        cache.layers.release((a, b))
        assert await left(other) == {a}
        assert cache.layers.get(a).usage_count == 0
        cache.layers.release((a,))
        assert await left(other) == set()


async def test_holding_what_is_gone_does_no_harm(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        cache.layers.hold(("gone",))
        assert not cache.layers.exists("gone")
        cache.layers.release(("gone",))
        assert cache.db.read(lambda c: c.execute("SELECT count(*) FROM holds").fetchone()) == (0,)


async def test_use_is_counted(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        a = await (await cache.layers.create(())).commit()
        for _ in range(2):
            cache.layers.hold((a,))
            cache.layers.release((a,))
        layer = cache.layers.get(a)
        assert layer.usage_count == 2
        assert layer.last_used is not None
        assert layer.last_used >= layer.created


async def test_what_an_activity_made_stays_to_its_end(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        with cache.activity():
            blob = cache.store.put(b"made in the first")
            layer = await (await cache.layers.create(())).commit()
            with cache.activity():
                later = cache.store.put(b"made in the second")
                cache.layers.hold((layer,))
                cache.layers.release((layer,))
                assert await left(cache) == {layer}
            assert {info.digest for info in cache.store.list()} == {blob.digest, later.digest}
        assert await left(cache) == set()
        assert list(cache.store.list()) == []
        with cache.activity():
            old = cache.store.put(b"old")
            second = cache.activity()
            second.__enter__()
            young = cache.store.put(b"young")
        await prune.collect(cache)  # the first has ended, and what it made is older than the second
        assert [info.digest for info in cache.store.list()] == [young.digest]
        assert cache.store.info(old.digest) is None
        second.__exit__(None, None, None)
        await prune.collect(cache)
        assert list(cache.store.list()) == []


async def test_a_blob_that_was_looked_at_stays_too(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as maker:
        info = maker.store.put(b"x")
    async with open_cache(tmp_path) as user, open_cache(tmp_path) as other:
        with user.activity():
            assert user.store.info(info.digest) == info
            await prune.prune(other, EVERYTHING, lambda info: None)
            assert user.store.read(info.digest) == b"x"
        await prune.prune(other, EVERYTHING, lambda info: None)
        assert user.store.info(info.digest) is None
