"""Names of archives as paths: where they lead, how long they may be, which of them are whiteouts."""

from __future__ import annotations

import pytest

from buildengine.errors import SourceError
from worker.layers.names import is_bookkeeping, parts_of, whiteout_target


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"a/b", (b"a", b"b")),
        (b"./a//b/", (b"a", b"b")),
        (b"/a/../b", (b"b",)),
        (b"a/..", ()),
        (b"n" * 255, (b"n" * 255,)),
        (b".wh." + b"n" * 255, (b".wh." + b"n" * 255,)),
        (b"/".join([b"d" * 255] * 16), (b"d" * 255,) * 16),
    ],
)
def test_where_a_name_leads(name: bytes, parts: tuple[bytes, ...]) -> None:
    assert parts_of(name) == parts


@pytest.mark.parametrize("name", [b"..", b"../a", b"a/../../b", b"/.."])
def test_a_name_that_leads_out(name: bytes) -> None:
    with pytest.raises(SourceError, match="outside its root"):
        parts_of(name)


@pytest.mark.parametrize(
    "name", [b"n" * 256, b".wh." + b"n" * 256, b"a/" + b"n" * 256 + b"/b", b"/".join([b"d" * 255] * 16) + b"/x"]
)
def test_a_name_that_no_file_can_have(name: bytes) -> None:
    with pytest.raises(SourceError, match="too long"):
        parts_of(name)


def test_what_a_whiteout_deletes() -> None:
    assert whiteout_target(b".wh.a") == b"a"
    assert whiteout_target(b".wh..a") == b".a"
    for base in (b".wh.", b".wh..", b".wh..."):
        with pytest.raises(SourceError, match="whiteout"):
            whiteout_target(base)


def test_what_belongs_to_aufs() -> None:
    assert is_bookkeeping((b".wh..wh.plnk", b"x"))
    assert is_bookkeeping((b"d", b".wh..wh.aufs"))
    assert not is_bookkeeping((b"d", b".wh..wh..opq"))
    assert not is_bookkeeping((b"d", b".wh.a"))
    with pytest.raises(SourceError, match="below a whiteout"):
        is_bookkeeping((b".wh.d", b"x"))
