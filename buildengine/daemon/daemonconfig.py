"""What a daemon is told at its start, from pybuild's own files, buildkitd.toml and buildkitd's flags; later ones win.

    /etc/pybuild/pybuild.toml, PYBUILD_* < buildkitd.toml (--config) < flags

What buildkitd has and this engine has not is refused where a build would be another one for it, and a warning where
nobody would notice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from buildengine import config as configs
from buildengine import settings
from buildengine.config import Config, GcPolicy, Space, WorkerConfig
from buildengine.daemon.buildkitdfile import BuildkitdFile, Worker
from buildengine.daemon.flags import CommandLine
from buildengine.errors import ConfigError
from buildengine.settings import Layer
from buildengine.values import dataclass

SYSTEM_FILE = Path("/etc/buildkit/buildkitd.toml")
PROVENANCE = Path("/etc/buildkit/provenance.d")
ADDRESS = "unix:///run/buildkit/buildkitd.sock"  # where buildctl looks
ENTITLEMENTS = ("network.host", "security.insecure")
_SNAPSHOTTERS = {"auto": "auto", "overlayfs": "overlay", "overlay": "overlay", "native": "copy", "copy": "copy"}
_NO_SPACE = Space()


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """`engine` is the engine's; the rest is of the daemon around it. `uid` and `gid` own unix sockets.

    `provenance_env` is a directory of JSON files that provenance takes in.
    """

    engine: Config
    addresses: tuple[str, ...] = (ADDRESS,)
    uid: int
    gid: int
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_authority: Path | None = None
    entitlements: frozenset[str] = frozenset()
    history_max_age: float = 48 * 3600.0
    history_max_entries: int = 50
    log_format: str = "text"
    provenance_env: Path = PROVENANCE
    warnings: tuple[str, ...] = ()


def load(line: CommandLine, *, environ: Mapping[str, str] | None = None) -> DaemonConfig:
    """Raises ConfigError."""
    base = configs.load() if environ is None else configs.load(environ=environ)
    values = _file(line.others.get("config"))
    here = Layer(name="command line", base=Path.cwd())
    settings.merge(values, settings.read_table(BuildkitdFile, line.values, (), here))
    made: BuildkitdFile = settings.make(BuildkitdFile, values)
    return resolve(base, made)


def _file(path: str | None) -> dict[str, Any]:
    file = Path(path) if path else SYSTEM_FILE
    try:
        return settings.read_toml(BuildkitdFile, file, file.read_bytes())
    except FileNotFoundError:
        return {}  # buildkitd goes on without, too
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}") from None


def resolve(base: Config, file: BuildkitdFile) -> DaemonConfig:
    """Raises ConfigError for what cannot be done."""
    _refuse(file)
    grpc, dns = file.grpc, file.dns
    if (grpc.tls.cert is None) != (grpc.tls.key is None):
        raise ConfigError("TLS needs both a certificate and a key", hint="give --tlscert and --tlskey")
    engine = replace(
        base,
        root=(file.root or base.root).absolute(),
        debug=file.debug or file.trace or base.debug,
        worker=_worker(base.worker, file.worker.oci),
        registries={**base.registries, **file.registries},
        frontends={**base.frontends, **file.frontends},
        dns=dns if dns.nameservers or dns.options or dns.search_domains else base.dns,
    )
    return DaemonConfig(
        engine=engine,
        addresses=grpc.address or (ADDRESS,),
        uid=os.getuid() if grpc.uid is None else grpc.uid,
        gid=os.getgid() if grpc.gid is None else grpc.gid,
        tls_certificate=grpc.tls.cert,
        tls_key=grpc.tls.key,
        tls_authority=grpc.tls.ca,
        entitlements=_entitlements(file.insecure_entitlements),
        history_max_age=file.history.max_age,
        history_max_entries=file.history.max_entries,
        log_format=file.log.format,
        provenance_env=file.provenance_env_dir or PROVENANCE,
        warnings=tuple(_warnings(file)),
    )


def _worker(base: WorkerConfig, oci: Worker) -> WorkerConfig:
    unset = oci.reserved_space == oci.max_used_space == oci.min_free_space == _NO_SPACE
    reserved = oci.gckeepstorage if unset else oci.reserved_space  # as it was called before v0.17
    given: dict[str, Any] = {
        "snapshotter": _snapshotter(oci.snapshotter) if oci.snapshotter != "auto" else None,
        "runtime": _runtime(oci.binary) if oci.binary else None,
        "max_parallelism": oci.max_parallelism or None,
        "gc": oci.gc,
        "reserved_space": reserved if reserved != _NO_SPACE else None,
        "max_used_space": oci.max_used_space if oci.max_used_space != _NO_SPACE else None,
        "min_free_space": oci.min_free_space if oci.min_free_space != _NO_SPACE else None,
        "gc_policies": tuple(_policies(oci)) or None,
        "labels": oci.labels,
        "platforms": oci.platforms,
    }
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def _policies(oci: Worker) -> Iterator[GcPolicy]:
    for policy in oci.gc_policies:
        yield GcPolicy(
            all=policy.all,
            filters=policy.filters,
            keep_duration=policy.keep_duration,
            reserved_space=policy.reserved_space if policy.reserved_space != _NO_SPACE else policy.keep_bytes,
            max_used_space=policy.max_used_space,
            min_free_space=policy.min_free_space,
        )


def _snapshotter(name: str) -> str:
    if name not in _SNAPSHOTTERS:
        raise ConfigError(f"there is no snapshotter {name!r}", hint="it is overlayfs, native or auto")
    return _SNAPSHOTTERS[name]


def _runtime(binary: str) -> str:
    name = Path(binary).name.removeprefix("buildkit-")
    if name not in ("runc", "crun"):
        raise ConfigError(f"worker.oci.binary: {binary!r} cannot be used", hint="it is runc or crun")
    return name


def _entitlements(names: Sequence[str]) -> frozenset[str]:
    for name in names:
        if name not in ENTITLEMENTS:
            raise ConfigError(f"invalid entitlement : {name}", hint=f"there are {' and '.join(ENTITLEMENTS)}")
    return frozenset(names)


def _refuse(file: BuildkitdFile) -> None:
    oci, containerd = file.worker.oci, file.worker.containerd
    if containerd.enabled:
        raise ConfigError("there is no containerd worker", hint="use --containerd-worker=false --oci-worker=true")
    refused = {
        "worker.oci.enabled = false": oci.enabled is False,
        "rootless": oci.rootless,
        "noProcessSandbox": oci.no_process_sandbox,
        "proxySnapshotterPath": bool(oci.proxy_snapshotter_path),
        "stargzSnapshotter": oci.stargz_snapshotter is not None,
        "userRemapUnsupported": bool(oci.user_remap_unsupported),
        "apparmor-profile": bool(oci.apparmor_profile),
        "selinux": oci.selinux,
        "securityDescriptor": bool(file.grpc.security_descriptor),
    }
    for name, is_asked in refused.items():
        if is_asked:
            raise ConfigError(f"{name} is not supported", hint="steps run as root in namespaces of their own")


def _warnings(file: BuildkitdFile) -> Iterator[str]:
    oci = file.worker.oci
    if oci.network_mode not in ("", "auto", "host"):
        yield f"networkMode {oci.network_mode} is not supported: steps use the network that the engine gives them"
    if oci.default_cgroup_parent:
        yield "defaultCgroupParent is not heeded"
    if file.grpc.debug_address:
        yield "there is no debug server: debugAddress is not heeded"
    if file.cdi.auto_allowed:
        yield "there are no CDI devices: cdi.autoAllowed is not heeded"


def read_provenance(directory: Path) -> dict[str, object]:
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
