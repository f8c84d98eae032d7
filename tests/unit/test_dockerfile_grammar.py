"""The parser's tables in the package are those of the grammar beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from frontends.dockerfile import grammar, grammar_tables, lines, parse
from frontends.dockerfile.instructions import Copy

SHIFT = 0


def canonical(data: Mapping[str, Any], memo: Mapping[int, Any]) -> object:
    """The automaton without lark's numbers, which differ from run to run: states numbered as they are reached.

    Nor with anything else that is one version's own.
    """
    table = data["parser"]["parser"]
    numbers: dict[int, int] = {}
    for start in sorted(table["start_states"]):
        waiting = [table["start_states"][start]]
        while waiting:
            state = waiting.pop()
            if state not in numbers:
                numbers[state] = len(numbers)
                edges = {table["tokens"][token]: edge for token, edge in table["states"][state].items()}
                waiting += [target for _, (kind, target) in sorted(edges.items()) if kind == SHIFT]
    states = {
        numbers[state]: {
            table["tokens"][token]: numbers[to] if kind == SHIFT else rule(memo[to["@"]])
            for token, (kind, to) in edges.items()
        }
        for state, edges in table["states"].items()
    }
    ends = {
        name: [{start: numbers[state] for start, state in table[name].items()}]
        for name in ("start_states", "end_states")
    }
    named = [entry for entry in memo.values() if "name" in entry]
    terminals = {(entry["name"], entry["pattern"]["value"], entry["priority"]) for entry in named}
    return states, ends, terminals


def rule(entry: Mapping[str, Any]) -> str:
    return f"{entry['origin']['name']}: {' '.join(symbol['name'] for symbol in entry['expansion'])}"


def test_the_tables_are_up_to_date() -> None:
    assert canonical(grammar_tables.DATA, grammar_tables.MEMO) == canonical(*grammar.tables())


def test_another_version_of_lark_builds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    grammar._grammar.cache_clear()
    grammar._tokens.cache_clear()
    monkeypatch.setattr(grammar_tables, "LARK", "0")
    monkeypatch.setattr(grammar_tables, "DATA", {})
    try:
        (copy,) = parse.instructions(lines.split(lines.SourceFile(filename="Dockerfile", data=b"COPY --link a b /c\n")))
        assert isinstance(copy, Copy)
        assert copy.link
    finally:
        grammar._grammar.cache_clear()
        grammar._tokens.cache_clear()
