"""What is said when the result is for other platforms than were asked for."""

from __future__ import annotations

import pytest

from buildengine.platform import parse
from worker.exporters.platforms import mismatch
from worker.exporters.result import BuildResult, PlatformImage

SEVERAL = "Multiple platforms requested but result is not multi-platform"


@pytest.mark.parametrize(
    ("asked", "found", "multi", "said"),
    [
        ("linux/amd64", "linux/amd64", False, None),
        ("linux/arm64/v8", "linux/arm64", False, None),
        ("windows/amd64", "windows(10.0.1)/amd64", False, None),
        (
            "windows(10.0.2)/amd64",
            "windows(10.0.1)/amd64",
            False,
            'Requested platform "windows(10.0.2)/amd64" does not',
        ),
        ("linux/arm64", "linux/amd64", False, 'platform "linux/arm64" does not match result platform "linux/amd64"'),
        ("linux/amd64 linux/arm64", "linux/amd64", False, SEVERAL),
        ("linux/amd64 linux/arm64", "linux/arm64 linux/amd64", True, None),
        ("linux/amd64", "linux/amd64", True, None),
        ("linux/arm64 linux/386", "linux/386", True, "linux/386,linux/arm64 do not match result platforms linux/386"),
        (
            "linux/386",
            "linux/386 linux/arm",
            True,
            "platforms linux/386 do not match result platforms linux/386,linux/arm",
        ),
    ],
)
def test_what_is_said(asked: str, found: str, multi: bool, said: str | None) -> None:
    images = tuple(PlatformImage(id=text, platform=parse(text), stack=("a",), config=b"") for text in found.split())
    text = mismatch([parse(each) for each in asked.split()], BuildResult(images=images, multi_platform=multi))
    assert (text is None) if said is None else (text is not None and said in text)


def test_an_answer_is_for_no_platform() -> None:
    image = PlatformImage(id="", platform=parse("linux/amd64"), stack=(), config=b"")
    assert mismatch([parse("linux/arm64")], BuildResult(images=(image,))) is None
