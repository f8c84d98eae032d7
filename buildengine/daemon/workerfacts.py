"""What the worker says of itself: a name that stays, labels with BuildKit's keys, the platforms that run here."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from buildengine import platform as platforms
from buildengine.daemon.daemonconfig import DaemonConfig
from buildengine.daemon.service import Settings
from buildengine.errors import ConfigError
from buildengine.platform import Platform
from buildengine.wholefile import whole_file
from cache.opened import Cache

_PROVENANCE = Path("/etc/buildkit/provenance.d")
_PREFIX = "org.mobyproject.buildkit.worker."  # worker/label/label.go


def settings_of(config: DaemonConfig, cache: Cache) -> Settings:
    return Settings(
        id=_identity(cache.root / "worker-id"),
        labels={**_labels(cache), **config.labels},
        platforms=_platforms(config),
        entitlements=config.entitlements,
        disabled_frontends=config.disabled_frontends,
        provenance=_provenance(config.provenance_env or _PROVENANCE),
    )


def _provenance(directory: Path) -> dict[str, object]:
    """What the JSON files of a directory say, later names over earlier ones (cmd/buildkitd/util.go, loadProvenanceEnv).

    Raises ConfigError.
    """
    found: dict[str, object] = {}
    if not directory.is_dir():
        return found
    for path in sorted(directory.glob("*.json")):
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"failed to parse {path}: {error}") from error
        if not isinstance(document, dict):
            raise ConfigError(f"failed to parse {path}: it is not a JSON object")
        found |= document
    return found


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


def _platforms(config: DaemonConfig) -> tuple[Platform, ...]:
    """Those that were named, else this host's, with the levels of its processor, and what it can emulate."""
    if config.platforms:
        return tuple(map(platforms.parse, config.platforms))

    from worker.runtime import levels, runnable

    local = platforms.local()
    found = [row.platform for row in runnable.table(directory=config.engine.worker.emulators) if row.how]
    return tuple(dict.fromkeys([local, *levels.variants(local, levels.processor_flags()), *found]))
