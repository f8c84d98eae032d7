"""The names in a layer archive: how they become paths inside the layer, and which of them are whiteouts.

OCI image-spec, layer.md: "Whiteouts" and "Opaque Whiteout". This module must not know files: names in, parts out.
"""

from __future__ import annotations

from buildengine.errors import SourceError

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
MAX_PATH = 4095  # PATH_MAX without its zero byte
MAX_NAME = 255
_BOOKKEEPING = b".wh..wh."  # of aufs; only the opaque marker means anything to anyone else

Path = tuple[bytes, ...]


def parts_of(name: bytes) -> Path:
    """The components of `name`, `.` and `..` resolved. Raises SourceError when it leads out of the root."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise SourceError(
                    f"the archive has an entry outside its root: {shown(name)}",
                    hint="it is hostile, or was made with absolute names in mind",
                )
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    length = sum(map(len, parts)) + len(parts) - 1
    longest = max(map(_length, parts), default=0)
    if length > MAX_PATH or longest > MAX_NAME:
        raise SourceError(f"the archive has a name that is too long for Linux: {shown(name[:60])}...")
    return tuple(parts)


def _length(part: bytes) -> int:
    """A whiteout is never a file of its own name, so only what it deletes counts."""
    return len(part) - len(WHITEOUT) if part.startswith(WHITEOUT) else len(part)


def whiteout_target(base: bytes) -> bytes:
    """The name that a `.wh.` name deletes. Raises SourceError when that is no name in the same directory."""
    target = base[len(WHITEOUT) :]
    if target in (b"", b".", b".."):
        raise SourceError(f"the archive has an invalid whiteout: {shown(base)}", hint="it is damaged or hostile")
    return target


def is_bookkeeping(parts: Path) -> bool:
    """Whether the entry is aufs's own and no part of the tree. Raises SourceError for one below a whiteout."""
    for part in parts[:-1]:
        if part.startswith(WHITEOUT) and not part.startswith(_BOOKKEEPING):
            raise SourceError(f"the archive has an entry below a whiteout: {shown(b'/'.join(parts))}")
    return any(part.startswith(_BOOKKEEPING) for part in parts) and parts[-1] != OPAQUE


def shown(name: bytes) -> str:
    """The name in an error message."""
    return name.decode("utf-8", "backslashreplace")
