"""Bad Dockerfiles: each gives one clear error, with a hint, at the lines and columns in question."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from buildengine.errors import BuildError, ParseError, UserError
from frontends.dockerfile.shapes import ShapeError
from tests.fakes.gateway import build, image_config

B = "FROM busybox\n"

# (Dockerfile, part of the message, line, the marked text on it or "" for the whole line)
PARSE = [
    ("FORM busybox", "unknown instruction: FORM (did you mean FROM?)", 1, "FORM"),
    (B + "RUNN x", "unknown instruction: RUNN (did you mean RUN?)", 2, "RUNN"),
    (B + "fntrypoint x", "unknown instruction: fntrypoint (did you mean entrypoint?)", 2, "fntrypoint"),
    (B + "RUN a \\\n b\n\nc d", "unknown instruction: c", 5, "c"),
    (B + "RUN\xa0echo", "unknown instruction: RUN\xa0echo", 2, "RUN\xa0echo"),
    (B + "uſer x", "unknown instruction: uſer", 2, "uſer"),
    ("RUN x", "no build stage in current context", 1, ""),
    ("ARG x", "dockerfile contains no stages to build", 1, ""),
    ("FROM", "FROM requires either one or three arguments", 1, ""),
    ("FROM a b", "FROM requires either one or three arguments", 1, "b"),
    ("FROM a AS", "FROM requires either one or three arguments", 1, "AS"),
    ("FROM a AS b c", "FROM requires either one or three arguments", 1, "c"),
    ("FROM a AS 1b", 'invalid name for build stage: "1b"', 1, "1b"),
    ("FROM --plaform=x a", "unknown flag: --plaform (did you mean platform?)", 1, "--plaform=x"),
    ("FROM --platform a", "missing a value on flag: --platform", 1, "--platform"),
    (B + "COPY", "COPY requires at least two arguments", 2, ""),
    (B + "COPY a", "COPY requires at least two arguments", 2, ""),
    (B + 'COPY ["a"]', "COPY requires at least two arguments", 2, ""),
    (B + "COPY\t\n\tquux \\\n  bar", "COPY requires at least two arguments", 2, ""),
    (B + "ADD a", "ADD requires at least two arguments", 2, ""),
    (B + "COPY --form=x a b", "unknown flag: --form (did you mean from?)", 2, "--form=x"),
    (B + "COPY \\\n  --link \\\n  --chmdo=1 a b", "unknown flag: --chmdo (did you mean chmod?)", 4, "--chmdo=1"),
    (B + "COPY --from a b", "missing a value on flag: --from", 2, "--from"),
    (B + "COPY --link= a b", "missing a value on flag: --link", 2, "--link="),
    (B + "COPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe", 2, "--link=maybe"),
    (B + "COPY --from=a --from=b x y", "duplicate flag specified: --from", 2, "--from=b"),
    (B + "COPY a <<E\nE", "COPY cannot accept a heredoc as a destination", 2, "<<E"),
    (B + 'COPY ["a", {}]', "arrays must be comprised of strings only", 2, '["a",'),
    (B + 'RUN ["a", 1]', "arrays must be comprised of strings only", 2, '["a", 1]'),
    (B + "CMD [[[]]]", "arrays must be comprised of strings only", 2, "[[[]]]"),
    (B + "RUN []", "RUN requires at least one argument", 2, ""),
    (B + "SHELL /bin/sh", "SHELL requires the arguments to be in JSON form", 2, "/bin/sh"),
    (B + "SHELL []", "SHELL requires at least one argument", 2, ""),
    (B + "SHELL", "SHELL requires at least one argument", 2, ""),
    (B + "ENV", "ENV requires at least one argument", 2, ""),
    (B + "ENV a", "ENV must have two arguments", 2, "a"),
    (B + "ENV a=b c", 'can\'t find = in "c"', 2, "c"),
    (B + "ENV =b", "ENV names can not be blank", 2, "=b"),
    (B + "LABEL", "LABEL requires at least one argument", 2, ""),
    (B + "LABEL x", "LABEL must have two arguments", 2, "x"),
    (B + "ARG", "ARG requires at least one argument", 2, ""),
    (B + "ARG a =x", "ARG names can not be blank", 2, "=x"),
    (B + "EXPOSE", "EXPOSE requires at least one argument", 2, ""),
    (B + "VOLUME", "VOLUME requires at least one argument", 2, ""),
    (B + "VOLUME []", "VOLUME requires at least one argument", 2, ""),
    (B + 'VOLUME [""]', "VOLUME specified can not be an empty string", 2, ""),
    (B + "USER", "USER requires exactly one argument", 2, ""),
    (B + "WORKDIR", "WORKDIR requires exactly one argument", 2, ""),
    (B + "STOPSIGNAL", "STOPSIGNAL requires exactly one argument", 2, ""),
    (B + "MAINTAINER", "MAINTAINER requires exactly one argument", 2, ""),
    (B + "MAINTAINER --boo x", "unknown flag: --boo", 2, "--boo"),
    (B + "WORKDIR --x /a", "unknown flag: --x", 2, "--x"),
    (B + "ONBUILD", "ONBUILD requires at least one argument", 2, ""),
    (B + "ONBUILD onbuild RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", 2, "onbuild RUN x"),
    (B + "ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger", 2, "FROM x"),
    (B + "HEALTHCHECK", "HEALTHCHECK requires at least one argument", 2, ""),
    (B + "HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments", 2, "x"),
    (B + "HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD", 2, "CMD"),
    (B + "HEALTHCHECK foo x", 'Unknown type "FOO" in HEALTHCHECK (try CMD)', 2, "foo"),
    (B + "HEALTHCHECK --retrys=1 CMD a", "unknown flag: --retrys (did you mean retries?)", 2, "--retrys=1"),
    (B + "HEALTHCHECK --interval=3x CMD a", 'time: unknown unit "x" in duration "3x"', 2, "--interval=3x"),
    (B + "HEALTHCHECK --timeout=50ns CMD a", "cannot be less than 1ms", 2, "--timeout=50ns"),
    (B + "HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)", 2, "--retries=-1"),
    (B + "HEALTHCHECK --retries=x CMD a", "invalid number of retries", 2, "--retries=x"),
    (B + "RUN --mont=type=cache a", "unknown flag: --mont (did you mean mount?)", 2, "--mont=type=cache"),
    (B + "RUN --network=hots a", 'invalid network mode "hots" (did you mean host?)', 2, "--network=hots"),
    (B + "RUN --security=none a", 'security "none" is not valid', 2, "--security=none"),
    (
        B + "RUN --mount=target=/x,from=$y a",
        "'from' doesn't support variable expansion",
        2,
        "--mount=target=/x,from=$y",
    ),
    (B + "RUN --device=a,b=c x", "unexpected key 'b' in 'b=c'", 2, "--device=a,b=c"),
]

CONVERT = [
    ("FROM $UNDEF", "base name ($UNDEF) should not be blank", 1, ""),
    ("ARG VERSION\nFROM ${VERSOIN}", "base name (${VERSOIN}) should not be blank", 2, ""),
    ("FROM ${X", "syntax error: missing '}'", 1, ""),
    ('ARG A="${B:?set B}"\nFROM a', "B: set B", 1, ""),
    ("FROM --platform=$X busybox", "empty platform value from expression $X", 1, ""),
    ("FROM --platform=$BULIDPLATFORM busybox", "(did you mean BUILDPLATFORM?)", 1, ""),
    ("FROM --platform=a/b/c/d busybox", "failed to parse platform a/b/c/d", 1, ""),
    ("FROM BusyBox", 'failed to parse stage name "BusyBox"', 1, ""),
    ("FROM a:b:c", 'failed to parse stage name "a:b:c"', 1, ""),
    ("FROM busybx", "busybx: failed to resolve source metadata for docker.io/library/busybx:latest", 1, ""),
    (
        "FROM busybox AS build\nRUN a\nFROM busybox\nCOPY --from=biuld a b",
        "docker.io/library/biuld:latest: not found",
        4,
        "",
    ),
    (B + "COPY --from=$X a b", "variable expansion is not supported for --from", 2, ""),
    (B + "COPY --from=7 a b", "invalid stage index 7", 2, ""),
    ("FROM busybox AS b\nCOPY --from=b a b", "circular dependency detected on stage: b", 2, ""),
    (
        "FROM busybox AS a\nCOPY --from=b x y\nFROM busybox AS b\nRUN --mount=from=a,target=/a x",
        "circular dependency",
        2,
        "",
    ),
    (
        "FROM busybox AS a\nCOPY --from=b x y\nFROM busybox AS b\nFROM a",
        'cannot copy from stage "b", it needs to be defined',
        2,
        "",
    ),
    (
        "FROM busybox AS a\nRUN --mount=from=b,target=/b x\nFROM busybox AS b\nFROM a",
        'cannot mount from stage "b"',
        2,
        "",
    ),
    (B + "ENV a='b", "looking for matching single-quote", 2, ""),
    (B + "ENV a=${b:=c}", "unsupported modifier (:=) in substitution", 2, ""),
    (B + 'ENV a="${b:?must be set}"', "b: must be set", 2, ""),
    (B + "USER ${b}${", "syntax error: missing '}'", 2, ""),
    (B + "EXPOSE 99999", "invalid containerPort: 99999", 2, ""),
    (B + "EXPOSE 80/tpc", "invalid proto: tpc (did you mean tcp?)", 2, ""),
    (B + "EXPOSE 90-80", "invalid containerPort: 90-80", 2, ""),
    (B + "EXPOSE /tcp", "no port specified", 2, ""),
    (B + "EXPOSE x:80", "invalid hostPort: x", 2, ""),
    (B + "EXPOSE 1-2:1-5", "invalid ranges specified", 2, ""),
    (B + "EXPOSE 1.2.3:1:5", "invalid IP address: 1.2.3", 2, ""),
    (B + "VOLUME $x", "VOLUME specified can not be an empty string", 2, ""),
    (B + "STOPSIGNAL SIGTREM", "invalid signal: SIGTREM (did you mean SIGTERM?)", 2, ""),
    (B + "STOPSIGNAL 0", "invalid signal: 0", 2, ""),
    (B + "RUN --mount=typ=cache,target=/x a", "unexpected key 'typ'", 2, "--mount=typ=cache,target=/x"),
    (B + "RUN --mount=type=cache a", 'invalid mount target "/"', 2, ""),
    (B + "RUN --mount=target=/. a", 'invalid mount target "/."', 2, ""),
    (B + "RUN --mount=type=ssh,source=x a", "ssh does not support source", 2, ""),
    (
        B + "COPY --chmod=64a a b",
        "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777",
        2,
        "",
    ),
    (B + "COPY --chmod=10000 a b", "invalid chmod parameter: '10000'. it should be octal", 2, ""),
    (B + "COPY --chmod=u=q a b", "invalid chmod parameter: 'u=q'", 2, ""),
    (B + "ADD --checksum=sha256:x https://a/b c", "invalid digest 'sha256:x'", 2, ""),
    (B + "ADD --checksum=sha256:x a c", "checksum requires HTTP(S) or Git sources", 2, ""),
    (
        B + "ADD --checksum=sha256:x https://a/b https://c/d /c/",
        "checksum can't be specified for multiple sources",
        2,
        "",
    ),
    (B + "COPY https://a/b c", "source can't be a URL for COPY", 2, ""),
    (B + "COPY https://a/b.git c", "source can't be a git ref for COPY", 2, ""),
    (B + "ADD https://a/b.git?foo=bar c", 'unexpected query "foo"', 2, ""),
    (B + "ADD https://a/b.git?tag=a&branch=b c", "branch conflicts with tag", 2, ""),
    (B + "ADD --keep-git-dir https://a/b.git?keep-git-dir=false c", "inconsistent keep-git-dir configuration", 2, ""),
    (B + "RUN <<E\n\udcff\nE", "heredoc E is not UTF-8 text", 2, ""),
    ("FROM scratch\nCOPY --chown=me a b", "scratch has no users", 2, ""),
    ("# check=skip=all;x\n" + B, "failed to parse check options", 1, ""),
    ("# syntax=foo/bar:1\n" + B, "invalid frontend: gateway.v0", 1, ""),
    ("# syntax=Foo/Bar\n" + B, "repository name (Bar) must be lowercase", 1, ""),
    ("FROM trigger", "unknown instruction: COPPY (did you mean COPY?)", 1, ""),
]
IMAGES = {"docker.io/library/trigger:latest": image_config(OnBuild=["COPPY a b"])}


async def failure(dockerfile: str, options: Mapping[str, str] | None = None) -> BuildError:
    with pytest.raises(BuildError) as caught:
        await build(dockerfile.encode("utf-8", "surrogateescape"), options, images=IMAGES)
    return caught.value


@pytest.mark.parametrize(("dockerfile", "message", "line", "marked"), PARSE + CONVERT, ids=repr)
async def test_bad_dockerfiles(dockerfile: str, message: str, line: int, marked: str) -> None:
    error = await failure(dockerfile)
    assert message in error.message
    assert error.hint
    assert error.exit_status == 1
    location = error.locations[0]
    assert location.filename == "Dockerfile"
    assert location.text == dockerfile.encode("utf-8", "surrogateescape")
    found = next(r for r in location.ranges if r.start_line == line)
    assert dockerfile.split("\n")[line - 1][found.start_column : found.end_column] == marked


@pytest.mark.parametrize(("dockerfile", "message", "line", "marked"), PARSE, ids=repr)
async def test_errors_of_parsing_name_the_line(dockerfile: str, message: str, line: int, marked: str) -> None:
    """In BuildKit's words: but for what its first pass refuses, which has no line in front."""
    error = await failure(dockerfile)
    assert isinstance(error, ParseError)
    if "stage" in message and "invalid name" not in message:
        return  # these are about the file, not about one instruction
    first = error.locations[0].ranges[0].start_line
    assert isinstance(error, ShapeError) is not error.message.startswith(f"dockerfile parse error on line {first}: ")


