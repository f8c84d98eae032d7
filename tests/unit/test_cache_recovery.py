"""Whatever is killed when: the store opens, verifies, works, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from buildengine.builder import PrunePolicy
from buildengine.digest import Digest
from buildengine.errors import HostError, StoreError
from cache import TRACEPOINTS, prune
from cache.layers import LayerBlob
from cache.opened import Cache, open_cache
from cache.usage import disk_usage
from cache.verify import verify
from tests.fakes import cache_life

FOLDERS = ("layers", "cachemounts", "ingest", "leases", "locks", "blobs/sha256")


def program(root: Path, point: str, count: int = 1, snapshotter: str = "overlay") -> list[list[str]]:
    command = [sys.executable, "-m", "tests.fakes.cache_life", str(root), point, str(count), snapshotter]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return [line.split() for line in done.stdout.splitlines()]


async def emptied(cache: Cache) -> None:
    await cache.images.prune(all=True)
    await cache_life.unserve(cache)
    await prune.prune(cache, PrunePolicy(all=True), lambda info: None)
    assert disk_usage(cache) == []
    assert list(cache.store.list()) == []


def left(root: Path) -> dict[str, list[str]]:
    found = {folder: os.listdir(root / folder) for folder in FOLDERS} | {
        "trees": [name for name in os.listdir(root / "trees") if name != "empty"]
    }
    return {folder: names for folder, names in found.items() if names}


@pytest.mark.parametrize(("count", "snapshotter"), [(1, "overlay"), (2, "overlay"), (1, "copy")])
async def test_killed_at_every_point(tmp_path: Path, count: int, snapshotter: str) -> None:
    ended = program(tmp_path, "each", count, snapshotter)
    assert [name for name, _ in ended] == list(TRACEPOINTS)
    if count == 1:
        assert {status for _, status in ended} == {"-9"}
    for name, _ in ended:
        root = tmp_path / name
        async with open_cache(root, snapshotter=snapshotter) as cache:
            assert verify(cache) == [], name
        await cache_life.live(root, snapshotter=snapshotter)
        async with open_cache(root) as cache:
            assert verify(cache) == [], name
            assert len(disk_usage(cache)) >= 3
            await emptied(cache)
            assert verify(cache) == [], name
        assert left(root) == {}, name


async def test_killed_in_one_store_again_and_again(tmp_path: Path) -> None:
    for number, point in enumerate(("layer.filled", "blob.renamed", "layer.created", "cachemount.filled")):
        program(tmp_path, point, 1 + number % 2)
    async with open_cache(tmp_path / "store") as cache:
        assert verify(cache) == []
        await emptied(cache)
    assert left(tmp_path / "store") == {}


async def test_the_dead_are_swept_and_the_living_are_not(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "store") as alive:
        new = await alive.layers.create(())
        (new.directory / "file").write_text("x")
        writer = alive.store.writer()
        writer.write(b"half")
        async with alive.cachemounts.acquire("mine") as mount, alive.locks.exclusive("a lock"):
            program(tmp_path, "layer.created")
            program(tmp_path, "blob.written")
            dead = set(os.listdir(tmp_path / "store" / "leases")) - {alive.lease.id}
            assert len(dead) == 1  # the second program has swept what the first left
            async with open_cache(tmp_path / "store") as cache:
                assert set(os.listdir(tmp_path / "store" / "leases")) == {alive.lease.id, cache.lease.id}
                assert verify(cache) == []
            assert mount.is_dir()
            assert len(os.listdir(tmp_path / "store" / "locks")) >= 2
        writer.commit()
        assert alive.store.read(Digest.sha256(b"half")) == b"half"
        await new.commit()
        assert verify(alive) == []


async def test_prune_sweeps_those_who_died_meanwhile(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "store") as cache:
        program(tmp_path, "layer.committed", 2)
        assert [info for info in disk_usage(cache) if info.in_use]
        await emptied(cache)
    assert left(tmp_path / "store") == {}


async def test_builds_and_prunes_at_once(tmp_path: Path) -> None:
    """Three processes build in one store while a fourth prunes everything again and again."""
    ended = program(tmp_path, "together", 4)
    assert ended == [["builder", "0"]] * 3 + [["pruner", "0"]]
    async with open_cache(tmp_path / "store") as cache:
        assert verify(cache) == []
        await emptied(cache)
    assert left(tmp_path / "store") == {}


# --- power cuts -------------------------------------------------------------------------------------------


@asynccontextmanager
async def interrupted(root: Path) -> AsyncIterator[Cache]:
    """A cache that is closed without a flush."""
    with suppress(KeyboardInterrupt):
        async with open_cache(root, boot="one") as cache:
            yield cache
            raise KeyboardInterrupt


async def test_for_cache_mounts_alone_nobody_waits_for_the_disk(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "store") as cache:

        async def marks() -> set[str]:
            await cache.sync()
            return cache.db.read(lambda c: {kind for (kind,) in c.execute("SELECT kind FROM unsynced")})

        async with cache.cachemounts.acquire("mount"):
            assert await marks() == {"cachemount"}
        await (await cache.layers.create(())).commit()
        assert await marks() == set()
        for _ in range(501):  # a mark at the beginning and one at the end
            async with cache.cachemounts.acquire("mount"):
                pass
        assert await marks() == set()


async def test_after_another_boot_what_was_not_flushed_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "store"
    async with open_cache(root, boot="one") as cache:
        kept = await (await cache.layers.create(())).commit()
        await cache.records.save("kept", {"stack": [kept]})
        blob = cache.store.put(b"kept")
        await cache.layers.add_blob(kept, LayerBlob(compression="g", digest=blob.digest, size=4, media_type="x"))
        await cache.images.add(blob.digest, names=["kept"], blobs=[])
        await cache.sync()
        assert cache.db.read(lambda c: c.execute("SELECT count(*) FROM unsynced").fetchone()) == (0,)
    async with interrupted(root) as cache:
        lost = await (await cache.layers.create((kept,))).commit()
        on_lost = await (await cache.layers.create((kept, lost))).commit()
        await cache.records.save("lost", {"stack": [kept, lost]})
        torn = cache.store.put(b"lost")
        await cache.layers.add_blob(kept, LayerBlob(compression="z", digest=torn.digest, size=4, media_type="x"))
        await cache.images.add(torn.digest, names=["lost"], blobs=[])
        async with cache.cachemounts.acquire("mount"):
            pass
    cache.store.path(torn.digest).write_bytes(b"")  # what a power cut does
    async with open_cache(root, boot="two") as cache:
        assert verify(cache) == []
        assert [info.id for info in disk_usage(cache)] == [kept]
        assert not cache.layers.exists(lost)
        assert not cache.layers.exists(on_lost)
        assert cache.records.records("lost") == ()
        assert len(cache.records.records("kept")) == 1
        assert [image.name for image in cache.images.list()] == ["kept"]
        assert [found.digest for found in cache.layers.blobs(kept)] == [blob.digest]
        assert cache.store.info(torn.digest) is None
        assert cache.store.read(blob.digest) == b"kept"
    assert os.listdir(root / "layers") == [kept]
    assert os.listdir(root / "cachemounts") == []


async def test_in_the_same_boot_nothing_is_lost(tmp_path: Path) -> None:
    async with interrupted(tmp_path) as cache:
        id = await (await cache.layers.create(())).commit()
    async with open_cache(tmp_path, boot="one") as cache:
        assert cache.layers.exists(id)
    async with open_cache(tmp_path, boot="two") as cache:  # the one before flushed it
        assert cache.layers.exists(id)


async def test_a_torn_layer_of_an_image_is_lazy_again(tmp_path: Path) -> None:
    await cache_life.live(prepared(tmp_path), boot="one")
    async with open_cache(tmp_path / "store", boot="one") as cache:
        (base,) = [info.id for info in disk_usage(cache) if not info.parents and not info.mutable]
    (tmp_path / "store" / "layers" / base / "fs" / "file").unlink()
    (tmp_path / "store" / "layers" / base / "fs").rmdir()
    async with open_cache(tmp_path / "store", boot="two") as cache:
        assert not cache.layers.get(base).filled
        assert verify(cache) == []
    await cache_life.live(tmp_path / "store", boot="two")


def prepared(tmp_path: Path) -> Path:
    (tmp_path / "context").mkdir()
    return tmp_path / "store"


async def test_a_deletion_that_reached_the_disk_before_its_row(tmp_path: Path) -> None:
    async with open_cache(tmp_path, boot="one") as cache:
        id = await (await cache.layers.create(())).commit()
        await cache.records.save("key", {"stack": [id]})
        blob = cache.store.put(b"x")
        await cache.images.add(blob.digest, names=["app"], blobs=[])
    (tmp_path / "layers" / id / "fs").rmdir()
    cache.store.path(blob.digest).unlink()
    async with open_cache(tmp_path, boot="two") as cache:
        assert verify(cache) == []
        assert disk_usage(cache) == []
        assert cache.records.records("key") == ()
        assert cache.images.list() == ()


# --- verify ---------------------------------------------------------------------------------------------------


async def test_verify_finds_damage(tmp_path: Path) -> None:
    await cache_life.live(prepared(tmp_path))
    root = tmp_path / "store"
    async with open_cache(root) as cache:
        assert verify(cache) == []
        digest = Digest.sha256(b"manifest")
        cache.store.path(digest).write_bytes(b"manifesto")
        layer = next(info.id for info in disk_usage(cache) if info.parents)
        (root / "layers" / layer / "other").mkdir()
        (root / "layers" / "orphan").mkdir()
        (root / "cachemounts" / "orphan").mkdir()
        (root / "trees" / "orphan").mkdir()
        (root / "ingest" / "dead.file").touch()
        (root / "blobs" / "sha256" / ("ab" * 32)).touch()
        cache.db.write_nowait(lambda c: c.execute("DELETE FROM blobs WHERE digest = ?", (Digest.sha256(b"layer"),)))
        cache.db.write_nowait(lambda c: c.execute("UPDATE record_layers SET layer = 'gone'"))
        mount = next(info.id for info in disk_usage(cache) if info.kind == "exec.cachemount")
        (root / "cachemounts" / mount / "file").unlink()
        (root / "cachemounts" / mount).rmdir()
        found = {damage.where.split()[0]: damage for damage in verify(cache)}
        wheres = {damage.where for damage in verify(cache)}
    assert f"blob {digest}" in wheres
    assert {f"layer {layer}", "layers/orphan", "cachemounts/orphan", "trees/orphan", "ingest/dead.file"} <= wheres
    assert {f"blob sha256:{'ab' * 32}", f"blob {Digest.sha256(b'layer')}", f"cachemounts/{mount}"} <= wheres
    assert found["record"].problem == "gone, its layer, is missing"
    assert "image" in found


async def test_what_lies_beside_a_layer_by_rights_is_no_damage(tmp_path: Path) -> None:
    await cache_life.live(prepared(tmp_path))
    root = tmp_path / "store"
    async with open_cache(root) as cache:
        layer = next(info.id for info in disk_usage(cache) if info.parents)
        (root / "layers" / layer / "work").mkdir(exist_ok=True)
        (root / "layers" / layer / "sources").write_bytes(b"what a copy has noted")
        assert verify(cache) == []


async def test_verify_of_a_broken_database(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        for _ in range(50):
            cache.store.put(os.urandom(8))
        cache.db.close()
        data = bytearray((tmp_path / "meta.db").read_bytes())
        data[4096:] = os.urandom(len(data) - 4096)
        assert verify(cache) == []
    async with open_cache(tmp_path) as cache:
        pass
    (tmp_path / "meta.db").write_bytes(data)
    with pytest.raises(StoreError, match="metadata") as caught:
        async with open_cache(tmp_path):
            pass
    assert caught.value.hint


# --- opening --------------------------------------------------------------------------------------------------


async def test_the_root_is_ours_alone(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    async with open_cache(root):
        assert root.stat().st_mode & 0o7777 == 0o700
    root.chmod(0o755)
    async with open_cache(root):
        assert root.stat().st_mode & 0o7777 == 0o700


async def test_another_format_is_refused(tmp_path: Path) -> None:
    async with open_cache(tmp_path):
        pass
    (tmp_path / "version").write_text("99\n")
    with pytest.raises(StoreError, match="format '99'") as caught:
        async with open_cache(tmp_path):
            pass
    assert caught.value.hint is not None


async def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        async with open_cache(tmp_path):
            pass
    assert os.listdir(tmp_path) == ["thesis.tex"]
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot use"):
        async with open_cache(tmp_path / "file"):
            pass
    with pytest.raises(HostError, match="no snapshotter"):
        async with open_cache(tmp_path / "new", snapshotter="zfs"):
            pass


def test_a_copy_of_the_disk_in_the_middle_of_a_build(tmp_path: Path) -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.fakes.cache_disk"]
    done = subprocess.run([*command, str(tmp_path)], check=True, stdout=subprocess.PIPE, timeout=60)
    expected = {"damages": [], "kept": True, "whole": 100_000, "blob": True, "others": 0, "lost": 0, "blobs": 1}
    assert json.loads(done.stdout) == expected
