"""buildkitd.toml as values: every key that BuildKit v0.26 has, so that a file for it is read, and a slip is found.

What a key does here is decided in `buildengine.daemon.daemonconfig`. Facts: cmd/buildkitd/config/config.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from buildengine import config, settings
from buildengine.config import DnsConfig, FrontendConfig, RegistryConfig, Space
from buildengine.settings import TABLE, named, scalar, tables
from buildengine.values import dataclass


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _flag_or_auto(value: Any) -> bool | None:
    return None if value == "auto" else settings.flag(value)


def _texts_by_name(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError("must be a table of strings")
    return value


def _anything(value: Any) -> Any:
    return value


_FLAG, _COUNT, _DURATION = scalar(settings.flag), scalar(settings.count), scalar(settings.duration)
_PATH, _STRINGS = scalar(settings.path), scalar(settings.strings)
_TEXT, _AUTO, _BY_NAME, _ANYTHING = map(scalar, (_text, _flag_or_auto, _texts_by_name, _anything))
_SPACE = scalar(config.space)
_NO_SPACE = Space()


@dataclass(frozen=True, slots=True, kw_only=True)
class GcPolicy:
    all: bool = field(default=False, metadata=_FLAG)
    filters: tuple[str, ...] = field(default=(), metadata=_STRINGS)
    keep_duration: float = field(default=0.0, metadata=_DURATION)
    keep_bytes: Space = field(default=_NO_SPACE, metadata=_SPACE)
    reserved_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    max_used_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    min_free_space: Space = field(default=_NO_SPACE, metadata=_SPACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The keys of both workers: [worker.oci], [worker.containerd]."""

    enabled: bool | None = field(default=None, metadata=_AUTO)
    labels: Mapping[str, str] = field(default_factory=dict, metadata=_BY_NAME)
    platforms: tuple[str, ...] = field(default=(), metadata=_STRINGS)
    snapshotter: str = field(default="auto", metadata=_TEXT)
    rootless: bool = field(default=False, metadata=_FLAG)
    no_process_sandbox: bool = field(default=False, metadata=_FLAG)
    gc: bool | None = field(default=None, metadata=_FLAG)
    gckeepstorage: Space = field(default=_NO_SPACE, metadata=_SPACE)
    reserved_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    max_used_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    min_free_space: Space = field(default=_NO_SPACE, metadata=_SPACE)
    gc_policies: tuple[GcPolicy, ...] = field(default=(), metadata=tables(GcPolicy, key="gcpolicy"))
    network_mode: str = field(default="auto", metadata=_TEXT)
    cni_config_path: str = field(default="", metadata=_TEXT)
    cni_binary_path: str = field(default="", metadata=_TEXT)
    cni_pool_size: int = field(default=0, metadata=_COUNT)
    bridge_name: str = field(default="", metadata=_TEXT)
    bridge_subnet: str = field(default="", metadata=_TEXT)
    user_remap_unsupported: str = field(default="", metadata=_TEXT)
    binary: str = field(default="", metadata=_TEXT)
    proxy_snapshotter_path: str = field(default="", metadata=_TEXT)
    default_cgroup_parent: str = field(default="", metadata=_TEXT)
    stargz_snapshotter: Any = field(default=None, metadata=_ANYTHING)
    apparmor_profile: str = field(default="", metadata=_TEXT)
    selinux: bool = field(default=False, metadata=_FLAG)
    max_parallelism: int = field(default=0, metadata=_COUNT)
    address: str = field(default="", metadata=_TEXT)
    namespace: str = field(default="", metadata=_TEXT)
    runtime: Any = field(default=None, metadata=_ANYTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    oci: Worker = field(default_factory=Worker, metadata=TABLE)
    containerd: Worker = field(default_factory=Worker, metadata=TABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    cert: Path | None = field(default=None, metadata=_PATH)
    key: Path | None = field(default=None, metadata=_PATH)
    ca: Path | None = field(default=None, metadata=_PATH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grpc:
    address: tuple[str, ...] = field(default=(), metadata=_STRINGS)
    debug_address: str = field(default="", metadata=_TEXT)
    uid: int | None = field(default=None, metadata=_COUNT)
    gid: int | None = field(default=None, metadata=_COUNT)
    security_descriptor: str = field(default="", metadata=_TEXT)
    tls: Tls = field(default_factory=Tls, metadata=TABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    format: str = field(default="text", metadata=scalar(settings.one_of("text", "json")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Otel:
    socket_path: str = field(default="", metadata=_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cdi:
    disabled: bool | None = field(default=None, metadata=_FLAG)
    spec_dirs: tuple[str, ...] = field(default=(), metadata=_STRINGS)
    auto_allowed: tuple[str, ...] = field(default=(), metadata=_STRINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    max_age: float = field(default=48 * 3600.0, metadata=_DURATION)
    max_entries: int = field(default=50, metadata=_COUNT)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    platforms_cache_max_age: float = field(default=0.0, metadata=_DURATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildkitdFile:
    """The whole file; flags are put over it by the same keys."""

    debug: bool = field(default=False, metadata=_FLAG)
    trace: bool = field(default=False, metadata=_FLAG)
    root: Path | None = field(default=None, metadata=_PATH)
    insecure_entitlements: tuple[str, ...] = field(default=(), metadata=_STRINGS)
    provenance_env_dir: Path | None = field(default=None, metadata=_PATH)
    log: Log = field(default_factory=Log, metadata=TABLE)
    grpc: Grpc = field(default_factory=Grpc, metadata=TABLE)
    otel: Otel = field(default_factory=Otel, metadata=TABLE)
    cdi: Cdi = field(default_factory=Cdi, metadata=TABLE)
    dns: DnsConfig = field(default_factory=DnsConfig, metadata=TABLE)
    history: History = field(default_factory=History, metadata=TABLE)
    frontends: Mapping[str, FrontendConfig] = field(
        default_factory=dict, metadata=named(FrontendConfig, key="frontend")
    )
    registries: Mapping[str, RegistryConfig] = field(
        default_factory=dict, metadata=named(RegistryConfig, key="registry")
    )
    system: System = field(default_factory=System, metadata=TABLE)
    worker: Workers = field(default_factory=Workers, metadata=TABLE)
