"""The frontend's options, read once: BuildKit's attribute names to values of ours. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypeVar

from buildengine.builder import CacheEntry
from buildengine.errors import UserError
from buildengine.units import parse_epoch
from buildengine.values import dataclass
from frontends.dockerfile import lint, notation
from frontends.dockerfile.suggest import did_you_mean
from llb.ops import HostIP, NetMode, ProxyEnv, Ulimit
from llb.sources import RESOLVE_MODES

_NONE: Mapping[str, str] = MappingProxyType({})
_NETWORKS = {"": NetMode.SANDBOX, "sandbox": NetMode.SANDBOX, "none": NetMode.NONE, "host": NetMode.HOST}
_EPOCH = "SOURCE_DATE_EPOCH"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python holds bytes of the command line that are no text
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`no_cache` None: use the cache; empty: ignore it in all stages; else names of stages, in lower case."""

    filename: str = "Dockerfile"
    target: str = ""
    context: str = ""  # a git or http URL; otherwise the context is a directory of the client
    context_subdir: str = ""
    dockerfile_local: str = ""  # set: the Dockerfile is there, not in a remote context
    keep_git_dir: bool | None = None
    build_args: Mapping[str, str] = field(default_factory=lambda: _NONE)
    labels: Mapping[str, str] = field(default_factory=lambda: _NONE)
    contexts: Mapping[str, str] = field(default_factory=lambda: _NONE)  # by name, or name::platform
    input_metadata: Mapping[str, str] = field(default_factory=lambda: _NONE)
    session: str = ""
    local_sessions: Mapping[str, str] = field(default_factory=lambda: _NONE)  # of directories that another one has
    no_cache: frozenset[str] | None = None
    resolve_mode: str = "default"
    network: NetMode = NetMode.SANDBOX
    extra_hosts: tuple[HostIP, ...] = ()
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    hostname: str = ""
    cache_namespace: str = ""
    multi_platform: bool | None = None  # None: as many platforms as there are say
    implicit_platform: bool = True
    epoch: int | None = None
    lint: lint.Settings | None = None
    syntax: str = ""  # the frontend image and its arguments, whatever the file says
    is_forwarded: bool = False  # what the file says of that has been heeded already
    request: str = ""
    cache_imports: tuple[CacheEntry, ...] = ()
    capabilities: tuple[str, ...] = ()
    forwarded_capabilities: tuple[str, ...] = ()  # which the image of the file's language may have instead

    def ignores_cache(self, stage: str) -> bool:
        return self.no_cache is not None and (not self.no_cache or stage.lower() in self.no_cache)

    def session_of(self, directory: str) -> str:
        """The session that has this directory of the client's."""
        return self.local_sessions.get(directory, self.session)

    @property
    def proxy(self) -> ProxyEnv | None:
        """Proxy arguments need no ARG, and enter neither history nor cache keys."""
        found = {name.lower(): value for name, value in self.build_args.items() if name.lower() in _PROXIES}
        return ProxyEnv(**found) if found else None

    @property
    def created(self) -> str | None:
        """The epoch as history entries write it."""
        if self.epoch is None:
            return None
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(options: Mapping[str, str], session: str = "") -> Options:
    """Raises UserError for a value that cannot be meant."""
    for name, value in options.items():
        if _SURROGATE.search(name + value):
            raise UserError(f"the value of {name!a} is not UTF-8 text", hint="set a UTF-8 locale")
    get = options.get
    capabilities = [name for name in get("frontend.caps", "").split(",") if name]
    build_args = _named(options, "build-arg:")
    return Options(
        filename=get("filename") or "Dockerfile",
        target=get("target", ""),
        context=get(get("contextkey", "context"), ""),
        context_subdir=get("contextsubdir", ""),
        dockerfile_local=get("dockerfilekey", ""),
        keep_git_dir=_maybe_boolean(build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "")),
        build_args=build_args,
        labels=_named(options, "label:"),
        contexts=_named(options, "context:"),
        input_metadata=_named(options, "input-metadata:"),
        session=session,
        local_sessions=_named(options, "local-sessionid:"),
        no_cache=_no_cache(get("no-cache")),
        resolve_mode=_choice("image-resolve-mode", get("image-resolve-mode") or "default", RESOLVE_MODES),
        network=_NETWORKS[_choice("netmode", get("force-network-mode", ""), _NETWORKS, colon="")],
        extra_hosts=_each("failed to parse additional hosts", get("add-hosts", ""), notation.host_ip),
        ulimits=_each("failed to parse ulimit", get("ulimit", ""), notation.ulimit),
        shm_size=_integer("failed to parse shm size", get("shm-size") or "0"),
        cgroup_parent=get("cgroup-parent", ""),
        hostname=build_args.get("BUILDKIT_SANDBOX_HOSTNAME") or get("hostname", ""),
        cache_namespace=build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        multi_platform=_multi_platform(build_args.get("BUILDKIT_MULTI_PLATFORM") or get("multi-platform", "")),
        implicit_platform=not get("platform"),
        epoch=parse_epoch(_EPOCH, build_args[_EPOCH]) if build_args.get(_EPOCH) else None,
        lint=_lint(build_args.get("BUILDKIT_DOCKERFILE_CHECK")),
        syntax=build_args.get("BUILDKIT_SYNTAX", ""),
        is_forwarded="cmdline" in options,
        request=get("requestid", ""),
        cache_imports=_cache_imports(get("cache-imports", ""), get("cache-from", "")),
        capabilities=tuple(name for name in capabilities if "+forward" not in name),
        forwarded_capabilities=tuple(name.partition("+")[0] for name in capabilities if "+forward" in name),
    )


