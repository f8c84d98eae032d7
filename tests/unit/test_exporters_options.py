"""Attributes of an output: each has its effect or is refused, none is ignored."""

from __future__ import annotations

import pytest

from buildengine.errors import UserError
from worker.exporters.options import check_platforms, read


@pytest.mark.parametrize(
    ("kind", "attrs", "message"),
    [
        ("local", {"mode": "move"}, "unknown mode 'move' of a local export"),
        ("tar", {"mode": "delete"}, "unknown attribute 'mode' for an export of type tar"),
        ("tar", {"platform-split": "true"}, "platform-split is not supported for an export of type tar"),
        ("image", {"name-canonical": "true"}, "name-canonical is not supported"),
        ("image", {"name-canonical": ""}, "name-canonical is not supported"),
        ("image", {"dangling-name-prefix": "x"}, "dangling-name-prefix is not supported"),
        ("image", {"registry.insecure": "true"}, "registry.insecure is not supported"),
        ("image", {"push": "true"}, "pushing to a registry is not supported yet"),
        ("image", {"unpack": "maybe"}, "unpack=maybe: not a boolean"),
        ("image", {"store": "maybe"}, "store=maybe: not a boolean"),
        ("oci", {"store": "false"}, "unknown attribute 'store' for an export of type oci"),
        ("docker", {"unpack": "true"}, "unknown attribute 'unpack' for an export of type docker"),
    ],
)
def test_what_is_refused(kind: str, attrs: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(kind, attrs)
    assert caught.value.message == message
    assert caught.value.hint or "boolean" in message


def test_what_asks_for_nothing_may_stand() -> None:
    attrs = {"name-canonical": "false", "registry.insecure": "0", "push": "false", "dangling-name-prefix": ""}
    assert read("image", {**attrs, "unpack": "true"}) == read("image", {})
    assert read("tar", {"platform-split": "false"}).platform_split is False


def test_what_has_an_effect() -> None:
    assert (read("local", {}).delete, read("local", {"mode": "copy"}).delete) == (False, False)
    assert read("local", {"mode": "delete"}).delete
    assert (read("image", {}).store, read("image", {"store": "false"}).store) == (True, False)
    assert (read("oci", {}).tar, read("docker", {"tar": "false"}).tar) == (True, False)


@pytest.mark.parametrize(("kind", "other"), [("docker", "type=oci"), ("tar", "type=local")])
def test_some_hold_one_platform(kind: str, other: str) -> None:
    check_platforms(kind, 1)
    with pytest.raises(UserError, match=f"type={kind} exports one platform, not 2") as caught:
        check_platforms(kind, 2)
    assert caught.value.hint == f"use {other} for several"


def test_others_hold_several() -> None:
    for kind in ("image", "oci", "local"):
        check_platforms(kind, 3)
