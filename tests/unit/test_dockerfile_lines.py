"""Bytes to logical lines: continuations, comments, directives, heredocs, and where everything stood."""

from __future__ import annotations

import time

import pytest

from buildengine.errors import ParseError
from frontends.dockerfile.directives import detect_syntax, find
from frontends.dockerfile.lines import Dockerfile, Heredoc, LogicalLine, SourceFile, heredoc, split


def read(text: str | bytes) -> Dockerfile:
    return split(SourceFile(filename="Dockerfile", data=text.encode() if isinstance(text, str) else text))


def texts(text: str | bytes) -> list[str]:
    return [line.text for line in read(text).lines]


def spans(text: str) -> list[tuple[int, int]]:
    return [(line.first, line.last) for line in read(text).lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN b", ["FROM a", "RUN b"]),
        ("\n\n  FROM a  \n\t\nRUN b\n", ["FROM a  ", "RUN b"]),
        ("FROM a\n# comment\n   # another\nRUN b\n", ["FROM a", "RUN b"]),
        ("RUN a \\\n  b \\\n\tc\n", ["RUN a   b \tc"]),
        ("RUN a\\\nb\n", ["RUN ab"]),
        ("RUN a \\  \t\n b\n", ["RUN a  b"]),
        ("RUN a \\\n# comment\n  # indented\n b\n", ["RUN a  b"]),
        ("RUN a \\\n\n\n b\n", ["RUN a  b"]),
        ("RUN a \\\\\nRUN b\n", ["RUN a \\\\", "RUN b"]),
        ("RUN a \\", ["RUN a "]),
        ("RUN a \\\n", ["RUN a "]),
        ("\\\nRUN a\n", ["RUN a"]),
        ("RUN \\\n  a \\\n\n# c\n", ["RUN   a "]),
        ("FROM a\r\nRUN b \\\r\n  c\r\n", ["FROM a", "RUN b   c"]),
        (b"\xef\xbb\xbfFROM a\n", ["FROM a"]),
        ("# escape=`\nRUN a `\n b\nRUN c\\\n", ["RUN a  b", "RUN c\\"]),
        ("#escape = ` \nRUN a `\n b", ["RUN a  b"]),
        ("# a comment\n# escape=`\nRUN a \\\n b", ["RUN a  b"]),
        ("RUN a\n# escape=`\nRUN a \\\n b", ["RUN a", "RUN a  b"]),
        ("# syntax=x\n# ESCAPE=`\nRUN a `\n b", ["RUN a  b"]),
        ("# unknown=x\n# escape=`\nRUN a \\\n b", ["RUN a  b"]),
    ],
)
def test_logical_lines(text: str | bytes, expected: list[str]) -> None:
    assert texts(text) == expected


def test_lines_know_which_physical_lines_they_are() -> None:
    assert spans("\n# c\nFROM a\n\nRUN b \\\n\n# c\n  d\nCOPY <<E /x\n1\nE\n") == [(3, 3), (5, 8), (9, 11)]
    line = read("FROM a\nRUN b \\\n  c\n").lines[1]
    assert [(r.start_line, r.end_line) for r in line.ranges] == [(2, 2), (3, 3)]


def test_a_word_of_a_continued_line_is_found_where_it_stood() -> None:
    line = read("FROM a\n  RUN one \\\n# comment\n   two three\n").lines[1]
    begin = line.text.index("three")
    ranges = line.locate(begin, begin + 5).ranges
    assert [(r.start_line, r.start_column, r.end_column) for r in ranges] == [(2, 0, 0), (3, 0, 0), (4, 7, 12)]
    begin = line.text.index("one")
    assert [(r.start_column, r.end_column) for r in line.locate(begin, begin + 3).ranges] == [(6, 9), (0, 0), (0, 0)]


def test_a_word_over_two_lines_is_marked_to_the_end_of_the_first() -> None:
    line = read("RUN ab\\\ncd\n").lines[0]
    assert [(r.start_column, r.end_column) for r in line.locate(4, 8).ranges] == [(4, 6), (0, 0)]


def test_comments_above_an_instruction_are_kept_for_descriptions() -> None:
    lines = read("# syntax=x\n# one\n#\n# two\n\n# three\nFROM a\nRUN b\n").lines
    assert [line.comments for line in lines] == [("two", "three"), ()]


def test_empty_continuation_lines_are_counted_once_for_an_instruction() -> None:
    text = "RUN a \\\n\n b \\\n\n c\nRUN d \\\n# comment\n e\nRUN f \\\n\n g\n"
    assert read(text).empty_continuations == (5, 11)


# --- heredocs -------------------------------------------------------------------------------------------------

