"""Docker's configuration file, `config.json`, as far as it concerns credentials: read, and edited.

Bytes in, values or bytes out. An edit leaves everything else in the file as it was, in its order, and spells JSON as
docker does. Facts: docker/cli cli/config/configfile/file.go, cli/config/credentials/file_store.go.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any, TypeVar

from buildengine.errors import ConfigError, SourceError
from buildengine.reference import DOCKER_HUB
from buildengine.values import dataclass
from worker.oci import jsonbytes
from worker.oci.document import Fields
from worker.session import IDENTITY_TOKEN, Credential, SecretBytes

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_HELPER = re.compile(r"[A-Za-z0-9_.-]+")
_MAX_CONFIG = 4 << 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerConfig:
    """What the file says of credentials. Keys of `auths` and `helpers` are host names (with port)."""

    auths: Mapping[str, Credential] = field(default_factory=dict)
    store: str = ""
    helpers: Mapping[str, str] = field(default_factory=dict)

    def helper(self, host: str) -> str:
        """The credential helper that keeps what belongs to `host`; "" when the file itself does."""
        return self.helpers.get(host) or self.store


def parse_docker_config(raw: bytes, *, filename: str = "config.json") -> DockerConfig:
    """Raises ConfigError when the file is not what docker writes."""

    def read(fields: Fields) -> DockerConfig:
        store = fields.text("credsStore", default="")
        return DockerConfig(
            auths={
                host_of(key): credential
                for key, entry in sorted(_objects(fields, "auths").items(), key=_own_key_last)
                if (credential := _credential(entry)) is not None
            },
            store=_helper(store) if store else "",
            helpers={host_of(key): _helper(name) for key, name in fields.strings("credHelpers").items()},
        )

    return _of(raw, filename, read)


def host_of(server: str) -> str:
    """The host of a key in docker's file: keys are host names, or URLs in files of old."""
    host = server.partition("://")[2] or server
    host = host.partition("/")[0]
    return DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


def key_of(host: str) -> str:
    """Under which key docker keeps what belongs to `host`, in its file and in helpers."""
    return _DOCKER_HUB_KEY if host == DOCKER_HUB else host


def keys_of(host: str) -> tuple[str, ...]:
    """Every key under which some docker may have kept what belongs to `host`."""
    return (*dict.fromkeys((key_of(host), host, f"http://{host}", f"https://{host}")),)


def with_credential(
    raw: bytes, host: str, credential: Credential | None, *, user: str = "", filename: str = "config.json"
) -> bytes:
    """The file with `credential` for `host`, the very same bytes when it has it; `user` is whose identity token it is.

    Without a credential the entry is empty, which says: a helper keeps it.
    """
    key, entry = key_of(host), _entry(credential, user)
    known = _of(raw, filename, lambda fields: _objects(fields, "auths")).get(key)
    if known is not None and known.document == entry:
        return raw

    def edit(document: dict[str, Any]) -> None:
        document["auths"] = {**(document.get("auths") or {}), key: entry}

    return _edited(raw, filename, edit)


def without_credentials(raw: bytes, keys: Iterable[str], *, filename: str = "config.json") -> bytes:
    """The file without these entries; the very same bytes when it has none of them."""
    gone = frozenset(keys)
    if gone.isdisjoint(_of(raw, filename, lambda fields: _objects(fields, "auths"))):
        return raw

    def edit(document: dict[str, Any]) -> None:
        document["auths"] = {key: entry for key, entry in document["auths"].items() if key not in gone}

    return _edited(raw, filename, edit)


def _of(raw: bytes, filename: str, read: Callable[[Fields], _T]) -> _T:
    """What `read` finds in the file, which may be empty. Raises ConfigError."""
    try:
        return read(Fields.parse(raw.strip() or b"{}", what=filename, limit=_MAX_CONFIG))
    except SourceError as error:
        raise ConfigError(error.message, hint="the file is written by `docker login` and `pybuild login`") from error


def _edited(raw: bytes, filename: str, edit: Callable[[dict[str, Any]], None]) -> bytes:
    parse_docker_config(raw, filename=filename)  # what we do not understand we do not write to
    document = _of(raw, filename, lambda fields: fields.document)
    edit(document)
    return jsonbytes.indented(document, indent="\t")


def _entry(credential: Credential | None, user: str) -> dict[str, str]:
    """As Go writes docker's `types.AuthConfig`."""
    if credential is None:
        return {}
    secret = credential.password.reveal()
    if credential.username != IDENTITY_TOKEN:
        return {"auth": _base64(credential.username, secret)}
    named = {"auth": _base64(user, b"")} if user else {}
    return {**named, "identitytoken": secret.decode()}


def _base64(user: str, password: bytes) -> str:
    return base64.b64encode(user.encode() + b":" + password).decode()


def _own_key_last(item: tuple[str, Fields]) -> bool:
    """The key that docker uses today wins over those of old for the same host."""
    return item[0] == key_of(host_of(item[0]))


def _objects(fields: Fields, name: str) -> dict[str, Fields]:
    section = fields.optional(name)
    if section is None:
        return {}
    return {key: entry for key in section.document if (entry := section.optional(key)) is not None}


def _credential(entry: Fields) -> Credential | None:
    """The credential in one entry of `auths`; None for the empty ones that a credential store leaves behind."""
    token = entry.text("identitytoken", default="")
    if token:
        return Credential(username=IDENTITY_TOKEN, password=SecretBytes(token.encode()))
    username, password = entry.text("username", default=""), entry.text("password", default="").encode()
    encoded = entry.text("auth", default="")
    if encoded:
        try:
            pair = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ConfigError(f"{entry.where} has an `auth` that is not base64") from None
        name, colon, password = pair.partition(b":")
        if not colon:
            raise ConfigError(f"{entry.where} has an `auth` that is not user:password")
        username, password = name.decode("utf-8", "replace"), password.rstrip(b"\0")
    return Credential(username=username, password=SecretBytes(password)) if username and password else None


def _helper(name: str) -> str:
    if not _HELPER.fullmatch(name):
        raise ConfigError(f"invalid credential helper {name[:100]!r}", hint="a helper is named like `pass`")
    return name
