"""Parts of an explanation: what is taken for a secret, which steps are compared, what is written down and read."""

from __future__ import annotations

import zlib

import pytest

from solver.steps import Fate
from worker.explain.pairing import pairs
from worker.explain.secrecy import kept, shown, sounds_secret
from worker.explain.step import Build, Step, StepInput, decode, encode
from worker.explain.texts import excerpts


@pytest.mark.parametrize(
    "name", ["API_TOKEN", "npm_token", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "KEY", "ssh-key", "apikey"]
)
def test_what_sounds_secret(name: str) -> None:
    assert sounds_secret(name)
    assert kept(name, "swordfish").startswith("hidden:")
    assert kept(name, "swordfish") != kept(name, "halibut")


@pytest.mark.parametrize("name", ["VERSION", "KEYBOARD", "PATH", "AUTHOR", "MONKEY", "COMPASS", "TARGETARCH"])
def test_what_does_not(name: str) -> None:
    assert kept(name, "value") == "value"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("curl -H 'Authorization: Bearer abcdefgh1234'", "curl -H 'Authorization: Bearer ***'"),
        ("git clone https://me:swordfish@example.org/x", "git clone https://***@example.org/x"),
        ("MY_TOKEN=swordfish make", "MY_TOKEN=*** make"),
        ("login --password=swordfish --user=me", "login --password=*** --user=me"),
        ('PASSWORD="a b" make', "PASSWORD=*** make"),
        ("make TOKEN=$TOKEN", "make TOKEN=$TOKEN"),
        ("make -j8 V=1", "make -j8 V=1"),
    ],
)
def test_what_is_shown_of_a_text(text: str, seen: str) -> None:
    assert shown(text) == seen


def steps(*texts: str) -> tuple[Step, ...]:
    """`kind command`, one after another."""
    made = []
    for text in texts:
        kind, _, command = text.partition(" ")
        made.append(Step(vertex=text, name=command, kind=kind, facts={"command": command}, fate=Fate.RAN))
    return tuple(made)


@pytest.mark.parametrize(
    ("new", "old", "paired"),
    [
        (("exec a", "exec b"), ("exec a", "exec b"), {0: 0, 1: 1}),
        (("exec a", "exec x", "exec b"), ("exec a", "exec b"), {0: 0, 2: 1}),  # put in between
        (("exec b",), ("exec a", "exec b"), {0: 1}),  # taken away
        (("exec a", "exec c", "exec d"), ("exec a", "exec b", "exec d"), {0: 0, 1: 1, 2: 2}),  # edited
        (("exec b", "exec a"), ("exec a", "exec b"), {0: 1, 1: 0}),  # moved
        (("file x", "exec c"), ("exec b", "file y"), {0: 1, 1: 0}),  # only what is of one kind
        (("exec make all -j4", "exec z"), ("exec make all -j2",), {0: 0}),  # the one that is more like it
        (("exec z", "exec make all -j4"), ("exec make all -j2",), {1: 0}),
        (("exec a",), (), {}),
    ],
)
def test_which_steps_are_compared(new: tuple[str, ...], old: tuple[str, ...], paired: dict[int, int]) -> None:
    assert pairs(steps(*new), steps(*old)) == paired


@pytest.mark.parametrize(("before", "after"), [(200, 300), (1000, 2000)])
def test_hundreds_of_edited_steps_are_compared_in_time(before: int, after: int) -> None:
    """Each with each, and that once: the daemon waits for it."""
    old = steps(*(f"exec install package {number}" for number in range(before)))
    paired = pairs(steps(*(f"exec fetch --all {number * 7919}" for number in range(after))), old)
    assert [*paired.values()] == [*range(before)]
    assert [*paired] == sorted(paired)


def test_a_build_is_read_as_it_was_written() -> None:
    one = StepInput(step=0, keys=("k",), content="c", files="f", tree=("layer",))
    step = Step(
        vertex="v",
        name="\udcff",
        kind="exec",
        facts={"a": "\udcff"},
        fate=Fate.FAILED,
        op="o",
        pin="p",
        keys=("q",),
        inputs=(one,),
    )
    build = Build(label="here", steps=(step,), arguments={"V": "1"})
    assert decode(encode(build)) == build


@pytest.mark.parametrize(
    "data", [b"", b"x", zlib.compress(b"[]"), zlib.compress(b'{"label":1,"arguments":{},"steps":[[]]}')]
)
def test_what_is_damaged_is_nothing(data: bytes) -> None:
    assert decode(data) is None


def test_of_long_texts_the_part_that_differs() -> None:
    old = "configure --prefix=/usr " * 20 + "--with-a " + "x" * 200
    was, now = excerpts(old, old.replace("--with-a", "--with-b"))
    assert "--with-a" in was
    assert "--with-b" in now
    assert max(len(was), len(now)) < 120
    assert excerpts("a\n  b", "a\n  c") == ("a ↵ b", "a ↵ c")