HEREDOCS = [
    ("USER <<INVALID", "INVALID\n", None),
    ("RUN <<EMPTY", "EMPTY\n", [Heredoc(name="EMPTY")]),
    ("RUN 3<<EMPTY", "EMPTY\n", [Heredoc(name="EMPTY", descriptor=3)]),
    ('RUN "<<NOHEREDOC"', "", None),
    ("RUN <<X", "\tfoo\n\tbar\nX\n", [Heredoc(name="X", body="\tfoo\n\tbar\n")]),
    ("RUN <<-X", "\tfoo\n\tbar\nX\n", [Heredoc(name="X", body="\tfoo\n\tbar\n", strip_tabs=True)]),
    ("RUN <<-X", "\tfoo\n\tX\n", [Heredoc(name="X", body="\tfoo\n", strip_tabs=True)]),
    ("RUN <<-'X'", "$NAME\nX\n", [Heredoc(name="X", body="$NAME\n", strip_tabs=True, expand=False)]),
    ("RUN <<X", "# inside\necho # b\nX\n", [Heredoc(name="X", body="# inside\necho # b\n")]),
    ("RUN <<X", "a \\\nb\nX\n", [Heredoc(name="X", body="a \\\nb\n")]),
    ("RUN --mount=type=cache,target=/foo <<X", "a\nX\n", [Heredoc(name="X", body="a\n")]),
    ("COPY <<A <<B /dest", "1\nA\n2\nB\n", [Heredoc(name="A", body="1\n"), Heredoc(name="B", body="2\n")]),
    ("COPY <<X <<Y /dest", "Y\nX\nX\nY\n", [Heredoc(name="X", body="Y\n"), Heredoc(name="Y", body="X\n")]),
    ("RUN <<X python3", "a\nX\n", [Heredoc(name="X", body="a\n")]),
    ("COPY <<file.txt /dest", "a\nfile.txt\n", [Heredoc(name="file.txt", body="a\n")]),
    ("RUN <<eo'f'", "a\neof\n", [Heredoc(name="eof", body="a\n", expand=False)]),
    ("RUN <<eo\\'f", "a\neo'f\n", [Heredoc(name="eo'f", body="a\n")]),
    ("RUN <<'e'o\\'f", "a\neo'f\n", [Heredoc(name="eo'f", body="a\n", expand=False)]),
    ("RUN <<'one two'", "a\none two\n", [Heredoc(name="one two", body="a\n", expand=False)]),
    ("RUN <<$EOF", "$EOF\n", [Heredoc(name="$EOF")]),
    ("RUN <<  EOF", "EOF\n", [Heredoc(name="EOF")]),
    ("RUN <<  EOF  > foo", "EOF\n", [Heredoc(name="EOF")]),
    ("RUN << -EOF", "-EOF\n", [Heredoc(name="-EOF")]),
    ("run <<X", "a\r\nX\r\n", [Heredoc(name="X", body="a\r\n")]),
    ("ONBUILD COPY <<X /y", "a\nX\n", [Heredoc(name="X", body="a\n")]),
    ("onbuild run <<X", "a\nX\n", [Heredoc(name="X", body="a\n")]),
    ("ONBUILD USER <<X", "X\n", None),
    ('RUN ["<<EOF"]', "", None),
    ('RUN --network=none ["<<EOF"]', "", None),
    ("RUN [ -f x ] && cat <<X", "a\nX\n", [Heredoc(name="X", body="a\n")]),
    ("RUN cat <<<EOF", "", None),
    ("RUN a << b 'unbalanced", "", None),
    ("RUN echo $((1<<2))", "", None),
    ("ENV a=<<X", "", None),
]


@pytest.mark.parametrize(("line", "rest", "expected"), HEREDOCS)
def test_heredocs(line: str, rest: str, expected: list[Heredoc] | None) -> None:
    found = read(f"{line}\n{rest}RUN last\n").lines
    assert found[0].heredocs == tuple(expected or ())
    assert found[-1].text == "RUN last"
    assert len(found) == 2 or expected is None


@pytest.mark.parametrize(
    "word", ["<<EOF", "<<'EOF'", '<<"EOF"', "<<-EOF", "<<-'EOF'", '<<EO"F"', "<< EOF", "<<- EOF", "4<<EOF"]
)
def test_words_that_announce_a_heredoc(word: str) -> None:
    found = heredoc(word)
    assert found is not None
    assert found.name == "EOF"


@pytest.mark.parametrize("word", ["", "EOF", "<<", "<<-", "<EOF", "<<<EOF", "<<EOF sh", "x<<EOF"])
def test_words_that_do_not(word: str) -> None:
    assert heredoc(word) is None


@pytest.mark.parametrize("word", ["<<'EOF", '<<"EOF', "<<EOF'", '<<EOF"'])
def test_a_heredoc_name_with_an_open_quote_is_an_error(word: str) -> None:
    with pytest.raises(ParseError):
        heredoc(word)


