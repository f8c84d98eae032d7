"""What a registry said when it said no, as a `RegistryError` with a hint; and whether asking again may help.

Error bodies (distribution-spec, "Error Codes") are read to 64 KiB and shown to 500 characters without control
characters; URLs are shown without user information and query.
"""

from __future__ import annotations

from typing import Any

from buildengine.errors import RegistryError, SourceError
from worker.oci.document import InvalidImage, parse_json
from worker.registry.transport import Response, Unreachable

_MAX_BODY = 64 << 10
_MAX_SHOWN = 500
_MAX_WAIT = 60.0
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_REASONS = {
    400: "bad request",
    401: "authentication required",
    403: "access denied",
    404: "not found",
    408: "request timeout",
    416: "range not satisfiable",
    429: "too many requests",
    500: "internal error",
    502: "bad gateway",
    503: "service unavailable",
    504: "gateway timeout",
}


class RegistryRefused(RegistryError):
    """An HTTP status that is not success. `retry_after` is how long the registry asked us to wait, in seconds."""

    def __init__(
        self, message: str, *, status: int, code: str | None, hint: str | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(message, status=status, code=code, hint=hint)
        self.retry_after = retry_after


async def refusal(response: Response, *, host: str, subject: str) -> RegistryRefused:
    """The error that a response means. `subject` is what was asked for, as a person would name it."""
    try:
        code, detail = _first_error(await response.read(_MAX_BODY))
    except SourceError:  # broken off, or longer than anyone would read
        code, detail = None, ""
    reason = detail or _REASONS.get(response.status, f"HTTP status {response.status}")
    return RegistryRefused(
        f"{host}: {subject}: {reason}" + (f" ({code})" if code else ""),
        status=response.status,
        code=code,
        hint=_hint(response.status, host),
        retry_after=_retry_after(response.headers.get("retry-after", "")),
    )


def deserves_retry(error: SourceError) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, RegistryRefused):
        return error.status in _TEMPORARY
    return isinstance(error, Unreachable)


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


def _hint(status: int, host: str) -> str | None:
    if status in (401, 403):
        return f"log in with `docker login {host}`, or check that this account may read the repository"
    if status == 404:
        return "check the name and the tag; a private repository can look missing without a login"
    if status == 429:
        return f"log in with `docker login {host}` for a higher limit, or configure a mirror"
    return None


def _retry_after(text: str) -> float:
    return min(float(text), _MAX_WAIT) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0
