"""buildkitd's flags: the table of them, and the command line as the keys of buildkitd.toml. Pure.

Their syntax is that of Go's programs: `--name value`, `--name=value`, one dash or two; a flag that is true or false
takes its value behind `=` only. Facts: BuildKit cmd/buildkitd/main.go, main_oci_worker.go, main_containerd_worker.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from buildengine.errors import ConfigError, meant
from buildengine.values import dataclass

Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """`keys` are its place in buildkitd.toml, () where it has none. `read` makes that value of what was written."""

    keys: Keys = ()
    usage: str = ""
    is_switch: bool = False
    is_list: bool = False
    read: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """`values` are by the keys of buildkitd.toml; `others` are flags that have no key there, by name."""

    values: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)


def parse(arguments: Sequence[str]) -> CommandLine:
    """Raises ConfigError for a flag that buildkitd does not have, and for what is no flag."""
    given: dict[str, Any] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, has_value, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or not name:
            raise ConfigError(f"unexpected argument {word!r}", hint="pybuildd takes flags only: pybuildd --help")
        flag = FLAGS.get(name)
        if flag is None:
            raise _unknown(name)
        if not has_value and not flag.is_switch:
            if not words:
                raise ConfigError(f"--{name} needs a value")
            value = words.pop(0)
        if flag.is_list:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value if has_value or not flag.is_switch else True
    return _by_keys(given)


def _unknown(name: str) -> ConfigError:
    close = meant(name, FLAGS)
    return ConfigError(f"unknown flag --{name}", hint=f"did you mean --{close}?" if close else "see pybuildd --help")


def _by_keys(given: Mapping[str, Any]) -> CommandLine:
    values: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in given.items():
        flag = FLAGS[name]
        read = value
        if flag.read is not None:
            try:
                read = flag.read(value)
            except ValueError as error:
                raise ConfigError(f"--{name} {error}, not {value!r}") from None
        if not flag.keys:
            others[name] = read
            continue
        table = values
        for key in flag.keys[:-1]:
            table = table.setdefault(key, {})
        if isinstance(read, dict):
            table.setdefault(flag.keys[-1], {}).update(read) if flag.is_list else table.update(read)
        else:
            table[flag.keys[-1]] = read
    return CommandLine(values=values, others=others)


def _labels(words: Sequence[str]) -> dict[str, str]:
    """`a=b` each; several may stand in one, with commas."""
    labels = {}
    for word in (part for each in words for part in each.split(",")):
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise ValueError("must be NAME=VALUE")
        labels[name] = value
    return labels


def _keep_storage(text: str) -> dict[str, str]:
    """Reserved[,Free[,Maximum]]: megabytes, of 10^6; also a size with a unit, or a percentage."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 3:
        raise ValueError("must be Reserved[,Free[,Maximum]]")
    names = ("reservedSpace", "minFreeSpace", "maxUsedSpace")
    sized = [str(int(part) * 10**6) if part.isdigit() else part for part in parts]
    return {name: part for name, part in zip(names, sized, strict=False) if part}


def _group(text: str) -> int:
    """A number, or the name of a group of this host."""
    if text.isdigit():
        return int(text)
    import grp

    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError("must be a group of this host") from None


def _parts(words: Sequence[str]) -> list[str]:
    return [part for word in words for part in word.split(",")]


