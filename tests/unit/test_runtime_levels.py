"""Levels of x86-64: each needs those below it."""

from __future__ import annotations

import pytest

from buildengine.platform import parse
from worker.runtime import levels

V2 = "cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"
V3 = "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = "avx512bw avx512cd avx512dq avx512f avx512vl"


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("fpu", []),
        (V2, ["v2"]),
        (f"{V2} {V3}", ["v2", "v3"]),
        (f"{V2} {V3} {V4} rdrand", ["v2", "v3", "v4"]),
        (f"{V2} {V4}", ["v2"]),
        (V3, []),
    ],
)
def test_levels(flags: str, found: list[str]) -> None:
    read = levels.processor_flags(f"processor : 0\nflags\t\t: {flags}\n\nprocessor : 1\nflags\t\t: none\n")
    variants = levels.variants(parse("linux/amd64"), read)
    assert [str(each) for each in variants] == [f"linux/amd64/{name}" for name in found]
    assert levels.variants(parse("linux/arm64"), read) == []


def test_a_processor_without_flags_has_no_levels() -> None:
    assert levels.processor_flags("") == set()
