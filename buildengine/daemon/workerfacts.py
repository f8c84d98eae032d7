"""What the worker says of itself: a name that stays, labels with BuildKit's keys, the platforms that run here."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from buildengine import platform as platforms
from buildengine.api.daemon import WorkerInfo
from buildengine.config import WorkerConfig
from buildengine.platform import Platform
from buildengine.wholefile import whole_file
from cache.opened import Cache
from worker.runtime.runtime import HAVE_CONTAINERS

_PREFIX = "org.mobyproject.buildkit.worker."  # worker/label/label.go


class WorkerFacts:
    """`info` is asked for often, and what it says does not change but for the size of the disk."""

    def __init__(self, config: WorkerConfig, cache: Cache) -> None:
        self._config = config
        self._root = cache.root
        self._id = _identity(cache.root / "worker-id")
        self._labels = {**_labels(cache), **config.labels}
        self._platforms = _platforms(config)

    def info(self) -> WorkerInfo:
        return WorkerInfo(
            id=self._id,
            labels=self._labels,
            platforms=self._platforms,
            policies=self._config.prune_policies(shutil.disk_usage(self._root).total),
            containers=self._config.runtime in HAVE_CONTAINERS,
        )


def _identity(path: Path) -> str:
    """Made once for each store, as BuildKit's worker has one for its root."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        name = secrets.token_hex(12)
        with whole_file(path) as fd:
            os.write(fd, f"{name}\n".encode())
        return name


def _labels(cache: Cache) -> dict[str, str]:
    return {
        f"{_PREFIX}executor": "oci",
        f"{_PREFIX}hostname": os.uname().nodename,
        f"{_PREFIX}network": "host",
        f"{_PREFIX}oci.process-mode": "sandbox",
        f"{_PREFIX}selinux.enabled": "false",
        f"{_PREFIX}snapshotter": "overlayfs" if cache.layers.snapshotter == "overlay" else "native",
    }


def _platforms(config: WorkerConfig) -> tuple[Platform, ...]:
    """Those that were named, else this host's, with the levels of its processor, and what it can emulate."""
    if config.platforms:
        return tuple(map(platforms.parse, config.platforms))

    from worker.runtime import levels, runnable

    local = platforms.local()
    found = [row.platform for row in runnable.table(directory=config.emulators) if row.how]
    return tuple(dict.fromkeys([local, *levels.variants(local, levels.processor_flags()), *found]))
