"""What the registry says: a status, headers, and a body of bytes or a part of a file.

Errors are what the distribution-spec calls them (spec.md, "Error Codes"): `{"errors": [{code, message, detail}]}`.
A `Refusal` is raised wherever something is found wrong, and is an answer like any other. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import Enum
from pathlib import Path
from typing import Any

from buildengine.values import dataclass
from worker.oci import jsonbytes

Headers = tuple[tuple[str, str], ...]


class Code(Enum):
    """The codes of the distribution-spec, and UNKNOWN for what is our own fault, which it has no code for."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    UNKNOWN = "UNKNOWN"

    @property
    def status(self) -> int:
        """The HTTP status that usually goes with it."""
        return _STATUS.get(self, 404 if self.value.endswith("_UNKNOWN") else 400)


_STATUS = {Code.MANIFEST_BLOB_UNKNOWN: 400, Code.UNAUTHORIZED: 401, Code.TOOMANYREQUESTS: 429, Code.UNKNOWN: 500}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """`length` bytes of a file, from `offset` on."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer to HEAD is the one to GET, whose body is not sent. `close`: no further request on this connection."""

    status: int
    headers: Headers = ()
    body: bytes | FilePart = field(default=b"", repr=False)
    close: bool = False

    @property
    def length(self) -> int:
        return self.body.length if isinstance(self.body, FilePart) else len(self.body)


class Refusal(Exception):
    """A request that is not granted."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        status: int | None = None,
        detail: object = None,
        headers: Headers = (),
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.answer = Answer(
            status=code.status if status is None else status,
            headers=(("Content-Type", "application/json"), *headers),
            body=error_body(code, [(message, detail)]),
            close=close,
        )


def error_body(code: Code, errors: Iterable[tuple[str, object]]) -> bytes:
    """The JSON of one or several errors of one code: each a message and a detail (None: there is none)."""
    entries = []
    for message, detail in errors:
        entry: dict[str, Any] = {"code": code.name, "message": message}
        if detail is not None:
            entry["detail"] = detail
        entries.append(entry)
    return jsonbytes.compact({"errors": entries})


def json_answer(document: Mapping[str, Any], *, headers: Headers = (), media_type: str = "application/json") -> Answer:
    return Answer(status=200, headers=(("Content-Type", media_type), *headers), body=jsonbytes.compact(document))


def method_not_allowed(allowed: Iterable[str], why: str) -> Refusal:
    """RFC 9110, 15.5.6: the answer names what is allowed."""
    return Refusal(Code.UNSUPPORTED, why, status=405, headers=(("Allow", ", ".join(sorted(allowed))),))