def test_there_are_enough_of_them() -> None:
    assert len(PARSE + CONVERT) >= 100


async def test_a_circle_is_shown_whole() -> None:
    error = await failure("FROM busybox AS a\nCOPY --from=b x y\nFROM busybox AS b\nCOPY --from=a x y\n")
    assert [location.ranges[0].start_line for location in error.locations] == [2, 4]


async def test_a_multi_line_instruction_is_shown_whole() -> None:
    error = await failure("FROM busybox\nUSER \\\n  ${x\nUSER y")
    assert [r.start_line for r in error.locations[0].ranges] == [2, 3]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (B + "RNU x", "(did you mean ENV?)", "did you mean RUN? instructions are "),
        (B + "CDM x", "(did you mean ADD?)", "did you mean CMD? instructions are "),
        (B + "HEALTH x", "unknown instruction: HEALTH", "did you mean HEALTHCHECK? instructions are "),
        (B + "COPY --chwon=1 a b", "(did you mean chmod?)", "did you mean --chown? COPY takes "),
        (B + "ADD --keep-git a b", "unknown flag: --keep-git", "did you mean --keep-git-dir? ADD takes "),
        (B + "COPY --form=x a b", "(did you mean from?)", "COPY takes "),
        ("ARG TAG=1\nFROM busybox:${TGA}\n", "", "ARG TGA has no value before the first FROM; did you mean TAG?"),
        ("FROM busybox AS builder\nFROM busybox\nCOPY --from=BUILDR a b\n", "BUILDR", "did you mean builder?"),
    ],
)
async def test_the_hint_has_what_is_nearer_than_the_suggestion(text: str, message: str, hint: str) -> None:
    """Messages suggest what BuildKit suggests, which knows neither swapped letters nor names without their end."""
    error = await failure(text)
    assert message in error.message
    assert (error.hint or "").startswith(hint)


