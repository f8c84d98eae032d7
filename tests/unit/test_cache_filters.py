"""The filter language of `du` and `prune`, on two records."""

from __future__ import annotations

import pytest

from buildengine.builder import UsageInfo
from buildengine.errors import UserError
from cache import filters

DAY = 86400.0

REGULAR = UsageInfo(id="abc", parents=("p1", "p2"), description="RUN a, b", kind="regular", created=100, in_use=True)
MOUNT = UsageInfo(id="def", kind="exec.cachemount", mutable=True, shared=True, created=100, last_used=DAY)


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", "both"),
        ("id==abc", "regular"),
        ("id=ab", "regular"),
        ("id~=^.e", "mount"),
        ("id~=|^a/|", "none"),
        ('id~="^a\\x62"', "regular"),
        ('id=="a\\x62c"', "regular"),
        ("id~=//", "both"),  # nothing is in everything
        ('id=="a\\u0062c"', "regular"),
        ('id=="\\abc"', "none"),
        ("id==|abc|", "none"),  # these quote expressions only
        ("id~=aba", "none"),
        ("id~=/", "none"),
        ("id~=/abcx", "none"),
        ("id!=abc", "mount"),
        ("type==regular", "regular"),
        ("type=exec.cachemount", "mount"),
        ("type=exec", "none"),  # by expression goes `id` alone
        ("type", "both"),
        ("parents", "regular"),
        ("parents==p1;p2", "regular"),
        ("parents~=p2", "regular"),
        ('description=="RUN a, b"', "regular"),
        ("description~=/, b$/", "regular"),
        ("inuse", "regular"),
        ("mutable", "mount"),
        ("immutable", "regular"),
        ("shared", "mount"),
        ("private", "regular"),
        ("private,type==regular", "regular"),
        ("private , type == exec.cachemount", "none"),
        ("inuse==", "regular"),
        ("until=24h", "both"),
        ("until=36h", "regular"),
        ("unused-for=36h,type==regular", "regular"),
    ],
)
def test_filters(text: str, selected: str) -> None:
    matches = filters.parse([text] if text else [], now=2 * DAY)
    assert {"regular": matches(REGULAR), "mount": matches(MOUNT)} == {
        "regular": selected in ("both", "regular"),
        "mount": selected in ("both", "mount"),
    }


def test_expressions_are_gos_and_a_hostile_one_costs_nothing() -> None:
    matches = filters.parse([r"description~=/(?i)^run \pL, b\z/", "id~=(b+b+)+c"], now=0)
    assert matches(REGULAR)
    assert not matches(UsageInfo(id="b" * 10_000, kind="regular", description="x" * 10_000))
    said = r"^invalid filter: error parsing regexp: invalid or unsupported Perl syntax: `\(\?=`$"
    with pytest.raises(UserError, match=said):
        filters.parse(["id~=a(?=b)"], now=0)
    with pytest.raises(UserError, match="more than 8192 characters"):
        filters.parse(["id~=a"] * 2000, now=0)


def test_any_of_several_filters() -> None:
    matches = filters.parse(["id==abc", "mutable"], now=0)
    assert matches(REGULAR)
    assert matches(MOUNT)


@pytest.mark.parametrize(
    "text",
    ["id=~a", "type===a", "colour==red", "id~=(", "==a", "id==a b", "until=soon", "until", 'id=="a', ",", "a.b"],
)
def test_bad_filters_are_the_users(text: str) -> None:
    with pytest.raises(UserError):
        filters.parse([text], now=0)
