"""`RUN --mount=type=...,key=value,...`: what it says, once its variables are known.

A mount is read twice, as BuildKit does: when the file is parsed, for its commas and its `from`; and when the
command is converted, with variables, key after key from left to right. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeVar

from buildengine import units
from buildengine.errors import ParseError, UserError
from buildengine.values import dataclass
from frontends.dockerfile import notation
from frontends.dockerfile.instructions import RawMount
from frontends.dockerfile.suggest import did_you_mean
from frontends.dockerfile.words import quote
from llb.ops import CacheSharing

Expand = Callable[[str], str]
T = TypeVar("T")


class MountKind(Enum):
    BIND = "bind"
    CACHE = "cache"
    TMPFS = "tmpfs"
    SECRET = "secret"
    SSH = "ssh"


_KINDS = {kind.value: kind for kind in MountKind}
_SHARING = {"shared": CacheSharing.SHARED, "private": CacheSharing.PRIVATE, "locked": CacheSharing.LOCKED}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = (
    "type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "size", "mode", "uid",
    "gid", "env",
)  # fmt: skip
_OWNED = (MountKind.SECRET, MountKind.SSH, MountKind.CACHE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """One mount of a RUN. None: not given."""

    kind: MountKind
    source_stage: str = ""
    source: str = ""
    target: str = ""
    readonly: bool = False
    size: int = 0
    id: str = ""
    sharing: CacheSharing | None = None
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None

    @property
    def has_owner(self) -> bool:
        return not (self.mode is None and self.uid is None and self.gid is None)


def raw(text: str, span: tuple[int, int] | None = None) -> RawMount:
    """The mount cut at its commas. Raises ParseError."""
    try:
        fields = notation.csv_fields(text)
    except ValueError as error:
        raise ParseError(f"failed to parse csv mounts: {error}", hint=_EXAMPLE) from None
    stage = ""
    for field in fields:
        key, equals, value = field.partition("=")
        if equals and key.lower() == "from":
            if "$" in value[:-1]:
                raise ParseError(
                    "'from' doesn't support variable expansion, define alias stage instead",
                    hint="write FROM ${IMAGE} AS name above, and from=name here",
                )
            stage = value
    return RawMount(fields=fields, source_stage=stage, span=span)


_EXAMPLE = "a mount looks like --mount=type=cache,target=/root/.cache"


def parse(mount: RawMount, expand: Expand) -> RunMount:
    """Raises ParseError for what does not fit together."""
    reader = _Reader()
    for field in mount.fields:
        key, equals, value = field.partition("=")
        reader.take(field, key.lower(), expand(value) if equals else None)
    return reader.finish()


class _Reader:
    """The keys of one mount as they come: a key may depend on the type given before it."""

    def __init__(self) -> None:
        self.kind = MountKind.BIND
        self.texts: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.readonly: bool | None = None
        self.required = False
        self.sharing: CacheSharing | None = None

    def take(self, field: str, written: str, value: str | None) -> None:
        key = _ALIASES.get(written, written)
        if value is None:
            if key not in ("readonly", "readwrite", "required"):
                raise ParseError(f"invalid field '{field}' must be a key=value pair", hint=_EXAMPLE)
            value = "true"
        match key:
            case "type":
                self.kind = _choice(value, _KINDS, f"unsupported mount type {quote(value)}")
            case "sharing":
                self.sharing = _choice(value, _SHARING, f"unsupported sharing value {quote(value)}")
            case "readonly" | "readwrite":
                self.readonly = _flag(written, value) is (key == "readonly")
            case "required":
                self.only_for(written, MountKind.SECRET, MountKind.SSH)
                self.required = _flag(written, value)
            case "size":
                self.only_for(written, MountKind.TMPFS)
                self.numbers[key] = _size(written, value)
            case "mode" | "uid" | "gid":
                self.numbers[key] = _number(key, value)
            case "from" | "source" | "target" | "id" | "env":
                self.texts[key] = value
            case _:
                every = [*_KEYS, *_ALIASES]
                raise ParseError(
                    f"unexpected key '{written}' in '{field}'{did_you_mean(written, every)}",
                    hint=f"keys are {', '.join(_KEYS)}",
                )

    def only_for(self, key: str, *kinds: MountKind) -> None:
        if self.kind not in kinds:
            raise ParseError(
                f"unexpected key '{key}' for mount type '{self.kind.value}'",
                hint=f"write type={kinds[0].value} before {key}: keys are read from left to right",
            )

    def finish(self) -> RunMount:
        self.check()
        writable = self.kind in (MountKind.CACHE, MountKind.TMPFS)
        return RunMount(
            kind=self.kind,
            source_stage=self.texts.get("from", ""),
            source=self.texts.get("source", ""),
            target=self.texts.get("target", ""),
            readonly=not writable if self.readonly is None else self.readonly,
            size=self.numbers.get("size", 0),
            id=self.texts.get("id", ""),
            sharing=self.sharing,
            required=self.required,
            env=self.texts.get("env"),
            mode=self.numbers.get("mode"),
            uid=self.numbers.get("uid"),
            gid=self.numbers.get("gid"),
        )

    def check(self) -> None:
        for key in ("mode", "uid", "gid"):
            if key in self.numbers and self.kind not in _OWNED:
                raise ParseError(f'{key} not allowed for "{self.kind.value}" type mounts', hint=f"remove {key}=")
        if self.kind is MountKind.SECRET:
            self.check_secret()
        if self.sharing is not None and self.kind is not MountKind.CACHE:
            raise ParseError(
                f"invalid cache sharing set for {self.kind.value} mount", hint="sharing= is for type=cache"
            )

    def check_secret(self) -> None:
        if self.texts.get("from"):
            raise ParseError("secret mount should not have a from", hint="a secret comes from the build command")
        if self.sharing is not None:
            raise ParseError("secret mount should not define sharing", hint="sharing= is for type=cache")
        if not any(self.texts.get(key) for key in ("source", "target", "id")):
            raise ParseError("invalid secret mount. one of source, target required", hint="write id=NAME")
        if self.texts.get("source") and self.texts.get("id"):
            raise ParseError("both source and id can't be set", hint="they mean the same; keep id")


def _choice(value: str, options: Mapping[str, T], problem: str) -> T:
    found = options.get(value.lower())
    if found is None:
        raise ParseError(problem + did_you_mean(value, options), hint=f"one of {', '.join(options)}")
    return found


def _flag(key: str, value: str) -> bool:
    try:
        return notation.boolean(value)
    except ValueError:
        raise ParseError(f"invalid value for {key}: {value}", hint=f"write {key} or {key}=false") from None


def _size(key: str, value: str) -> int:
    try:
        return units.parse_size(value)
    except UserError:
        raise ParseError(f"invalid value for {key}: {value}", hint="a size looks like 64m or 1g") from None


def _number(key: str, value: str) -> int:
    base = 8 if key == "mode" else 10
    if not re.fullmatch("[0-7]+" if base == 8 else "[0-9]+", value) or len(value) > 20 or int(value, base) >= 1 << 32:
        raise ParseError(
            f"invalid value {value} for {key}",
            hint="a mode is octal, like 0600" if base == 8 else f"a {key} here is a number",
        )
    return int(value, base)
