"""grammar.lark, applied: the tokens of one instruction, with the places where they stand.

Lark is imported when the first line is parsed, and takes the parser's tables from grammar_tables.py: to build them
takes 35 ms, a tenth of a cached build, to load them 2. Lark's cache on disk is never used: it unpickles what it finds
in /tmp. After a change of the grammar, or for a newer lark:

    python -m frontends.dockerfile.grammar > tables && mv tables frontends/dockerfile/grammar_tables.py

Pure, but for reading the grammar from the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildengine.errors import Location, ParseError
from buildengine.values import dataclass
from frontends.dockerfile import flags, grammar_tables
from frontends.dockerfile.lines import LogicalLine
from frontends.dockerfile.terminals import SPACES, terminals, unquote_flag

if TYPE_CHECKING:
    from lark import Lark, Token

_LONG = 1000  # characters; longer texts are not remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """An instruction's tokens. `start` is where, in the line's text, the text behind the keyword begins."""

    line: LogicalLine
    keyword: str
    name: str
    start: int
    escape: str
    flag_tokens: tuple[Token, ...]
    tokens: tuple[Token, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(map(str, self.tokens))

    @property
    def rest(self) -> str:
        """The text from the first token on."""
        return self.line.text[self.start + (self.tokens[0].start_pos or 0) :].rstrip(SPACES)

    def flags(self) -> flags.Flags:
        """What was given before the arguments. Raises ParseError at the flag in question."""
        reader = flags.Reader(self.name)
        for token in self.flag_tokens:
            try:
                reader.take(unquote_flag(token, self.escape))
            except ParseError as error:
                raise error.located(self.at(token)) from None
        return reader.finish()

    def flags_named(self, name: str) -> tuple[Token, ...]:
        """Every `--name=...`, in the order in which they stand. Parts of the name may be quoted."""
        start = f"--{name}="
        return tuple([token for token in self.flag_tokens if unquote_flag(token, self.escape).startswith(start)])

    def flag(self, name: str) -> Token | None:
        """Where `--name=...` stands, the first if there are several."""
        return next(iter(self.flags_named(name)), None)

    def span(self, token: Token) -> tuple[int, int]:
        """Where it stands in the text of the line."""
        begin = self.start + (token.start_pos or 0)
        return begin, begin + len(token)

    def at(self, token: Token) -> Location:
        return self.line.locate(*self.span(token))

    def error(self, message: str, hint: str, token: Token | None = None) -> ParseError:
        where = self.line.location if token is None else self.at(token)
        return ParseError(message, hint=hint, locations=(where,))


def parse(line: LogicalLine, keyword: str, start: int, escape: str) -> Parsed:
    """Raises ParseError when the shape of the instruction `keyword` does not fit."""
    from lark import UnexpectedInput

    name = keyword.upper()
    try:
        text = line.text[start:].rstrip(SPACES)
        find = _tokens if len(text) < _LONG else _tokens.__wrapped__
        flag_tokens, tokens = find(name, text, escape)
    except UnexpectedInput as error:
        raise _malformed(line, name, start, getattr(error, "token", None)) from None
    return Parsed(
        line=line,
        keyword=keyword,
        name=name,
        start=start,
        escape=escape,
        flag_tokens=flag_tokens,
        tokens=tokens,
    )


@lru_cache(maxsize=1024)  # files repeat themselves, from stage to stage and from platform to platform
def _tokens(name: str, text: str, escape: str) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """The flags, and what follows them."""
    from lark import Token

    tree = _grammar(escape).parse(text, start=name.lower())
    tokens = [token for token in tree.children if isinstance(token, Token)]
    count = next((i for i, token in enumerate(tokens) if token.type != "FLAG"), len(tokens))
    return tuple(tokens[:count]), tuple(tokens[count:])


@lru_cache
def _grammar(escape: str) -> Lark:
    from lark import Lark, __version__

    if __version__ != grammar_tables.LARK:  # they are one version's own format
        return Lark.load(_with_terminals(*tables(), escape))
    return Lark.load(_with_terminals(grammar_tables.DATA, grammar_tables.MEMO, escape))


def tables() -> tuple[Mapping[str, Any], Mapping[int, Any]]:
    """What lark makes of grammar.lark, as plain values; the terminals are still names between two `@`."""
    from lark import Lark
    from lark.grammar import Rule
    from lark.lexer import TerminalDef

    built = Lark(
        Path(__file__).with_suffix(".lark").read_text(),
        parser="lalr",
        lexer="contextual",
        start=[name.lower() for name in INSTRUCTIONS],
        maybe_placeholders=False,
        cache=False,
    )
    data, memo = built.memo_serialize([TerminalDef, Rule])
    return _plain(data), _plain(memo)


def _plain(value: Any) -> Any:
    """Without the tokens of grammar.lark, which are strings that know where they stood."""
    if isinstance(value, dict):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return str(value) if isinstance(value, str) else value


def _with_terminals(data: Mapping[str, Any], memo: Mapping[int, Any], escape: str) -> Any:
    regexes = {f"@{name}@": regex for name, regex in terminals(escape).items()}
    whole = dict(memo)
    for key, entry in memo.items():
        if "pattern" in entry:
            whole[key] = entry | {"pattern": entry["pattern"] | {"value": regexes[entry["pattern"]["value"]]}}
    return {"data": data, "memo": whole}


def _malformed(line: LogicalLine, name: str, start: int, token: Token | None) -> ParseError:
    where = line.location
    if token is not None and token.type != "$END":
        begin = start + (token.start_pos or 0)
        where = line.locate(begin, begin + len(token))
    problem, hint = MALFORMED[name]
    return ParseError(problem, hint=hint, locations=(where,))


def at_least_one(name: str, example: str) -> tuple[str, str]:
    return f"{name} requires at least one argument", f"write {example}"


def exactly_one(name: str, example: str) -> tuple[str, str]:
    return f"{name} requires exactly one argument", f"write {example}"


def no_destination(name: str) -> tuple[str, str]:
    problem = f"{name} requires at least two arguments, but only one was provided. Destination could not be determined"
    return problem, f"write {name} SOURCE... DESTINATION"


# What it means when the grammar does not fit: arguments can only be missing, or FROM have too many.
MALFORMED: Mapping[str, tuple[str, str]] = {
    "FROM": ("FROM requires either one or three arguments", "write FROM image, or FROM image AS name"),
    "ARG": at_least_one("ARG", "ARG name, or ARG name=default"),
    "ENV": at_least_one("ENV", "ENV name=value"),
    "LABEL": at_least_one("LABEL", "LABEL name=value"),
    "HEALTHCHECK": at_least_one("HEALTHCHECK", "HEALTHCHECK CMD command, or HEALTHCHECK NONE"),
    "ADD": no_destination("ADD"),
    "COPY": no_destination("COPY"),
    "VOLUME": at_least_one("VOLUME", "VOLUME /path"),
    "EXPOSE": at_least_one("EXPOSE", "EXPOSE 8080, or EXPOSE 53/udp"),
    "MAINTAINER": exactly_one("MAINTAINER", "LABEL org.opencontainers.image.authors=... instead"),
    "ONBUILD": at_least_one("ONBUILD", "ONBUILD and an instruction"),
    "STOPSIGNAL": exactly_one("STOPSIGNAL", "STOPSIGNAL SIGTERM"),
    "USER": exactly_one("USER", "USER name, or USER name:group"),
    "WORKDIR": exactly_one("WORKDIR", "WORKDIR /path"),
    "SHELL": at_least_one("SHELL", 'SHELL ["/bin/bash", "-c"]'),
}
INSTRUCTIONS = (*MALFORMED, "RUN", "CMD", "ENTRYPOINT")  # the last three may be empty


def _print_tables() -> None:
    from lark import __version__

    data, memo = tables()
    print('"""The parser tables of grammar.lark, written by grammar.py (its docstring says how)."""\n')
    print(f"LARK = {__version__!r}\nDATA = {data!r}\nMEMO = {memo!r}")


if __name__ == "__main__":
    _print_tables()
