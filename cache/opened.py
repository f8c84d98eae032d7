"""The way in: `async with open_cache(root) as cache`. One store, all its parts, alive for one block.

Opening: make or check the directory, wait for whoever opens it at this moment, drop what a power cut may have
torn, sweep what dead processes left, take a lease. Closing: flush, give back everything that the lease owns.
Any number of processes may have one store open.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from buildengine.errors import BuildError, HostError, StoreError
from buildengine.limits import DISK, offload
from buildengine.values import dataclass
from cache import documents, leases, recovery, schema
from cache.blobs import BlobLedger
from cache.cachemounts import CacheMounts
from cache.contenthash import ContentHashes
from cache.db import Database
from cache.diskerrors import explained
from cache.documents import Documents
from cache.durability import Durability, incarnation
from cache.holds import Holds
from cache.images import ImageStore
from cache.layers import Layers
from cache.localindex import LocalIndex
from cache.locks import Locks
from cache.records import Records
from cache.removal import remove_tree
from cache.snapshots import CopySnapshots, OverlaySnapshots, Snapshotter
from cache.store import ContentStore
from cache.trees import Views

if TYPE_CHECKING:
    from cache.explained import Explained
    from cache.served import ServedRepositories

_FOLDERS = ("blobs", "ingest", "layers", "trees", "cachemounts", "leases", "locks")
_SWEPT = ("blobs", "layers", "trees", "cachemounts")
_OPENING = "the store is being opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    root: Path
    db: Database
    store: ContentStore
    documents: Documents
    layers: Layers
    records: Records
    contenthash: ContentHashes
    cachemounts: CacheMounts
    images: ImageStore
    localindex: LocalIndex
    locks: Locks
    holds: Holds
    durability: Durability
    lease: leases.Lease

    @property
    def explained(self) -> Explained:
        """What builds were made of, for those that are to explain themselves."""
        from cache.explained import Explained

        return Explained(self.db)

    @property
    def served(self) -> ServedRepositories:
        """The repositories of the registry of our own, which no build asks for."""
        from cache.served import ServedRepositories

        return ServedRepositories(self.db, self.durability)

    async def sync(self) -> None:
        """What was committed before this call survives a power cut when it returns."""
        await self.localindex.flush()
        await self.durability.sync()

    def activity(self) -> AbstractContextManager[None]:
        """The length of one build: what it makes or finds is not pruned before its end (see `cache.holds`)."""
        return self.holds.activity()

    async def sweep(self) -> None:
        """Take away what processes left that have died since this store was opened."""
        async with self.locks.exclusive(_OPENING):
            await offload(_sweep, self.root, self.db, self.locks, limiter=DISK)


@asynccontextmanager
async def open_cache(root: Path, *, snapshotter: str = "auto", boot: str | None = None) -> AsyncIterator[Cache]:
    """Open the store at `root`, which is made if it is not there. Raises StoreError, HostError.

    `snapshotter` is overlay, copy or auto. `boot` overrides the name of the file system's incarnation (tests).
    """
    root = root.absolute()
    _make_root(root)
    kind = _snapshotter(snapshotter, root)
    locks = Locks(root / "locks")
    async with locks.exclusive(_OPENING):
        db, lease, name = await offload(_open, root, locks, boot, limiter=DISK)
    cache = _assemble(root, db, locks, lease, name, kind)
    try:
        yield cache
        await cache.sync()
    except Exception:  # what was done before the failure is worth keeping too; Ctrl-C waits for no disk
        with trio.CancelScope(shield=True), suppress(BuildError):
            await cache.sync()
        raise
    finally:
        with trio.CancelScope(shield=True):
            await offload(_close, cache, limiter=DISK)


def _assemble(
    root: Path,
    db: Database,
    locks: Locks,
    lease: leases.Lease,
    name: str,
    snapshotter: Callable[[Path, Views], Snapshotter],
) -> Cache:
    holds = Holds(db, lease.id)
    durability = Durability(db, root, name)
    views = Views(root, db, lease.id)
    store = ContentStore(root, ledger=BlobLedger(db, holds, durability), owner=lease.id)
    return Cache(
        root=root,
        db=db,
        store=store,
        documents=Documents(db, store),
        layers=Layers(
            root=root,
            db=db,
            holds=holds,
            locks=locks,
            durability=durability,
            snapshots=snapshotter(root, views),
            owner=lease.id,
        ),
        records=Records(db, locks, durability),
        contenthash=ContentHashes(db),
        cachemounts=CacheMounts(root=root, db=db, locks=locks, durability=durability, owner=lease.id),
        images=ImageStore(db, durability),
        localindex=LocalIndex(db, name),
        locks=locks,
        holds=holds,
        durability=durability,
        lease=lease,
    )


def _make_root(root: Path) -> None:
    """The directory with its folders; refuses one that is somebody else's."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        _check_ours(root)
        if root.stat().st_mode & 0o777 != 0o700:
            root.chmod(0o700)
        for folder in _FOLDERS:
            (root / folder).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"cannot use {root} as state directory: {error.strerror}", hint="name another one with --root"
        ) from error