async def test_an_unknown_target_suggests_a_stage() -> None:
    error = await failure("FROM busybox AS build\nFROM busybox AS test\n", {"target": "bulid"})
    assert error.message == 'target stage "bulid" could not be found (did you mean build?)'
    assert error.hint == "stages are build, test"
    assert isinstance(error, UserError)


async def test_a_stage_in_another_case_is_explained() -> None:
    error = await failure("FROM busybox AS Build\nFROM Build\n")
    assert error.hint == "FROM takes stage names in lower case: build"


async def test_a_missing_stage_is_explained() -> None:
    error = await failure("FROM busybox AS build\nFROM busybox\nCOPY --from=biuld a b\n")
    assert error.message.endswith(
        "biuld: failed to resolve source metadata for docker.io/library/biuld:latest: "
        "docker.io/library/biuld:latest: not found (did you mean build?)"
    )
    assert str(error.hint).startswith("no stage above is called biuld, so it was taken for an image; ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image-resolve-mode": "pul"}, "invalid image-resolve-mode: pul (did you mean pull?)"),
        ({"force-network-mode": "bridge"}, "invalid netmode bridge"),
        ({"add-hosts": "db"}, "failed to parse additional hosts: invalid key-value pair db"),
        ({"ulimit": "x=1"}, "failed to parse ulimit: invalid ulimit type: x"),
        ({"shm-size": "1m"}, "failed to parse shm size"),
        ({"multi-platform": "maybe"}, "invalid boolean value for multi-platform: maybe"),
        ({"build-arg:SOURCE_DATE_EPOCH": "now"}, "invalid SOURCE_DATE_EPOCH"),
        ({"build-arg:SOURCE_DATE_EPOCH": "9" * 17}, "invalid SOURCE_DATE_EPOCH"),
        ({"build-arg:BUILDKIT_DOCKERFILE_CHECK": "skip"}, "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK"),
        (
            {"build-arg:BUILDKIT_SYNTAX": "foo/bar x"},
            "failed with build-arg:BUILDKIT_SYNTAX = foo/bar x: invalid frontend",
        ),
        ({"context": "ftp://x"}, "invalid context 'ftp://x'"),
        ({"requestid": "frontend.x"}, "unsupported request frontend.x"),
        (
            {"frontend.caps": "moby.buildkit.frontend.x+forward"},
            "unsupported frontend capability moby.buildkit.frontend.x",
        ),
        ({"context:busybox": "nothing"}, "invalid context specifier nothing for busybox"),
        ({"context:busybox": "dokcer-image://x"}, "unsupported context source dokcer-image"),
        ({"context:busybox": "input:x"}, "invalid input x for busybox"),
        ({"filename": "Nope"}, "failed to read dockerfile: open Nope: no such file or directory"),
    ],
)
async def test_bad_options(options: dict[str, str], message: str) -> None:
    assert message in (await failure("FROM busybox\n", options)).message


async def test_a_platform_that_there_is_not() -> None:
    with pytest.raises(ParseError) as caught:
        await build("FROM --platform=linux/amd46 busybox\n")
    assert caught.value.message == "failed to parse platform linux/amd46: unknown platform linux/amd46"
    assert caught.value.hint == "did you mean linux/amd64?"
    assert caught.value.locations
