"""Parser directives: `# syntax=`, `# escape=` and `# check=` at the top of a build file, before anything else.

`Reader` enforces the quirks (each once, nothing before them); `detect_syntax` also finds the syntax of files that
are no Dockerfiles: `// syntax=`, or a leading JSON object. Pure.
"""

from __future__ import annotations

import json
import re

from buildengine.errors import ParseError
from buildengine.values import dataclass
from frontends.dockerfile.terminals import SPACES

_BLANK = "\t\n\f\r "
_DIRECTIVE = re.compile(rf"([a-zA-Z][a-zA-Z0-9]*)[{_BLANK}]*+=(.+)\Z", re.DOTALL)
_KNOWN = ("syntax", "escape", "check")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    name: str
    value: str
    line: int


@dataclass(slots=True)
class Reader:
    """Fed with the lines of a file, one after another, until it is `done`."""

    comment: str = "#"
    done: bool = False
    seen: set[str] | None = None

    def read(self, text: str, line: int) -> Directive | None:
        """Raises ParseError when a directive is repeated."""
        if self.done:
            return None
        match = _DIRECTIVE.match(text[len(self.comment) :].lstrip(SPACES)) if text.startswith(self.comment) else None
        if match is None or match[1].lower() not in _KNOWN:
            self.done = True
            return None
        name = match[1].lower()
        self.seen = self.seen or set()
        if name in self.seen:
            raise ParseError(f"only one {name} parser directive can be used", hint="remove all of them but one")
        self.seen.add(name)
        return Directive(name=name, value=match[2].strip(_BLANK) or match[2][-1], line=line)


def find(data: bytes, name: str, *, comment: str = "#") -> Directive | None:
    """The directive `name` of a file. What comes after a mistake is not looked at."""
    lines = data.removeprefix(BOM).split(b"\n")
    skipped = 1 if lines[0].startswith(b"#!") else 0  # a shebang may stand before directives
    reader = Reader(comment=comment)
    for number, line in enumerate(lines[skipped:], skipped + 1):
        try:
            found = reader.read(line.rstrip(b"\r").decode("utf-8", "replace"), number)
        except ParseError:
            return None
        if found is not None and found.name == name:
            return found
        if reader.done:
            return None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """The frontend image that a file asks for. `command_line` is the whole value: the image may have arguments."""

    image: str
    command_line: str
    line: int


def detect_syntax(data: bytes) -> Syntax | None:
    """The `syntax` directive of any build file, in any of its three spellings."""
    found = find(data, "syntax") or find(data, "syntax", comment="//")
    if found is not None:
        return Syntax(image=found.value.partition(" ")[0], command_line=found.value, line=found.line)
    text = data.removeprefix(BOM)
    shebang = text.startswith(b"#!")
    body = text.partition(b"\n")[2] if shebang else text
    if not body.lstrip().startswith(b"{"):
        return None
    try:
        value = json.loads(body).get("syntax")
    except (ValueError, RecursionError):
        return None
    return Syntax(image=value, command_line=value, line=1 + shebang) if isinstance(value, str) else None
