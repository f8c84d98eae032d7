"""Output of steps made safe to show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.cli.progress.lines import Line, LineBuffer, safe


def texts(*pieces: bytes) -> list[str]:
    buffer = LineBuffer()
    found = [line.text for piece in pieces for line in buffer.feed(piece, 0.0)]
    return found + [line.text for line in buffer.flush()]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb", ["a", "b"]),
        (b"\n\n", ["", ""]),
        (b"\ttab\n", ["\ttab"]),
        ("grün ✓\n".encode(), ["grün ✓"]),
        (b"caf\xe9 \xff\n", [r"caf\xe9 \xff"]),
        (b"10%\r20%\r30%\n", ["30%"]),
        (b"\r10%\r20%\r", ["20%"]),
        (b"a\r\r\n", ["a"]),
        (b"\x1b[31mred\x1b[0m\n", ["red"]),
        (b"\x1b[2J\x1b[1;1Hgone\x1b[?25l\n", ["gone"]),
        (b"\x1b]0;title\x07x\x1b]8;;http://e\x1b\\link\x1b]8;;\x1b\\\n", ["xlink"]),
        (b"\x1bP1$r\x1b\\x\x1b(By\x1bMz\x1b", ["xyz"]),
        (b"a\x00\x07\x08\x0b\x7fb\n", ["ab"]),
        ("a\u009b31mb\u0085c\n".encode(), ["a31mbc"]),
        (b"\x1b]never ends\nnext\n", ["", "next"]),
    ],
)
def test_lines_are_safe_to_show(data: bytes, lines: list[str]) -> None:
    assert texts(data) == lines


@given(st.binary(max_size=60), st.integers(0, 60))
def test_it_does_not_matter_how_output_is_cut(data: bytes, cut: int) -> None:
    assert texts(data[:cut], data[cut:]) == texts(data)
    assert not any(ord(character) < 32 and character != "\t" for line in texts(data) for character in line)


def test_a_line_has_the_time_of_its_first_byte() -> None:
    buffer = LineBuffer()
    assert buffer.feed(b"ab", 1.0) == []
    assert buffer.pending == "ab"
    assert buffer.feed(b"c\nd\ne", 2.0) == [Line(time=1.0, text="abc"), Line(time=2.0, text="d")]
    assert buffer.flush() == [Line(time=2.0, text="e")]
    assert (buffer.flush(), buffer.pending) == ([], "")


def test_memory_is_bounded() -> None:
    buffer = LineBuffer()
    lines = [line for _ in range(40) for line in buffer.feed(b"x" * 10000, 0.0)]
    assert sum(len(line.text) for line in lines) + len(buffer.pending) == 400000
    assert len(buffer.pending) <= 64 << 10
    assert not [line for _ in range(1000) for line in buffer.feed(b"\r 50% of much", 0.0)]


def test_names_are_one_safe_line() -> None:
    assert safe("RUN a &&\\\n    b\t\x1b[31mc\x00") == "RUN a &&\\ b c"
    assert safe("RUN echo ✓") == "RUN echo ✓"
