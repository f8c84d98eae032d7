"""Registry authentication: challenges, basic and bearer, and which token belongs to which request.

Facts: RFC 9110 11.3 and 11.6.1 (challenge syntax), the distribution project's token specification (auth/scope).
Credentials belong to the host that was contacted: they go to it, or to the token service that it names
(`worker.registry.tokens`), and nowhere else. `answer` decides whether another attempt makes sense, so no server can
make us turn in circles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import trio

from buildengine.errors import RegistryError
from buildengine.values import dataclass
from worker.registry.errors import login_advice
from worker.registry.tokens import Bearer, TokenService, account, basic
from worker.registry.transport import Transport
from worker.session import IDENTITY_TOKEN, Credential, Credentials, SecretBytes

_MAX_CHALLENGE = 8 << 10
_SHORTENED = 0.9  # a token is renewed a little before its end
_PARAMETER = re.compile(r'\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')
_SCHEME = re.compile(r"[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+|$|,)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way that a server offers to prove who we are. `scheme` is lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of a WWW-Authenticate header, several of them in one line or not. Nonsense ends the list."""
    found: list[Challenge] = []
    text = header[:_MAX_CHALLENGE]
    position = 0
    while match := _SCHEME.match(text, position):
        position = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, position):
            quoted, bare = parameter[2], parameter[3]
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            parameters.setdefault(parameter[1].lower(), value)
            position = parameter.end()
        found.append(Challenge(scheme=match[1].lower(), parameters=parameters))
    return tuple(found)


def merged_scopes(*scopes: str) -> str:
    """Scopes as one string: actions of one resource gathered, everything sorted, nothing twice."""
    actions: dict[str, set[str]] = {}
    for scope in " ".join(scopes).split():
        resource, separator, names = scope.rpartition(":")
        if separator and resource:
            actions.setdefault(resource, set()).update(name for name in names.split(",") if name)
        else:
            actions.setdefault(scope, set())
    return " ".join(f"{name}:{','.join(sorted(kinds))}" if kinds else name for name, kinds in sorted(actions.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    header: str
    asked: float
    expires: float


class Authorizer:
    """What one host wants to see, learnt from its challenges. Safe to use from many tasks at once.

    With `wants_identity` a token service is asked for an identity token as well: `identity`, once it gave one.
    """

    def __init__(
        self,
        host: str,
        *,
        key: str,
        is_plain: bool,
        transport: Transport,
        credentials: Credentials,
        wants_identity: bool = False,
    ) -> None:
        self._wants_identity = wants_identity
        self.identity: SecretBytes | None = None
        self._host = host
        self._key = key
        self._is_plain = is_plain
        self._transport = transport
        self._credentials = credentials
        self._account = ""
        self._basic: str | None = None
        self._service: TokenService | None = None
        self._scopes: dict[str, str] = {}
        self._tokens: dict[str, _Token] = {}
        self._lock = trio.Lock()

    async def header(self, scope: str) -> str | None:
        """The Authorization header for a request that needs `scope`; None before the first challenge."""
        if self._basic is not None or self._service is None:
            return self._basic
        async with self._lock:
            return await self._token(scope)

    @property
    def advice(self) -> str:
        """What to do when this host denied something: it says as whom we asked."""
        return login_advice(self._key, self._account)

    async def answer(self, www_authenticate: str, scope: str, *, sent: str | None, since: float) -> None:
        """Take the challenge of a 401 to a request begun at `since` that carried `sent`.

        Returns when trying again makes sense. Raises RegistryError when it does not: no credentials, wrong ones,
        a fresh token that was refused, or a scheme we do not know.
        """
        challenges = {challenge.scheme: challenge.parameters for challenge in parse_challenges(www_authenticate)}
        async with self._lock:
            if "bearer" in challenges:
                await self._answer_bearer(challenges["bearer"], scope, sent, since)
            elif "basic" in challenges:
                await self._answer_basic(sent)
            else:
                offered = ", ".join(challenges)[:100] or "nothing"
                raise self._denied(f"it asks for authentication by {offered}; basic and bearer are supported")

    async def _answer_basic(self, sent: str | None) -> None:
        credential = await self._credential()
        if credential is None or credential.username == IDENTITY_TOKEN:
            raise self._denied("authentication required")
        self._basic = basic(credential)
        if sent == self._basic:
            raise self._denied("the user name or password is wrong")

    async def _answer_bearer(self, parameters: Mapping[str, str], scope: str, sent: str | None, since: float) -> None:
        service = self._service_of(Bearer(realm=parameters.get("realm", ""), service=parameters.get("service", "")))
        known = self._tokens.get(scope)
        if known is not None and known.header != sent:
            return  # another task has one already, or a newer one
        wanted = merged_scopes(scope, self._scopes.get(scope, ""), parameters.get("scope", ""))
        fresh = known is not None and known.asked >= since
        if fresh and "error" in parameters and service is self._service and wanted == self._scopes.get(scope):
            # A token fetched for this very request was refused. Without an error (RFC 6750 3) it was not even seen,
            # or not known yet to this one of several servers: another one may do, as containerd takes it.
            raise self._denied("access denied")
        self._service = service
        self._scopes[scope] = wanted
        self._tokens.pop(scope, None)
        await self._token(scope)

    def _service_of(self, bearer: Bearer) -> TokenService:
        if self._service is not None and self._service.bearer == bearer:
            return self._service
        return TokenService(
            bearer,
            host=self._host,
            key=self._key,
            is_plain=self._is_plain,
            transport=self._transport,
            wants_identity=self._wants_identity,
        )

    async def _token(self, scope: str) -> str:
        token = self._tokens.get(scope)
        if token is None or token.expires <= trio.current_time():
            token = await self._fetch(self._scopes.setdefault(scope, merged_scopes(scope)))
            self._tokens[scope] = token
        return token.header

    async def _fetch(self, scopes: str) -> _Token:
        assert self._service is not None
        given = await self._given(self._service.bearer, scopes)
        if given is not None:
            return given
        asked = trio.current_time()
        issued = await self._service.fetch(scopes, await self._credential())
        self.identity = issued.identity or self.identity
        return self._token_of(issued.token, asked, issued.life)

    async def _given(self, bearer: Bearer, scopes: str) -> _Token | None:
        """The token that our client has fetched, if it does that."""
        if self._credentials.tokens is None:
            return None
        asked = trio.current_time()
        token = await self._credentials.tokens.fetch(
            self._key, realm=bearer.realm, service=bearer.service, scopes=tuple(scopes.split())
        )
        return None if token is None else self._token_of(token.value, asked, token.life)

    async def _credential(self) -> Credential | None:
        credential = await self._credentials.get(self._key)
        self._account = account(credential) or self._account
        return credential

    def _token_of(self, secret: SecretBytes, asked: float, life: float) -> _Token:
        token = secret.reveal().decode(errors="replace")
        if not token.isascii() or not token.isprintable():
            raise self._denied("the token service sent a token that is not printable")
        return _Token(header=f"Bearer {token}", asked=asked, expires=asked + life * _SHORTENED)

    def _denied(self, reason: str) -> RegistryError:
        return RegistryError(
            f"{self._host}: {reason}",
            status=401,
            code="UNAUTHORIZED",
            hint=self.advice,
        )
