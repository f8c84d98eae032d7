"""A token service, as a registry's bearer challenge names it: what it gives for whose credential.

Facts: the distribution project's token specification (auth/token, auth/oauth). A credential goes to the token service
over https only, or over plain HTTP where the registry itself is plain, and then only to it or to this machine.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from buildengine import USER_AGENT
from buildengine.errors import RegistryError, SourceError
from buildengine.values import dataclass
from worker.oci.document import Fields
from worker.registry.errors import RegistryRefused, login_advice, refusal
from worker.registry.hosts import is_loopback
from worker.registry.transport import Transport, redacted
from worker.session import IDENTITY_TOKEN, Credential, SecretBytes

_CLIENT_ID = "pybuild"
_MAX_TOKEN = 1 << 20
_DEFAULT_LIFE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """What the challenge says of it."""

    realm: str
    service: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """`life` is in seconds, `identity` an identity token when one was wanted and given."""

    token: SecretBytes
    life: int
    identity: SecretBytes | None = None


class TokenService:
    """`host` is the registry as it was contacted, `key` as its credentials are kept. Raises RegistryError for a realm
    that must not see a credential.
    """

    def __init__(
        self,
        bearer: Bearer,
        *,
        host: str,
        key: str,
        is_plain: bool,
        transport: Transport,
        wants_identity: bool = False,
    ) -> None:
        self.bearer = bearer
        self._host = host
        self._key = key
        self._transport = transport
        self._wants_identity = wants_identity
        self._check_realm(bearer.realm, is_plain=is_plain)

    async def fetch(self, scopes: str, credential: Credential | None) -> Issued:
        """A token for `scopes`, separated by blanks. Raises RegistryError, SourceError."""
        if credential is not None and credential.username == IDENTITY_TOKEN:
            return await self._post(scopes, credential)
        try:
            return await self._get(scopes, credential)
        except RegistryRefused as error:
            # Some token services know the POST form only: GCR answered 404, JFrog 401 (containerd, authorizer.go).
            if credential is None or error.status not in (401, 404, 405):
                raise
            try:
                return await self._post(scopes, credential)
            except RegistryRefused:
                raise error from None

    async def _get(self, scopes: str, credential: Credential | None) -> Issued:
        query = [("service", self.bearer.service)] if self.bearer.service else []
        query += [("scope", scope) for scope in scopes.split()]
        if credential is not None:
            query.append(("account", credential.username))
        if self._wants_identity:
            query += [("client_id", _CLIENT_ID), ("offline_token", "true")]
        separator = "&" if urlsplit(self.bearer.realm).query else "?"
        headers = {} if credential is None else {"authorization": basic(credential)}
        url = self.bearer.realm + separator + urlencode(query)
        return await self._ask("GET", url, headers, b"", account=account(credential))

    async def _post(self, scopes: str, credential: Credential) -> Issued:
        form: dict[str, str | bytes] = {"client_id": _CLIENT_ID, "service": self.bearer.service, "scope": scopes}
        secret = credential.password.reveal()
        if credential.username == IDENTITY_TOKEN:
            form |= {"grant_type": "refresh_token", "refresh_token": secret}
        else:
            form |= {"grant_type": "password", "username": credential.username, "password": secret}
        if self._wants_identity:
            form["access_type"] = "offline"
        headers = {"content-type": "application/x-www-form-urlencoded"}
        content, who = urlencode(form).encode(), account(credential)
        return await self._ask("POST", self.bearer.realm, headers, content, account=who)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], content: bytes, *, account: str) -> Issued:
        sent = {"user-agent": USER_AGENT, **headers}
        async with self._transport.send(method, url, sent, content) as response:
            if response.status != 200:
                subject, advice = f"a token from {redacted(url)}", login_advice(self._key, account)
                raise await refusal(response, host=self._host, subject=subject, advice=advice)
            body = await response.read(_MAX_TOKEN)
        try:
            fields = Fields.parse(body, what="the token service's answer", limit=_MAX_TOKEN)
            token = fields.text("token", default="") or fields.text("access_token")
            identity = fields.text("refresh_token", default="") if self._wants_identity else ""
            life = max(fields.integer("expires_in", default=_DEFAULT_LIFE), _DEFAULT_LIFE)
        except SourceError as error:
            raise self._denied(error.message) from error
        return Issued(
            token=SecretBytes(token.encode()), life=life, identity=SecretBytes(identity.encode()) if identity else None
        )

    def _check_realm(self, realm: str, *, is_plain: bool) -> None:
        parts = urlsplit(realm) if realm.isascii() and realm.isprintable() else urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise self._denied(f"it names the token service {realm[:200]!r}, which is not an http URL")
        if parts.scheme == "http" and not (is_plain and (is_loopback(parts.netloc) or parts.netloc == self._host)):
            raise self._denied(f"its token service {redacted(realm)} is not encrypted")

    def _denied(self, reason: str) -> RegistryError:
        advice = login_advice(self._key, "")
        return RegistryError(f"{self._host}: {reason}", status=401, code="UNAUTHORIZED", hint=advice)


def account(credential: Credential | None) -> str:
    """As whom one asks with it, in errors."""
    if credential is None:
        return ""
    return "an identity token" if credential.username == IDENTITY_TOKEN else credential.username


def basic(credential: Credential) -> str:
    """The header of basic authentication."""
    pair = credential.username.encode() + b":" + credential.password.reveal()
    return "Basic " + base64.b64encode(pair).decode()
