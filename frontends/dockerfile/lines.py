r"""A Dockerfile's bytes as logical lines: continuations joined, comments gone, heredoc bodies attached.

The first step of the frontend and the only one that sees bytes. Every logical line knows where each of its
characters stood, so that whoever finds a mistake later can point at it. A file that is not UTF-8 keeps its bytes as
lone surrogates; they may stay in comments and in the bodies of COPY's heredocs, nowhere else. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import field, replace

from buildengine.errors import Location, ParseError, SourceRange
from buildengine.values import dataclass
from frontends.dockerfile import terminals
from frontends.dockerfile.directives import BOM, Directive, Reader
from frontends.dockerfile.terminals import SPACES
from frontends.dockerfile.words import Lexer

LONGEST_LINE = 65535  # bytes; what BuildKit's scanner holds

_FEW_LINES = 64
_HEREDOC = re.compile(r"(\d*)<<(-?)[\t\n\f\r ]*+([^<]*+)\Z")
_PLAIN_NAME = re.compile(r"[a-zA-Z0-9_.-]+\Z")
_TAKES_HEREDOC = re.compile(r"(?:onbuild[\t\v\f\r ]+)?(?:run|copy|add)[\t\v\f\r ]+", re.IGNORECASE)
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
UNWRITABLE = re.compile("[\ud800-\udfff\0]")  # bytes that are not UTF-8, and NUL


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    filename: str
    data: bytes = field(repr=False)
    language: str = ""
    definition: bytes = field(default=b"", repr=False)  # what it was read from

    def location(self, *ranges: SourceRange) -> Location:
        return Location(
            filename=self.filename,
            ranges=ranges,
            text=self.data,
            language=self.language,
            definition=self.definition,
        )

    def at_lines(self, first: int, last: int) -> Location:
        return self.location(*(SourceRange(start_line=n, end_line=n) for n in range(first, max(first, last) + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """`<<NAME` on a line, with the lines up to the one that is just NAME. `body` is as written."""

    name: str
    body: str = ""
    expand: bool = True
    strip_tabs: bool = False
    descriptor: int = 0

    @property
    def content(self) -> str:
        return _LEADING_TABS.sub("", self.body) if self.strip_tabs else self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalLine:
    """`pieces` tells for each physical line that gave text: offset in `text`, line number, column."""

    text: str
    first: int
    last: int
    source: SourceFile = field(repr=False, compare=False)
    pieces: tuple[tuple[int, int, int], ...] = ((0, 0, 0),)
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()  # what stands above, for descriptions

    @property
    def ranges(self) -> tuple[SourceRange, ...]:
        """One range for each physical line, as BuildKit tells them; one for all when there are many.

        An instruction of n lines may make n operations, and each has these ranges.
        """
        if self.last - self.first > _FEW_LINES:
            return (SourceRange(start_line=self.first, end_line=self.last),)
        return tuple(SourceRange(start_line=n, end_line=n) for n in range(self.first, self.last + 1))

    @property
    def location(self) -> Location:
        return self.source.location(*self.ranges)

    def locate(self, start: int, end: int) -> Location:
        """The whole line's location, with columns where `text[start:end]` begins; of many lines, only that one."""
        following = bisect_right(self.pieces, (start, 1 << 60, 0))
        offset, number, column = self.pieces[following - 1]
        stop = min([end, *[piece[0] for piece in self.pieces[following : following + 1]]])
        exact = SourceRange(
            start_line=number, end_line=number, start_column=column + start - offset, end_column=column + stop - offset
        )
        if self.last - self.first > _FEW_LINES:
            return self.source.location(exact)
        return self.source.location(*(exact if r.start_line == number else r for r in self.ranges))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    source: SourceFile
    lines: tuple[LogicalLine, ...]
    directives: tuple[Directive, ...] = ()
    escape: str = "\\"
    empty_continuations: tuple[int, ...] = ()  # line numbers: where a continued instruction had blank lines inside

    def directive(self, name: str) -> Directive | None:
        return next((d for d in self.directives if d.name == name), None)


def split(source: SourceFile) -> Dockerfile:
    """Raises ParseError: no instruction at all, a line too long, an unterminated heredoc, a bad directive."""
    splitter = _Splitter(source)
    lines = tuple(splitter.logical_lines())
    if not lines:
        raise ParseError(
            "file with no instructions" if source.data.strip() else "the Dockerfile cannot be empty",
            hint="a Dockerfile begins with FROM",
            locations=(source.at_lines(1, 1),),
        )
    return Dockerfile(
        source=source,
        lines=lines,
        directives=tuple(splitter.directives),
        escape=splitter.escape,
        empty_continuations=tuple(splitter.empty_continuations),
    )


def heredoc(word: str) -> Heredoc | None:
    """The heredoc that `word` announces. Raises ParseError when its quotes do not match."""
    match = _HEREDOC.match(word)
    if match is None or not match[3]:
        return None
    if _PLAIN_NAME.match(match[3]):
        return _announced(match, match[3], expand=True)
    names = Lexer(keep_unset=True).process(match[3], {}).words
    if len(names) != 1:
        return None
    raw = Lexer(keep_unset=True, keep_quotes=True).process(match[3], {}).words[0]
    quotes = [word.count("'") + word.count('"') for word in (names[0], raw)]
    return _announced(match, names[0], expand=quotes[0] == quotes[1])  # a quoted name: the body is taken as it is


def _announced(match: re.Match[str], name: str, *, expand: bool) -> Heredoc:
    return Heredoc(name=name, expand=expand, strip_tabs=match[2] == "-", descriptor=int(match[1][-9:] or 0))


