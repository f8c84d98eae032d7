"""Sizes, durations and times: what people write, what they read."""

from __future__ import annotations

import pytest

from buildengine.errors import UserError
from buildengine.units import parse_duration, parse_size, show_duration, show_progress, show_size, timestamp


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("32", 32), ("32b", 32), ("32B", 32), ("1k", 1024), ("1kb", 1024), ("1KiB", 1024), ("1.5m", 3 << 19),
        ("64MB", 64 << 20), ("10GB", 10 << 30), ("2 g", 2 << 30), ("1t", 1 << 40), ("1P", 1 << 50), (".5k", 512),
        (" 7 ", 7),
    ],
)  # fmt: skip
def test_sizes_as_docker_reads_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "b", "x", "-1", "1x", "1kbb", "1 kk", "1e3", "99999999p", "0x10", "1,5k", "ib"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="invalid size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("90", 90.0), ("48h", 172800.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("100ms", 0.1), ("7d", 604800.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "1x", "-1h", "1h 30m", "1h30", "soon", "1.h.m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UserError, match="invalid duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (8192, "8.192kB"),
        (2746000000, "2.746GB"),
        (999999, "1MB"),
        (10**21, "1000EB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert show_size(size) == text


def test_fewer_digits_never_become_an_exponent() -> None:
    assert [show_size(size, 3) for size in (999_499, 999_600, 123_456)] == ["999kB", "1MB", "123kB"]


def test_sizes_that_move() -> None:
    assert [show_progress(size) for size in (0, 532, 1234, 3_410_000)] == ["0B", "532B", "1.23kB", "3.41MB"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"), (1, "1 second"), (59.9, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (180, "3 minutes"), (3600, "About an hour"), (5400, "2 hours"),
        (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"), (729 * 86400, "24 months"), (730 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_durations_for_people(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1700000000.5, "2023-11-14T22:13:20.5Z"),
        (1700000000.000025, "2023-11-14T22:13:20.000025Z"),
        (-1, "1969-12-31T23:59:59Z"),
    ],
)
def test_times_as_go_writes_them(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text
