r"""Shell words: quotes, escapes and `$name`, `${name}`, `${name:-word}` and friends.

`Lexer(...).process(text, env)` gives the expanded text, the words it falls into, and which variables it found and
missed. A lexer is a value; its settings say what stays as written: quotes, escapes, unset variables. Facts: the
behaviours of BuildKit's frontend/dockerfile/shell, whose tables are in our tests. Pure: knows no Dockerfile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from functools import lru_cache

from buildengine.errors import ParseError
from buildengine.values import dataclass
from frontends.dockerfile import shellpattern
from frontends.dockerfile.budget import ITSELF, Budget
from frontends.dockerfile.terminals import SPACE

DEEPEST = 100  # of ${a:-${b:-...}}; a bound of ours, so that no file can exhaust the stack
LARGEST = 1 << 20  # characters from the variables of one text: no process can have a variable of 128 KiB, execve(2)

_SPLIT = re.compile(f"[{SPACE}]+")
_NAME = re.compile(r"\d+|[@*#?$!-]|\w+")  # positional, special, ordinary
_HEREDOC_GAP = re.compile(r"<<[\t\r ]*")

Piece = tuple[str, bool]  # text, and whether its spaces separate words


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    text: str
    pieces: tuple[Piece, ...]
    matched: frozenset[str]
    unmatched: frozenset[str]

    @property
    def words(self) -> tuple[str, ...]:
        """The text split at spaces that were neither quoted nor escaped. Empty words vanish."""
        words: list[str] = [""]
        for text, splits in self.pieces:
            first, *more = _SPLIT.split(text) if splits else (text,)
            words[-1] += first
            words += more
        return tuple(w for w in words if w)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexer:
    """How to read a word. `keep_unset` leaves `$unset` as it stands instead of making it empty."""

    escape: str = "\\"
    keep_quotes: bool = False
    keep_escapes: bool = False
    keep_unset: bool = False
    plain_quotes: bool = False  # quotes mean nothing: the body of a heredoc
    budget: Budget = field(default_factory=Budget, repr=False, compare=False)  # one of its own, if not the file's

    def process(self, text: str, env: Mapping[str, str]) -> Expansion:
        """Raises ParseError: unbalanced quotes or braces, unknown modifier, `:?`."""
        if not _special(self.escape, "").search(text):
            nothing: frozenset[str] = frozenset()
            return Expansion(text=text, pieces=((text, True),), matched=nothing, unmatched=nothing)
        scan = _Scan(text, self, env)
        try:
            pieces = scan.until("", self.keep_escapes)
            self.budget.spend(scan.grown)
        except ParseError as error:
            shown = text if len(text) <= 200 else text[:200] + "..."
            raise ParseError(f"failed to process {quote(shown)}: {error.message}", hint=error.hint) from None
        return Expansion(
            text=_join(pieces),
            pieces=tuple(pieces),
            matched=frozenset(scan.matched),
            unmatched=frozenset(scan.unmatched),
        )

    def expand(self, text: str, env: Mapping[str, str]) -> str:
        return self.process(text, env).text


def quote(text: str) -> str:
    """`text` as Go's %q prints it: history entries and messages are compared byte by byte."""
    return '"' + "".join(map(_quote_char, text)) + '"'


_QUOTED = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"} | {
    "\\": r"\\",
    '"': r"\"",
}


def _quote_char(char: str) -> str:
    if char in _QUOTED:
        return _QUOTED[char]
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _join(pieces: list[Piece]) -> str:
    return "".join(text for text, _ in pieces)


@lru_cache
def _special(escape: str, stop: str) -> re.Pattern[str]:
    return re.compile(f"[$'\"<{re.escape(escape)}{re.escape(stop)}]")


