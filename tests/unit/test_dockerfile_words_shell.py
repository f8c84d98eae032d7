"""Expansion beside shells: what dash and bash make of the substitutions that the language shares with them.

One script for all cases: a shell prints each expansion behind a NUL.
"""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence

import pytest

from frontends.dockerfile.words import Lexer

CASES = 3000
ENV = {"A": "abcabc", "D": "/usr/local/lib.so.1", "E": "", "Q": "a*b?c", "S": "x  y"}
NAMES = (*ENV, "UNSET")
DEFAULTS = ("", "w", "two words", "$A", "${D}", "${UNSET:-in}", r"\$A", "'$A'", '"$S"')
PIECES = ("a", "b", "c", "*", "?", "/", ".", "x", r"\*", r"\?", "lib", "bc")


def default(chance: random.Random) -> str:
    return f"${{{chance.choice(NAMES)}{chance.choice((':-', '-', ':+', '+'))}{chance.choice(DEFAULTS)}}}"


def pattern(chance: random.Random) -> str:
    return "".join(chance.choices(PIECES, k=chance.randint(0, 4)))


def trimmed(chance: random.Random) -> str:
    return f"${{{chance.choice(NAMES)}{chance.choice(('#', '##', '%', '%%'))}{pattern(chance)}}}"


def replaced(chance: random.Random) -> str:
    """Without stars: bash finds no empty match where BuildKit does, and not every shortest one."""
    wanted = "".join(chance.choices([p for p in PIECES if p not in ("*", "/")], k=chance.randint(1, 3)))
    return f"${{{chance.choice(NAMES)}{chance.choice(('/', '//'))}{wanted}/{chance.choice(('', 'r', 'rr', '$A'))}}}"


def expanded_by(shell: str, texts: Sequence[str]) -> list[str]:
    """What the shell makes of each, without splitting it into words."""
    path = shutil.which(shell)
    assert path is not None, f"{shell} is not installed"
    assignments = [f"{name}={shlex.quote(value)}" for name, value in ENV.items()]
    script = "\n".join([*assignments, *[f"v={text}; printf '%s\\0' \"$v\"" for text in texts]])
    done = subprocess.run([path], input=script.encode(), capture_output=True, check=True, env={"LC_ALL": "C"})
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize(
    ("shell", "kinds"), [("dash", (default, trimmed)), ("bash", (default, trimmed, replaced))], ids=["dash", "bash"]
)
def test_expansion_agrees_with_a_shell(shell: str, kinds: Sequence[Callable[[random.Random], str]]) -> None:
    chance = random.Random(1)
    texts = []
    for _ in range(CASES):
        parts = [kind(chance) for kind in chance.choices(kinds, k=chance.randint(1, 3))]
        texts.append("-".join(parts))
    ours = [Lexer().expand(text, ENV) for text in texts]
    assert list(zip(texts, ours, strict=True)) == list(zip(texts, expanded_by(shell, texts), strict=True))
