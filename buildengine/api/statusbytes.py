"""google.rpc.Status: the bytes in which a call's trailers and the build history carry all of an error."""

from __future__ import annotations

from buildengine.api.rpc import Code, Detail, RpcError


def encode(error: RpcError) -> bytes:
    from google.rpc.status_pb2 import Status  # of a call that fails

    message = Status(code=int(error.code), message=error.message)
    for detail in error.details:
        message.details.add(type_url=detail.type_url, value=detail.value)
    return message.SerializeToString()


def decode(data: bytes) -> RpcError:
    """What `encode` wrote. Raises DecodeError, and ValueError for a code that is none."""
    from google.rpc.status_pb2 import Status

    message = Status.FromString(data)
    details = tuple(Detail(type_url=each.type_url, value=each.value) for each in message.details)
    return RpcError(Code(message.code), message.message, details)
