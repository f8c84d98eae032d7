"""The name of a downloaded file: one bare name, whatever a server or an author writes."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

DEFAULT = "download"
_MAX_BYTES = 255
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*\"?([A-Za-z0-9-]*)'[^']*'([^;\"]*)", re.IGNORECASE)
_PLAIN = re.compile(r';\s*filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', re.IGNORECASE)


def choose(url: str, wanted: str, content_disposition: str) -> str:
    """What the author wants, else what the server says, else the URL's last segment, else `download`."""
    if wanted:
        return bare(wanted)
    said = _disposition(content_disposition[:8192])
    if said and not said.endswith("/"):
        return bare(said)
    try:
        path = urlsplit(url).path
    except ValueError:
        return DEFAULT
    return bare(unquote(path.rstrip("/")))


def bare(name: str) -> str:
    """The last component of `name`, when it can be the name of a file; `download` otherwise.

    A `.wh.` name is refused as well: in an image's layer it would delete a file (image-spec, layer.md, whiteouts).
    """
    last = name.strip().rstrip("/").rpartition("/")[2]
    unusable = last in ("", ".", "..") or last.startswith(".wh.") or len(last.encode("utf-8", "replace")) > _MAX_BYTES
    return DEFAULT if unusable or any(not c.isprintable() for c in last) else last


def _disposition(header: str) -> str:
    """The file name of a Content-Disposition header, RFC 6266: the extended form wins."""
    extended = _EXTENDED.search(header)
    if extended is not None:
        charset = extended[1].lower()
        return unquote(extended[2].strip(), encoding="latin-1" if charset == "iso-8859-1" else "utf-8")
    plain = _PLAIN.search(header)
    if plain is None:
        return ""
    return re.sub(r"\\(.)", r"\1", plain[1]) if plain[1] is not None else plain[2]
