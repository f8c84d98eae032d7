"""JSON documents as bytes, the way the image tools of the field write them: their digests depend on it.

BuildKit's exporter writes manifests, indexes and configs through Go's `json.MarshalIndent(doc, "", "  ")` and
layout files through `json.Marshal`; these two functions give the same bytes for the same document. Go's encoder
escapes `<`, `>`, `&` and the line separators U+2028 and U+2029 (encoding/json, HTMLEscape). Key order is the
caller's: the order of Go's struct fields, and sorted keys where Go has a map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from buildengine.errors import UserError

_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def indented(document: Mapping[str, Any], *, indent: int | str = 2) -> bytes:
    """With two spaces of indent, as manifests, indexes and configs are stored; docker's config.json has a tab."""
    return _encode(json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False))


def compact(document: object) -> bytes:
    """Without any white space, as `oci-layout`, `index.json` and `manifest.json` are stored."""
    return _encode(json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


def _encode(text: str) -> bytes:
    try:
        return text.translate(_ESCAPES).encode()  # these characters stand in JSON inside strings only
    except UnicodeEncodeError as error:
        raise UserError(f"not valid Unicode text: {text[error.start : error.end]!r}") from error
