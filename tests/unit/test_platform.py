"""Platforms as containerd spells and compares them (containerd/platforms v1, its own tables)."""

from __future__ import annotations

import pytest

from buildengine.errors import UserError
from buildengine.platform import Platform, local, normalize, parse, preference, rank


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/i386", "linux/386"),
        ("linux/i386/x", "linux/386"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/9", "linux/arm64/v9"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm64/v8.2", "linux/arm64/v8.2"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf/v6", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("macos/arm64", "darwin/arm64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("arm64", "linux/arm64"),
        ("riscv64", "linux/riscv64"),
        ("windows", f"windows/{local().architecture}"),
    ],
)
def test_one_spelling_for_each(text: str, spelled: str) -> None:
    assert str(parse(text)) == spelled
    assert parse(spelled) == parse(text) == normalize(parse(text))


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "linux/amd64/v1/x", "linuks", "linux/*", "amd64(1)", "li nux/amd64"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UserError, match=r"invalid (platform|component)") as caught:
        parse(text)
    assert caught.value.hint is not None


def test_a_component_that_is_none_is_told_as_buildkits_clients_know_it() -> None:
    with pytest.raises(UserError) as caught:
        parse("linux/")
    assert caught.value.message == (
        '"" is an invalid component of "linux/": platform specifier component must match "^[A-Za-z0-9_.-]+$": '
        "invalid argument"
    )


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ("linux/amd64", "amd64 386"),
        ("linux/amd64/v3", "amd64/v3 amd64/v2 amd64 386"),
        ("linux/386", "386"),
        ("linux/arm/v7", "arm/v7 arm/v6 arm/v5"),
        ("linux/arm/v8", "arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm/v5", "arm/v5"),
        ("linux/arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm64/v8.2", "arm64/v8.2 arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        (
            "linux/arm64/v9.1",
            "arm64/v9.1 arm64/v9 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64"
            " arm/v8 arm/v7 arm/v6 arm/v5",
        ),
        ("linux/riscv64", "riscv64"),
    ],
)
def test_what_runs_where_and_in_which_order(wanted: str, order: str) -> None:
    platforms = preference(parse(wanted))
    assert [str(platform).removeprefix("linux/") for platform in platforms] == order.split()
    assert [rank(parse(wanted), platform) for platform in platforms] == list(range(len(platforms)))


def test_arm64_v9_7_runs_no_more_than_there_is() -> None:
    assert str(preference(parse("linux/arm64/v9.7"))[8]) == "linux/arm64/v8.9"


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        ("linux/386", "linux/amd64"),
        ("linux/arm/v6", "linux/arm/v7"),
        ("linux/amd64", "linux/amd64/v2"),
        ("linux/amd64", "darwin/amd64"),
        ("linux/arm64", "linux/arm64/v9"),
        ("linux/arm64", "unknown/unknown"),
    ],
)
def test_what_does_not_run(wanted: str, offered: str) -> None:
    assert rank(parse(wanted), parse(offered)) is None


def test_an_image_that_names_no_system_is_of_linux() -> None:
    assert rank(parse("linux/amd64"), Platform(os="", architecture="amd64")) == 0


@pytest.mark.parametrize(
    ("host", "image", "fits"),
    [
        ("10.0.17763.1", "10.0.17763.999", True),
        ("10.0.17763", "10.0.17764", False),
        ("10.0.20348", "10.0.20348.5", True),
        ("10.0.20348", "10.0.17763", False),
        ("10.0.22621", "10.0.20348", True),
        ("10.0.26100", "10.0.20348", True),
        ("10.0.26200", "10.0.20348", False),
        ("10.0.26200", "10.0.26100", True),
        ("10.0.20348", "10.0.26100", False),
        ("10.0.20348", "11.0.20348", False),
        ("", "10.0.17763", True),
        ("10.0.20348", "", True),
        ("10.0.20348", "nonsense", False),
    ],
)
def test_which_windows_runs_which(host: str, image: str, fits: bool) -> None:
    wanted = Platform(os="windows", architecture="amd64", os_version=host)
    offered = Platform(os="windows", architecture="amd64", os_version=image)
    assert (rank(wanted, offered) == 0) is fits


def test_this_host() -> None:
    assert local().os == "linux"
    assert normalize(local()) == local()
