"""What has been committed but not yet flushed to the disk, and the flush.

No blob and no layer is fsync'ed on its own: that would cost a disk round trip each. They are committed as
`unsynced` under the incarnation of the file system, and one syncfs(2) per batch, at the latest before a command
ends, makes all of them durable. After a power cut the incarnation is another, and what is still unsynced may be
torn: it is dropped when the store is opened (`cache.recovery`).

A build that finds everything in the cache has used cache mounts and received directories, and made nothing. For those
alone nobody waits for the disk, which others may keep busy: a power cut costs what they save.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
from pathlib import Path

import trio

from buildengine.errors import StoreError
from buildengine.limits import DISK, offload
from buildengine.tracepoints import reach
from cache.db import Database

_MOST = 1000  # marks that pile up

_libc = ctypes.CDLL(None, use_errno=True)


def incarnation(root: Path) -> str:
    """A name for the time during which what was written to `root` is sure to be readable, flushed or not.

    The boot, the device, and the sequence number of the disk (Documentation/ABI/stable/sysfs-block, diskseq):
    a copy of a disk image that is attached on the same boot is not what its page cache was.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    device = os.stat(root).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    disk = ""
    for place in (f"/sys/dev/block/{name}/diskseq", f"/sys/dev/block/{name}/../diskseq"):
        try:
            disk = Path(place).read_text().strip()
            break
        except OSError:
            continue
    return f"{boot}/{name}/{disk}"


class Durability:
    """Marks in transactions what they commit, and flushes."""

    def __init__(self, db: Database, root: Path, name: str) -> None:
        self._db = db
        self._root = root
        self._lock = trio.Lock()
        self.incarnation = name

    def mark(self, connection: sqlite3.Connection, kind: str, id: str) -> None:
        """Inside the transaction that commits: `id` may be torn until the next `sync`."""
        connection.execute(
            "INSERT INTO unsynced (kind, id, incarnation) VALUES (?, ?, ?)", (kind, id, self.incarnation)
        )

    async def sync(self) -> None:
        """Return when all that was committed before this call, by any process, survives a power cut; if that is more
        than cache mounts."""
        async with self._lock:
            newest = self._db.read(_newest)
            if not newest:
                return  # also: whoever had the lock before us has flushed ours too
            await offload(_flush, self._root, limiter=DISK)
            reach("sync.flushed")
            await self._db.write(lambda c: c.execute("DELETE FROM unsynced WHERE number <= ?", (newest,)).rowcount)
            await offload(self._db.flush, limiter=DISK)
            reach("sync.done")


def _newest(connection: sqlite3.Connection) -> int:
    """The number of the newest mark; 0 when there is nothing worth a flush."""
    query = "SELECT max(number), count(*), sum(kind != 'cachemount') FROM unsynced"
    newest, marks, others = connection.execute(query).fetchone()
    return newest if others or marks > _MOST else 0


def _flush(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise StoreError(
                f"cannot write the store {root} to its disk: {os.strerror(code)}",
                hint="see the kernel's log for errors of that disk",
            )
    finally:
        os.close(fd)
