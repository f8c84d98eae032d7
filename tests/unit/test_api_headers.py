"""Header lists of gRPC calls: deadlines, metadata, status."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.api import headers
from buildengine.api.headers import Status
from buildengine.api.rpc import Code

PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)


@given(st.floats(0, 1e9))
def test_a_deadline_is_never_told_longer_than_it_is(seconds: float) -> None:
    text = headers.format_timeout(seconds)
    assert len(text) <= 9
    told = headers.parse_timeout(text.decode())
    assert told <= seconds + 1e-9
    assert told >= seconds * 0.999 - 1e-8


@pytest.mark.parametrize(("text", "seconds"), [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6)])
def test_units_of_deadlines(text: str, seconds: float) -> None:
    assert headers.parse_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "S", "1", "1s", "-1S", "1.5S", "123456789n", "1S\n", "\u0661S"])
def test_what_is_no_deadline(text: str) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        headers.parse_timeout(text)


@given(st.lists(st.one_of(st.tuples(st.just("text"), PRINTABLE), st.tuples(st.just("raw-bin"), st.binary()))))
def test_metadata_survives(metadata: list[tuple[str, str | bytes]]) -> None:
    assert headers.decode_metadata(headers.encode_metadata(tuple(metadata))) == tuple(metadata)


def test_binary_values_may_share_a_header_and_have_their_padding() -> None:
    assert headers.decode_metadata([(b"raw-bin", b"AA==,AQ")]) == (("raw-bin", b"\0"), ("raw-bin", b"\1"))


@pytest.mark.parametrize(
    "metadata",
    [
        ("Upper", "x"),
        ("grpc-status", "0"),
        (":path", "/"),
        ("a b", "x"),
        ("text", "line\n"),
        ("text", "ö"),
        ("text", b"bytes"),
        ("raw-bin", "text"),
    ],
)
def test_metadata_that_cannot_travel_is_our_mistake(metadata: tuple[str, str | bytes]) -> None:
    with pytest.raises(ValueError, match="metadata"):
        headers.encode_metadata((metadata,))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({}, Status(code=Code.INTERNAL, message="the call ended without grpc-status")),
        ({b"grpc-status": b"5", b"grpc-message": b"n%C3%B6"}, Status(code=Code.NOT_FOUND, message="nö")),
        ({b"grpc-status": b"99"}, Status(code=Code.UNKNOWN)),
        ({b"grpc-status": b"\xff"}, Status(code=Code.UNKNOWN)),
        ({b"grpc-status": b"5", b"grpc-status-details-bin": b"!"}, Status(code=Code.NOT_FOUND)),
        ({b"grpc-status": b"5", b"grpc-message": b"%zz%"}, Status(code=Code.NOT_FOUND, message="%zz%")),
        ({b":status": b"503"}, Status(code=Code.UNAVAILABLE, message="the answer has HTTP status 503")),
        ({b":status": b"teapot"}, Status(code=Code.UNKNOWN, message="the answer has HTTP status teapot")),
    ],
)
def test_every_end_of_a_call_has_a_status(answer: dict[bytes, bytes], status: Status) -> None:
    assert headers.parse_trailers(answer.items()) == status


def test_an_answer_that_is_not_grpc_says_so() -> None:
    status = headers.parse_trailers([(b":status", b"200"), (b"content-type", b"text/html")])
    assert status.code == Code.UNKNOWN
    assert "text/html" in status.message
