"""What an engine is told once, at its start: one frozen `Config` tree, made from layers, the later ones winning.

    code < /etc/pybuild/pybuild.toml < $XDG_CONFIG_HOME/pybuild/pybuild.toml < PYBUILD_* < flags

    [worker]                        [registry."docker.io"]               [[worker.gcpolicy]]
    step-memory = "2GB"             mirrors = ["mirror.example:5000"]    filters = ["type==exec.cachemount"]
    step-pids = 4096                ca = ["corporate.pem"]               keepDuration = "48h"

`buildengine.settings` reads the layers. Only this module and `cli` read the environment; nobody here knows
what a value is used for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from buildengine import settings
from buildengine.builder import PrunePolicy
from buildengine.errors import ConfigError
from buildengine.settings import TABLE, Layer, named, one_of, scalar, tables
from buildengine.tracepoints import arm
from buildengine.values import dataclass

SYSTEM_FILE = Path("/etc/pybuild/pybuild.toml")

_FLAG, _COUNT, _QUANTITY, _SIZE = map(scalar, (settings.flag, settings.count, settings.quantity, settings.size))
_DURATION, _PATH, _PATHS, _STRINGS = map(scalar, (settings.duration, settings.path, settings.paths, settings.strings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """An amount of disk: bytes, or a part of the disk that the store is on."""

    bytes: int = 0
    percent: int = 0

    def of(self, disk_size: int) -> int:
        return self.bytes or disk_size * self.percent // 100


_NO_SPACE = Space()


def space(value: Any) -> Space:
    """A size, or a percentage; what else there is raises ValueError."""
    if not isinstance(value, str) or not value.strip().endswith("%"):
        return Space(bytes=settings.size(value))
    percent = settings.count(value.strip()[:-1])
    if percent > 100:
        raise ValueError("must be at most 100%")
    return Space(percent=percent)


_SPACE = scalar(space)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcPolicy:
    """One rule of garbage collection, as buildkitd's [[worker.oci.gcpolicy]]."""

    all: bool = field(default=False, metadata=_FLAG)
    filters: tuple[str, ...] = field(default=(), metadata=_STRINGS)
    keep_duration: float = field(default=0.0, metadata=_DURATION)
    reserved_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    max_used_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    min_free_space: Space = field(default=_NO_SPACE, metadata=_SPACE)

    def on(self, disk_size: int) -> PrunePolicy:
        return PrunePolicy(
            all=self.all,
            filters=self.filters,
            keep_duration=self.keep_duration,
            reserved_space=self.reserved_space.of(disk_size),
            max_used_space=self.max_used_space.of(disk_size),
            min_free_space=self.min_free_space.of(disk_size),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Steps: their limits (0: none) and how they are run. The cache: how it is laid out and kept small.

    `build_file_...` are of a build file in Python: its memory, and the time for which it may keep the engine waiting.
    `labels` and `platforms` are what a daemon was told to say of its worker; () platforms: those that run here.
    """

    step_memory: int = field(default=0, metadata=_SIZE)
    step_cpus: float = field(default=0.0, metadata=_QUANTITY)
    step_pids: int = field(default=32768, metadata=_COUNT)
    build_file_memory: int = field(default=512 << 20, metadata=_SIZE)
    build_file_seconds: float = field(default=60.0, metadata=_DURATION)
    runtime: str = field(default="auto", metadata=scalar(one_of("auto", "builtin", "runc", "crun")))
    emulators: Path | None = field(default=None, metadata=_PATH)
    snapshotter: str = field(default="auto", metadata=scalar(one_of("auto", "overlay", "copy")))
    max_parallelism: int = field(default=0, metadata=_COUNT)
    gc: bool = field(default=True, metadata=_FLAG)
    reserved_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    max_used_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    min_free_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    gc_policies: tuple[GcPolicy, ...] = field(default=(), metadata=tables(GcPolicy, key="gcpolicy"))
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()

    def prune_policies(self, disk_size: int) -> tuple[PrunePolicy, ...]:
        """What the garbage collector does, rule by rule, on a disk of `disk_size` bytes."""
        policies = self.gc_policies or self._default_policies(disk_size)
        return tuple(policy.on(disk_size) for policy in policies) if self.gc else ()

    def _default_policies(self, disk_size: int) -> tuple[GcPolicy, ...]:
        """BuildKit's four (cmd/buildkitd/config/gcpolicy.go): what is cheap to make again goes first."""
        reserved, limit, free = self.reserved_space, self.max_used_space, self.min_free_space
        if reserved == limit == free == _NO_SPACE:
            reserved = Space(bytes=min(disk_size * 10 // 100, 10 * 10**9))
            limit = Space(bytes=min(disk_size * 80 // 100, 100 * 10**9))
            free = Space(percent=20)
        cheap = ("type==source.local", "type==exec.cachemount", "type==source.git.checkout")

        def within(*, keep_duration: float = 0.0, all: bool = False) -> GcPolicy:
            return GcPolicy(
                all=all,
                keep_duration=keep_duration,
                reserved_space=reserved,
                max_used_space=limit,
                min_free_space=free,
            )

        return (
            GcPolicy(filters=cheap, keep_duration=48 * 3600.0, max_used_space=Space(bytes=512 * 10**6)),
            within(keep_duration=60 * 86400.0),
            within(),
            within(all=True),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A TLS client certificate and its key."""

    key: Path = field(metadata=_PATH)
    cert: Path = field(metadata=_PATH)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """How one registry host is reached. `http` None: https, but plain http on a loopback address.

    `tlsconfigdir` are directories with authorities (`*.crt`) and client certificates (`x.cert` with `x.key`).
    """

    mirrors: tuple[str, ...] = field(default=(), metadata=_STRINGS)
    http: bool | None = field(default=None, metadata=_FLAG)
    insecure: bool = field(default=False, metadata=_FLAG)
    ca: tuple[Path, ...] = field(default=(), metadata=_PATHS)
    keypairs: tuple[KeyPair, ...] = field(default=(), metadata=tables(KeyPair, key="keypair"))
    tlsconfigdir: tuple[Path, ...] = field(default=(), metadata=_PATHS)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendConfig:
    """Whether builds may use a frontend; of `gateway.v0` also the repositories whose images it may run, () for all."""

    enabled: bool = field(default=True, metadata=_FLAG)
    allowed_repositories: tuple[str, ...] = field(default=(), metadata=_STRINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsConfig:
    """What replaces the host's resolv.conf in steps; empty: the host's."""

    nameservers: tuple[str, ...] = field(default=(), metadata=_STRINGS)
    options: tuple[str, ...] = field(default=(), metadata=_STRINGS)
    search_domains: tuple[str, ...] = field(default=(), metadata=_STRINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """`docker_config` is docker's directory (credentials); `environment` what helper programs inherit from."""

    root: Path = field(default=Path("/var/lib/pybuild"), metadata=_PATH)
    debug: bool = field(default=False, metadata=_FLAG)
    worker: WorkerConfig = field(default_factory=WorkerConfig, metadata=TABLE)
    registries: Mapping[str, RegistryConfig] = field(
        default_factory=dict, metadata=named(RegistryConfig, key="registry")
    )
    frontends: Mapping[str, FrontendConfig] = field(
        default_factory=dict, metadata=named(FrontendConfig, key="frontend")
    )
    dns: DnsConfig = field(default_factory=DnsConfig, metadata=TABLE)
    docker_config: Path = Path("/root/.docker")
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def load(
    *, file: Path | None = None, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] = os.environ
) -> Config:
    """The configuration of this command. `file` (or $PYBUILD_CONFIG) is read instead of the two files.

    `flags` are values by field name, e.g. `{"root": "/data"}`; None means not given. Arms the trace point that
    $PYBUILD_TRACEPOINT names (`name[:count]`). Raises ConfigError.
    """
    home, here = Path(environ.get("HOME") or "/root"), _current_directory()
    values: dict[str, Any] = {}
    for path, required in _files(file, home, environ):
        settings.merge(values, _read_file(path, required))
    settings.merge(values, settings.read_environment(Config, "PYBUILD", environ, here))
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    settings.merge(values, settings.read_table(Config, given, (), Layer(name="command line", base=here)))
    _arm(environ.get("PYBUILD_TRACEPOINT", ""))
    values["docker_config"] = here / (environ.get("DOCKER_CONFIG") or home / ".docker")
    values["environment"] = dict(environ)
    config: Config = settings.make(Config, values)
    return config


def _current_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the current directory no longer exists", hint="cd to one that does") from None


def _files(file: Path | None, home: Path, environ: Mapping[str, str]) -> tuple[tuple[Path, bool], ...]:
    """The files to read, and whether each must be there."""
    named_file = file or environ.get("PYBUILD_CONFIG")
    if named_file:
        return ((Path(named_file), True),)
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return ((SYSTEM_FILE, False), (user / "pybuild/pybuild.toml", False))


def _read_file(path: Path, required: bool) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not required:
            return {}
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
    return settings.read_toml(Config, path, data)


def _arm(point: str) -> None:
    if not point:
        return
    name, _, count = point.partition(":")
    if not name or (count and not re.fullmatch("[1-9][0-9]{0,8}", count)):
        raise ConfigError(f"environment: PYBUILD_TRACEPOINT must be name[:count], not {point!r}")
    arm(name, int(count or 1))
