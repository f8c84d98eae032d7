"""A store on a disk image that is copied in the middle of a build: a power cut that can be had on demand.

    unshare --mount --propagation private python -m tests.fakes.cache_disk DIRECTORY

Prints what the copy holds, one JSON document.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import trio

from cache.opened import open_cache
from cache.usage import disk_usage
from cache.verify import verify


def mounted(image: Path, place: Path) -> Path:
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    return place / "store"


def new_disk(image: Path) -> Path:
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    return image


async def main(directory: Path) -> None:
    image, copy = new_disk(directory / "disk"), directory / "copy"
    async with open_cache(mounted(image, directory / "mounted")) as cache:
        kept = await cache.layers.create(())
        (kept.directory / "file").write_bytes(b"k" * 100_000)
        await kept.commit()
        blob = cache.store.put(b"b" * 100_000)
        await cache.records.save("kept", {"stack": [kept.id]})
        await cache.images.add(blob.digest, names=["kept"], blobs=[])
        await cache.sync()
        lost = await cache.layers.create((kept.id,))
        (lost.directory / "file").write_bytes(b"l" * 100_000)
        await lost.commit()
        cache.store.put(b"c" * 100_000)
        await cache.records.save("lost", {"stack": [kept.id, lost.id]})
        await cache.layers.create((kept.id,))
        shutil.copyfile(image, copy)
    async with open_cache(mounted(copy, directory / "other")) as cache:
        found = {
            "damages": [str(damage) for damage in verify(cache)],
            "kept": cache.layers.exists(kept.id) and len(cache.records.records("kept")) == 1,
            "whole": (cache.root / "layers" / kept.id / "fs" / "file").stat().st_size,
            "blob": cache.store.read(blob.digest) == b"b" * 100_000,
            "others": len(disk_usage(cache)) - 1,
            "lost": len(cache.records.records("lost")),
            "blobs": len(list(cache.store.list())),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
