"""An environment is a mapping that nothing changes, whatever grows from it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llb.environ import ENTRY, Environ

names = st.sampled_from("ABC")
steps = st.lists(st.tuples(st.integers(0, 30), names, st.text("xy", max_size=3)), max_size=60)


def set_in(before: dict[str, str], name: str, value: str) -> dict[str, str]:
    return {**{key: old for key, old in before.items() if key != name}, name: value}


@given(steps)
def test_every_version_stays_what_it_is(steps: list[tuple[int, str, str]]) -> None:
    """Each one grows from any of those before it; dicts that are copied each time are the judge."""
    versions: list[tuple[Environ, dict[str, str]]] = [(Environ(), {})]
    for origin, name, value in steps:
        environ, judge = versions[min(origin, len(versions) - 1)]
        versions.append((environ.adding({name: value}), set_in(judge, name, value)))
    for environ, judge in versions:
        assert list(environ.items()) == list(judge.items())
        assert len(environ) == len(judge)
        assert [environ.get(name) for name in "ABC"] == [judge.get(name) for name in "ABC"]
        assert environ.size == sum(ENTRY + len(name) + len(value) for name, value in judge.items())


def test_a_variable_that_is_set_again_and_again_takes_no_more_room() -> None:
    environ = Environ()
    for number in range(1000):
        environ = environ.adding({"A": str(number), "B": ""})
    assert environ == {"A": "999", "B": ""}
    assert len(environ._log.entries) < 50
