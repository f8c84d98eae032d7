"""What the arguments of an instruction are: a command in exec or shell form, paths, words in quotes, pairs. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from buildengine.errors import ParseError
from frontends.dockerfile.grammar import Parsed
from frontends.dockerfile.instructions import KeyValue
from frontends.dockerfile.terminals import BLANK, exec_form, is_other_json_array
from frontends.dockerfile.words import quote

if TYPE_CHECKING:
    from lark import Token


class ShapeError(ParseError):
    """What BuildKit's parser refuses before it looks at instructions: its message does not begin with the line."""


def quoted_words(p: Parsed) -> list[str]:
    """Quotes stay, for the expansion to see; an escape character with nothing behind it goes."""
    words = list(p.words)
    trailing = len(words[-1]) - len(words[-1].rstrip(p.escape))
    if trailing % 2:
        words[-1] = words[-1][:-1]
    return [word for word in words if word]


def key_values(p: Parsed) -> tuple[KeyValue, ...]:
    """The pairs of ENV and LABEL, or the single pair of their old form."""
    words = quoted_words(p)
    if words and "=" not in words[0]:  # the old form: ENV name and the rest of the line
        key, *rest = re.split(rf"[{BLANK}]+", p.rest, maxsplit=1)
        if not rest:
            raise _misshapen(p, f"{p.name} must have two arguments", f"write {p.name} {key}=value", p.tokens[0])
        return (KeyValue(key=key, value=rest[0], legacy=True),)
    pairs = []
    for word, token in zip(words, p.tokens, strict=False):
        key, equals, value = word.partition("=")
        if not equals:
            raise _misshapen(
                p,
                f"Syntax error - can't find = in {quote(word)}. Must be of the form: name=value",
                "put a value with spaces in quotes",
                token,
            )
        if not key:
            raise p.error(f"{p.name} names can not be blank", f"write {p.name} name=value", token)
        pairs.append(KeyValue(key=key, value=value))
    return tuple(pairs)


def command(p: Parsed) -> tuple[tuple[str, ...], bool]:
    """The argv and whether it is the shell form."""
    if not p.tokens:
        return (), True
    argv = exec_form(p.tokens[0]) if p.tokens[0].type == "EXEC" else None
    if argv is not None:
        return argv, False
    _reject_other_json(p)
    return p.words, True


def _reject_other_json(p: Parsed) -> None:
    if is_other_json_array(p.rest):
        raise _misshapen(
            p,
            "when using JSON array syntax, arrays must be comprised of strings only",
            'put every item in double quotes: ["a", "b"]',
            p.tokens[0],
        )


def _misshapen(p: Parsed, message: str, hint: str, token: Token) -> ShapeError:
    return ShapeError(message, hint=hint, locations=(p.at(token),))


def paths(p: Parsed) -> tuple[str, ...]:
    """A JSON list, or words."""
    argv = exec_form(p.tokens[0]) if p.tokens[0].type == "EXEC" else None
    if argv is None:
        _reject_other_json(p)
    return p.words if argv is None else argv