class _Scan:
    """One pass over one text."""

    def __init__(self, text: str, lexer: Lexer, env: Mapping[str, str]) -> None:
        self.text, self.lexer, self.env = text, lexer, env
        self.at = 0
        self.depth = 0
        self.grown = 0
        self.raw_escapes = lexer.keep_escapes
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        self.at += 1
        return self.text[self.at - 1 : self.at]

    def until(self, stop: str, raw_escapes: bool) -> list[Piece]:
        """The pieces up to `stop` (which is consumed), or to the end."""
        before, self.raw_escapes = self.raw_escapes, raw_escapes
        pieces: list[Piece] = []
        special = _special(self.lexer.escape, stop)
        while self.at < len(self.text):
            found = special.search(self.text, self.at)
            end = found.start() if found else len(self.text)
            if end > self.at:
                pieces.append((self.text[self.at : end], True))
                self.at = end
            elif self.text[end] == stop:
                self.at += 1
                self.raw_escapes = before
                return pieces
            else:
                self.one(self.text[end], pieces)
        if stop:
            raise ParseError(f"unexpected end of statement while looking for matching {stop}")
        return pieces

    def one(self, char: str, pieces: list[Piece]) -> None:
        """Whatever the special character `char` begins."""
        if char == "$":
            pieces.append((self.dollar(), True))
        elif char == "<":
            gap = _HEREDOC_GAP.match(self.text, self.at)  # `<< NAME` is one word
            self.at = gap.end() if gap else self.at + 1
            pieces.append((gap[0] if gap else "<", False))
        elif char in "'\"":
            if self.lexer.plain_quotes:
                self.at += 1
                pieces.append((char, True))
            else:
                pieces.append((self.single_quoted() if char == "'" else self.double_quoted(), False))
        else:
            self.at += 1
            if self.raw_escapes:
                pieces.append((char, False))
            if escaped := self.take():
                pieces.append((escaped, False))

    def single_quoted(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            self.at = len(self.text)
            raise self.unbalanced("single")
        inside = self.text[self.at + 1 : end]
        self.at = end + 1
        return f"'{inside}'" if self.lexer.keep_quotes else inside

    def double_quoted(self) -> str:
        mark = '"' if self.lexer.keep_quotes else ""
        out = [mark]
        self.at += 1
        while char := self.peek():
            if char == '"':
                self.at += 1
                return "".join(out) + mark
            if char == "$":
                out.append(self.dollar())
                continue
            self.at += 1
            if char == self.lexer.escape:
                out += self.escaped_in_quotes(char)
            else:
                out.append(char)
        raise self.unbalanced("double")

    def escaped_in_quotes(self, escape: str) -> list[str]:
        """Within double quotes only `"`, `$` and the escape character itself can be escaped."""
        kept = [escape] if self.raw_escapes else []
        if self.peek() in ('"', "$", escape):
            return [*kept, self.take()]
        return [*kept, escape]

    def unbalanced(self, kind: str) -> ParseError:
        return ParseError(
            f"unexpected end of statement while looking for matching {kind}-quote",
            hint=f"close the quote, or put {self.lexer.escape} before it to mean the character",
        )

    # --- $ ----------------------------------------------------------------------------------------------

    def dollar(self) -> str:
        value = self.substitution()
        self.grown += len(value)
        if self.grown > LARGEST:
            raise ParseError(f"variables make it longer than {LARGEST >> 20} MiB", hint=ITSELF)
        return value

    def substitution(self) -> str:
        self.at += 1
        if self.peek() == "{":
            self.depth += 1
            if self.depth > DEEPEST:
                raise ParseError(f"substitutions are nested more than {DEEPEST} deep")
            value = self.braced()
            self.depth -= 1
            return value
        name = self.name()
        if not name:
            return "$"
        value_or_none = self.look_up(name)
        if value_or_none is None and self.lexer.keep_unset:
            return "$" + name
        return value_or_none or ""

    def name(self) -> str:
        found = _NAME.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def look_up(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value

    def braced(self) -> str:
        self.at += 1
        if not self.peek():
            raise _incomplete("missing '}'")
        if self.peek() in "{}:":
            raise _incomplete("bad substitution")
        name, modifier = self.name(), self.take()
        if modifier == "}":
            value = self.look_up(name)
            return f"${{{name}}}" if value is None and self.lexer.keep_unset else value or ""
        if modifier == "/":
            return self.replaced(name)
        colon = modifier == ":"
        if colon:
            modifier = self.take()
        if not modifier:
            raise _incomplete("missing '}'")
        if modifier not in "+-?#%" and not colon:
            raise _unsupported(modifier)
        return self.modified(name, modifier, colon)

    def modified(self, name: str, modifier: str, colon: bool) -> str:
        shown = ":" + modifier if colon else modifier
        trims = modifier in "#%"
        if colon and trims:
            raise _unsupported(shown)
        word = self.inner("}", trims, "missing '}'")
        value = self.look_up(name)
        if value is None and self.lexer.keep_unset:
            return f"${{{name}{shown}{word}}}"
        there = value is not None and not (colon and value == "")
        if modifier == "-":
            return value or "" if there else word
        if modifier == "+":
            return word if there else ""
        if modifier == "?":
            if not there:
                state = "unset" if value is None else "empty"
                raise ParseError(
                    f"{name}: {word or f'is not allowed to be {state}'}", hint=f"set it: --build-arg {name}=..."
                )
            return value or ""
        if trims:
            longest = word.startswith(modifier)
            self.lexer.budget.match(word, value or "")
            trim = shellpattern.trim_prefix if modifier == "#" else shellpattern.trim_suffix
            return trim(word[longest:], value or "", longest=longest)
        raise _unsupported(shown)

    def replaced(self, name: str) -> str:
        every = self.peek() == "/"
        self.at += every
        pattern = self.inner("/", True, "missing '/' in ${}")
        replacement = self.inner("}", True, "missing '}'")
        value = self.look_up(name)
        if value is None and self.lexer.keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        self.lexer.budget.match(pattern, value or "")
        return shellpattern.replace(pattern, value or "", replacement, every=every, longest=LARGEST)

    def inner(self, stop: str, raw_escapes: bool, missing: str) -> str:
        try:
            return _join(self.until(stop, raw_escapes))
        except ParseError:
            if self.at >= len(self.text):
                raise _incomplete(missing) from None
            raise


def _incomplete(what: str) -> ParseError:
    return ParseError(f"syntax error: {what}", hint="a substitution looks like ${name} or ${name:-default}")


def _unsupported(modifier: str) -> ParseError:
    return ParseError(
        f"unsupported modifier ({modifier}) in substitution",
        hint="modifiers are :- - :+ + :? ? # ## % %% / and //; write \\${ for a literal ${",
    )
