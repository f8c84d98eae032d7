"""Layers of Windows images: their files are below `Files/`, their registry below `Hives/`, and entries carry a security
descriptor and file attributes.

What a host on Windows writes and reads is Microsoft/go-winio's backuptar; BuildKit's util/winlayers makes the same on
Linux with one descriptor for all files and one for all directories (administrators and the system may do everything,
users may read), as here. Registry hives are neither read nor written. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from worker.layers.tar import Kind, TarHeader
from worker.layers.write import Shape

_FILES = b"Files/"
_TOPS = (b"Hives", b"Files", b"UtilityVM")
_SECOND = 1_000_000_000
_ATTRIBUTES = {Kind.DIRECTORY: b"16", Kind.FILE: b"32"}  # FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_ARCHIVE
_TYPE_BITS = {Kind.DIRECTORY: 1 << 14, Kind.FILE: 1 << 15}
_DESCRIPTORS = {
    # O:BAG:SYD:(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;;FA;;;BA)(A;OICIIO;GA;;;CO)(A;OICI;0x1200a9;;;BU)(A;CI;LC;;;BU)
    # (A;CI;DC;;;BU)
    Kind.DIRECTORY: (
        b"AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgCoAAcAAAAAAxgA/wEfAAECAAAAAAAFIAAAACACAAAA"
        b"AxQA/wEfAAEBAAAAAAAFEgAAAAAAGAD/AR8AAQIAAAAAAAUgAAAAIAIAAAALFAAAAAAQAQEAAAAAAAMAAAAAAAMYAKkAEgABAgAAAAAABSAAAAAh"
        b"AgAAAAIYAAQAAAABAgAAAAAABSAAAAAhAgAAAAIYAAIAAAABAgAAAAAABSAAAAAhAgAA"
    ),
    # O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)(A;;0x1200a9;;;BU)
    Kind.FILE: (
        b"AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgBMAAMAAAAAABgA/wEfAAECAAAAAAAFIAAAACACAAAAABQA"
        b"/wEfAAEBAAAAAAAFEgAAAAAAGACpABIAAQIAAAAAAAUgAAAAIQIAAA=="
    ),
}


def shape(epoch: int | None) -> Shape:
    """How the archive of a layer becomes that of a Windows layer; the two top directories are of `epoch`, or 1970."""
    tops = (TarHeader(name=name, kind=Kind.DIRECTORY, mtime=(epoch or 0) * _SECOND) for name in (b"Hives", b"Files"))
    return Shape(first=tuple(_attributed(top) for top in tops), reshape=_below_files)


def plainly() -> Callable[[TarHeader], TarHeader | None]:
    """A function on the entries of one archive, in order: `file_of`, if the first shows that it is laid out this way.

    An image for Windows that began with `FROM scratch` has plain layers, BuildKit's as ours.
    """
    wrapped: bool | None = None

    def read(header: TarHeader) -> TarHeader | None:
        nonlocal wrapped
        if wrapped is None:
            wrapped = header.name.partition(b"/")[0] in _TOPS
        return file_of(header) if wrapped else header

    return read


def file_of(header: TarHeader) -> TarHeader | None:
    """The entry as one of a plain layer; None for what is no file of the image.

    BuildKit puts `Files/` in front of what symlinks lead to as well, so it is taken away there too.
    """
    if not header.name.startswith(_FILES):
        return None
    return replace(
        header, name=header.name.removeprefix(_FILES), linkname=header.linkname.removeprefix(_FILES), xattrs={}
    )


def _below_files(header: TarHeader) -> TarHeader:
    linkname = _FILES + header.linkname if header.kind is Kind.LINK else header.linkname
    moved = _attributed(replace(header, name=_FILES + header.name, linkname=linkname))
    descriptor = _DESCRIPTORS.get(header.kind)
    return moved if descriptor is None else replace(moved, records={**moved.records, b"MSWINDOWS.rawsd": descriptor})


def _attributed(header: TarHeader) -> TarHeader:
    records = {b"LIBARCHIVE.creationtime": b"%d.%d" % divmod(header.mtime // _SECOND * _SECOND, _SECOND)}
    if header.kind in _ATTRIBUTES:
        records[b"MSWINDOWS.fileattr"] = _ATTRIBUTES[header.kind]
    return replace(header, mode=header.mode | _TYPE_BITS.get(header.kind, 0), records=records)
