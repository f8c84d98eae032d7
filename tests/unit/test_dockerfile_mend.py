"""The linter without an engine, and what can be mended of what it finds."""

from __future__ import annotations

import pytest

from frontends.dockerfile.alone import Checked, check
from frontends.dockerfile.lines import SourceFile
from frontends.dockerfile.mend import mend


def checked(text: str, options: dict[str, str] | None = None, ignored: tuple[str, ...] = ()) -> Checked:
    return check(SourceFile(filename="Dockerfile", data=text.encode()), options or {}, ignored)


def rules(text: str, options: dict[str, str] | None = None, ignored: tuple[str, ...] = ()) -> list[str]:
    return [finding.rule for finding in checked(text, options, ignored).findings]


def mended(text: str) -> str:
    file = SourceFile(filename="Dockerfile", data=text.encode())
    return mend(file, lambda current: check(current, {}).findings).decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FROM scratch AS Base\n", "FROM scratch AS base\n"),
        ("FROM scratch as base\nCOPY a b", "FROM scratch AS base\nCOPY a b"),
        ("FROM scratch AS as\nFROM as as Last\n", "FROM scratch AS as\nFROM as AS last\n"),
        ("from scratch AS x\ncopy a b\nCOPY c d\n", "from scratch as x\ncopy a b\ncopy c d\n"),
        ("  from scratch\nCOPY a b\nENV c=d\n", "  FROM scratch\nCOPY a b\nENV c=d\n"),
        ("FROM scratch\nRUN a \\\n\n  # c\n  \n  && b\n", "FROM scratch\nRUN a \\\n  # c\n  && b\n"),
        ("FROM scratch\nCOPY <<E /\n\nE\n", "FROM scratch\nCOPY <<E /\n\nE\n"),
        ("FROM scratch\nENV a b\n", "FROM scratch\nENV a=b\n"),
        ("FROM scratch\nENV  a   b c $PATH \n", 'FROM scratch\nENV  a="b c $PATH" \n'),
        ("FROM scratch\nLABEL ab a\n", "FROM scratch\nLABEL ab=a\n"),
        ("FROM scratch\nEXPOSE 80/TCP 1.2.3.4:1:53/Udp\n", "FROM scratch\nEXPOSE 80/tcp 53/udp\n"),
        ("FROM --platform=${TARGETPLATFORM} alpine\n", "FROM alpine\n"),
        ("\ufefffrom scratch\r\nCOPY a b\r\nUSER 1\r\n", "\ufeffFROM scratch\r\nCOPY a b\r\nUSER 1\r\n"),
    ],
)
def test_what_is_mended(before: str, after: str) -> None:
    assert mended(before) == after
    assert rules(after) == []
    assert mended(after) == after


@pytest.mark.parametrize(
    "text",
    [
        'FROM scratch\nENV a "b c"\n',  # the quotes may be meant
        "FROM scratch\nENV a b\\ c\n",
        "FROM scratch\nENV a \\\n  b\n",
        "FROM scratch\nMAINTAINER me\n",  # a label would be another image
        "FROM scratch\nCMD a\n",
        "FROM scratch\nARG P=80/TCP\nEXPOSE $P\n",
        "FROM scratch\nCOPPY a b\nENV a b\n",  # cannot be read
    ],
)
def test_what_is_left(text: str) -> None:
    assert checked(text).findings or checked(text).error
    assert mended(text) == text


def test_what_a_base_may_define_is_not_told() -> None:
    assert rules("FROM scratch AS a\nENV x=$y\nFROM a\nLABEL z=$y\n") == ["UndefinedVar", "UndefinedVar"]
    assert rules("FROM alpine AS a\nENV x=$y\nFROM a\nLABEL z=$y\n") == []
    assert checked("# check=error=true\nFROM alpine\nENV x=$y\n").error is None
    error = checked("# check=error=true\nFROM scratch\nENV x=$y\n").error
    assert error is not None
    assert error.message == "lint violation found for rules: UndefinedVar"


def test_targets_options_and_ignored_files() -> None:
    text = "FROM scratch AS a\nENV k v\nFROM scratch AS b\nCOPY x.md /\n"
    assert rules(text) == ["LegacyKeyValueFormat"]
    assert rules(text, {"target": "b"}) == []
    every = {"build-arg:BUILDKIT_DOCKERFILE_CHECK": "experimental=all"}
    assert rules(text, every, ("*.md",)) == ["LegacyKeyValueFormat", "CopyIgnoredFile"]
    wrong = checked(text, {"target": "c"}).error
    assert wrong is not None
    assert 'target stage "c" could not be found' in wrong.message


def test_what_comes_before_a_mistake_is_told() -> None:
    found = checked("FROM scratch AS Base\nMAINTAINER me\nCOPPY a b\n")
    assert [finding.rule for finding in found.findings] == ["StageNameCasing", "MaintainerDeprecated"]
    assert found.error is not None
    assert "unknown instruction: COPPY (did you mean COPY?)" in found.error.message
