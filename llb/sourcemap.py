"""Where in the user's files an operation comes from.

A frontend makes one `SourceFile` for each file it reads and hangs `file.at(...)` on the operations it builds from
it; whoever reports an error asks the `SourceMap` of the definition for `locations(digest)`. Nothing here takes
part in an operation's identity.

>>> dockerfile = SourceFile(filename="Dockerfile", data=b"FROM scratch\\n", language="Dockerfile")
>>> place = dockerfile.at(SourceRange(start_line=1, end_line=1))
>>> place.location.filename
'Dockerfile'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType

from buildengine.digest import Digest
from buildengine.errors import Location, SourceRange, UserError
from buildengine.values import dataclass

_NOWHERE: Mapping[Digest, tuple[Place, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that a frontend has read. `definition` is the serialised Definition it was read from, if any."""

    filename: str
    data: bytes = b""
    language: str = ""  # as github-linguist spells it
    definition: bytes = b""

    def at(self, *ranges: SourceRange) -> Place:
        """These lines of the file; without ranges, the file as a whole."""
        return Place(file=self, ranges=ranges)

    def line(self, first: int, last: int = 0) -> Place:
        """The line `first`, counted from 1, or the lines from it to `last`."""
        return self.at(SourceRange(start_line=first, end_line=max(first, last)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Ranges of one file."""

    file: SourceFile
    ranges: tuple[SourceRange, ...] = ()

    @property
    def location(self) -> Location:
        """The same, as errors carry it."""
        file = self.file
        return Location(
            filename=file.filename,
            ranges=self.ranges,
            text=file.data,
            language=file.language,
            definition=file.definition,
        )

    def error(self, message: str, *, hint: str | None = None) -> UserError:
        """To be raised: what is wrong here, which users see below these lines of their file.

        >>> raise SourceFile(filename="app.yaml", data=b"port: http").line(1).error("a port is a number")
        Traceback (most recent call last):
        buildengine.errors.UserError: a port is a number
        """
        return UserError(message, hint=hint, locations=(self.location,))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceMap:
    """The places of a definition's operations. `files` keeps the order (and the unused ones) of what was received."""

    files: tuple[SourceFile, ...] = ()
    places: Mapping[Digest, tuple[Place, ...]] = field(default_factory=lambda: _NOWHERE)

    def locations(self, digest: Digest) -> tuple[Location, ...]:
        """Where the operation with this digest comes from; nothing when nobody said."""
        return tuple([place.location for place in self.places.get(digest, ())])
