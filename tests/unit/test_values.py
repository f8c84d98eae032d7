"""`buildengine.values.dataclass` means what the standard decorator means."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from buildengine.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: int
    y: int = 2
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    note: str = dataclasses.field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Pair:
    first: int
    second: int = 0

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("negative")


def test_values_are_equal_and_hash_by_their_compared_fields() -> None:
    assert Pair(1, 2) == Pair(1, second=2)
    assert hash(Pair(1, 2)) == hash(Pair(1, 2))
    assert Point(x=1, note="a") == Point(x=1, note="b")
    assert Point(x=1) != Point(x=2)
    assert Pair(1) != (1, 0)
    assert hash(Point(x=1, tags={"a": "b"})) == hash(Point(x=1))


def test_values_are_frozen_and_slotted() -> None:
    point = Point(x=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    assert not hasattr(point, "__dict__")


def test_arguments_are_checked() -> None:
    point: Any = Point
    with pytest.raises(TypeError, match="x"):
        point()
    with pytest.raises(TypeError):
        point(1)
    with pytest.raises(ValueError, match="negative"):
        Pair(-1)


def test_the_first_instance_and_the_hundredth_are_made_alike() -> None:
    @dataclass(frozen=True, slots=True)
    class Line:
        number: int
        text: str = "-"
        parts: list[str] = dataclasses.field(default_factory=list)
        style: str = dataclasses.field(default="plain", kw_only=True)

    lines = [Line(number, "x", style="bold") for number in range(100)]
    assert lines == [Line(number=number, text="x", style="bold", parts=[]) for number in range(100)]
    assert repr(lines[0]).endswith("Line(number=0, text='x', parts=[], style='bold')")
    line: Any = Line
    for wrong in (
        (lambda: line()),
        (lambda: line(1, number=1)),
        (lambda: line(1, colour=2)),
        (lambda: line(1, "", [], 4)),
    ):
        with pytest.raises(TypeError, match="__init__"):
            wrong()


@pytest.mark.parametrize("arguments", [((), {}), ((1,), {"number": 1}), ((1,), {"colour": 2}), ((1, "", 3), {})])
def test_wrong_arguments_of_the_first_instance(arguments: tuple[tuple[object, ...], dict[str, object]]) -> None:
    @dataclass(frozen=True, slots=True)
    class Line:
        number: int
        text: str = "-"

    with pytest.raises(TypeError, match="__init__"):
        Line(*arguments[0], **arguments[1])


def test_the_helpers_of_dataclasses_work() -> None:
    point = Point(x=1)
    assert dataclasses.replace(point, y=5) == Point(x=1, y=5)
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "tags": {}, "note": ""}
    assert repr(point) == "Point(x=1, y=2, tags={})"
    assert copy.copy(point) == point
    assert pickle.loads(pickle.dumps(point)) == point
    assert point.tags is not Point(x=1).tags


def test_other_forms_go_to_the_standard_decorator() -> None:
    @dataclass(frozen=True, slots=True, order=True)
    class Ordered:
        n: int

    @dataclass(slots=True)
    class Open:
        n: int = 0

    assert Ordered(1) < Ordered(2)
    changed = Open()
    changed.n = 3
    assert changed.n == 3
