"""The image config as the frontend sees it: what it reads of a base image, changes, and writes for the exporter.

The JSON is what Go would write for OCI's Image with Docker's extensions: field order, omitted empty fields, escapes.
`rootfs` is that of the base image: what the image has in the end is the exporter's to say. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, replace
from types import MappingProxyType
from typing import Any

from buildengine import platform as platforms
from buildengine.errors import UserError
from buildengine.platform import DEFAULT_PATH, Platform
from buildengine.values import dataclass

COMMENT = "buildkit.dockerfile.v0"
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """`created` is a time as RFC 3339 writes it; None lets the exporter say."""

    created_by: str = ""
    created: str | None = None
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Times in nanoseconds."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a container of the image starts with."""

    user: str = ""
    exposed_ports: frozenset[str] = frozenset()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: frozenset[str] = frozenset()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: _NONE)
    stop_signal: str = ""
    args_escaped: bool = False
    health: Health | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()

    def variable(self, name: str) -> str | None:
        found = None
        for entry in self.env:
            key, _, value = entry.partition("=")
            if key == name:
                found = value
        return found

    def env_with(self, added: Mapping[str, str]) -> tuple[str, ...]:
        """A variable that is set again keeps its place, its first one if it has several."""
        left = {name: f"{name}={value}" for name, value in added.items()}
        kept = [left.pop(old.partition("=")[0], old) for old in self.env]
        return (*kept, *left.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """`os` and `architecture` are as written, which may be nothing; `diff_ids` None: nothing is said of layers.

    `has_layers` is not part of the JSON.
    """

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    author: str = ""
    config: Config = field(default_factory=Config)
    history: tuple[History, ...] = ()
    rootfs: str = "layers"  # its type
    diff_ids: tuple[str, ...] | None = None
    has_layers: bool = True

    @property
    def platform(self) -> Platform | None:
        if not (self.os and self.architecture):
            return None
        return platforms.normalize(
            Platform(
                os=self.os,
                architecture=self.architecture,
                variant=self.variant,
                os_version=self.os_version,
                os_features=self.os_features,
            )
        )

    def on(self, platform: Platform) -> Image:
        return replace(
            self,
            os=platform.os,
            architecture=platform.architecture,
            variant=platform.variant,
            os_version=platform.os_version,
            os_features=platform.os_features,
        )


def empty(platform: Platform) -> Image:
    """The config of `scratch`."""
    config = Config(working_dir="/", env=() if platform.os == "windows" else (f"PATH={DEFAULT_PATH}",))
    return Image(config=config, has_layers=False).on(platform)


# --- reading ------------------------------------------------------------------------------------------------


def parse(data: bytes) -> Image:
    """Raises UserError for what is no image config."""
    try:
        return _image(_object({"the config": json.loads(data)}, "the config"))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"failed to parse image config: {error}", hint="the base image is broken; pull it again"
        ) from None


def _image(document: dict[str, Any]) -> Image:
    entries, root = document.get("history") or [], _object(document, "rootfs")
    if not isinstance(entries, list):
        raise TypeError("history is no list")
    history = tuple(
        History(
            created_by=_text(entry, "created_by"),
            created=_text(entry, "created") or None,
            author=_text(entry, "author"),
            comment=_text(entry, "comment"),
            empty_layer=bool(entry.get("empty_layer")),
        )
        for entry in (_object({"an entry of history": entry}, "an entry of history") for entry in entries)
    )
    return Image(
        os=_text(document, "os"),
        architecture=_text(document, "architecture"),
        variant=_text(document, "variant"),
        os_version=_text(document, "os.version"),
        os_features=_texts(document, "os.features"),
        author=_text(document, "author"),
        config=_config(_object(document, "config")),
        history=history,
        rootfs=_text(root, "type"),
        diff_ids=_texts(root, "diff_ids") if root.get("diff_ids") is not None else None,
        # an image of the oldest schema has no diff ids, so its history is asked too
        has_layers=bool(root.get("diff_ids")) or any(not entry.empty_layer for entry in history),
    )


