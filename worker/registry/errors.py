"""What a registry said when it said no, as a `RegistryError` with a hint; and whether asking again may help.

Error bodies (distribution-spec, "Error Codes") are read to 64 KiB and shown to 500 characters without control
characters; URLs are shown without user information and query.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any

from buildengine.errors import RegistryError, SourceError
from worker.oci.document import InvalidImage, parse_json
from worker.registry.transport import Response, Unreachable

_MAX_BODY = 64 << 10
_MAX_SHOWN = 500
_MAX_WAIT = 60.0
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOO_MANY = frozenset({"TOOMANYREQUESTS", "TOO_MANY_REQUESTS"})  # some registries say so with another status than 429
_SPEAKS_TLS = re.compile(rb"HTTP request (?:was sent )?to (?:an )?HTTPS ")  # Go's net/http, nginx
_REASONS = {
    400: "bad request",
    401: "authentication required",
    403: "access denied",
    404: "not found",
    405: "method not allowed",
    408: "request timeout",
    411: "length required",
    413: "too large",
    415: "unsupported media type",
    416: "range not satisfiable",
    429: "too many requests",
    500: "internal error",
    502: "bad gateway",
    503: "service unavailable",
    504: "gateway timeout",
}


_PUSH_HINTS = {
    404: "this registry makes no repositories by itself: make it there first, or check its name",
    405: "this registry takes no pushes; a mirror or a pull-through cache is for pulling only",
    413: "the registry, or a proxy before it, accepts nothing of this size: raise its limit, or make smaller layers",
    415: "the registry knows no images of this kind: try oci-mediatypes=false, or another compression",
}


class RegistryRefused(RegistryError):
    """An HTTP status that is not success. `retry_after` is how long the registry asked us to wait, in seconds."""

    def __init__(
        self, message: str, *, status: int, code: str | None, hint: str | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(message, status=status, code=code, hint=hint)
        self.retry_after = retry_after


class Damaged(RegistryError):
    """An answer that cannot be what was asked for: cut short, altered, another one. It may have been the way here."""


async def refusal(
    response: Response, *, host: str, subject: str, advice: str = "", push: bool = False
) -> RegistryRefused:
    """The error that a response means. `subject` is what was asked for, as a person would name it.

    `advice` is the hint for whoever may not do this; `push` says that something was to be written.
    """
    body = b""
    with suppress(SourceError):  # broken off, or longer than anyone would read
        body = await response.read(_MAX_BODY)
    code, detail = _first_error(body)
    hint = (push and _PUSH_HINTS.get(response.status)) or _hint(response.status, host, advice)
    if response.status == 400 and _SPEAKS_TLS.search(body):
        detail, hint = "it speaks TLS, and was asked without", f'say `http = false` in [registry."{host}"]'
    reason = detail or _REASONS.get(response.status, f"HTTP status {response.status}")
    return RegistryRefused(
        f"{host}: {subject}: {reason}" + (f" ({code})" if code else ""),
        status=response.status,
        code=code,
        hint=hint,
        retry_after=_retry_after(response.headers.get("retry-after", "")),
    )


def deserves_retry(error: SourceError) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, RegistryRefused):
        return error.status in _TEMPORARY or error.code in _TOO_MANY
    return isinstance(error, Unreachable | Damaged)


def printable(text: str) -> str:
    """Text of a stranger, fit for a terminal: one line, no control characters, bounded."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_MAX_SHOWN]).split())


def _first_error(body: bytes) -> tuple[str | None, str]:
    try:
        document: Any = parse_json(body, what="error")
    except InvalidImage:
        return None, ""
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list) or not errors or not isinstance(errors[0], dict):
        return None, ""
    code, message = errors[0].get("code"), errors[0].get("message")
    return (
        printable(code) if isinstance(code, str) else None,
        printable(message) if isinstance(message, str) else "",
    )


def _hint(status: int, host: str, advice: str) -> str | None:
    if status in (401, 403):
        return advice or login_advice(host, "")
    if status == 404:
        return "check the name and the tag; a private repository can look missing without a login"
    if status == 429:
        return f"log in with `pybuild login {host}` for a higher limit, or configure a mirror"
    return None


def login_advice(host: str, account: str) -> str:
    """What to do where access was denied. `account` is the user name that was used, "" for none."""
    if account:
        return f"this was asked as {printable(account)!r}; `pybuild login {host}` with an account that may do it"
    return f"log in with `pybuild login {host}`, with an account that may use the repository"


def _retry_after(text: str) -> float:
    """Seconds to wait: the header has them, or a date (RFC 9110 10.2.3)."""
    if text.isascii() and text.isdigit() and len(text) < 9:
        return min(float(text), _MAX_WAIT)
    if not text:
        return 0.0
    import email.utils  # a date is rare

    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0
    return min(max(moment - time.time(), 0.0), _MAX_WAIT)
