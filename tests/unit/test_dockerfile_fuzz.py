"""No bytes make the frontend fail otherwise than with a BuildError, and none keep it busy for long."""

from __future__ import annotations

import contextlib
import time

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from buildengine.errors import BuildError, InternalError, Location, ParseError
from frontends.dockerfile import ignore, imageconfig, lines, parse
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.alone import check
from frontends.dockerfile.directives import detect_syntax
from frontends.dockerfile.mend import meaning, mend
from frontends.testing import Built
from tests.fakes.gateway import build

KEYWORDS = [
    "FROM", "ARG", "ENV", "LABEL", "RUN", "CMD", "ENTRYPOINT", "SHELL", "HEALTHCHECK", "ADD", "COPY", "VOLUME",
    "EXPOSE", "MAINTAINER", "ONBUILD", "STOPSIGNAL", "USER", "WORKDIR",
]  # fmt: skip
BITS = [
    " ", "\n", "\\\n", "# c\n", "a", "/b/", "a=b", '"', "'", "\\", "$x", "${x:-y}", "${", "}", "[", "]", '["a"]', ",",
    "<<E", "E\n", "<<-'F'\n", "F\n", "--from=", "--mount=type=cache,target=/c", "--link", "--chmod=7", "--", "=", "AS",
    "busybox", "scratch", "0", "80/tcp", "CMD", "NONE", "https://h/x", "git@h:p", "\t", "\r\n", "`", "*", "é", "\xa0",
    "\u2028", "\x00", "\ud800",
]  # fmt: skip

near = st.lists(st.one_of(st.sampled_from(KEYWORDS), st.sampled_from(BITS)), max_size=30).map("".join)
instruction = st.tuples(st.sampled_from(KEYWORDS), st.lists(st.sampled_from(BITS), max_size=8)).map(
    lambda t: f"{t[0]} {' '.join(t[1])}\n"
)
files = st.lists(instruction, max_size=6).map(lambda found: "FROM busybox AS x\n" + "".join(found))
quick = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def read(data: bytes) -> None:
    """Values or a located ParseError."""
    locations: list[Location] = []
    try:
        for found in parse.instructions(lines.split(lines.SourceFile(filename="Dockerfile", data=data))):
            locations.append(found.location)
    except ParseError as error:
        locations += error.locations or [Location(filename="", ranges=())]
    last = data.count(b"\n") + 1
    for location in locations:
        assert location.ranges
        assert 1 <= location.ranges[0].start_line <= location.ranges[-1].end_line <= last


@quick
@given(st.binary(max_size=200))
@example(b"\\")
@example(b"\xef\xbb\xbf")
@example(b"RUN <<\n")
@example(b"COPY <<E <<E /x\nE\nE\n")
def test_any_bytes(data: bytes) -> None:
    read(data)
    detect_syntax(data)


@quick
@given(near)
def test_anything_like_a_dockerfile(text: str) -> None:
    read(encode(text))


@quick
@given(files)
def test_whole_builds(text: str) -> None:
    async def attempt() -> Built | None:
        try:
            return await build(encode(text))
        except InternalError:
            raise
        except BuildError:
            return None

    built = trio.run(attempt)
    if built is not None:
        assert built.image.document["architecture"] == "amd64"


def instructions_of(data: bytes) -> tuple[lines.Dockerfile, list[ins.Instruction]] | None:
    try:
        split = lines.split(lines.SourceFile(filename="Dockerfile", data=data))
        return split, list(parse.instructions(split))
    except ParseError:
        return None


@quick
@given(files)
@example('FROM busybox\nENV a "\n')
@example("FROM busybox\nRUN \\ \\\n")
@example("# escape=`\nFROM busybox\nRUN a `\n  b\nCOPY <<-E <<'F' /x\n\ta $b\n\tE\nc\nF\n")
def test_what_is_printed_reads_back(text: str) -> None:
    found = instructions_of(encode(text))
    if found is None or any(instruction.text.endswith(found[0].escape) for instruction in found[1]):
        return  # the end of a file that was to go on behind an escape: nothing but that end can be written so
    again = instructions_of(printed(*found))
    assert again is not None
    assert [meaning(i) for i in again[1]] == [meaning(i) for i in found[1]]


def printed(split: lines.Dockerfile, instructions: list[ins.Instruction]) -> bytes:
    """Each instruction on one line, behind it the bodies of its heredocs."""
    parts = [f"# escape={split.escape}\n"]
    for instruction in instructions:
        parts.append(instruction.text + "\n")
        parts += [f"{document.body}{document.name}\n" for document in instruction.line.heredocs]
    return "".join(parts).encode("utf-8", "surrogateescape")


