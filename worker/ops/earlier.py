"""The layer that the same COPY of the same directory made last time: what has not changed is linked, not copied.

Beside such a layer lies a file with the digest of each source file (`sources`). Layers never change, so a link is
as good as a copy; a file whose owner, mode, time or size would differ is copied (`copyrules.Reuse` looks).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from cache.localscan import LocalScan
from cache.opened import Cache
from cache.packed import pack, unpack
from llb.ops import CopyAction
from worker.layers.copyrules import Reuse
from worker.localtree import LocalTree
from worker.ops.keys import key_digest

_WORTHWHILE = 200  # files; fewer are copied before the earlier layer is found
_NAME = "sources"


def _key(action: CopyAction, directory: str) -> str:
    return f"copy:{key_digest('copy', action, blake3(os.fsencode(directory)).hexdigest())}"


class Earlier:
    """What is known of one copy from a scanned directory; `worthwhile` says whether to bother."""

    def __init__(self, cache: Cache, action: CopyAction, tree: LocalTree, scan: LocalScan) -> None:
        self._cache = cache
        self._action = action
        self._source = action.src.strip("/")
        self._digests = _digests(scan, self._source)
        self._key = _key(action, tree.path or "")

    @property
    def worthwhile(self) -> bool:
        return self._action.dir_copy_contents and len(self._digests) >= _WORTHWHILE

    @contextmanager
    def reuse(self) -> Iterator[Reuse | None]:
        """The earlier layer's files, held while they are linked."""
        for record in self._cache.records.records(self._key)[:1]:
            stack = tuple(record.payload["stack"])
            self._cache.layers.hold(stack)
            try:
                directory = self._cache.layers.directory(stack[0])
                known = _read(directory.parent / _NAME) if self._cache.layers.exists(stack[0]) else {}
                if known:
                    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                    try:
                        yield Reuse(directory=fd, find=self._finder(known))
                    finally:
                        os.close(fd)
                    return
            finally:
                self._cache.layers.release(stack)
        yield None

    def _finder(self, known: Mapping[str, bytes]) -> Callable[[bytes], bytes | None]:
        dest, prefix = os.fsencode(self._action.dest.strip("/")), len(self._source) + 1 if self._source else 0
        now = self._digests

        def find(path: bytes) -> bytes | None:
            text = os.fsdecode(path)
            digest = now.get(text)
            if digest is None or known.get(text) != digest:
                return None
            return dest + b"/" + path[prefix:] if dest else path[prefix:]

        return find

    def note(self, layer: Path) -> None:
        """Leave the digests beside the layer's directory, before it is committed."""
        (layer.parent / _NAME).write_bytes(pack(self._digests))

    async def save(self, layer: str) -> None:
        """From now on this layer is the earlier one."""
        await self._cache.records.save(self._key, {"stack": [layer]})


def _digests(scan: LocalScan, source: str) -> dict[str, bytes]:
    """Of each regular file below `source`: its extended attributes and the digest of its contents, where known."""
    found: dict[str, bytes] = {}
    below = source + "/" if source else ""
    for directory, listing in scan.listings.items():
        if directory == source or directory.startswith(below):
            prefix = directory + "/" if directory else ""
            for name, entry in listing.items():
                if stat.S_ISREG(entry[0]) and isinstance(entry[5], bytes):
                    found[prefix + name] = entry[5]
    return found


def _read(path: Path) -> dict[str, bytes]:
    try:
        return unpack(path.read_bytes()) or {}
    except OSError:
        return {}
