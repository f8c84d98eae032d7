"""BuildKit's cache configs: what is read, what is refused, and that the same cache always makes the same bytes."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.digest import Digest
from worker.oci.document import InvalidImage
from worker.remotecache import document
from worker.remotecache.document import CacheConfig, Layer, Link, Record, Result

A, B, C = (Digest.of_hex(two * 32) for two in ("aa", "bb", "cc"))

# Of a build of four steps by buildkitd v0.26.3, with `--export-cache type=registry,mode=max` (names shortened).
OF_BUILDKIT = {
    "layers": [{"blob": C, "parent": 1}, {"blob": B, "parent": 2}, {"blob": A, "parent": -1}],
    "records": [
        {
            "layers": [{"layer": 1, "createdAt": "2026-11-24T17:19:09.951440675Z"}],
            "digest": "sha256:copy",
            "inputs": [[{"link": 3}, {"link": 4}], [{"link": 2}]],
        },
        {
            "layers": [{"layer": 0, "createdAt": "2026-11-24T17:19:10.174639796Z"}],
            "digest": "sha256:run",
            "inputs": [[{"selector": "sha256:8a5e", "link": 0}]],
        },
        {"digest": "sha256:content"},
        {"digest": "sha256:manifest"},
        {"digest": "sha256:chain"},
    ],
}


def parse(value: Any) -> CacheConfig:
    return document.parse(json.dumps(value).encode(), what="cache")


def inline(records: Any, layers: int = 2) -> CacheConfig | None:
    text = base64.b64encode(json.dumps(records).encode()).decode()
    return document.parse_inline({"moby.buildkit.cache.v0": text}, [A, B, C][:layers], what="cache")


def test_what_buildkit_writes() -> None:
    config = parse(OF_BUILDKIT)
    copy, run = config.records[:2]
    assert copy.inputs == ((Link(record=3), Link(record=4)), (Link(record=2),))
    assert [config.stack(result) for result in (*copy.results, *run.results)] == [(2, 1), (2, 1, 0)]
    assert run.inputs == ((Link(selector="sha256:8a5e", record=0),),)
    assert run.results[0].created == pytest.approx(1795540750.174639)
    assert [config.layers[number].blob for number in (2, 1, 0)] == [A, B, C]


def test_go_leaves_out_what_is_zero() -> None:
    config = parse({"layers": [{"blob": A, "parent": -1}, {"blob": B}], "records": None})
    assert config.layers == (Layer(blob=A), Layer(blob=B, parent=0))


def test_the_layers_of_an_image_are_a_chain() -> None:
    chains = [{"layers": [1], "createdAt": "0001-01-01T00:00:00Z"}]
    config = inline([{"digest": "a", "layers": [{"layer": 1}]}, {"digest": "b", "chains": chains}])
    assert config is not None
    assert [config.stack(record.results[0]) for record in config.records] == [(0, 1), (1,)]
    assert config.records[1].results[0].created == 0.0
    assert document.parse_inline({}, [A], what="cache") is None


def links(*numbers: int) -> list[dict[str, int]]:
    return [{"link": number} for number in numbers]


@pytest.mark.parametrize(
    ("records", "said"),
    {
        "a loop of one": ([{"digest": "a", "inputs": [links(0)]}], "invalid looping record"),
        "a loop of two": ([{"inputs": [links(1)]}, {"inputs": [links(0)]}], "invalid looping record"),
        "a link to nothing": ([{"digest": "a", "inputs": [links(1)]}], "invalid record ID: 1"),
        "a negative link": ([{"digest": "a", "inputs": [links(-1)]}], "invalid record ID: -1"),
        "an input without links": ([{"digest": "a", "inputs": [[]]}], "invalid empty input for record 0"),
        "a layer that is not there": ([{"layers": [{"layer": 2}]}], "invalid layer index 2"),
        "a chain through it": ([{"chains": [{"layers": [0, 7]}]}], "invalid layer index 7"),
        "layer -1": ([{"layers": [{"layer": -1}]}], "invalid layer index -1"),
        "a selector of numbers": ([{"inputs": [[{"link": 0, "selector": 1}]]}], "is not a string"),
        "a link of text": ([{"inputs": [[{"link": "0"}]]}], "is not a number"),
        "a huge link": ([{"inputs": [links(1 << 80)]}], "is not between"),
        "inputs that are no lists": ([{"inputs": [{"link": 0}]}], "is not a list"),
        "records that are no list": ({"digest": "a"}, "is not a list"),
        "too many records": ([{}] * 50_001, "more than the 50000 allowed"),
        "too many links": ([{}, *[{"inputs": [links(*[0] * 9_999)]}] * 21], "more than 200000 links"),
    }.values(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(records: Any, said: str) -> None:
    with pytest.raises(InvalidImage, match=said):
        inline(records)


@pytest.mark.parametrize("parents", [[0], [1, 0], [-1, 2, 3, 1], [4], [-2]])
def test_layers_that_lead_nowhere_or_in_circles(parents: list[int]) -> None:
    with pytest.raises(InvalidImage, match=r"invalid (looping layer|layer index)|is not between"):
        parse({"layers": [{"blob": A, "parent": parent} for parent in parents]})


@pytest.mark.parametrize("text", ["*", 7, "eyJh"])
def test_what_is_no_base64_of_json(text: object) -> None:
    with pytest.raises(InvalidImage):
        document.parse_inline({"moby.buildkit.cache.v0": text}, [A], what="cache")


def near(low: int, high: int) -> st.SearchStrategy[int]:
    """A number that leads somewhere, as far as there is any; now and then another one."""
    if low > high:
        return st.integers(-2, 6)
    return st.integers(0, 19).flatmap(lambda odd: st.integers(low, high) if odd else st.integers(-2, 6))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Most are sound: were nearly all refused, nothing would be known of what is taken."""
    layers, records = draw(st.integers(0, 5)), draw(st.integers(0, 6))
    made: dict[str, Any] = {"layers": [], "records": []}
    for number in range(layers):
        made["layers"].append({"blob": draw(st.sampled_from([A, B, C])), "parent": draw(near(-1, number - 1))})
    result = st.fixed_dictionaries({"layer": near(0, layers - 1)}, optional={"createdAt": st.text(max_size=3)})
    chain = st.fixed_dictionaries({"layers": st.lists(near(0, layers - 1), max_size=4)})
    for number in range(records):
        link = st.fixed_dictionaries(
            {"link": near(number + 1, records - 1)}, optional={"selector": st.text(max_size=2)}
        )
        inputs = st.lists(st.lists(link, min_size=1, max_size=3), max_size=3 if number + 1 < records else 0)
        optional = {"layers": st.lists(result, max_size=2), "chains": st.lists(chain, max_size=2)}
        parts = st.fixed_dictionaries({"digest": st.text(max_size=3), "inputs": inputs}, optional=optional)
        made["records"].append(draw(parts))
    return made


