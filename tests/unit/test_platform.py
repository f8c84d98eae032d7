"""Platforms: one spelling for each, what runs on what, and which entry of an index is chosen (containerd/platforms)."""

from __future__ import annotations

import pytest

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.platform import Platform, from_json, local, parse, preference, rank
from worker.oci.choose import candidates
from worker.oci.types import Descriptor, Index


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/x86-64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/i386", "linux/386"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/armel/v5", "linux/arm/v6"),
        ("macos/arm64", "darwin/arm64"),
        ("windows(10.0.1)/amd64", "windows(10.0.1)/amd64"),
        ("riscv64", "linux/riscv64"),
    ],
)
def test_one_spelling(text: str, spelled: str) -> None:
    assert str(parse(text)) == spelled


def test_an_operating_system_alone_is_on_this_processor() -> None:
    assert parse("freebsd") == Platform(os="freebsd", architecture=local().architecture, variant=local().variant)


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/amd64/v1/x", "a b", "linux/am d64", "linux(1/amd64"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UserError, match="invalid platform"):
        parse(text)


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ("linux/amd64", ["linux/amd64", "linux/386"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm64", ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/s390x", ["linux/s390x"]),
    ],
)
def test_what_else_runs_there(wanted: str, order: list[str]) -> None:
    assert list(map(str, preference(parse(wanted)))) == order


def test_builds_of_windows_must_agree() -> None:
    wanted = parse("windows(10.0.20348.1)/amd64")
    assert rank(wanted, parse("windows(10.0.20348.9)/amd64")) == 0
    assert rank(wanted, parse("windows(10.0.17763.1)/amd64")) is None
    assert rank(wanted, parse("windows/amd64")) == 0
    assert rank(wanted, parse("linux/amd64")) is None


def test_documents_lead_back() -> None:
    for text in ("linux/arm/v6", "windows(10.0.1)/amd64", "linux/amd64"):
        assert from_json(parse(text).to_json()) == parse(text)


def entry(number: int, platform: str | None) -> Descriptor:
    return Descriptor(
        media_type="application/vnd.oci.image.manifest.v1+json",
        digest=Digest.sha256(b"%d" % number),
        size=number,
        platform=None if platform is None else parse(platform),
    )


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["linux/386", "linux/amd64", "linux/amd64"], [1]),  # the best, of equals the first
        (["linux/arm64", "linux/386"], [1]),
        (["linux/arm64", "unknown/unknown"], []),
        ([None, "linux/386"], [1]),
        ([None, "linux/arm64", None], [0, 2]),
        ([None] * 10, [*range(8)]),
    ],
)
def test_which_entry_of_an_index(offered: list[str | None], chosen: list[int]) -> None:
    entries = tuple(entry(number, platform) for number, platform in enumerate(offered))
    index = Index(
        raw=b"", digest=Digest.sha256(b""), media_type="application/vnd.oci.image.index.v1+json", manifests=entries
    )
    assert [found.size for found in candidates(index, parse("linux/amd64"))] == chosen
