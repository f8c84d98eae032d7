"""BuildKit's cache config: keys by name, what links them, and the layers of their results. Pure: bytes and values.

    {"layers":  [{"blob": "sha256:...", "parent": -1}],
     "records": [{"digest": "<name>", "inputs": [[{"selector": "...", "link": 0}]],
                  "layers": [{"layer": 0, "createdAt": "..."}],          a layer with all its parents
                  "chains": [{"layers": [0], "createdAt": "..."}]}]}      layers as they are listed

A record is a key, `inputs` have one list of links for each input of its op. In an image's config there are the records
alone, in base64: its layers are the image's, each on the one before.

Whoever wrote a document is not believed: sizes are bounded, indices lead somewhere, nothing goes in circles, and
nothing here recurses or unfolds more than the document has bytes.

Facts: BuildKit cache/remotecache/v1/types/types.go, v1/parse.go (what is refused), v1/utils.go (order).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from buildengine.digest import Digest
from buildengine.units import timestamp
from buildengine.values import dataclass
from worker.exporters.document import INLINE_CACHE
from worker.oci import jsonbytes
from worker.oci.document import Fields, InvalidImage, parse_json

MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0"
LIMIT = 8 << 20  # bytes; BuildKit takes 1 MiB
_MOST_LAYERS = 10_000
_MOST_RECORDS = 50_000
_MOST_LINKS = 200_000
_MOST_OF_ONE = 10_000  # inputs of a record, links of an input, results of a record


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The record number `record`, under this selector."""

    selector: str = ""
    record: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A stack by the numbers of its layers, base first. `top`: its last one, to be taken with all parents, instead."""

    top: int | None = None
    layers: tuple[int, ...] = ()
    created: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A key. `inputs`: for each input the links that lead here, at least one."""

    name: str
    inputs: tuple[tuple[Link, ...], ...] = ()
    results: tuple[Result, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """`parent` is the number of the layer below, -1 for none."""

    blob: Digest
    parent: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """`records` may stand in any order, but none leads to itself; `layers` form trees."""

    layers: tuple[Layer, ...] = ()
    records: tuple[Record, ...] = ()

    def stack(self, result: Result) -> tuple[int, ...]:
        """The layers of a result, base first."""
        if result.top is None:
            return result.layers
        stack, number = [], result.top
        while number >= 0:
            stack.append(number)
            number = self.layers[number].parent
        return tuple(reversed(stack))


# --- reading ----------------------------------------------------------------------------------------------------


def parse(raw: bytes, *, what: str) -> CacheConfig:
    """A config of its own, as cache exporters to registries push it. Raises InvalidImage."""
    fields = Fields.parse(raw, what=what, limit=LIMIT)
    layers = tuple(
        Layer(blob=each.digest("blob"), parent=_index(each, "parent"))
        for each in fields.objects("layers", most=_MOST_LAYERS)
    )
    return _checked(CacheConfig(layers=layers, records=_records(fields)), what)


def parse_inline(config: Mapping[str, Any], layers: Sequence[Digest], *, what: str) -> CacheConfig | None:
    """What an image config with these layers has; None when it has none. Raises InvalidImage."""
    text = config.get(INLINE_CACHE)
    if text is None:
        return None
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b"{}"
    except binascii.Error as error:
        raise InvalidImage(f"{what}: {INLINE_CACHE} is not base64: {error}") from error
    records = parse_json(raw, what=what)
    fields = Fields({"records": records}, what)
    chain = tuple(Layer(blob=blob, parent=number - 1) for number, blob in enumerate(layers))
    return _checked(CacheConfig(layers=chain, records=_records(fields)), what)


def _records(fields: Fields) -> tuple[Record, ...]:
    return tuple(
        Record(
            name=each.text("digest", default="", most=200),
            inputs=_inputs(each),
            results=(
                *[
                    Result(top=_index(result, "layer"), created=_time(result))
                    for result in each.objects("layers", most=_MOST_OF_ONE)
                ],
                *[
                    Result(layers=tuple(result.integers("layers", most=_MOST_LAYERS)), created=_time(result))
                    for result in each.objects("chains", most=_MOST_OF_ONE)
                ],
            ),
        )
        for each in fields.objects("records", most=_MOST_RECORDS)
    )


def _inputs(record: Fields) -> tuple[tuple[Link, ...], ...]:
    inputs = []
    for number, links in enumerate(record.lists("inputs", most=_MOST_OF_ONE)):
        holder = Fields({"links": links}, f"{record.where}.inputs[{number}]")
        inputs.append(
            tuple(
                Link(selector=link.text("selector", default=""), record=_index(link, "link"))
                for link in holder.objects("links", most=_MOST_OF_ONE)
            )
        )
    return tuple(inputs)


def _index(fields: Fields, name: str) -> int:
    """A number that may be -1; Go leaves it out when it is 0."""
    return -1 if fields.document.get(name) == -1 else fields.integer(name, default=0)


def _time(fields: Fields) -> float:
    """Seconds since the epoch; 0 for Go's zero time, and for what is none."""
    try:
        return max(datetime.fromisoformat(fields.text("createdAt", default="")).timestamp(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _checked(config: CacheConfig, what: str) -> CacheConfig:
    """Everything leads somewhere, and nowhere in a circle. Raises InvalidImage, with BuildKit's words."""
    layers, records = config.layers, config.records
    if sum(len(links) for record in records for links in record.inputs) > _MOST_LINKS:
        raise InvalidImage(f"{what} has more than {_MOST_LINKS} links")
    for number, layer in enumerate(layers):
        if not -1 <= layer.parent < len(layers):
            raise InvalidImage(f"{what}: invalid layer index {layer.parent}")
        if layer.parent == number:
            raise InvalidImage(f"{what}: invalid looping layer {number}")
    for number, record in enumerate(records):
        for links in record.inputs:
            if not links:
                raise InvalidImage(f"{what}: invalid empty input for record {number}")
            for link in links:
                if not 0 <= link.record < len(records):
                    raise InvalidImage(f"{what}: invalid record ID: {link.record}")
        for result in record.results:
            for layer_number in (result.top,) if result.top is not None else result.layers:
                if not 0 <= layer_number < len(layers):
                    raise InvalidImage(f"{what}: invalid layer index {layer_number}")
    if in_order([[layer.parent] if layer.parent >= 0 else [] for layer in layers]) is None:
        raise InvalidImage(f"{what}: invalid looping layer")
    if in_order([_below(record) for record in records]) is None:
        raise InvalidImage(f"{what}: invalid looping record")
    return config


def _below(record: Record) -> list[int]:
    return [link.record for links in record.inputs for link in links]


def in_order(below: Sequence[Sequence[int]]) -> list[int] | None:
    """The numbers so that each comes after all that it has `below` it; None when there is a circle."""
    above: list[list[int]] = [[] for _ in below]
    left = [len(each) for each in below]
    for number, each in enumerate(below):
        for one in each:
            above[one].append(number)
    order = [number for number, count in enumerate(left) if not count]
    for number in order:  # grows as it goes
        for one in above[number]:
            left[one] -= 1
            if not left[one]:
                order.append(one)
    return order if len(order) == len(below) else None


# --- writing ----------------------------------------------------------------------------------------------------


def inline_bytes(records: Sequence[Record]) -> bytes:
    """The records for an image's config, whose links lead to earlier ones: a function of what they say, whatever their
    order. Those that neither have a result nor lead to one are left out; b"" when no record has one."""
    merged, origin = _merged(records)
    useful = _leading_to_results(merged)
    order = [number for number in range(len(merged)) if useful[number]]
    order.sort(key=lambda number: (merged[number].name, origin[number]))
    place = {number: position for position, number in enumerate(order)}
    return jsonbytes.compact([_json(merged[number], place) for number in order]) if order else b""


def _merged(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Records that are reached in the same way are one; and for each a digest of how it is reached."""
    merged: list[Record] = []
    ways: list[str] = []
    numbers: dict[str, int] = {}
    renumbered: list[int] = []

    def by_way(link: Link) -> tuple[str, str]:
        return ways[link.record], link.selector

    for record in records:
        inputs = tuple(
            tuple(sorted({replace(link, record=renumbered[link.record]) for link in links}, key=by_way))
            for links in record.inputs
        )
        told = [[(ways[link.record], link.selector) for link in links] for links in inputs]
        way = Digest.sha256(repr((record.name, told)).encode())
        if way not in numbers:
            numbers[way] = len(merged)
            merged.append(replace(record, inputs=inputs))
            ways.append(way)
        elif not merged[numbers[way]].results:
            merged[numbers[way]] = replace(record, inputs=inputs)
        renumbered.append(numbers[way])
    return merged, ways


def _leading_to_results(records: Sequence[Record]) -> list[bool]:
    useful = [bool(record.results) for record in records]
    for number in range(len(records) - 1, -1, -1):
        if useful[number]:
            for one in _below(records[number]):
                useful[one] = True
    return useful


def _json(record: Record, place: Mapping[int, int]) -> dict[str, Any]:
    """In the order of Go's fields; what is empty is left out."""
    made: dict[str, Any] = {}
    plain = [result for result in record.results if result.top is not None]
    if plain:
        made["layers"] = [{"layer": result.top, "createdAt": timestamp(result.created)} for result in plain]
    chains = [result for result in record.results if result.top is None]
    if chains:
        made["chains"] = [{"layers": [*each.layers], "createdAt": timestamp(each.created)} for each in chains]
    made["digest"] = record.name
    if record.inputs:
        made["inputs"] = [_links_json(links, place) for links in record.inputs]
    return made


def _links_json(links: Sequence[Link], place: Mapping[int, int]) -> list[dict[str, Any]]:
    told = sorted((place[link.record], link.selector) for link in links)
    return [{"selector": selector, "link": number} if selector else {"link": number} for number, selector in told]
