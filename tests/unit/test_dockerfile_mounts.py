"""`RUN --mount`: every key and alias, defaults by type, and the notations that options are written in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.errors import ParseError
from frontends.dockerfile import mounts, notation
from frontends.dockerfile.mounts import MountKind, RunMount
from frontends.dockerfile.suggest import did_you_mean, nearest
from llb.ops import CacheSharing, HostIP, Ulimit


def read(text: str, **env: str) -> RunMount:
    def expand(value: str) -> str:
        return env.get(value.removeprefix("$"), value)

    return mounts.parse(mounts.raw(text), expand)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", {"kind": MountKind.BIND, "target": "/x", "readonly": True}),
        ("type=bind,dst=/x,rw", {"readonly": False}),
        ("destination=/x,src=/y,readwrite=true", {"target": "/x", "source": "/y", "readonly": False}),
        ("target=/x,rw=false", {"readonly": True}),
        ("target=/x,ro=0", {"readonly": False}),
        ("type=cache,target=/x", {"kind": MountKind.CACHE, "readonly": False, "sharing": None, "id": ""}),
        (
            "type=CACHE,id=a,target=/x,sharing=Locked,ro,uid=1,gid=2,mode=0700,from=b,source=/c",
            {"id": "a", "sharing": CacheSharing.LOCKED, "readonly": True, "uid": 1, "gid": 2, "mode": 0o700}
            | {"source_stage": "b", "source": "/c"},
        ),
        ("type=tmpfs,target=/x,size=64m", {"kind": MountKind.TMPFS, "size": 64 << 20, "readonly": False}),
        ("type=secret,id=a", {"kind": MountKind.SECRET, "id": "a", "required": False, "env": None}),
        ("type=secret,src=a,required,env=TOKEN,target=/t", {"source": "a", "required": True, "env": "TOKEN"}),
        ("type=secret,id=a,required=false,mode=0400", {"required": False, "mode": 0o400}),
        ("type=ssh,id=a,required=true", {"kind": MountKind.SSH, "id": "a", "required": True}),
        ('type=cache,"target=/a,b"', {"target": "/a,b"}),
        ('type=cache,"target=/a""b"', {"target": '/a"b'}),
        ("TARGET=/x", {"target": "/x"}),
    ],
)
def test_mounts(text: str, expected: dict[str, Any]) -> None:
    found = read(text)
    assert {name: getattr(found, name) for name in expected} == expected


def test_every_key_but_from_takes_variables() -> None:
    found = read("type=$t,target=$d,required=$r,id=a", t="secret", d="/x", r="true")
    assert (found.kind, found.target, found.required) == (MountKind.SECRET, "/x", True)
    assert mounts.raw("from=a$,target=/x").source_stage == "a$"
    with pytest.raises(ParseError, match="'from' doesn't support variable expansion"):
        mounts.raw("from=$a,target=/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("typ=cache", r"unexpected key 'typ' in 'typ=cache' \(did you mean type\?\)"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("type=tmp", r'unsupported mount type "tmp" \(did you mean tmpfs\?\)'),
        ("type=cache,sharing=lock", "unsupported sharing value"),
        ("required,type=secret", "unexpected key 'required' for mount type 'bind'"),
        ("size=1,type=tmpfs", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,size=x", "invalid value for size: x"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("type=secret,id=x,mode=9", "invalid value 9 for mode"),
        ("type=secret,id=x,uid=-1", "invalid value -1 for uid"),
        ("type=secret,id=x,gid=4294967296", "invalid value 4294967296 for gid"),
        ("uid=1", 'uid not allowed for "bind" type mounts'),
        ("type=tmpfs,mode=1", 'mode not allowed for "tmpfs" type mounts'),
        ("type=secret", "one of source, target required"),
        ("type=secret,id=a,src=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=bind,sharing=shared", "invalid cache sharing set for bind mount"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        read(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", '"a', '"a"b', 'a"b'])
def test_fields_that_are_no_csv(text: str) -> None:
    with pytest.raises(ParseError, match="failed to parse csv mounts"):
        mounts.raw(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds", "shown"),
    [
        ("0", 0, "0s"),
        ("1ns", 1, "1ns"),
        ("1.5us", 1500, "1.5µs"),
        ("2µs", 2000, "2µs"),
        ("100ms", 10**8, "100ms"),
        ("30s", 30 * 10**9, "30s"),
        ("1m30s", 90 * 10**9, "1m30s"),
        ("1.5h", 5400 * 10**9, "1h30m0s"),
        ("1h", 3600 * 10**9, "1h0m0s"),
        ("+2.25s", 2_250_000_000, "2.25s"),
        (".5s", 5 * 10**8, "500ms"),
    ],
)
def test_durations(text: str, nanoseconds: int, shown: str) -> None:
    assert notation.duration(text) == nanoseconds
    assert notation.show_duration(nanoseconds) == shown


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *[(text, "invalid") for text in ("", "s", ".s", "- 1s", "1s.", "9" * 30 + "h")],
        *[(text, "missing unit in") for text in ("3", "1s2")],
        ("3x", 'unknown unit "x" in'),
        ("1e3s", 'unknown unit "e" in'),
        ("1mx", 'unknown unit "mx" in'),
    ],
)
def test_what_is_no_duration(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f'time: {problem} duration "{text}"')):
        notation.duration(text)


@given(st.integers(min_value=1, max_value=(1 << 63) - 1))
def test_a_shown_duration_reads_back(nanoseconds: int) -> None:
    assert notation.duration(notation.show_duration(nanoseconds)) == nanoseconds


@given(st.lists(st.text(alphabet='a",= \n'), min_size=1).filter(lambda fields: fields != [""]))
def test_csv_fields_read_back(fields: list[str]) -> None:
    line = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert notation.csv_fields(line) == tuple(fields)


def test_ulimits_and_hosts() -> None:
    assert notation.ulimit("nofile=1024") == Ulimit(name="nofile", soft=1024, hard=1024)
    assert notation.ulimit("nofile=1024:-1") == Ulimit(name="nofile", soft=1024, hard=-1)
    assert notation.host_ip("Db=10.0.0.1") == HostIP(host="db", ip="10.0.0.1")
    assert notation.host_ip("db=[::1]") == HostIP(host="db", ip="::1")


@pytest.mark.parametrize(
    ("read_one", "text"),
    [
        (notation.ulimit, "nofile"),
        (notation.ulimit, "as=1"),
        (notation.ulimit, "cpu=x"),
        (notation.ulimit, "cpu=1:2:3"),
        (notation.ulimit, "cpu=2:1"),
        (notation.ulimit, "cpu=-1:5"),
        (notation.host_ip, "db"),
        (notation.host_ip, "db=nowhere"),
        (notation.boolean, "yes"),
    ],
)
def test_what_is_none(read_one: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_one(text)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("FORM", ["FROM", "RUN"], "FROM"),
        ("RUNN", ["RUN", "FROM"], "RUN"),
        ("tmp", ["tmpfs", "bind"], "tmpfs"),
        ("xyz", ["abc"], None),
        ("abc", ["abc", "abd"], None),
        ("ab", ["abcde"], None),
        ("", ["a"], "a"),
    ],
)
def test_the_nearest_name(name: str, options: list[str], expected: str | None) -> None:
    assert nearest(name, options) == expected


def test_a_suggestion_takes_the_case_of_the_mistake() -> None:
    assert did_you_mean("cpoy", ["COPY"], case_sensitive=False) == " (did you mean copy?)"
    assert did_you_mean("CPOY", ["COPY"], case_sensitive=False) == " (did you mean COPY?)"