@quick
@given(files)
@example("from busybox AS A\nenv a  b c\nexpose 1:2/TCP\nRUN a \\\n\n b\n")
@example('FROM busybox AS x\nENV a "\n')
def test_what_is_mended_means_the_same(text: str) -> None:
    file = lines.SourceFile(filename="Dockerfile", data=encode(text))
    mended = mend(file, lambda current: check(current, {}).findings)
    before, after = instructions_of(file.data), instructions_of(mended)
    assert (before is None) is (after is None)
    if before and after:
        assert [meaning(i) for i in after[1]] == [meaning(i) for i in before[1]]
        assert [type(i) for i in after[1]] == [type(i) for i in before[1]]


@quick
@given(st.binary(max_size=100))
def test_any_ignore_file(data: bytes) -> None:
    try:
        ignore.read(lines.SourceFile(filename=".dockerignore", data=data))
    except ParseError as error:
        if not error.locations:
            raise


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["config", "Env", "Labels", "rootfs", "history", "os", "Healthcheck", "Test", "OnBuild"]),
            inner,
        ),
    ),
)


@quick
@given(json_values)
def test_any_image_config(value: object) -> None:
    import json

    try:
        found = imageconfig.parse(json.dumps(value).encode())
    except BuildError:
        return
    again = imageconfig.parse(imageconfig.to_json(found))
    assert (again.config, again.history, again.os) == (found.config, found.history, found.os)


LINES = 3000  # a busy machine takes five times as long


def numbered(line: bytes) -> bytes:
    return b"".join(line.replace(b"%", b"%d" % number) for number in range(LINES))


@pytest.mark.parametrize(
    "data",
    [
        numbered(b"ENV a%=b\n"),
        numbered(b"ARG a%=b\n"),
        numbered(b"ENV a%=b\nRUN a\n"),
        numbered(b"ARG a%=b\nRUN a\n"),
        numbered(b"ENV a%=b\nLABEL a=$b%\n"),
        b"COPY " + numbered(b"<<E% \\\n") + b"/d/\n" + numbered(b"a\nE%\n"),
        b"RUN " + numbered(b"--mount=type=cache,target=/% \\\n") + b"a\n",
        numbered(b"FROM busybox AS s%\nFROM s% AS t%\n"),
        numbered(b"FROM Bad:: AS s%\n") + b"FROM scratch\n" + numbered(b"COPY --from=s% / /\n"),
    ],
    ids=lambda data: repr(data[:16]),
)
def test_long_files_are_built_soon(data: bytes) -> None:
    """What once took the square of the lines."""

    async def attempt() -> None:
        with contextlib.suppress(BuildError):
            await build(b"FROM busybox\n" + data)

    begin = time.process_time()
    trio.run(attempt)
    assert time.process_time() - begin < 5


SIZE = 1 << 18  # a quarter of a megabyte, so that a busy machine does not fail the test


def repeated(text: bytes) -> bytes:
    return text * (SIZE // len(text))


@pytest.mark.parametrize(
    "data",
    [
        repeated(b"FROM a\n"),
        b"FROM a\n" + repeated(b"RUN echo hello \\\n"),
        repeated(b"# comment\n"),
        repeated(b"ENV a=b \\\n"),
        b"COPY " + repeated(b"a \\\n"),
        b"FROM a\n" + repeated(b"COPY --from=a b c\n"),
        b"RUN " + repeated(b"[[ \\\n"),
        b"RUN [" + repeated(b'"a", \\\n') + b'"b"]',
        b"RUN " + repeated(b'"\\\n'),
        b"RUN " + repeated(b"<<A \\\n") + b"\n",
        repeated(b"RUN <<A\nA\n"),
        b"ENV a=" + repeated(b"${b:- \\\n"),
        b"ONBUILD " + repeated(b"ONBUILD \\\n"),
        repeated(b"\\\n"),
        repeated(b"\0"),
        repeated(b"\xff\n"),
        b"COPY " + repeated(b"--link \\\n") + b"a b",
        b"RUN --mount=" + repeated(b"a, \\\n") + b"a b",
        repeated(b"\r"),
        b'{"syntax":' * 20_000,
        b"CMD " + b"[" * 60_000 + b"]" * 5_000,
    ],
    ids=lambda data: repr(data[:16]),
)
def test_hostile_files_are_answered_soon(data: bytes) -> None:
    begin = time.process_time()
    read(data)
    detect_syntax(data)
    assert time.process_time() - begin < 5
