""".dockerignore: lines to patterns. What the patterns mean is llb.patterns' business. Pure."""

from __future__ import annotations

from buildengine.errors import ParseError, UserError
from frontends.dockerfile.directives import BOM
from frontends.dockerfile.lines import SourceFile
from frontends.dockerfile.terminals import SPACES
from llb.paths import clean
from llb.patterns import parse_pattern

LONGEST = 1 << 20  # characters of all patterns. A bound of ours: to read and first use them takes 1 to 5 s


def read(source: SourceFile) -> tuple[str, ...]:
    """The patterns of an ignore file: comments and blank lines gone, paths cleaned, relative to the context.

    Raises ParseError at the line whose pattern is no pattern, or one too many.
    """
    patterns: list[str] = []
    known: set[str] = set()
    left = LONGEST
    for number, line in enumerate(source.data.removeprefix(BOM).split(b"\n"), 1):
        text = line.decode("utf-8", "replace")
        if text.startswith("#"):  # a comment only at the very beginning of a line
            continue
        pattern = _pattern(text.strip(SPACES))
        if not pattern:
            continue
        left -= len(pattern)
        if left < 0:
            raise ParseError(
                f"the patterns of {source.filename} have more than {LONGEST} characters",
                hint="name directories instead of the files in them",
                locations=(source.at_lines(number, number),),
            )
        patterns.append(pattern)
        if pattern in known:
            continue
        try:
            parse_pattern(pattern)
        except UserError as error:
            raise ParseError(
                f"failed parsing {source.filename}: {error.message}",
                hint=error.hint,
                locations=(source.at_lines(number, number),),
            ) from None
        known.add(pattern)
    return tuple(patterns)


def _pattern(text: str) -> str:
    mark = "!" if text.startswith("!") else ""
    path = text[len(mark) :].strip(SPACES) if mark else text
    if path:
        path = clean(path)
        if len(path) > 1:
            path = path.removeprefix("/")
    return mark + path
