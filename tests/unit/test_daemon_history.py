"""Records of builds: as messages and back, and which ones a filter selects."""

from __future__ import annotations

import pytest

from buildengine import filters
from buildengine.api import records, statusbytes
from buildengine.api.rpc import Code, Detail, RpcError
from buildengine.builder import Export
from buildengine.daemon import historyfilters
from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.history import Blob, BuildRecord, Failure, Happening, HistoryEvent, ResultInfo, Steps

NOW = 1_000_000.0


def blob(text: bytes) -> Blob:
    return Blob(media_type="text/plain", digest=Digest.sha256(text), size=len(text), annotations={"a": "b"})


WHOLE = BuildRecord(
    ref="r",
    frontend="dockerfile.v0",
    options={"target": "x"},
    exports=(Export(type="oci", attrs={"name": "app"}),),
    created=NOW - 60,
    completed=NOW - 30,
    failure=Failure(code=2, message="no", blob=blob(b"error")),
    response={"containerimage.digest": "sha256:1"},
    result=ResultInfo(results={1: blob(b"index")}, attestations=(blob(b"provenance"),)),
    results={"linux/amd64": ResultInfo(attestations=(blob(b"other"),))},
    logs=blob(b"logs"),
    trace=blob(b"trace"),
    steps=Steps(total=4, completed=3, cached=2, warnings=1),
    pinned=True,
    generation=5,
)


@pytest.mark.parametrize("record", [WHOLE, BuildRecord(ref="r", created=1.5)])
def test_there_and_back(record: BuildRecord) -> None:
    assert records.decode(records.encode(record)) == record


def test_the_documents_of_a_record() -> None:
    """What is deleted with it; an image that it gave belongs to the image store."""
    names = {b"logs", b"trace", b"error", b"provenance", b"other"}
    assert {each.digest for each in WHOLE.blobs()} == {Digest.sha256(name) for name in names}


def test_older_clients_find_a_result_in_its_old_place() -> None:
    message = records.record_message(WHOLE)
    assert message.Result.ResultDeprecated.digest == message.Result.Results[1].digest


def test_of_what_is_deleted_only_the_ref_is_told() -> None:
    message = records.event_message(HistoryEvent(happening=Happening.DELETED, record=WHOLE))
    assert (message.record.Ref, message.record.ByteSize()) == ("r", len(b"r") + 2)


def test_all_of_an_error_is_kept() -> None:
    from google.rpc.status_pb2 import Status

    error = RpcError(Code.NOT_FOUND, "gone", (Detail(type_url="t", value=b"v"),))
    status = Status.FromString(statusbytes.encode(error))
    assert (status.code, status.message, status.details[0].type_url, status.details[0].value) == (5, "gone", "t", b"v")


@pytest.mark.parametrize(
    ("texts", "selected"),
    [
        ([], True),
        (["ref==r"], True),
        (["ref==s"], False),
        (["ref==s", "ref==r"], True),
        (["ref==r,status==completed"], False),
        (["status==error"], True),
        (["repository==https://example.com/a.git"], True),
        (["repository"], True),
        (["colour"], False),
        (["startedAt>=2m"], True),
        (["startedAt>=45s"], False),
        (["completedAt<1970-01-13T00:00:00Z"], True),
        (["duration>29s,duration<31s"], True),
        (["duration>=31s"], False),
        (['ref=="r",startedAt>=2m'], True),
    ],
)
def test_filters(texts: list[str], selected: bool) -> None:
    from dataclasses import replace

    record = replace(WHOLE, options={"context": "https://example.com/a.git#main"})
    assert historyfilters.parse(texts, now=NOW)(record) is selected


@pytest.mark.parametrize("text", ["startedAt>=soon", "duration<x", "ref==", "status~=["])
def test_wrong_filters(text: str) -> None:
    with pytest.raises(UserError):
        historyfilters.parse([text], now=NOW)


@pytest.mark.parametrize(
    ("failure", "completed", "status"),
    [
        (None, None, "running"),
        (None, 2.0, "completed"),
        (Failure(code=2, message="exit code: 1"), 2.0, "error"),
        (Failure(code=1, message="context canceled"), 2.0, "canceled"),
    ],
)
def test_how_a_build_stands(failure: Failure | None, completed: float | None, status: str) -> None:
    assert historyfilters.status(BuildRecord(ref="r", created=1.0, completed=completed, failure=failure)) == status


LABELS = {("id",): "abc", ("labels", "a.b"): "x y", ("labels", "empty"): ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("id==abc", True),
        ("id", True),
        ("name", False),
        ("name!=abc", True),
        ("id!=abc", False),
        ("id~=^a.c$", True),
        ("id~=/b/", True),
        ("id~=|z|", False),
        ('labels."a.b"=="x y"', True),
        ('labels."a.b"=="x\\x20y"', True),
        ("labels.empty", True),
        ("labels.empty==", None),
        ("id==abc,labels.empty", True),
        ("id==abc,name", False),
        ("", True),
        ("id==abc extra", None),
        ("==abc", None),
    ],
)
def test_containerds_language(text: str, selected: bool | None) -> None:
    """None: refused."""
    if selected is None:
        with pytest.raises(UserError):
            filters.parse([text])
    else:
        assert filters.parse([text])(LABELS.get) is selected