def _config(inner: dict[str, Any]) -> Config:
    labels = {_checked(k): _checked(v) for k, v in _object(inner, "Labels").items()}
    return Config(
        user=_text(inner, "User"),
        exposed_ports=frozenset(map(_checked, _object(inner, "ExposedPorts"))),
        env=_texts(inner, "Env"),
        entrypoint=_texts(inner, "Entrypoint"),
        cmd=_texts(inner, "Cmd"),
        volumes=frozenset(map(_checked, _object(inner, "Volumes"))),
        working_dir=_text(inner, "WorkingDir"),
        labels=MappingProxyType(labels),
        stop_signal=_text(inner, "StopSignal"),
        args_escaped=bool(inner.get("ArgsEscaped")),
        health=_health(_object(inner, "Healthcheck")) if inner.get("Healthcheck") is not None else None,
        on_build=_texts(inner, "OnBuild"),
        shell=_texts(inner, "Shell"),
    )


def _health(document: dict[str, Any]) -> Health:
    return Health(
        test=_texts(document, "Test"),
        interval=_number(document, "Interval"),
        timeout=_number(document, "Timeout"),
        start_period=_number(document, "StartPeriod"),
        start_interval=_number(document, "StartInterval"),
        retries=_number(document, "Retries"),
    )


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"{key} is no object")
    return value or {}


def _number(document: dict[str, Any], key: str) -> int:
    value = document.get(key) or 0
    if not isinstance(value, int):
        raise TypeError(f"{key} is no whole number")
    return value


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    return "" if value is None else _checked(value)


def _texts(document: dict[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TypeError(f"{key} is no list")
    return tuple(map(_checked, value))


def _checked(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.50} is no text")
    return value.encode("utf-8", "replace").decode()  # a lone surrogate is not text


# --- writing ------------------------------------------------------------------------------------------------


def to_json(image: Image) -> bytes:
    """The config without `created`."""
    document = {
        **_filled(author=image.author),
        "architecture": image.architecture,
        "os": image.os,
        **_filled(**{"os.version": image.os_version, "os.features": image.os_features, "variant": image.variant}),
        "rootfs": {"type": image.rootfs, "diff_ids": image.diff_ids},
        **_filled(history=[_history_entry(entry) for entry in image.history]),
        "config": _config_document(image.config),
    }
    return go_json(document)


def go_json(document: object) -> bytes:
    """As Go's encoding/json writes it: no spaces, and nothing that HTML would take for markup."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    for special in "<>&\u2028\u2029":
        text = text.replace(special, f"\\u{ord(special):04x}")
    return text.encode()


def _filled(**fields: object) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value}


def _history_entry(entry: History) -> dict[str, object]:
    return _filled(
        created=entry.created,
        created_by=entry.created_by,
        author=entry.author,
        comment=entry.comment,
        empty_layer=entry.empty_layer,
    )


def _config_document(config: Config) -> dict[str, object]:
    return _filled(
        User=config.user,
        ExposedPorts={port: {} for port in sorted(config.exposed_ports)},
        Env=config.env,
        Entrypoint=config.entrypoint,
        Cmd=config.cmd,
        Volumes={path: {} for path in sorted(config.volumes)},
        WorkingDir=config.working_dir,
        Labels=dict(sorted(config.labels.items())),
        StopSignal=config.stop_signal,
        ArgsEscaped=config.args_escaped,
    ) | {
        **({"Healthcheck": _health_document(config.health)} if config.health is not None else {}),
        **_filled(OnBuild=config.on_build, Shell=config.shell),
    }


def _health_document(health: Health) -> dict[str, object]:
    return _filled(
        Test=health.test,
        Interval=health.interval,
        Timeout=health.timeout,
        StartPeriod=health.start_period,
        StartInterval=health.start_interval,
        Retries=health.retries,
    )