def test_leading_tabs_are_stripped_from_the_content_only() -> None:
    found = read("COPY <<-E /x\n\t\thello\n\t world\n\tE\n").lines[0].heredocs[0]
    assert (found.body, found.content) == ("\t\thello\n\t world\n", "hello\n world\n")


# --- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint", "lines"),
    [
        (b"", "the Dockerfile cannot be empty", "FROM", [1]),
        (b" \n\t\n", "the Dockerfile cannot be empty", "FROM", [1]),
        (b"# only\n", "file with no instructions", "FROM", [1]),
        (b"FROM a\nRUN <<E\nb\n", "unterminated heredoc", "no line after line 2 is just E", [2, 3]),
        (b"FROM a\nRUN <<E\nb\n  E\n", "unterminated heredoc", "line 4 has spaces", [2, 3, 4]),
        (b"# escape=x\nFROM a", "invalid escape token 'x'", "backtick", [1]),
        (b"# check=skip=all\n# Check=x\nFROM a", "only one check parser directive can be used", "remove", [2]),
        (b"FROM a\nRUN " + b"x" * 65532, "line greater than max allowed size of 65535", "65536 bytes", [2]),
        (b"FROM a\nRUN \xff\n", "byte 0xff, which is not UTF-8", "UTF-8", [2]),
        (b"FROM a\nRUN a\\\n\0\n", "NUL byte", "UTF-8", [2, 3]),
    ],
)
def test_mistakes(text: bytes, message: str, hint: str, lines: list[int]) -> None:
    with pytest.raises(ParseError) as caught:
        read(text)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    (location,) = caught.value.locations
    assert [r.start_line for r in location.ranges] == lines
    assert location.text == text


def test_the_longest_line_is_taken() -> None:
    assert len(texts(b"RUN " + b"x" * 65531 + b"\n")[0]) == 65535


def test_bytes_that_are_not_text_may_stay_in_comments_and_bodies() -> None:
    found = read(b"# \xff\nFROM a\nCOPY <<'E' /x\n\xff\x00\nE\n").lines[1].heredocs[0]
    assert found.content.encode("utf-8", "surrogateescape") == b"\xff\x00\n"


# --- directives -----------------------------------------------------------------------------------------------


def test_directives_are_values_with_a_line() -> None:
    found = read("# Syntax = docker/dockerfile:1 \n# check=skip=all\nFROM a\n")
    assert [(d.name, d.value, d.line) for d in found.directives] == [
        ("syntax", "docker/dockerfile:1", 1),
        ("check", "skip=all", 2),
    ]
    assert found.directive("escape") is None


@pytest.mark.parametrize(
    ("text", "image", "command_line", "line"),
    [
        ("# syntax = dockerfile:foo # extra\nFROM a", "dockerfile:foo", "dockerfile:foo # extra", 1),
        ("#!/bin/sh\n# syntax = x\n", "x", "x", 2),
        ("\ufeff# syntax = x\n", "x", "x", 1),
        ("// syntax = x y\nconsole.log()", "x", "x y", 1),
        ('{"syntax": "x", "a": 1}', "x", "x", 1),
        ('#!/usr/bin/env y\n{"syntax": "x"}', "x", "x", 2),
        ("# escape=`\n# syntax=x\n", "x", "x", 2),
    ],
)
def test_the_syntax_of_any_build_file(text: str, image: str, command_line: str, line: int) -> None:
    found = detect_syntax(text.encode())
    assert found is not None
    assert (found.image, found.command_line, found.line) == (image, command_line, line)


@pytest.mark.parametrize(
    "text",
    ["", "FROM a\n# syntax=x", "#\n# syntax=x", "\n# syntax=x", '{"syntax": 1}', "{", "[" * 100_000, '{"a":' * 100_000],
)
def test_files_without_a_syntax(text: str) -> None:
    assert detect_syntax(text.encode()) is None


def test_a_repeated_directive_hides_what_comes_after() -> None:
    assert find(b"# syntax=a\n# syntax=b\n# check=c\n", "check") is None


def test_splitting_is_linear() -> None:
    def seconds(count: int) -> float:
        data = b"# c\nRUN a \\\n  b <<E\n$x\nE\n" * count
        begin = time.process_time()
        lines = split(SourceFile(filename="", data=data)).lines
        assert len(lines) == count
        return time.process_time() - begin

    seconds(100)
    assert seconds(20_000) < 3


def test_equality_ignores_the_file() -> None:
    def line(data: bytes) -> LogicalLine:
        return split(SourceFile(filename=str(len(data)), data=data)).lines[0]

    assert line(b"RUN a\n") == line(b"RUN a\n\n")
