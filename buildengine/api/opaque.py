"""A message of which only the bytes count: for who passes messages on that somebody else has serialised."""

from __future__ import annotations

from google.protobuf.message import Message


class Opaque(Message):
    """As far as calls look into a message (`buildengine.api.calls`, `inbox`)."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def SerializeToString(self, **_: object) -> bytes:
        return self.data

    @classmethod
    def FromString(cls, data: bytes) -> Opaque:
        return cls(data)
