"""What a daemon has written of its builds on this host, read without it: `buildengine.history.BuildHistory`.

Builds without a daemon leave no record: it would cost a cached one a fifth of its time, and its output was seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from buildengine.api import convert, journal, records
from buildengine.config import Config
from buildengine.daemon.history import History, open_records, opened
from buildengine.daemon.running import run_to_end
from buildengine.digest import Digest
from buildengine.errors import BuildError, HostError, SourceError
from buildengine.events import EventSink
from buildengine.history import BuildRecord, HistoryQuery
from cache.opened import open_cache


@contextmanager
def open_local_history(config: Config) -> Iterator[LocalHistory]:
    """The history in the state directory of `config`. Raises HostError without root."""
    if os.geteuid() != 0:
        raise HostError(
            f"the build history in {config.root} is root's", hint="run it with sudo, or ask a daemon: --addr"
        )
    if not config.root.is_dir():
        run_to_end(partial(_create_store, config))
    with open_records(config.root) as history:
        yield LocalHistory(history, config.root)


async def _create_store(config: Config) -> None:
    """As every command does where there is none."""
    async with open_cache(config.root, snapshotter=config.worker.snapshotter):
        return


class LocalHistory:
    """Of a daemon that runs meanwhile, what has ended: what runs only it knows."""

    def __init__(self, history: History, root: Path) -> None:
        self._history = history
        self._root = root

    def records(self, query: HistoryQuery) -> Sequence[BuildRecord]:
        return [event.record for event in self._history.known(query)]

    def logs(self, ref: str, on_event: EventSink) -> None:
        record = self._history.find(ref)
        if record is None:
            raise SourceError(f"there is no record of a build {ref}", hint="pybuild history ls shows what there is")
        if record.logs is None:
            return
        with self._history.document(record.logs.digest) as fd:
            for response in journal.read(fd) if fd is not None else ():
                for event in convert.events(response):
                    on_event(event)

    def remove(self, ref: str) -> None:
        run_to_end(lambda: self._history.forget(ref))

    def failure(self, record: BuildRecord) -> BuildError | None:
        return records.failure_of(record, self.document)

    def document(self, digest: Digest) -> bytes | None:
        for path in (self._root / "history" / digest.hex, self._root / "blobs" / digest.algorithm / digest.hex):
            with opened(path) as fd:
                if fd is not None:
                    return os.pread(fd, os.fstat(fd).st_size, 0)
        return None
