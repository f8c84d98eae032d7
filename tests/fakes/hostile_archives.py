"""Tar archives and images that no honest tool would make, member by member or byte by byte."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from worker.oci.types import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

Member = tuple[Any, ...]  # (name, kind, then contents, link target or major and minor)

_TYPES = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def tar(*members: Member) -> bytes:
    """An archive of these members, in this order, names as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, *rest in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = _TYPES[kind], 0o755
            data = rest[0] if rest and kind == "file" else b"x"
            if kind == "file":
                info.size = len(data)
            elif kind in ("link", "hard"):
                info.linkname = rest[0]
            elif kind in ("char", "block"):
                info.devmajor, info.devminor = rest
            archive.addfile(info, io.BytesIO(data) if kind == "file" else None)
    return out.getvalue()


def header(
    name: bytes = b"x",
    *,
    size: bytes = b"00000000000\0",
    kind: bytes = b"0",
    uid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
) -> bytes:
    """One header block with a right checksum, fields as they are."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", uid, b"0000000\0"
    block[124:136], block[136:148], block[156:157], block[257:265] = size, mtime, kind, b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: Mapping[str, str]) -> bytes:
    """An extended header with these records."""
    body = b"".join(_record(key, value) for key, value in records.items())
    return header(kind=b"x", size=b"%011o\0" % len(body)) + body + bytes(-len(body) % 512)


def _record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text) + len(str(len(text)))
    length = len(text) + len(str(length))
    return str(length).encode() + text


# --- images -----------------------------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compact(document: object) -> bytes:
    return json.dumps(document).encode()


def config(layers: Sequence[bytes], **fields: Any) -> bytes:
    """An image config for these uncompressed layers; `fields` replace or add."""
    rootfs = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
    return compact({"architecture": "amd64", "os": "linux", "rootfs": rootfs, **fields})


def layout(
    layers: Sequence[bytes],
    *,
    config_bytes: bytes | None = None,
    manifest: bytes | None = None,
    descriptor: Mapping[str, Any] | None = None,
    name: str = "evil:1",
    extra: Sequence[Member] = (),
) -> bytes:
    """An OCI archive with one image, of which any part may be another one; `descriptor` changes its index entry."""
    written = config(layers) if config_bytes is None else config_bytes
    document = compact(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest(written), "size": len(written)},
            "layers": [{"mediaType": OCI_LAYER, "digest": digest(layer), "size": len(layer)} for layer in layers],
        }
    )
    manifest = document if manifest is None else manifest
    entry = {"mediaType": OCI_MANIFEST, "digest": digest(manifest), "size": len(manifest)}
    annotations = {"annotations": {"io.containerd.image.name": name}}
    index = compact({"schemaVersion": 2, "manifests": [{**entry, **annotations, **(descriptor or {})}]})
    return tar(
        ("oci-layout", "file", b'{"imageLayoutVersion":"1.0.0"}'),
        ("index.json", "file", index),
        *[(f"blobs/sha256/{digest(blob)[7:]}", "file", blob) for blob in (written, manifest, *layers)],
        *extra,
    )