@given(documents())
def test_what_is_taken_leads_somewhere(value: Any) -> None:
    """Whatever it says: it is refused, or every walk through it ends."""
    try:
        config = parse(value)
    except InvalidImage:
        return
    for record in config.records:
        for result in record.results:
            assert all(0 <= number < len(config.layers) for number in config.stack(result))
    order = document.in_order([[link.record for each in record.inputs for link in each] for record in config.records])
    assert order is not None
    assert sorted(order) == [*range(len(config.records))]


@given(st.binary(max_size=60) | st.text('[]{}",:0-', max_size=60).map(str.encode))
def test_bytes_of_any_kind(raw: bytes) -> None:
    for read in (
        lambda: document.parse(raw, what="cache"),
        lambda: inline_of(raw),
    ):
        try:
            read()
        except InvalidImage:
            pass


def inline_of(raw: bytes) -> CacheConfig | None:
    text = base64.b64encode(raw).decode()
    return document.parse_inline({"moby.buildkit.cache.v0": text}, [A], what="cache")


def test_a_deep_chain_of_records() -> None:
    records = [{"digest": "a"}, *[{"digest": "a", "inputs": [links(number)]} for number in range(40_000)]]
    config = inline(records)
    assert config is not None
    assert len(config.records) == 40_001


# --- writing


RECORDS = (
    Record(name="base"),
    Record(name="copy", inputs=((Link(record=0),),), results=(Result(top=0, created=1.5),)),
    Record(name="content"),
    Record(name="run", inputs=((Link(record=1),), (Link(record=2), Link(record=0, selector="s"))), results=()),
    Record(name="merge", inputs=((Link(record=3),),), results=(Result(layers=(1, 0), created=2.0),)),
    Record(name="nothing follows", inputs=((Link(record=3),),)),
)


def test_the_form() -> None:
    assert json.loads(document.inline_bytes(RECORDS)) == [
        {"digest": "base"},
        {"digest": "content"},
        {"layers": [{"layer": 0, "createdAt": "1970-01-01T00:00:01.5Z"}], "digest": "copy", "inputs": [[{"link": 0}]]},
        {
            "chains": [{"layers": [1, 0], "createdAt": "1970-01-01T00:00:02Z"}],
            "digest": "merge",
            "inputs": [[{"link": 4}]],
        },
        {"digest": "run", "inputs": [[{"link": 2}], [{"selector": "s", "link": 0}, {"link": 1}]]},
    ]
    assert document.inline_bytes(RECORDS[:1]) == b""


@given(st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(chance: random.Random) -> None:
    """The same graph, numbered otherwise, with records twice: the same bytes, and they are read back."""
    order: list[int] = []
    while len(order) < len(RECORDS):
        ready = [
            number
            for number, record in enumerate(RECORDS)
            if number not in order and all(link.record in order for each in record.inputs for link in each)
        ]
        order.append(chance.choice(ready))
    place = {number: position for position, number in enumerate(order)}
    shuffled = [
        Record(
            name=RECORDS[number].name,
            inputs=tuple(
                tuple(
                    Link(selector=link.selector, record=place[link.record]) for link in chance.sample(each, len(each))
                )
                for each in RECORDS[number].inputs
            ),
            results=RECORDS[number].results,
        )
        for number in order
    ]
    raw = document.inline_bytes([*shuffled, *[record for record in shuffled if not record.inputs]])
    assert raw == document.inline_bytes(RECORDS)
    read = inline(json.loads(raw))
    assert read is not None
    assert document.inline_bytes(_in_order(read)) == raw


def _in_order(config: CacheConfig) -> list[Record]:
    order = document.in_order([[link.record for each in record.inputs for link in each] for record in config.records])
    assert order is not None
    place = {number: position for position, number in enumerate(order)}
    return [
        Record(
            name=config.records[number].name,
            inputs=tuple(
                tuple(Link(selector=link.selector, record=place[link.record]) for link in each)
                for each in config.records[number].inputs
            ),
            results=config.records[number].results,
        )
        for number in order
    ]
