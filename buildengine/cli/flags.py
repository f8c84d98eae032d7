"""How the values of flags are written, as buildx reads them: text in, values out. Touches no file.

A parser refuses with a UserError; `value` makes a click type of it, so that the refusal names the flag and exits
with 2. Facts: docker/buildx util/buildflags, docker/cli opts, docker/go-units ulimit.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from buildengine import reference
from buildengine.builder import ANNOTATION_SCOPES, CacheEntry, Export, SecretSource, SshSource
from buildengine.errors import UserError, meant
from buildengine.platform import Platform, check_known, local, parse
from buildengine.units import parse_size

OUTPUT_TYPES = ("image", "oci", "docker", "tar", "local", "cacheonly", "registry")
_IMAGE_TYPES = ("image", "oci", "docker")
_ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_SECRET_KEYS = frozenset(("type", "id", "src", "source", "env"))
_NETWORKS = ("default", "none", "host")
_ENTITLEMENTS = ("network.host", "security.insecure")


class BadValue(click.BadParameter):
    """A flag's value is wrong; click adds which flag it was."""

    def __init__(self, error: UserError) -> None:
        super().__init__(error.message)
        self.hint = error.hint


def value(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A click type that reads with `parse`."""

    def convert(text: Any) -> Any:
        try:
            return parse(text) if isinstance(text, str) else text  # a default is already a value
        except UserError as error:
            raise BadValue(error) from None

    return convert


def split_csv(text: str) -> list[str]:
    """The fields of one line of CSV: a field with a comma in it is written in double quotes."""
    if '"' not in text:
        return text.split(",")
    import csv  # hardly anyone quotes

    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UserError(f"{text!r} is not valid CSV: {error}") from None


def fields(text: str, example: str) -> dict[str, str]:
    """`key=value,key=value` with keys in lower case."""
    result = {}
    for part in split_csv(text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{part!r} in {text!r} is not key=value", hint=f"e.g. {example}")
        result[key.strip().lower()] = value
    return result


def named_context(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, the name as frontends look it up: short, and without `:latest`."""
    name, equals, where = text.partition("=")
    if not (name and equals and where):
        raise UserError(f"invalid context value: {text}", hint="write NAME=PATH, NAME=docker-image://REF, ...")
    return reference.parse(name).familiar.removesuffix(":latest"), where


def assignment(text: str) -> tuple[str, str | None]:
    """`NAME=VALUE`, or `NAME` alone (None)."""
    name, equals, value = text.partition("=")
    if not name:
        raise UserError(f"{text!r} has no name before the =")
    return name, value if equals else None


def output(text: str) -> Export:
    """`type=oci,dest=image.tar`; a path alone is a directory to write to, `-` a tar on standard output."""
    if not text:
        raise UserError("the output is empty", hint="e.g. type=oci,dest=image.tar")
    if text == "-":
        return Export(type="tar", dest="-")
    parts = split_csv(text)
    if parts == [text] and not text.startswith("type="):
        return Export(type="local", dest=text)
    attrs = fields(text, "type=oci,dest=image.tar")
    kind, dest = attrs.pop("type", ""), attrs.pop("dest", None)
    if kind not in OUTPUT_TYPES:
        problem = f"unknown output type {kind!r}" if kind else f"{text!r} has no type"
        raise UserError(problem, hint=_one_of(kind, "types", OUTPUT_TYPES))
    return _checked_output(kind, attrs, dest or None)


def _checked_output(kind: str, attrs: dict[str, str], dest: str | None) -> Export:
    as_directory = kind == "local" or (kind in ("oci", "docker") and is_false(attrs.get("tar", "")))
    if as_directory and dest in (None, "-"):
        raise UserError(f"the output {kind} needs a directory", hint=f"e.g. type={kind},dest=out")
    if kind in ("image", "registry") and dest is not None:
        place = "a registry" if kind == "registry" else "the local image store"
        raise UserError(f"the output {kind} has no dest", hint=f"it goes to {place}; did you mean type=oci?")
    if kind == "registry":  # buildx's short form
        kind, attrs = "image", {"push": "true", **attrs}
    if kind in ("oci", "tar") and dest is None:
        dest = "-"
    if kind == "docker" and dest is None:  # into docker's images, for docker; into ours, for us
        kind = "image"
    return Export(type=kind, attrs=attrs, dest=dest)


Annotation = tuple[tuple[str, ...], str]
"""The attributes of an image output that one --annotation sets, and their value."""


def annotation(text: str) -> Annotation:
    """`[SCOPE[[PLATFORM]][,...]:]KEY=VALUE`: for each scope the attribute of an image output, and the value.

    >>> annotation("index,manifest[linux/arm64]:com.example.a=1")
    (('annotation-index.com.example.a', 'annotation-manifest[linux/arm64].com.example.a'), '1')
    """
    before, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{text!r} is not [TYPE:]KEY=VALUE", hint="e.g. index:org.opencontainers.image.title=app")
    scopes, colon, key = before.rpartition(":")
    if not key or re.search(r"\s", key):
        raise UserError(f"{text!r} has no key before the =", hint="e.g. org.opencontainers.image.title=app")
    places = [_annotation_scope(part) for part in scopes.split(",")] if colon else [""]
    return tuple(f"annotation{place}.{key}" for place in places), value


def _annotation_scope(text: str) -> str:
    match = re.fullmatch(r"([a-z-]+)(?:\[([^\[\]]+)\])?", text)
    name = match[1] if match else text
    if match is None or name not in ANNOTATION_SCOPES:
        raise UserError(f"unknown annotation type {text!r}", hint=_one_of(name, "types", ANNOTATION_SCOPES))
    if match[2] and name.startswith("index"):
        raise UserError(f"{text}: an index is for all platforms", hint=f"write {name}:KEY=VALUE")
    return f"-{name}[{parse(match[2])}]" if match[2] else f"-{name}"


def annotation_attributes(annotations: Iterable[Annotation]) -> dict[str, str]:
    """What all of --annotation sets: the last one counts."""
    return {attribute: value for attributes, value in annotations for attribute in attributes}


def annotated(export: Export, annotations: Iterable[Annotation]) -> Export:
    """`export` with what --annotation gave, if it is an image."""
    if export.type not in _IMAGE_TYPES:
        return export
    return replace(export, attrs={**export.attrs, **annotation_attributes(annotations)})


def is_false(text: str) -> bool:
    """As Go's strconv.ParseBool."""
    return text in ("0", "f", "F", "false", "False", "FALSE")


def is_true(text: str) -> bool:
    """As Go's strconv.ParseBool."""
    return text in ("1", "t", "T", "true", "True", "TRUE")


def named(export: Export, names: tuple[str, ...]) -> Export:
    """`export` under the names that --tag gave."""
    if export.type not in _IMAGE_TYPES or not names:
        return export
    return replace(export, attrs={**export.attrs, "name": ",".join(names)})


def secret(text: str) -> SecretSource:
    """`id=key,src=file` or `id=key,env=VARIABLE`; with an id alone, the variable or else the file of that name."""
    example = "id=key,src=key.pem or id=token,env=TOKEN"
    found = fields(text, example)
    unknown = sorted(found.keys() - _SECRET_KEYS)
    if unknown:
        close = meant(unknown[0], _SECRET_KEYS)
        hint = f"did you mean {close}?" if close else f"e.g. {example}"
        raise UserError(f"unknown key {unknown[0]!r} in {text!r}", hint=hint)
    kind, source, env = found.get("type", ""), found.get("src") or found.get("source"), found.get("env")
    if kind not in ("", "file", "env"):
        raise UserError(f"unknown secret type {kind!r}", hint="the types are file and env")
    if not found.get("id"):
        raise UserError(f"{text!r} has no id", hint=f"e.g. {example}")
    if kind == "env" and not env:
        source, env = None, source
    return SecretSource(id=found["id"], file=Path(source) if source else None, env=env or None)


def cache_from(text: str) -> CacheEntry:
    """`type=registry,ref=REF`, or `REF` alone."""
    if "=" not in text:
        reference.normalize(text)
        return CacheEntry(type="registry", attrs={"ref": text})
    entry = _cache(text, "type=registry,ref=registry.example/app:cache")
    if entry.type == "registry" and not entry.attrs.get("ref"):
        raise UserError(f"{text!r} has no ref", hint="e.g. type=registry,ref=registry.example/app:cache")
    return entry


def cache_to(text: str) -> CacheEntry:
    """`type=inline`, with attributes."""
    return _cache(text if "=" in text else f"type={text}", "type=inline")


def _cache(text: str, example: str) -> CacheEntry:
    found = fields(text, example)
    kind = found.pop("type", "")
    if not kind:
        raise UserError(f"{text!r} has no type", hint=f"e.g. {example}")
    return CacheEntry(type=kind, attrs=found)


def ssh(text: str) -> SshSource:
    """`default`, `ID` or `ID=SOCKET`; also `ID=KEY,KEY`, which is refused when the files are looked at."""
    name, _, rest = text.partition("=")
    return SshSource(id=name or "default", paths=tuple(Path(part) for part in rest.split(",") if part))


def platforms(text: str) -> tuple[Platform, ...]:
    """`linux/amd64,linux/arm64`; `local` is this host's."""
    return tuple(local() if part.strip().lower() == "local" else platform(part) for part in text.split(","))


def platform(text: str) -> Platform:
    """`linux/arm64`: a platform that there is."""
    found = parse(text)
    check_known(found)
    return found


def ulimit(text: str) -> tuple[str, int, int]:
    """`nofile=1024` or `nofile=1024:4096`: name, soft and hard limit; -1 is unlimited."""
    name, _, values = text.partition("=")
    match = re.fullmatch(r"(-1|\d{1,18})(?::(-1|\d{1,18}))?", values)
    if name not in _ULIMITS or match is None:
        problem = f"{text!r} is not NAME=SOFT[:HARD]" if name in _ULIMITS else f"unknown limit {name!r}"
        raise UserError(problem, hint="e.g. nofile=1024:4096; the names are " + ", ".join(_ULIMITS))
    soft = int(match[1])
    hard = int(match[2]) if match[2] else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise UserError(f"the soft limit of {text!r} is above the hard limit")
    return name, soft, hard


def extra_hosts(text: str) -> tuple[str, ...]:
    """`host:ip` or `host=ip,ip` (an IPv6 address may be in brackets), as BuildKit's `host=ip`."""
    import ipaddress  # 5 ms

    host, equals, addresses = text.partition("=")
    if not equals:
        host, _, addresses = text.partition(":")
    if not host or not addresses or ":" in host or "," in host:
        raise UserError(f"{text!r} is not HOST:IP", hint="e.g. db.local:10.0.0.5")
    if addresses == "host-gateway":
        raise UserError("host-gateway is not supported", hint="give the host's address in its place")
    if not re.fullmatch(r"[\w.-]+", host):
        raise UserError(f"{host!r} is not the name of a host")
    result = []
    for address in (part.removeprefix("[").removesuffix("]") for part in addresses.split(",")):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise UserError(f"{address!r} in {text!r} is not an IP address") from None
        result.append(f"{host}={address}")
    return tuple(result)


def cgroup(text: str) -> str:
    """A path below the root of each hierarchy."""
    if ".." in text.split("/") or not text.isprintable():
        raise UserError(f"cgroup parent {text!r} leaves its hierarchy", hint="e.g. builds or /system.slice/builds")
    return text


def entitlement(text: str) -> str:
    if text.partition("=")[0] == "device":
        raise UserError("devices are not supported", hint="the entitlements are " + ", ".join(_ENTITLEMENTS))
    if text not in _ENTITLEMENTS:
        raise UserError(f"unknown entitlement {text!r}", hint=_one_of(text, "entitlements", _ENTITLEMENTS))
    return text


def _one_of(word: str, what: str, known: Sequence[str]) -> str:
    close = meant(word, known)
    return f"did you mean {close}?" if close else f"the {what} are {', '.join(known)}"


def network(text: str) -> str:
    if text not in _NETWORKS:
        raise UserError(f"unknown network mode {text!r}", hint=_one_of(text, "modes", _NETWORKS))
    return text


def memory(text: str) -> int:
    return parse_size(text)


def tag(text: str) -> str:
    """`[HOST[:PORT]/]REPOSITORY[:TAG]`."""
    if "@" in text:
        raise UserError(f"the name {text!r} has a digest", hint="an image gets its digest from what is in it")
    reference.normalize(text)
    return text
