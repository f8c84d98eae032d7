"""How much of a step's output is told. The texts and the numbers are BuildKit's (util/progress/logs/logs.go)."""

from __future__ import annotations

import pytest

from worker.ops.clipping import Clipping, OutputLimits

KIB = 1 << 10


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def clipped(limit: str) -> bytes:
    return f"\n[output clipped, log limit {limit} reached]\n".encode()


def test_a_step_that_prints_fast_is_clipped_once_and_goes_on_in_the_next_second() -> None:
    clock = Clock()
    stream = Clipping(OutputLimits(), clock=clock)
    clock.now += 0.1
    assert stream.told(b"a" * 200 * KIB) == b"a" * 200 * KIB
    assert stream.told(b"b") == clipped("200KiB/s")
    assert stream.told(b"c" * KIB) == b""
    clock.now += 1.0
    assert stream.told(b"d" * KIB) == b"d" * KIB
    assert stream.told(b"e" * 200 * KIB) == b"e" * (198 * KIB - 1) + clipped("200KiB/s")


def test_a_step_that_prints_for_long_is_clipped_for_good() -> None:
    clock = Clock()
    stream = Clipping(OutputLimits(), clock=clock)
    clock.now += 60.0
    assert stream.told(b"a" * (2048 * KIB + 1)) == b"a" * 2048 * KIB + clipped("2MiB")
    clock.now += 3600.0
    assert stream.told(b"b") == b""


def test_the_end_of_what_was_clipped_is_kept() -> None:
    stream = Clipping(OutputLimits(), clock=Clock())
    assert stream.end() == b""
    stream.told(b"a" * 1024 * KIB)
    stream.told(b"the end\n")
    assert len(stream.end()) == 256 * KIB
    assert stream.end().endswith(b"athe end\n")


@pytest.mark.parametrize(
    ("environment", "limits", "text"),
    [
        ({}, OutputLimits(), "200KiB/s"),
        ({"BUILDKIT_STEP_LOG_MAX_SPEED": "100000"}, OutputLimits(speed=100_000), "97.66KiB/s"),
        ({"BUILDKIT_STEP_LOG_MAX_SIZE": "1000"}, OutputLimits(size=1000), "1000B"),
        ({"BUILDKIT_STEP_LOG_MAX_SPEED": "-1"}, OutputLimits(speed=-1), "2MiB"),
        ({"BUILDKIT_STEP_LOG_MAX_SPEED": "fast", "BUILDKIT_STEP_LOG_MAX_SIZE": "1e9"}, OutputLimits(), "200KiB/s"),
    ],
)
def test_limits_in_the_environment(environment: dict[str, str], limits: OutputLimits, text: str) -> None:
    assert OutputLimits.of(environment) == limits
    assert Clipping(limits, clock=Clock()).told(b"a" * 4096 * KIB).endswith(clipped(text))


def test_no_limits() -> None:
    stream = Clipping(OutputLimits(size=-1, speed=-1), clock=Clock())
    assert stream.told(b"a" * 10_000 * KIB) == b"a" * 10_000 * KIB
    assert stream.end() == b""
