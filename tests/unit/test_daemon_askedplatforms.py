"""What is warned of when a frontend builds for other platforms than it was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from buildengine.daemon.askedplatforms import mismatch
from buildengine.platform import parse
from frontends.gateway import FrontendResult, PlatformResult
from llb.sources import local

TREE = local("x").marshal()


def result(made: Sequence[str], *, several: bool) -> FrontendResult:
    results = tuple(PlatformResult(platform=parse(each), definition=TREE, config=b"{}") for each in made)
    return FrontendResult(results=results, multi_platform=several)


@pytest.mark.parametrize(
    ("asked", "made", "several", "said"),
    [
        (["linux/amd64"], ["linux/amd64"], False, None),
        (["linux/amd64"], ["linux/amd64"], True, None),
        (["linux/arm64", "linux/amd64"], ["linux/amd64", "linux/arm64"], True, None),
        (
            ["linux/arm64"],
            ["linux/amd64"],
            False,
            '"linux/arm64" does not match result platform "linux/amd64"',
        ),
        (["linux/amd64", "linux/arm64"], ["linux/amd64"], False, "Multiple platforms requested but result is not"),
        (
            ["linux/amd64"],
            ["linux/arm64", "linux/amd64"],
            True,
            "amd64 do not match result platforms linux/amd64,linux/arm64",
        ),
        (
            ["linux/amd64", "linux/arm64"],
            ["linux/amd64"],
            True,
            "linux/arm64 do not match result platforms linux/amd64",
        ),
    ],
)
def test_platforms(asked: list[str], made: list[str], several: bool, said: str | None) -> None:
    text = mismatch([*map(parse, asked)], result(made, several=several))
    assert text == said or (said and text and said in text)


def test_an_answer_without_a_build() -> None:
    nothing = PlatformResult(platform=parse("linux/amd64"), definition=None, config=b"")
    asked = [parse("linux/arm64"), parse("linux/amd64")]
    assert mismatch(asked, FrontendResult(results=())) is None
    assert mismatch(asked, FrontendResult(results=(nothing,), metadata={"result.json": b"{}"})) is None
