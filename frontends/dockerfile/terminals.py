r"""The terminals of the instruction grammar, as regular expressions, and what words and flags mean when unquoted.

They stand here rather than in grammar.lark because they depend on the escape character (`\` or a backtick), and
because lines.py must tell flags and the exec form from a command before there is anything to parse. Every loop is
possessive: no text makes them backtrack. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache

# What Go calls a space, unicode.IsSpace, as the inside of a set. Python's \s also takes U+001C to U+001F.
SPACE = r"\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
BLANK = r"\t\v\f\r "  # what separates the words of COPY, FROM and EXPOSE

_STRING = r'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"'
_GAP = r"[ \t\r\n]*+"
# This list and that of flags are atomic, not possessive: before Python 3.11.5 a possessive group whose last round fails
# behind a loop inside it does not give back what that round has read (https://github.com/python/cpython/issues/106052).
EXEC = rf"\[{_GAP}(?:{_STRING}{_GAP}(?>(?:,{_GAP}{_STRING}{_GAP})*))?\]{_GAP}\Z"


@lru_cache
def terminals(escape: str) -> Mapping[str, str]:
    """The regular expressions that grammar.lark names between two `@`."""
    e = re.escape(escape)
    escaped = rf"{e}(?:.|\Z)"
    double = rf'"(?:[^"{e}]++|{escaped})*+(?:"|\Z)'
    plain = rf"[^{SPACE}\"'{e}]++"
    single = r"'[^']*+(?:'|\Z)"
    single_escaped = rf"'(?:[^'{e}]++|{escaped})*+(?:'|\Z)"  # flags take escapes even there
    return {
        "FLAG": rf"--(?![{SPACE}]|\Z)(?:{plain}|{escaped}|{double}|{single_escaped})*+",
        "END": rf"--(?=[{SPACE}]|\Z)",
        "EXEC": EXEC,
        "WORD": rf"[^{BLANK}]++",
        "QUOTED": rf"(?:{plain}|{escaped}|{double}|{single})++",
        "KIND": rf"[^{SPACE}]++",
        "AS": rf"[aA][sS](?=[{BLANK}])",
        "TEXT": rf"[^{SPACE}].*",
        "GAP": f"[{SPACE}]+",
    }


@lru_cache
def flags(escape: str) -> re.Pattern[str]:
    """All the flags in front of an instruction's arguments."""
    t = terminals(escape)
    return re.compile(rf"(?>(?:{t['FLAG']}(?:[{SPACE}]++|\Z))*)(?:{t['END']}[{SPACE}]*+)?", re.DOTALL)


_EXEC = re.compile(EXEC)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def exec_form(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array of strings; None when `text` is anything else."""
    text = text.lstrip(SPACES)
    if not _EXEC.match(text):
        return None
    return tuple(_LONE_SURROGATE.sub("\ufffd", s) for s in json.loads(text))  # Go reads `\ud800` as U+FFFD


def is_other_json_array(text: str) -> bool:
    """Whether `text` is a JSON array that holds something else than strings: a mistake, not a shell command."""
    if not (text.startswith("[") and text.endswith("]")):
        return False
    try:
        items = json.loads(text, parse_constant=_reject)
    except RecursionError:
        return True
    except ValueError:
        return False
    return not all(isinstance(item, str) for item in items)


def _reject(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are Python's, not JSON


@lru_cache
def _quoting(escape: str) -> re.Pattern[str]:
    return re.compile(f"[\"']|{re.escape(escape)}(.?)", re.DOTALL)


def unquote_flag(word: str, escape: str) -> str:
    """A flag without its quotes; an escape character gives the character behind it."""
    if not _quoting(escape).search(word):
        return word
    out: list[str] = []
    at, inside = 0, ""
    for match in _quoting(escape).finditer(word):
        out.append(word[at : match.start()])
        at = match.end()
        if match[0].startswith(escape):
            out.append(match[1])
        elif not inside:
            inside = match[0]
        elif inside == match[0]:
            inside = ""
        else:
            out.append(match[0])
    return "".join(out) + word[at:]
