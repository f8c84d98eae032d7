"""The http(s) source: a URL becomes a digest, and its body becomes one file in a directory.

    revision = await source.resolve(origin, secrets)     # nothing with a checksum; HEAD when the URL is known; else GET
    key = cache_key(origin, revision)
    await source.fetch(origin, revision, directory_fd, secrets)

Without a checksum only the body tells its digest, so `resolve` downloads it, into an unnamed file (O_TMPFILE):
`fetch` gives that file its name when it can, so the bytes are written once, and a killed process leaves nothing.
What is remembered of a URL (ETag, Last-Modified, digest) goes through `KeyValue`.

Facts: BuildKit's source/http/source.go (revalidation, file name, secrets, key), RFC 9110 8.8 (validators).
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from buildengine import USER_AGENT
from buildengine.digest import Digest
from buildengine.errors import HttpError, SourceError, UserError
from buildengine.limits import DISK, HASH, offload
from buildengine.values import dataclass
from worker.session import Secrets
from worker.sources.filename import choose
from worker.sources.gunzip import Gunzip
from worker.sources.origin import HttpOrigin
from worker.sources.unnamed import Body, Looks, place, unnamed_file

MAX_SIZE = 64 << 30
_ATTEMPTS = 3
_UNAVAILABLE = 14  # SourceError.grpc_code of what may succeed when tried again
_REMEMBERED = 8  # older bodies of one URL that are still recognised
_SPOOLED = 16
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_MONTH = "(?P<month>[A-Z][a-z]{2})"
_DATES = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"[A-Z][a-z]{{2}}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_CLOCK} GMT",  # IMF-fixdate
        rf"[A-Z][a-z]+day, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_CLOCK} (?:GMT|UTC)",  # RFC 850
        rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})",  # asctime
    )
)
_SETTLED = 60  # seconds after which Last-Modified is a strong validator, RFC 9110 8.8.2.2


class Response(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def url(self) -> str: ...

    def chunks(self) -> AsyncGenerator[bytes]: ...


class Transport(Protocol):
    """Follows redirects, keeps credentials with their host, sends bodies as they are. Raises SourceError."""

    def send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes = b""
    ) -> AbstractAsyncContextManager[Response]: ...


class KeyValue(Protocol):
    """A small persistent store; what is lost from it only costs a download."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRevision:
    """What a URL holds now. `modified` is its Last-Modified in seconds since the epoch, None when it has none."""

    digest: Digest
    filename: str
    modified: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A body of a URL as it was seen before, with what its server calls it."""

    digest: Digest
    etag: str
    modified: str
    settled: bool

    def is_still(self, headers: Mapping[str, str], *, not_modified: bool, alone: bool) -> bool:
        """Whether an answer to HEAD means this very body."""
        etag = _etag(headers)
        if self.etag:
            return self.etag == etag or (not_modified and alone and not etag)
        return self.settled and self.modified == headers.get("last-modified")


def cache_key(origin: HttpOrigin, revision: HttpRevision) -> Digest:
    """What identifies the file that `fetch` makes: content, name, time, mode, owner; and how it was asked for."""
    parts: list[Any] = [
        *(revision.digest, revision.filename, revision.modified),
        *(origin.mode, origin.uid, origin.gid, origin.auth_header_secret, origin.headers),
    ]
    return Digest.sha256(json.dumps(["http", *parts], separators=(",", ":")).encode())


class HttpSource:
    """`spool` is a directory (a descriptor) for bodies that wait for their `fetch`. Closed with `close`."""

    def __init__(
        self,
        transport: Transport,
        state: KeyValue,
        spool: int,
        *,
        user_agent: str = USER_AGENT,
        max_size: int = MAX_SIZE,
    ) -> None:
        self._transport = transport
        self._state = state
        self._spool = spool
        self._user_agent = user_agent
        self._max_size = max_size
        self._bodies: dict[Digest, int] = {}

    def close(self) -> None:
        """Forget the bodies that nobody fetched."""
        while self._bodies:
            os.close(self._bodies.popitem()[1])

    async def resolve(self, origin: HttpOrigin, available: Secrets) -> HttpRevision:
        """What the URL holds now. Raises HttpError."""
        if origin.checksum is not None:
            return HttpRevision(digest=origin.checksum, filename=choose(origin.url, origin.filename, ""))
        headers = await self._headers(origin, available)
        with _named(origin):
            return await self._revalidate(origin, headers) or await self._load(origin, headers)

    async def fetch(self, origin: HttpOrigin, revision: HttpRevision, directory: int, available: Secrets) -> None:
        """Put the file into `directory` (a descriptor). Raises HttpError when it is not `revision` any more."""
        fd = self._bodies.pop(revision.digest, None)
        if fd is None:
            headers = await self._headers(origin, available)
            with _named(origin):
                fd, found, _ = await self._download(origin, headers, directory)
            if found.digest != revision.digest:
                os.close(fd)
                raise _mismatch(origin, found.digest, revision.digest)
        try:
            looks = Looks(mode=origin.mode or 0o600, uid=origin.uid, gid=origin.gid, modified=revision.modified or 0)
            await offload(place, fd, directory, revision.filename, looks, limiter=DISK)
        finally:
            os.close(fd)

    async def _revalidate(self, origin: HttpOrigin, headers: Mapping[str, str]) -> HttpRevision | None:
        """The body seen before that the URL still holds. By HEAD: some servers give ETags and ignore conditions."""
        known = self._seen(origin)
        if not known:
            return None
        etags = ", ".join(seen.etag for seen in known if seen.etag)
        condition = {"if-none-match": etags} if etags else {}
        try:
            async with self._transport.send("HEAD", origin.url, {**headers, **condition}) as response:
                status, answer = response.status, response.headers
        except SourceError:
            return None
        if status not in (200, 304):
            return None
        for seen in known:
            if seen.is_still(answer, not_modified=status == 304, alone=len(known) == 1):
                name = choose(origin.url, origin.filename, answer.get("content-disposition", ""))
                return HttpRevision(digest=seen.digest, filename=name, modified=_seconds(seen.modified))
        return None

    async def _load(self, origin: HttpOrigin, headers: Mapping[str, str]) -> HttpRevision:
        fd, revision, answer = await self._download(origin, headers, self._spool)
        self._remember(origin, revision, answer)
        for old in [revision.digest, *list(self._bodies)[: max(0, len(self._bodies) - _SPOOLED + 1)]]:
            if old in self._bodies:
                os.close(self._bodies.pop(old))
        self._bodies[revision.digest] = fd
        return revision

    async def _download(
        self, origin: HttpOrigin, headers: Mapping[str, str], directory: int
    ) -> tuple[int, HttpRevision, Mapping[str, str]]:
        """The body as an unnamed file in `directory`; tried again from the start when it breaks off."""
        for attempt in range(1, _ATTEMPTS + 1):
            fd = unnamed_file(directory)
            try:
                async with self._transport.send("GET", origin.url, headers) as response:
                    digest = await self._receive(response, fd)
                    answer = response.headers
            except BaseException as error:
                os.close(fd)
                temporary = isinstance(error, SourceError) and error.grpc_code == _UNAVAILABLE
                if not temporary or attempt == _ATTEMPTS:
                    raise
            else:
                name = choose(origin.url, origin.filename, answer.get("content-disposition", ""))
                modified = _seconds(answer.get("last-modified", ""))
                return fd, HttpRevision(digest=digest, filename=name, modified=modified), answer
        raise AssertionError("the last attempt returns or raises")

    async def _receive(self, response: Response, fd: int) -> Digest:
        if response.status not in (200, 203):
            status = response.status
            raise HttpError(f"invalid response status {status}", status=status, hint=_hint(status))
        gunzip = _gunzip(response.headers.get("content-encoding", ""))
        announced = response.headers.get("content-length", "")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > self._max_size):
            raise HttpError(f"it has {announced[:40]} bytes, more than the {self._max_size} allowed")
        body = Body(fd, self._max_size, gunzip)
        async with aclosing(response.chunks()) as chunks:
            async for chunk in chunks:
                if body.take(chunk):
                    await offload(body.flush, limiter=HASH)
        await offload(body.finish, limiter=HASH)
        return body.digest

    async def _headers(self, origin: HttpOrigin, available: Secrets) -> dict[str, str]:
        headers = {"user-agent": self._user_agent, **dict(origin.headers), "accept-encoding": "gzip"}
        authorization = await _authorization(origin, available)
        return headers | ({"authorization": authorization} if authorization else {})

    def _seen(self, origin: HttpOrigin) -> list[_Seen]:
        with suppress(ValueError, KeyError, TypeError, UserError):
            entries = json.loads(self._state.get(_state_key(origin)) or b"[]")
            return [_Seen(**{**entry, "digest": Digest.parse(entry["digest"])}) for entry in entries]
        return []

    def _remember(self, origin: HttpOrigin, revision: HttpRevision, answer: Mapping[str, str]) -> None:
        etag, modified = _etag(answer), answer.get("last-modified", "")
        changed, now = revision.modified, _seconds(answer.get("date", ""))
        settled = changed is not None and now is not None and now - changed >= _SETTLED
        if not etag and not settled:
            return
        seen = _Seen(digest=revision.digest, etag=etag, modified=modified, settled=settled)
        known = [seen, *(old for old in self._seen(origin) if old.etag and old.etag != etag)][:_REMEMBERED]
        entries = [{"digest": s.digest, "etag": s.etag, "modified": s.modified, "settled": s.settled} for s in known]
        self._state.put(_state_key(origin), json.dumps(entries).encode())


def _gunzip(encoding: str) -> Gunzip | None:
    """What undoes a Content-Encoding. Raises HttpError for one that was not asked for."""
    if encoding.lower() in ("", "identity"):
        return None
    if encoding.lower() != "gzip":
        raise HttpError(f"the server sent the content encoding {encoding[:40]!r}, which was not asked for")
    return Gunzip()


async def _authorization(origin: HttpOrigin, available: Secrets) -> str:
    """From a secret that the build names, from one named after the host, or from the URL itself."""
    if origin.auth_header_secret:
        secret = await available.get(origin.auth_header_secret)
        if secret is None:
            raise HttpError(
                f"the secret {origin.auth_header_secret!r} for {_shown(origin.url)} is missing",
                hint=f"give it with --secret id={origin.auth_header_secret},...",
            )
        return _header_value(secret.reveal())
    parts = urlsplit(origin.url)
    found = ""
    for name, prefix in (
        (f"HTTP_AUTH_HEADER_{parts.hostname}", b""),
        (f"HTTP_AUTH_TOKEN_{parts.hostname}", b"Bearer "),
    ):
        secret = await available.get(name)
        if secret is not None:
            found = _header_value(prefix + secret.reveal())
    if not found and "@" in parts.netloc:
        pair = unquote(parts.netloc.rpartition("@")[0]).encode()
        found = "Basic " + base64.b64encode(pair).decode()
    return found


def _header_value(value: bytes) -> str:
    text = value.strip().decode("latin-1")
    if not text.isascii() or not text.isprintable():
        raise HttpError("a secret for an Authorization header is not one line of printable text")
    return text


@contextmanager
def _named(origin: HttpOrigin) -> Iterator[None]:
    """Errors inside are HttpErrors that say which URL they are about."""
    try:
        yield
    except SourceError as error:
        shown = _shown(origin.url)
        message = error.message if shown in error.message else f"{shown}: {error.message}"
        named = HttpError(message, hint=error.hint)
        named.is_clients = error.is_clients
        raise named from error


def _shown(url: str) -> str:
    """`url` without what may be secret in it."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return "an invalid URL"


