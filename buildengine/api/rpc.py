"""gRPC as servicers and callers see it: methods, calls, status. No transport and no I/O.

A service is a mapping from method paths (`/package.Service/Method`) to `Method`s; `buildengine.api.connection` carries
it over a byte stream, in either role. Metadata is a tuple of (name, value) with lower-case names, in the order of the
wire; a value whose name ends with `-bin` is bytes (gRPC over HTTP/2, "Custom-Metadata").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import IntEnum
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from buildengine.values import dataclass

MAX_MESSAGE = 16 << 20  # bytes, both ways: containerd's default, which BuildKit takes
Metadata = tuple[tuple[str, str | bytes], ...]

_In = TypeVar("_In", bound=Message)
_Out = TypeVar("_Out", bound=Message)
_In_contra = TypeVar("_In_contra", bound=Message, contravariant=True)
_Out_co = TypeVar("_Out_co", bound=Message, covariant=True)
_In_co = TypeVar("_In_co", bound=Message, covariant=True)
_Out_contra = TypeVar("_Out_contra", bound=Message, contravariant=True)


class Code(IntEnum):
    """google.rpc.Code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One `google.protobuf.Any` of a status: BuildKit's have a type URL of their own and JSON as value."""

    type_url: str
    value: bytes


class RpcError(Exception):
    """A call that did not end with OK. Servicers raise it; callers get it, also when the connection broke."""

    def __init__(self, code: Code, message: str, details: tuple[Detail, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class ServerCall(Protocol[_In_co, _Out_contra]):
    """One call that is being served. `receive` and `send` raise RpcError(CANCELLED) once the caller has gone."""

    @property
    def path(self) -> str: ...

    @property
    def metadata(self) -> Metadata: ...

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Before the first message; without it the headers go out empty, with the first message or the end."""
        ...

    async def receive(self) -> _In_co | None:
        """The next message; None when the caller has half-closed."""
        ...

    async def receive_many(self) -> Sequence[_In_co]:
        """The messages that have come, at least one; none where `receive` gives None."""
        ...

    async def send(self, message: _Out_contra) -> None:
        """Waits while the caller's flow-control window is full."""
        ...


class ClientCall(Protocol[_In_contra, _Out_co]):
    """One call to the other side. Leaving its block without having read the end cancels the call."""

    async def initial_metadata(self) -> Metadata: ...

    async def send(self, message: _In_contra) -> None: ...

    async def half_close(self) -> None:
        """No message of ours will follow."""
        ...

    async def receive(self) -> _Out_co | None:
        """The next message; None after the last one of a call that ended with OK. Raises RpcError."""
        ...

    async def receive_many(self) -> Sequence[_Out_co]:
        """The messages that have come, at least one; none where `receive` gives None. Raises RpcError."""
        ...


class Channel(Protocol):
    """Calls to whoever is at the other end of one connection."""

    async def unary(
        self,
        path: str,
        request: Message,
        response: type[_Out],
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
    ) -> _Out:
        """`timeout` in seconds, also told to the other side (grpc-timeout). Raises RpcError."""
        ...

    def stream(
        self, path: str, request: type[_In], response: type[_Out], *, metadata: Metadata = ()
    ) -> AbstractAsyncContextManager[ClientCall[_In, _Out]]: ...


Handler = Callable[["ServerCall[_In, _Out]"], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[_In, _Out]):
    """`handler` returns when the call ends with OK. RpcError and BuildError end it with that status."""

    request: type[_In]
    response: type[_Out]
    handler: Handler[_In, _Out]


Services = Mapping[str, Method[Any, Any]]


def unary(
    request: type[_In], response: type[_Out], function: Callable[[_In, ServerCall[_In, _Out]], Awaitable[_Out]]
) -> Method[_In, _Out]:
    """A method with one message in and one out."""

    async def handler(call: ServerCall[_In, _Out]) -> None:
        await call.send(await function(await only_message(call), call))

    return Method(request=request, response=response, handler=handler)


def server_stream(
    request: type[_In], response: type[_Out], function: Callable[[_In, ServerCall[_In, _Out]], Awaitable[None]]
) -> Method[_In, _Out]:
    """A method with one message in; `function` sends as many as it likes."""

    async def handler(call: ServerCall[_In, _Out]) -> None:
        await function(await only_message(call), call)

    return Method(request=request, response=response, handler=handler)


def stream(request: type[_In], response: type[_Out], handler: Handler[_In, _Out]) -> Method[_In, _Out]:
    """A method with streams both ways (BuildKit has none that streams in only)."""
    return Method(request=request, response=response, handler=handler)


async def only_message(call: ServerCall[_In, _Out]) -> _In:
    message = await call.receive()
    if message is None:
        raise RpcError(Code.INTERNAL, f"{call.path}: no request message")
    return message


def values(metadata: Metadata, name: str) -> list[str]:
    """All text values of `name`, in order."""
    return [value for key, value in metadata if key == name and isinstance(value, str)]


def value(metadata: Metadata, name: str, default: str = "") -> str:
    """The first text value of `name`."""
    return next(iter(values(metadata, name)), default)


def service(name: str, methods: Services) -> Services:
    """The methods of the service `name` by their paths."""
    return {f"/{name}/{method}": implementation for method, implementation in methods.items()}


def merged(*services: Services) -> Services:
    """Several services as one; a path that two of them have is our mistake."""
    every: dict[str, Method[Any, Any]] = {}
    for one in services:
        twice = every.keys() & one.keys()
        if twice:
            raise ValueError(f"served twice: {', '.join(sorted(twice))}")
        every.update(one)
    return every
