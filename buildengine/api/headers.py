"""Header lists of gRPC calls: requests, answers, trailers; metadata, deadlines and status in them. Pure functions.

Source: "gRPC over HTTP/2" (grpc/doc/PROTOCOL-HTTP2.md) and "HTTP to gRPC status code mapping". Header lists are
(name, value) pairs of bytes, pseudo-headers first.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from urllib.parse import quote_from_bytes, unquote_to_bytes

from google.protobuf.message import DecodeError

from buildengine.api import statusbytes
from buildengine.api.rpc import Code, Detail, Metadata, RpcError
from buildengine.values import dataclass

Headers = list[tuple[bytes, bytes]]

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])\Z")
_NAME = re.compile(r"[0-9a-z_.-]+\Z")
# What the protocol itself writes; metadata does not repeat it. "grpc-" is reserved.
_OURS = frozenset({b"te", b"content-type", b"user-agent", b"content-length", b"host", b"connection"})
# Of a grpc-message: printable ASCII without '%'; and without spaces, which HTTP/2 strips from the ends of a value.
_PLAIN = bytes(set(range(0x21, 0x7F)) - {0x25}).decode()
_HTTP_CODES = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}
# "HTTP2 Transport Mapping": REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY; others are INTERNAL.
_RESET_CODES = {7: Code.UNAVAILABLE, 8: Code.CANCELLED, 11: Code.RESOURCE_EXHAUSTED, 12: Code.PERMISSION_DENIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a call ended."""

    code: Code
    message: str = ""
    details: tuple[Detail, ...] = ()


OK = Status(code=Code.OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The headers of one call. `timeout` is in seconds."""

    path: str
    metadata: Metadata
    timeout: float | None
    encoding: str


class NotGrpc(Exception):
    """A request of something else than gRPC. `status` is the HTTP status that answers it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def request(path: str, metadata: Metadata, timeout: float | None, agent: str) -> Headers:
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", agent.encode()),
    ]
    if timeout is not None:
        headers.append((b"grpc-timeout", format_timeout(timeout)))
    return headers + encode_metadata(metadata)


def parse_request(headers: Iterable[tuple[bytes, bytes]]) -> Request:
    """Raises NotGrpc; ValueError for a deadline or metadata that cannot be read."""
    headers = list(headers)
    first = dict(reversed(headers))
    if first.get(b":method") != b"POST":
        raise NotGrpc(405, "gRPC calls are POST requests")
    if not _is_grpc(first.get(b"content-type", b"")):
        raise NotGrpc(415, f"content-type {_text(first.get(b'content-type', b''))!r} is not application/grpc")
    timeout = first.get(b"grpc-timeout")
    return Request(
        path=_text(first.get(b":path", b"")),
        metadata=decode_metadata(headers),
        timeout=None if timeout is None else parse_timeout(_text(timeout)),
        encoding=_text(first.get(b"grpc-encoding", b"identity")),
    )


def response(metadata: Metadata) -> Headers:
    return [(b":status", b"200"), (b"content-type", b"application/grpc"), *encode_metadata(metadata)]


def parse_response(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Metadata, str]:
    """Metadata and grpc-encoding of an answer's first headers; metadata that cannot be read is left out."""
    encoding = _text(dict(headers).get(b"grpc-encoding", b"identity"))
    try:
        return decode_metadata(headers), encoding
    except ValueError:
        return (), encoding


def trailers(status: Status, limit: int) -> Headers:
    """`limit` is the largest header list that the other side takes (RFC 9113 6.5.2); details that do not fit are left
    out, a message is cut: a status that says less is better than a broken call."""
    headers = [(b"grpc-status", str(int(status.code)).encode())]
    room = limit - 256  # for :status, content-type and what every entry costs
    if status.message:
        message = quote_from_bytes(status.message.encode(), safe=_PLAIN)
        headers.append((b"grpc-message", re.sub("%[^%]?\\Z", "", message[: max(room, 0)]).encode()))
        room -= len(headers[-1][1])
    if status.details:
        details = encode_binary(statusbytes.encode(RpcError(status.code, status.message, status.details)))
        if len(details) <= room:
            headers.append((b"grpc-status-details-bin", details))
    return headers


