"""Docker's configuration file as a source of credentials: `auths`, `credsStore` and `credHelpers`.

Facts: docker/cli config/configfile and docker-credential-helpers (client/client.go). The file's bytes and the
environment for helper programs are arguments. A helper for one registry wins over the general store, a store
over passwords in the file; what a store does not know is still looked for in the file.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import field

from buildengine.errors import ConfigError, HostError, RegistryError, SourceError
from buildengine.programs import run
from buildengine.reference import DOCKER_HUB
from buildengine.values import dataclass
from worker.oci.document import Fields
from worker.session import Credential, SecretBytes

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_IDENTITY_TOKEN = "<token>"
_HELPER = re.compile(r"[A-Za-z0-9_.-]+")
_MAX_CONFIG = 4 << 20
_MAX_ANSWER = 1 << 20
_HELPER_TIMEOUT = 60.0
_NOT_FOUND = b"credentials not found in native keychain"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerConfig:
    """What of `config.json` concerns credentials. Keys of `auths` and `helpers` are host names (with port)."""

    auths: Mapping[str, Credential] = field(default_factory=dict)
    store: str = ""
    helpers: Mapping[str, str] = field(default_factory=dict)


def parse_docker_config(raw: bytes, *, filename: str = "config.json") -> DockerConfig:
    """Raises ConfigError when the file is not what docker writes."""
    try:
        fields = Fields.parse(raw, what=filename, limit=_MAX_CONFIG)
        auths = {
            host_of(key): credential
            for key, entry in _objects(fields, "auths").items()
            if (credential := _credential(entry)) is not None
        }
        store = fields.text("credsStore", default="")
        helpers = {host_of(key): _helper(name) for key, name in fields.strings("credHelpers").items()}
        return DockerConfig(auths=auths, store=_helper(store) if store else "", helpers=helpers)
    except SourceError as error:
        raise ConfigError(error.message, hint="the file is written by `docker login`") from error


def host_of(server: str) -> str:
    """The host of a key in docker's file: keys are host names, or URLs in files of old."""
    host = server.partition("://")[2] or server
    host = host.partition("/")[0]
    return DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


class DockerCredentials:
    """`worker.session.Credentials` out of a docker configuration. `env` is the whole environment of helpers."""

    def __init__(self, config: DockerConfig, *, env: Mapping[str, str]) -> None:
        self._config = config
        self._env = env
        self._known: dict[str, Credential | None] = {}

    async def get(self, host: str) -> Credential | None:
        """Credentials for a registry host (`docker.io` for Docker Hub). Raises RegistryError, HostError."""
        if host not in self._known:
            helper = self._config.helpers.get(host) or self._config.store
            found = await self._ask(helper, host) if helper else None
            self._known[host] = found or self._config.auths.get(host)
        return self._known[host]

    async def _ask(self, helper: str, host: str) -> Credential | None:
        server = _DOCKER_HUB_KEY if host == DOCKER_HUB else host
        program = f"docker-credential-{helper}"
        completed = await run(
            [program, "get"], input=server.encode(), env=self._env, limit=_MAX_ANSWER, timeout=_HELPER_TIMEOUT
        )
        if completed.code != 0:
            if _NOT_FOUND in completed.stdout + completed.stderr:
                return None
            # What a helper prints may be a secret: only its exit code is told.
            raise RegistryError(
                f"{program} failed for {host} with exit code {completed.code}",
                hint=f"try it: echo {server} | {program} get",
            )
        try:
            answer = Fields.parse(completed.stdout, what=f"the answer of {program}", limit=_MAX_ANSWER)
            username, secret = answer.text("Username", default=""), answer.text("Secret", default="")
        except SourceError:
            raise HostError(f"{program} gave an answer that is not a credential") from None
        return Credential(username=username, password=SecretBytes(secret.encode())) if secret else None


def _objects(fields: Fields, name: str) -> dict[str, Fields]:
    section = fields.optional(name)
    if section is None:
        return {}
    return {key: entry for key in section.document if (entry := section.optional(key)) is not None}


def _credential(entry: Fields) -> Credential | None:
    """The credential in one entry of `auths`; None for the empty ones that a credential store leaves behind."""
    token = entry.text("identitytoken", default="")
    if token:
        return Credential(username=_IDENTITY_TOKEN, password=SecretBytes(token.encode()))
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