def _named(options: Mapping[str, str], prefix: str) -> Mapping[str, str]:
    return MappingProxyType({k.removeprefix(prefix): v for k, v in options.items() if k.startswith(prefix)})


def _no_cache(value: str | None) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset(value.lower().split(",")) if value else frozenset()


def _choice(what: str, value: str, options: Mapping[str, object] | tuple[str, ...], *, colon: str = ":") -> str:
    if value not in options:
        known = [option for option in options if option]
        raise UserError(f"invalid {what}{colon} {value}{did_you_mean(value, known)}", hint=f"one of {', '.join(known)}")
    return value


def _each(what: str, text: str, read_one: Callable[[str], T]) -> tuple[T, ...]:
    try:
        return tuple(map(read_one, notation.csv_fields(text))) if text else ()
    except ValueError as error:
        raise UserError(f"{what}: {error}") from None


def _integer(what: str, text: str) -> int:
    if not re.fullmatch("[+-]?[0-9]{1,18}", text):
        raise UserError(f"{what}: {text!r} is no number")
    return int(text)


def _multi_platform(text: str) -> bool | None:
    try:
        return notation.boolean(text) if text else None
    except ValueError:
        raise UserError(f"invalid boolean value for multi-platform: {text}") from None


def _cache_imports(text: str, references: str) -> tuple[CacheEntry, ...]:
    """JSON of BuildKit's CacheOptionsEntry; and references alone, as clients of before it wrote them."""
    old = [CacheEntry(type="registry", attrs={"ref": each}) for each in references.split(",") if each]
    try:
        entries = json.loads(text) if text else []
        new = [CacheEntry(type=str(each["Type"]), attrs=_texts(each.get("Attrs") or {})) for each in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f'failed to unmarshal cache-imports ("{text[:200]}")', hint="it is a list of caches") from None
    return (*new, *old)


def _texts(attrs: Mapping[str, object]) -> Mapping[str, str]:
    return MappingProxyType({name: str(value) for name, value in attrs.items()})


def _maybe_boolean(text: str) -> bool | None:
    try:
        return notation.boolean(text)
    except ValueError:
        return None


def _lint(text: str | None) -> lint.Settings | None:
    try:
        return None if text is None else lint.parse_settings(text)
    except UserError as error:
        raise UserError(
            f"failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: {error.message}", hint=error.hint
        ) from None