def parse_trailers(headers: Iterable[tuple[bytes, bytes]]) -> Status:
    """Never raises: a status that cannot be read is itself a status."""
    found = dict(headers)
    if b"grpc-status" not in found:
        return _http_status(found)
    message = unquote_to_bytes(found.get(b"grpc-message", b"")).decode(errors="replace")
    number = _text(found[b"grpc-status"])
    known = number.isascii() and number.isdigit() and len(number) < 4 and int(number) in Code._value2member_map_
    code = Code(int(number)) if known else Code.UNKNOWN
    details = found.get(b"grpc-status-details-bin")
    return Status(code=code, message=message, details=_parse_details(details) if details else ())


def is_trailers_only(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """The answer ends the call already: with a status, or because it is no gRPC at all."""
    found = dict(headers)
    return b"grpc-status" in found or found.get(b":status") != b"200" or not _is_grpc(found.get(b"content-type", b""))


def reset_status(error: int) -> Status:
    """Of a stream that was reset with this HTTP/2 error code."""
    return Status(code=_RESET_CODES.get(error, Code.INTERNAL), message=f"the call was reset (HTTP/2 error {error})")


def encode_metadata(metadata: Metadata) -> Headers:
    """Raises ValueError for a name or text that HTTP/2 cannot carry: our caller's mistake."""
    headers = []
    for name, value in metadata:
        if not _NAME.match(name) or name.startswith("grpc-"):
            raise ValueError(f"{name!r} is not a name of metadata")
        if name.endswith("-bin") != isinstance(value, bytes):
            raise ValueError(f"metadata {name!r}: bytes go with names that end with -bin, and only with them")
        headers.append((name.encode(), encode_binary(value) if isinstance(value, bytes) else _ascii(name, value)))
    return headers


def decode_metadata(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """What is the caller's own; several binary values may stand in one header, with commas between them."""
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name.startswith((b":", b"grpc-")) or name in _OURS:
            continue
        text = _text(name)
        if text.endswith("-bin"):
            metadata += ((text, decode_binary(part)) for part in value.split(b","))
        else:
            metadata.append((text, _text(value)))
    return tuple(metadata)


def format_timeout(seconds: float) -> bytes:
    """At most eight digits, in the finest unit that holds them; never longer than asked for."""
    for unit, size in reversed(_UNITS.items()):
        amount = int(max(seconds, 0.0) / size)
        if amount < 100_000_000:
            return f"{amount}{unit}".encode()
    return b"99999999H"


def parse_timeout(text: str) -> float:
    match = _TIMEOUT.match(text)
    if match is None:
        raise ValueError(f"grpc-timeout {text!r} is not a number with a unit")
    return int(match[1]) * _UNITS[match[2]]


def encode_binary(value: bytes) -> bytes:
    return base64.b64encode(value).rstrip(b"=")


def decode_binary(text: bytes) -> bytes:
    """Base64 with or without its padding. Raises ValueError."""
    text = text.strip().rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"binary metadata is not base64: {error}") from error


def _parse_details(text: bytes) -> tuple[Detail, ...]:
    try:
        return statusbytes.decode(decode_binary(text)).details
    except (DecodeError, ValueError):
        return ()


def _http_status(found: dict[bytes, bytes]) -> Status:
    number = _text(found.get(b":status", b""))
    if number in {"", "200"}:
        if found.get(b":status") and not _is_grpc(found.get(b"content-type", b"")):
            kind = _text(found.get(b"content-type", b""))
            return Status(code=Code.UNKNOWN, message=f"the answer is not gRPC: content-type {kind!r}")
        return Status(code=Code.INTERNAL, message="the call ended without grpc-status")
    code = _HTTP_CODES.get(int(number), Code.UNKNOWN) if number.isascii() and number.isdigit() else Code.UNKNOWN
    return Status(code=code, message=f"the answer has HTTP status {number}")


def _is_grpc(content_type: bytes) -> bool:
    return content_type == b"application/grpc" or content_type.startswith((b"application/grpc+", b"application/grpc;"))


def _ascii(name: str, value: str) -> bytes:
    if not all(" " <= character <= "~" for character in value):
        raise ValueError(f"metadata {name!r}: {value!r} is not printable ASCII; use a name that ends with -bin")
    return value.encode()


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
