"""OCI image layouts on disk that a build reads from: which image a name means, and the files of their blobs.

    oci-layout://PATH[:TAG][@DIGEST]

Facts: image-spec image-layout.md; docker/buildx build/opt.go (the spelling, `latest`), BuildKit client/ociindex (which
entry of `index.json` a tag means).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.inroot import open_in_root, read_regular
from buildengine.values import dataclass

SCHEME = "oci-layout://"
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutImage:
    """An image of the layout in the directory `path`."""

    path: Path
    digest: Digest


def find(text: str) -> LayoutImage:
    """What `text` (without the scheme) means now. Raises UserError."""
    place, at, digest = text.partition("@")
    path, _, tag = place.partition(":")
    if not os.path.isdir(path):
        raise UserError(f"{SCHEME}{text}: there is no directory {path!r}", hint="it is the directory of an OCI layout")
    found = Digest.parse(digest) if at else _named(Path(path), tag or "latest", text)
    return LayoutImage(path=Path(path).absolute(), digest=found)


class DiskLayout:
    """The blobs of the layout in a directory, for whoever reads them by digest; nobody has verified them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def blob(self, digest: Digest) -> Iterator[int | None]:
        """A descriptor for reading; None where there is no such file. It is closed after the block."""
        try:
            fd = _open(self._path, digest)
        except OSError:
            yield None
            return
        try:
            yield fd if stat.S_ISREG(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def blobs(self) -> tuple[Digest, ...]:
        """Nobody needs a list of them."""
        return ()


def _open(path: Path, digest: Digest) -> int:
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_in_root(root, f"blobs/{digest.algorithm}/{digest.hex}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(root)


def _named(path: Path, tag: str, text: str) -> Digest:
    """The entry with this name; of a layout that has one image only, that one."""
    entries = _entries(path)
    for names, digest in entries:
        if tag in names:
            return digest
    if len(entries) == 1:
        return entries[0][1]
    known = sorted({name for names, _ in entries for name in names})
    raise UserError(
        f"{SCHEME}{text}: no image of the layout is called {tag!r}",
        hint=f"it has {', '.join(known)}" if known else f"name one by its digest: {SCHEME}PATH@sha256:...",
    )


def _entries(path: Path) -> list[tuple[frozenset[str], Digest]]:
    """The names and the digest of each entry of `index.json`."""
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        document = json.loads(read_regular(root, "index.json", limit=_LIMIT))
        return [
            (
                frozenset(filter(None, ((entry.get("annotations") or {}).get(name) for name in _NAMES))),
                Digest.parse(entry["digest"]),
            )
            for entry in document["manifests"]
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}/index.json cannot be read: {error}", hint="it is not an OCI layout") from error
    finally:
        os.close(root)