def _heredocs_of(text: str, escape: str) -> list[Heredoc]:
    """The heredocs that an instruction announces; the exec form and other instructions have none."""
    keyword = _TAKES_HEREDOC.match(text)
    if keyword is None:
        return []
    flags = terminals.flags(escape).match(text, keyword.end())
    if terminals.exec_form(text[flags.end() if flags else keyword.end() :]) is not None:
        return []
    try:
        words = Lexer(keep_unset=True, keep_quotes=True, keep_escapes=True).process(text, {}).words
    except ParseError:  # a quote left open: the shell's business, and no heredoc
        return []
    return [found for word in words if (found := heredoc(word)) is not None]


def _check_writable(line: LogicalLine) -> None:
    bad = UNWRITABLE.search(line.text)
    if bad is not None:
        what = "a NUL byte" if bad[0] == "\0" else f"the byte 0x{ord(bad[0]) - 0xDC00:02x}, which is not UTF-8"
        raise ParseError(
            f"the instruction holds {what}",
            hint="save the Dockerfile as UTF-8",
            locations=(line.locate(bad.start(), bad.end()),),
        )


class _Splitter:
    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self.physical = self._decode(source.data)
        self.next = 0  # index of the next physical line; the line just read has this number
        self.escape = "\\"
        self.reader = Reader()
        self.directives: list[Directive] = []
        self.empty_continuations: list[int] = []

    def _decode(self, data: bytes) -> list[str]:
        lines = data.removeprefix(BOM).split(b"\n")
        for number, line in enumerate(lines, 1):
            if len(line) > LONGEST_LINE:
                raise ParseError(
                    f"dockerfile line greater than max allowed size of {LONGEST_LINE}",
                    hint=f"line {number} is {len(line)} bytes long: break it with a backslash at the end of a line",
                    locations=(self.source.at_lines(number, number),),
                )
        if not lines[-1]:
            lines.pop()
        return [line.decode("utf-8", "surrogateescape") for line in lines]

    def read(self) -> str:
        self.next += 1
        return self.physical[self.next - 1]

    def logical_lines(self) -> Iterator[LogicalLine]:
        comments: list[str] = []
        while self.next < len(self.physical):
            raw = self.read()
            text = raw.rstrip("\r").lstrip(SPACES)
            if text.startswith("#"):
                if not self.is_directive(text):
                    comment = raw[1:].strip(SPACES)
                    if comment:
                        comments.append(comment)
                    else:
                        comments.clear()
                continue
            self.reader.done = True
            first = self.next
            joined = self.join(text, len(raw.rstrip("\r")) - len(text))
            if joined is None:
                continue
            text, pieces = joined
            line = LogicalLine(
                text=text, first=first, last=self.next, source=self.source, pieces=pieces, comments=tuple(comments)
            )
            _check_writable(line)
            if "<<" in text:
                line = self.with_heredocs(line)
            yield line
            comments.clear()

    def is_directive(self, text: str) -> bool:
        here = self.source.at_lines(self.next, self.next)
        try:
            directive = self.reader.read(text, self.next)
        except ParseError as error:
            raise error.located(here) from None
        if directive is None:
            return False
        if directive.name == "escape":
            if directive.value not in ("\\", "`"):
                raise ParseError(
                    f"invalid escape token '{directive.value}' does not match ` or \\",
                    hint="write `# escape=` with a backslash or a backtick",
                    locations=(here,),
                )
            self.escape = directive.value
        self.directives.append(directive)
        return True

    def join(self, text: str, column: int) -> tuple[str, tuple[tuple[int, int, int], ...]] | None:
        """The text that begins with `text`, with its continuation lines, and its pieces; None for a blank line."""
        text, more = self.continued(text)
        if not more and not text:
            return None
        parts, pieces, length = [text], [(0, self.next, column)], len(text)
        blank = False
        while more and self.next < len(self.physical):
            raw = self.read().rstrip("\r")
            stripped = raw.lstrip(SPACES)
            if stripped.startswith("#"):
                continue
            if not stripped:
                blank = True
                continue
            part, more = self.continued(raw)
            pieces.append((length, self.next, 0))
            parts.append(part)
            length += len(part)
        if blank:
            self.empty_continuations.append(self.next)
        return "".join(parts), tuple(pieces)

    def continued(self, text: str) -> tuple[str, bool]:
        """The text without its continuation mark, and whether there was one. `\\\\` at the end is none."""
        bare = text.rstrip(" \t")
        if bare.endswith(self.escape) and bare[-2:-1] != self.escape:
            return bare[:-1], True
        return text, False

    def with_heredocs(self, line: LogicalLine) -> LogicalLine:
        try:
            announced = _heredocs_of(line.text, self.escape)
        except ParseError as error:
            raise error.located(line.location) from None
        if not announced:
            return line
        filled = tuple(replace(h, body=self.body(h, line)) for h in announced)
        return replace(line, heredocs=filled, last=self.next)

    def body(self, wanted: Heredoc, line: LogicalLine) -> str:
        begin = self.next
        while self.next < len(self.physical):
            text = self.read().rstrip("\r")
            if (text.lstrip("\t") if wanted.strip_tabs else text) == wanted.name:
                return "".join(f"{body}\n" for body in self.physical[begin : self.next - 1])
        hint = f"no line after line {begin} is just {wanted.name}"
        for number, text in enumerate(self.physical[begin:], begin + 1):
            if text.strip() == wanted.name:
                hint = f"line {number} has spaces beside {wanted.name}; <<-{wanted.name} would allow tabs before it"
        raise ParseError("unterminated heredoc", hint=hint, locations=(self.source.at_lines(line.first, self.next),))
