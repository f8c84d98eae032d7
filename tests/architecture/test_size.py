"""Files of at most 400 lines, functions of at most 40: two ideas in one place are easier to find in two."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("buildengine", "cache", "frontends", "llb", "solver", "worker")
MAX_FILE, MAX_FUNCTION = 400, 40


def sources() -> list[Path]:
    return [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py")) if not p.stem.endswith("_pb2")]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function with its number of lines, without its docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            has_docstring = ast.get_docstring(node, clean=False) is not None
            docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_FILE, f"{path.name} has {lines} lines"
    long = {name: length for name, length in functions(path) if length > MAX_FUNCTION}
    assert not long, f"functions over {MAX_FUNCTION} lines: {long}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module opens with a docstring"