def _is_harmless(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return not os.listdir(entry.path)
    return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)


def _check_ours(root: Path) -> None:
    owner = root.stat().st_uid
    if owner != os.geteuid():
        raise HostError(
            f"{root} belongs to user {owner}, who can change what is in it",
            hint="name a directory of your own with --root",
        )
    if (root / "version").exists():
        return
    # Before there is a version there is nothing in the folders: what is there is somebody's, not ours to sweep away.
    # But for a daemon's socket and an empty directory: BuildKit's tests have it listen in its own root, with a TMPDIR.
    with os.scandir(root) as entries:
        strange = {entry.name for entry in entries if not _is_harmless(entry)} - {*_FOLDERS, "version"}
    strange.update(name for name in _SWEPT if (root / name).exists() and os.listdir(root / name))
    if strange:
        raise StoreError(
            f"{root} holds {min(strange)!r} and is no state directory of pybuild",
            hint="name an empty or a new directory with --root",
        )


def _open(root: Path, locks: Locks, boot: str | None) -> tuple[Database, leases.Lease, str]:
    """Under the opening lock."""
    with explained("cannot open the store"):
        return _opened(root, locks, boot)


def _opened(root: Path, locks: Locks, boot: str | None) -> tuple[Database, leases.Lease, str]:
    _check_version(root)
    name = boot or incarnation(root)
    db = Database(root / "meta.db")
    try:
        before = db.write_nowait(lambda c: _prepare(c, name))
        if before not in (None, name):
            recovery.recover(root, db, name)
        _sweep(root, db, locks, always=before != name)
        db.write_nowait(lambda c: c.execute("UPDATE meta SET value = ? WHERE name = 'incarnation'", (name,)).rowcount)
        return db, leases.Lease(root / "leases"), name
    except BaseException:
        db.close()
        raise


def _check_version(root: Path) -> None:
    path = root / "version"
    try:
        found = path.read_bytes()[:100].decode(errors="replace").strip()
    except FileNotFoundError:
        with open(root / "ingest" / "version", "w") as file:
            file.write(f"{schema.FORMAT}\n")
            file.flush()
            os.fsync(file.fileno())  # an empty one after a power cut would be another version
        os.rename(root / "ingest" / "version", path)
        return
    if found != str(schema.FORMAT):
        raise _other_version(root, found)


def _prepare(connection: sqlite3.Connection, name: str) -> str | None:
    """Make the tables of a new store; the incarnation that opened it last, None for a new one."""
    version = schema.version(connection)
    if version == 0:
        schema.create(connection)
        documents.create(connection)
        connection.execute("INSERT INTO meta (name, value) VALUES ('incarnation', ?)", (name,))
        return None
    if version != schema.FORMAT:
        raise _other_version(Path("meta.db"), str(version))
    documents.create(connection)
    row: tuple[str] = connection.execute("SELECT value FROM meta WHERE name = 'incarnation'").fetchone()
    return row[0]


def _other_version(path: Path, found: str) -> StoreError:
    return StoreError(
        f"{path} has format {found[:20]!r}, this pybuild has format {schema.FORMAT}",
        hint="use another --root, or remove the state directory: it is a cache",
    )


def _sweep(root: Path, db: Database, locks: Locks, always: bool = False) -> None:
    living, dead = leases.owners(root / "leases")
    if dead or always:
        recovery.sweep(root, db, locks, living)
        for id in dead:
            (root / "leases" / id).unlink(missing_ok=True)


def _snapshotter(name: str, root: Path) -> Callable[[Path, Views], Snapshotter]:
    if name == "overlay" or (name == "auto" and _can_overlay(root)):
        return OverlaySnapshots
    if name in ("auto", "copy"):
        return CopySnapshots
    raise HostError(f"there is no snapshotter {name!r}", hint="it is overlay, copy or auto")


def _can_overlay(root: Path) -> bool:
    """Whether the kernel has overlayfs, and `root` is not on one itself, where no upper directory may be."""
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return False
    device = root.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0] not in ("overlay", "nfs", "nfs4", "fuse.glusterfs")
    return True


def _close(cache: Cache) -> None:
    """Give back what the lease owns."""
    try:
        layers = cache.db.read(lambda c: recovery.owned(c, cache.lease.id))
        cache.db.write_nowait(lambda c: recovery.release(c, [cache.lease.id]))
        for id in layers:
            remove_tree(cache.root / "trees" / id)
            remove_tree(cache.root / "layers" / id)
        cache.lease.end()
        cache.locks.sweep()  # of what had died before we came, some may have let go of its locks only since
    finally:
        cache.db.close()
