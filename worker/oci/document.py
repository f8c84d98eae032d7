"""JSON documents that others wrote, read field by field with a check on each.

A `Fields` is one object of a document and remembers where it stands, so that an error names the document and
the path (`manifest sha256:12… of debian: layers[3].size is not a number`). It knows no image format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError

_MAX_TEXT = 64 << 10
_MAX_ANNOTATION = 4 << 20  # the document is bounded already, and some tools put an SBOM into an annotation


class InvalidImage(SourceError):
    """A manifest, index, config or archive that cannot be what it should be."""

    grpc_code = 9  # FAILED_PRECONDITION


class Fields:
    """One JSON object. Every getter raises InvalidImage when the field is not what was asked for."""

    __slots__ = ("document", "where")

    def __init__(self, document: dict[str, Any], where: str) -> None:
        self.document = document
        self.where = where

    @classmethod
    def parse(cls, raw: bytes, *, what: str, limit: int) -> Fields:
        """The object that `raw` spells, when it is at most `limit` bytes."""
        if len(raw) > limit:
            raise InvalidImage(f"{what} has {len(raw)} bytes, more than the {limit} allowed")
        document = parse_json(raw, what=what)
        if not isinstance(document, dict):
            raise InvalidImage(f"{what} is not a JSON object")
        return cls(document, what)

    def has(self, name: str) -> bool:
        return self.document.get(name) is not None

    def text(self, name: str, *, default: str | None = None, most: int = _MAX_TEXT) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            self._wrong(name, "is not a string")
        if len(value) > most:
            self._wrong(name, f"is longer than {most} characters")
        return value

    def integer(self, name: str, *, default: int | None = None, most: int = 1 << 53) -> int:
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self._wrong(name, "is not a number")
        if not 0 <= value <= most:
            self._wrong(name, f"is not between 0 and {most}")
        return value

    def digest(self, name: str) -> Digest:
        return self._digest(name, self.text(name, most=200))

    def digests(self, name: str, *, most: int = 10_000) -> Iterator[Digest]:
        for position, text in enumerate(self.texts(name, most=most)):
            yield self._digest(f"{name}[{position}]", text)

    def texts(self, name: str, *, most: int = 100) -> Iterator[str]:
        """A list of strings; nothing when there is none."""
        for position, value in enumerate(self._list(name, most)):
            if not isinstance(value, str) or len(value) > _MAX_TEXT:
                self._wrong(f"{name}[{position}]", "is not a short string")
            yield value

    def strings(self, name: str) -> Mapping[str, str]:
        """An object of strings (annotations, labels); empty when there is none."""
        value = self._get(name, {})
        if not isinstance(value, dict) or len(value) > 10_000:
            self._wrong(name, "is not an object of strings")
        for key, text in value.items():
            if not isinstance(text, str) or len(text) > _MAX_ANNOTATION:
                self._wrong(f"{name}[{key[:100]!r}]", "is not a string")
        return MappingProxyType(value)

    def objects(self, name: str, *, most: int) -> Iterator[Fields]:
        """A list of objects; nothing when there is none."""
        for position, value in enumerate(self._list(name, most)):
            if not isinstance(value, dict):
                self._wrong(f"{name}[{position}]", "is not an object")
            yield Fields(value, self._at(f"{name}[{position}]"))

    def lists(self, name: str, *, most: int) -> Iterator[list[Any]]:
        """A list of lists; nothing when there is none."""
        for position, value in enumerate(self._list(name, most)):
            if not isinstance(value, list):
                self._wrong(f"{name}[{position}]", "is not a list")
            yield value

    def integers(self, name: str, *, most: int) -> Iterator[int]:
        """A list of numbers that are not negative; nothing when there is none."""
        for position, value in enumerate(self._list(name, most)):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1 << 53:
                self._wrong(f"{name}[{position}]", "is not a number")
            yield value

    def optional(self, name: str) -> Fields | None:
        """An object; None when there is none."""
        value = self.document.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._wrong(name, "is not an object")
        return Fields(value, self._at(name))

    def required(self, name: str) -> Fields:
        fields = self.optional(name)
        if fields is None:
            self._wrong(name, "is missing")
        return fields

    def _list(self, name: str, most: int) -> list[Any]:
        value = self._get(name, [])
        if not isinstance(value, list):
            self._wrong(name, "is not a list")
        if len(value) > most:
            self._wrong(name, f"has {len(value)} entries, more than the {most} allowed")
        return value

    def _get(self, name: str, default: Any) -> Any:
        value = self.document.get(name)
        if value is None:  # Go writes null for an empty list or map
            value = default
        if value is None:
            self._wrong(name, "is missing")
        return value

    def _digest(self, name: str, text: str) -> Digest:
        try:
            digest = Digest.parse(text)
        except UserError:
            self._wrong(name, f"is not a digest: {text[:100]!r}")
        if digest.algorithm != "sha256":
            self._wrong(name, f"uses the digest algorithm {digest.algorithm}; sha256 is supported")
        return digest

    def _at(self, name: str) -> str:
        separator = "." if ": " in self.where else ": "
        return f"{self.where}{separator}{name}"

    def _wrong(self, name: str, problem: str) -> NoReturn:
        raise InvalidImage(f"{self._at(name)} {problem}")


def parse_json(raw: bytes, *, what: str) -> Any:
    """The value that `raw` spells. Raises InvalidImage for anything that is not strict UTF-8 JSON."""
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse)
    except RecursionError as error:
        raise InvalidImage(f"{what} is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, an integer of thousands of digits
        raise InvalidImage(f"{what} is not valid JSON: {str(error)[:200]}") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