def _mismatch(origin: HttpOrigin, found: Digest, wanted: Digest) -> HttpError:
    return HttpError(
        f"digest mismatch for {_shown(origin.url)}: {found} (expected: {wanted})",
        hint="the file at this address is another one now",
    )


def _hint(status: int) -> str | None:
    if status in (401, 403):
        return "give a secret named HTTP_AUTH_TOKEN_<host> or HTTP_AUTH_HEADER_<host>"
    return "check the address" if status in (404, 410) else None


def _etag(headers: Mapping[str, str]) -> str:
    return headers.get("etag", "").removeprefix("W/")[:1024]


def _seconds(http_date: str) -> int | None:
    """The three forms of RFC 9110 5.6.7, of which two are old. A year of two digits is one from 1969 to 2068."""
    match = next((match for form in _DATES if (match := form.fullmatch(http_date))), None)
    if match is None:
        return None
    year, day, hour, minute, second = (int(match[part]) for part in ("year", "day", "hour", "minute", "second"))
    if year < 100:
        year += 1900 if year >= 69 else 2000
    try:
        moment = datetime(year, 1 + _MONTHS.index(match["month"]), day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp())


def _state_key(origin: HttpOrigin) -> str:
    parts = (origin.url, origin.filename, origin.mode, origin.uid, origin.gid, origin.auth_header_secret)
    return Digest.sha256(json.dumps(["http", *parts, origin.headers]).encode())
