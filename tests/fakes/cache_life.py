"""One life of a store, which passes every trace point; and a program that is killed at each of them.

    python -m tests.fakes.cache_life ROOT POINT COUNT SNAPSHOTTER

The program starts once and forks for every life: POINT `each` kills at each point in turn, every life in a store
of its own under ROOT. POINT `together` runs three that build COUNT times in one store, and one that prunes it
meanwhile. It prints one line per process: what it was and how it ended.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import trio

from buildengine.builder import PrunePolicy
from buildengine.digest import Digest
from buildengine.tracepoints import arm
from cache import TRACEPOINTS, prune
from cache.layers import LayerBlob, RemoteBlob
from cache.opened import Cache, open_cache
from cache.served import Referral, ServedManifest


class _Keys:
    selector = ""
    keys = ("root:a",)


async def live(root: Path, *, snapshotter: str = "overlay", boot: str | None = None) -> None:
    """Build, store, use and prune. What it makes is the same each time."""
    async with open_cache(root, snapshotter=snapshotter, boot=boot) as cache:
        with cache.activity():
            stack = await _layers(cache)
            await _image(cache, stack)
            await _served(cache)
            key = cache.records.add_key(Digest.sha256(b"op"), 0, [_Keys()])
            async with cache.records.exclusive(key):
                await cache.records.save(key, {"stack": list(stack)})
            async with cache.cachemounts.acquire("mount") as directory:
                (directory / "file").write_text("x")
            await _index(cache, root)
            await cache.sync()
            cache.layers.release(stack)
        unused = await cache.layers.create(())
        (unused.directory / "file").write_bytes(b"x" * 1000)
        await unused.commit()
        await prune.prune(cache, PrunePolicy(filters=(f"id=={unused.id}",)), lambda info: None)


async def _layers(cache: Cache) -> tuple[str, ...]:
    base = await cache.layers.add_remote(
        parent=(),
        diff_id=Digest.sha256(b"diff"),
        chain_id=Digest.sha256(b"chain"),
        remote=RemoteBlob(digest=cache.store.put(b"base").digest, size=4, media_type="x", origins=("a/b",)),
    )
    filling = await cache.layers.fill(base)
    if filling is not None:
        (filling.directory / "file").write_bytes(b"y" * 1000)
        await filling.commit()
    new = await cache.layers.create((base,))
    if new.tree.work is None and new.tree.upper is not None:
        (Path(new.tree.upper) / "new").write_text("new")
    else:
        (new.directory / "new").write_text("new")
    top = await new.commit()
    cache.layers.hold((base, top))
    await cache.layers.prepare((base, top))
    return base, top


async def _image(cache: Cache, stack: tuple[str, ...]) -> None:
    blob, manifest = cache.store.put(b"layer"), cache.store.put(b"manifest")
    await cache.layers.add_blob(
        stack[-1], LayerBlob(compression="gzip", digest=blob.digest, size=blob.size, media_type="x")
    )
    await cache.images.add(manifest.digest, names=["app"], blobs=[blob.digest])


async def _served(cache: Cache) -> None:
    blob, raw = cache.store.put(b"served layer"), cache.store.put(b"served manifest")
    await cache.served.add_blob("app", blob.digest)
    manifest = ServedManifest(digest=raw.digest, size=raw.size, media_type="x")
    await cache.served.add_manifest("app", manifest, needs=[Referral(digest=blob.digest)], tags=["latest"])


async def unserve(cache: Cache) -> None:
    """Take away what the life has put into the repository."""
    await cache.served.remove_manifest("app", Digest.sha256(b"served manifest"))
    await cache.served.remove_blob("app", Digest.sha256(b"served layer"))


async def _index(cache: Cache, root: Path) -> None:
    scan = await cache.localindex.scan(root.parent / "context")
    try:
        await scan.content_digest()
        scan.changed = True
        await cache.localindex.save(scan)
    finally:
        scan.close()


async def build_often(root: Path, count: int) -> None:
    for _ in range(count):
        await live(root)


async def prune_often(root: Path, count: int) -> None:
    async with open_cache(root) as cache:
        for _ in range(2 * count):
            await cache.images.prune(all=True)
            await prune.prune(cache, PrunePolicy(all=True), lambda info: None)


def together(root: Path, count: int) -> None:
    works = [("builder", build_often)] * 3 + [("pruner", prune_often)]
    processes = []
    for name, work in works:
        pid = os.fork()
        if pid == 0:
            trio.run(work, root / "store", count)
            os._exit(0)
        processes.append((name, pid))
    for name, pid in processes:
        print(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def main(root: Path, point: str, count: int, snapshotter: str) -> None:
    (root / "context").mkdir(parents=True, exist_ok=True)
    (root / "context" / "file").write_text("x")
    if point == "together":
        together(root, count)
        return
    for name in TRACEPOINTS if point == "each" else [point]:
        print(name, killed(root / name if point == "each" else root / "store", name, count, snapshotter), flush=True)


def killed(store: Path, point: str, count: int, snapshotter: str) -> int:
    pid = os.fork()
    if pid == 0:
        arm(point, count)
        trio.run(partial(live, store, snapshotter=snapshotter))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