def _worker(kind: str, title: str) -> dict[str, Flag]:
    """The flags of one worker."""
    table: Keys = ("worker", kind)
    prefix = f"{kind}-worker"
    cni = f"{kind}-cni" if kind == "oci" else "containerd-cni"
    return {
        prefix: Flag(keys=(*table, "enabled"), usage=f"{title} (true, false or auto)"),
        f"{prefix}-labels": Flag(keys=(*table, "labels"), is_list=True, read=_labels, usage="NAME=VALUE"),
        f"{prefix}-platform": Flag(keys=(*table, "platforms"), is_list=True, read=_parts, usage="what it says it runs"),
        f"{prefix}-snapshotter": Flag(keys=(*table, "snapshotter"), usage="auto, overlayfs or native"),
        f"{prefix}-net": Flag(keys=(*table, "networkMode"), usage="auto or host"),
        f"{cni}-config-path": Flag(keys=(*table, "cniConfigPath")),
        f"{cni}-binary-dir": Flag(keys=(*table, "cniBinaryPath")),
        f"{cni}-pool-size": Flag(keys=(*table, "cniPoolSize")),
        f"{prefix}-apparmor-profile": Flag(keys=(*table, "apparmor-profile")),
        f"{prefix}-selinux": Flag(keys=(*table, "selinux"), is_switch=True),
        f"{prefix}-rootless": Flag(keys=(*table, "rootless"), is_switch=True),
        f"{prefix}-gc": Flag(keys=(*table, "gc"), is_switch=True, usage="collect garbage (true)"),
        f"{prefix}-gc-keepstorage": Flag(
            keys=(*table, "gckeepstorage"), read=_keep_storage, usage="Reserved[,Free[,Maximum]], in MB"
        ),
        f"{kind}-max-parallelism": Flag(keys=(*table, "max-parallelism"), usage="how many steps run at a time"),
    }


FLAGS: Mapping[str, Flag] = {
    "config": Flag(usage="buildkitd.toml (/etc/buildkit/buildkitd.toml)"),
    "root": Flag(keys=("root",), usage="state directory"),
    "addr": Flag(keys=("grpc", "address"), is_list=True, usage="where to listen: unix://, tcp:// or fd://; repeatable"),
    "group": Flag(keys=("grpc", "gid"), read=_group, usage="group that may use unix sockets"),
    "debug": Flag(keys=("debug",), is_switch=True, usage="say more"),
    "trace": Flag(keys=("trace",), is_switch=True, usage="say even more"),
    "log-format": Flag(keys=("log", "format"), usage="text or json"),
    "debugaddr": Flag(keys=("grpc", "debugAddress")),
    "tlscert": Flag(keys=("grpc", "tls", "cert"), usage="certificate for tcp://"),
    "tlskey": Flag(keys=("grpc", "tls", "key"), usage="its key"),
    "tlscacert": Flag(keys=("grpc", "tls", "ca"), usage="authority whose certificates clients must have"),
    "allow-insecure-entitlement": Flag(
        keys=("insecure-entitlements",), is_list=True, read=_parts, usage="network.host or security.insecure"
    ),
    "otel-socket-path": Flag(keys=("otel", "socketPath")),
    "cdi-disabled": Flag(keys=("cdi", "disabled"), is_switch=True),
    "cdi-spec-dir": Flag(keys=("cdi", "specDirs"), is_list=True, read=_parts),
    "save-cache-debug": Flag(is_switch=True),
    "rootless": Flag(keys=("worker", "oci", "rootless"), is_switch=True),
    **_worker("oci", "the worker that there is"),
    "oci-worker-binary": Flag(keys=("worker", "oci", "binary"), usage="runc or crun instead of the built-in runtime"),
    "oci-worker-proxy-snapshotter-path": Flag(keys=("worker", "oci", "proxySnapshotterPath")),
    "oci-worker-no-process-sandbox": Flag(keys=("worker", "oci", "noProcessSandbox"), is_switch=True),
    **_worker("containerd", "there is none: false or auto"),
    "containerd-worker-addr": Flag(keys=("worker", "containerd", "address")),
    "containerd-worker-namespace": Flag(keys=("worker", "containerd", "namespace")),
    "containerd-worker-runtime": Flag(keys=("worker", "containerd", "runtime")),
}


def usage() -> str:
    """The help text."""
    rows = [f"  --{name:<30} {flag.usage}" for name, flag in FLAGS.items() if flag.usage]
    return "\n".join(
        [
            "usage: pybuildd [FLAGS]",
            "",
            "Serves the build API to buildctl, docker buildx and pybuild. Its flags and its file are buildkitd's.",
            "",
            *rows,
        ]
    )
