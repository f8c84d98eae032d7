"""What must not be written down or shown: values under names that sound like secrets, and passwords in URLs.

Build arguments are no place for secrets (BuildKit's rule SecretsUsedInArgOrEnv warns of them), but people use them.
Of such a value only a digest is kept: enough to see that it has changed.
"""

from __future__ import annotations

import re

from blake3 import blake3

HIDDEN = "hidden:"
"""What is kept of a value begins with this where it is a digest."""

# The words of BuildKit's rule (frontend/dockerfile/linter: SecretsUsedInArgOrEnv); short ones count as whole words.
_SECRET = re.compile(
    r"password|passwd|secret|token|credential|api_?key|(?:^|[_-])(?:auth|keys?|pass|pat|pword)(?:$|[_-])", re.IGNORECASE
)
# Names begin where words do, and have an end: else each character of a long text would begin a long search.
_ASSIGNED = re.compile(
    r"(?<!\w)(?<!\w-)(?<!\w--)(?P<name>[A-Za-z_][\w-]{0,127})(?P<sep>\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"']+)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_USERINFO = re.compile(r"(?<!\w)(?P<scheme>[a-zA-Z][\w+.-]{0,31}://)[^/\s@\"']+@")


def sounds_secret(name: str) -> bool:
    return _SECRET.search(name) is not None


def kept(name: str, value: str) -> str:
    """What is written down of a variable's value."""
    if not sounds_secret(name):
        return value
    return HIDDEN + blake3(value.encode("utf-8", "surrogateescape")).hexdigest(8)


def shown(text: str) -> str:
    """Any text, as it may be shown and written down: without what looks like a secret in it."""
    text = _USERINFO.sub(r"\g<scheme>***@", text)
    text = _BEARER.sub(r"\1 ***", text)
    return _ASSIGNED.sub(_without_value, text)


def _without_value(found: re.Match[str]) -> str:
    if not sounds_secret(found["name"]) or found["value"].startswith("$"):
        return found[0]
    return f"{found['name']}{found['sep']}***"
