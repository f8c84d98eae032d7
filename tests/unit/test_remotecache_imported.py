"""An imported cache as the solver asks it: names and numbers, and what of a document can be had."""

from __future__ import annotations

from pathlib import Path

from buildengine.digest import Digest
from cache.layers import RemoteBlob
from cache.opened import Cache, open_cache
from solver import cachekey
from solver.vertex import InputKeys
from worker.remotecache.document import CacheConfig, Layer, Link, Record, Result
from worker.remotecache.imported import ImportedCache, ImportedConfig, ImportedLayer, KeyIndex

BASE, OP = Digest.sha256(b"base"), Digest.sha256(b"op")
CONTENT = cachekey.content_key(Digest.sha256(b"content"))
ROOT = cachekey.root_key(BASE, 0)


def layer(text: str) -> ImportedLayer:
    blob = RemoteBlob(digest=Digest.sha256(text.encode()), size=1, media_type="x", origins=("r.example/a",))
    return ImportedLayer(diff_id=Digest.sha256(b"diff " + text.encode()), blob=blob, created=7.0, description=text)


def config(*records: Record, layers: tuple[ImportedLayer | None, ...] = (layer("one"), layer("two"))) -> ImportedConfig:
    stack = tuple(Layer(blob=Digest.sha256(b""), parent=number - 1) for number in range(len(layers)))
    return ImportedConfig(config=CacheConfig(layers=stack, records=records), layers=layers)


def over(link: Link, *results: Result) -> tuple[Record, Record, Record]:
    """Two beginnings and an op over one of them."""
    name = str(cachekey.name_of(cachekey.root_key(OP, 0)))
    return (
        Record(name=str(cachekey.name_of(ROOT))),
        Record(name=str(cachekey.name_of(CONTENT))),
        Record(name=name, inputs=((link,),), results=results),
    )


def imported(cache: Cache, *configs: ImportedConfig) -> ImportedCache:
    made = ImportedCache(cache.layers)
    made.fill(KeyIndex(configs))
    return made


def keys(*names: str, selector: str = "") -> InputKeys:
    return InputKeys(selector=selector, keys=names)


async def test_selectors_count_and_content_has_none(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        one = imported(cache, config(*over(Link(record=0, selector=cachekey.selector_name("/a")))))
        assert len(one.targets(OP, 0, 0, keys(ROOT, selector="/a"))) == 1
        assert not one.targets(OP, 0, 0, keys(ROOT, selector="/b"))
        assert not one.targets(OP, 1, 0, keys(ROOT, selector="/a"))
        assert not one.targets(OP, 0, 1, keys(ROOT, selector="/a"))
        two = imported(cache, config(*over(Link(record=1))))
        (target,) = two.targets(OP, 0, 0, keys(CONTENT, selector="/anywhere"))
        assert two.contents(target, 0) == {cachekey.name_of(CONTENT)}


async def test_keys_of_another_import_mean_nothing(tmp_path: Path) -> None:
    """Two builds that share a step may have imported one reference at different times."""
    async with open_cache(tmp_path) as cache:
        same = config(*over(Link(record=0), Result(top=0)))
        one, two = imported(cache, same), imported(cache, same)
        (target,) = one.targets(OP, 0, 0, keys(ROOT))
        assert len(one.records(target)) == 1
        assert two.records(target) == ()
        assert two.targets(OP, 0, 0, keys(target)) == frozenset()
        assert {target} != two.targets(OP, 0, 0, keys(ROOT))


async def test_results_newest_first_of_layers_that_there_are(tmp_path: Path) -> None:
    results = (Result(top=0, created=1.0), Result(top=1, created=3.0), Result(layers=(1,), created=2.0))
    async with open_cache(tmp_path) as cache:
        records = over(Link(record=0), *results)
        whole, torn = config(*records), config(*records, layers=(layer("one"), None))
        both = imported(cache, whole, torn)
        found = [record for target in sorted(both.targets(OP, 0, 0, keys(ROOT))) for record in both.records(target)]
        assert [record.created for record in found] == [3.0, 2.0, 1.0, 1.0]
        assert len({record.id for record in found}) == 4


async def test_a_result_is_lazy_layers(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        one = imported(cache, config(*over(Link(record=0), Result(top=1, created=5.0))))
        (target,) = one.targets(OP, 0, 0, keys(ROOT))
        (record,) = one.records(target)
        snapshot = await one.load(record)
        assert snapshot is not None
        found = cache.layers.of(snapshot.stack)
        assert [(each.filled, each.created, each.description) for each in found] == [
            (False, 7.0, "one"),
            (False, 7.0, "two"),
        ]
        again = await one.load(record)
        assert again is not None
        assert again.stack == snapshot.stack
        for each in (snapshot, again):
            each.release()


async def test_an_empty_one_knows_nothing(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        empty = imported(cache)
        await empty.ready()
        assert empty.targets(OP, 0, 0, keys(ROOT, CONTENT)) == frozenset()
        assert empty.records(ROOT) == ()
