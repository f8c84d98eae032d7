"""What two daemons tell, without what differs from one run to the next: digests, ids, times, sizes, ages.

Sizes differ for a reason: each compresses with a program of its own, and counts directories in its own way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.conformance.sides import Side

_REPLACED: Mapping[str, str] = {
    r"(sha256:)?\b[0-9a-f]{64}\b": "DIGEST",
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( \+0000 UTC|Z)?": "TIME",
    r"\b[0-9a-z]{24,25}\b": "ID",
    r"\b\d+(\.\d+)?(ms|s)\b": "SECONDS",
    r"\b\d+(\.\d+)? ?[kMG]?B\b": "SIZE",
    r"\d+ (seconds?|minutes?) ago|About a minute ago|Less than a second ago": "AGO",
    r"[ \t]+": " ",
}
_VARYING = {"size", "Size", "Duration"}


def text(side: Side, said: str) -> str:
    for own, common in ((str(side.work), "WORK"), (side.repository, "REPOSITORY")):
        said = said.replace(own, common).replace(quote(own, safe="/"), common)
    for pattern, common in _REPLACED.items():
        said = re.sub(pattern, common, said)
    return said


def document(side: Side, said: str | bytes) -> Any:
    """JSON; keys that are digests or ids come in an order of their own."""
    return _alike(side, json.loads(said))


def files(side: Side, directory: Path) -> Any:
    """The names of all files below a directory, and what those say that are not the base image's programs."""
    found = {str(path.relative_to(directory)): path for path in directory.rglob("*") if not path.is_dir()}
    texts = {name: path.read_bytes() for name, path in found.items() if "bin/" not in name}
    return sorted(found), {name: content(side, data) for name, data in texts.items()}


def content(side: Side, data: bytes) -> Any:
    """That of a file: what is no JSON is the same to the last byte."""
    return document(side, data) if data.startswith(b"{") else data


def _alike(side: Side, value: Any, key: str = "") -> Any:
    match value:
        case dict():
            fields = [(text(side, name), _alike(side, each, name)) for name, each in value.items()]
            return sorted(fields, key=repr)
        case list():
            return [_alike(side, each) for each in value]
        case str():
            return text(side, value)
        case int() | float() if key in _VARYING:
            return key
    return value
