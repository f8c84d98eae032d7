"""Errors as statuses: what BuildKit's clients read in them, and that ours raise what the daemon raised."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from buildengine import errors
from buildengine.api import status
from buildengine.api.rpc import Code, Detail, RpcError
from buildengine.errors import BuildError, ExecFailed, Location, SolveError, SourceRange, UserError
from llb.sourcemap import SourceFile
from llb.sources import local

PLACE = Location(filename="Dockerfile", text=b"FROM a\nRUN b\n", ranges=(SourceRange(start_line=2, end_line=2),))


def told(error: RpcError) -> dict[str, Any]:
    return {detail.type_url: json.loads(detail.value) for detail in error.details}


def test_a_failed_step_tells_its_vertex_lines_and_exit_code() -> None:
    failed = ExecFailed("process did not complete: exit code: 7", exit_code=7, output=b"oops")
    sent = status.to_rpc(SolveError((failed.located(PLACE, vertex="sha256:abc"),)))
    details = told(sent)
    assert sent.code is Code.UNKNOWN
    assert sent.message == "process did not complete: exit code: 7"
    assert details["github.com/moby/buildkit/errdefs.Vertex+json"] == {"digest": "sha256:abc"}
    assert details["github.com/moby/buildkit/gatewayapi.ExitMessage+json"] == {"Code": 7}
    source = details["github.com/moby/buildkit/errdefs.Source+json"]
    assert source == {
        "info": {"filename": "Dockerfile", "data": base64.b64encode(PLACE.text).decode()},
        "ranges": [{"start": {"line": 2, "character": 0}, "end": {"line": 2, "character": 0}}],
    }


def every_error() -> list[BuildError]:
    plain = [
        kind("it is wrong", hint="try this")
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, BuildError)
        and kind not in (ExecFailed, SolveError, errors.ContextChanged)
    ]
    step = ExecFailed("failed", argv=("sh", "-c", "x"), exit_code=3, signal=9, output=b"\xff\n", hint="h")
    registry = errors.RegistryError("denied", status=403, code="DENIED")
    return [*plain, step, registry, SolveError((step.located(PLACE, vertex="sha256:1"), UserError("other")))]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_a_client_raises_what_the_daemon_raised(error: BuildError) -> None:
    again = status.from_rpc(status.to_rpc(error))
    assert type(again) is type(error)
    assert vars(again).keys() == vars(error).keys()
    for name, value in vars(error).items():
        if name == "failures":
            assert [vars(f) for f in vars(again)[name]] == [vars(f) for f in value]
        else:
            assert vars(again)[name] == value
    assert again.exit_status == error.exit_status


def test_an_error_of_a_foreign_daemon_has_its_message_and_lines() -> None:
    source = json.dumps({"info": {"filename": "Dockerfile", "data": "RlJPTSBh"}, "ranges": [{"start": {"line": 1}}]})
    again = status.from_rpc(
        RpcError(Code.NOT_FOUND, "no such image", (Detail(type_url=status.SOURCE, value=source.encode()),))
    )
    assert type(again) is BuildError
    assert (again.message, again.locations[0].filename, again.locations[0].text) == (
        "no such image",
        "Dockerfile",
        b"FROM a",
    )


def test_a_missing_path_is_told_in_the_words_of_buildkit_and_raised_in_ours() -> None:
    missing = errors.MissingPath("'/a': not found", path="/a", hint="check the spelling").located(
        PLACE, vertex="sha256:1"
    )
    sent = status.to_rpc(SolveError((missing,)))
    assert sent.message == (
        'failed to compute cache key: failed to calculate checksum of ref sha256:1: "/a": not found'
    )
    again = status.from_rpc(sent)
    assert isinstance(again, SolveError)
    assert (again.message, again.hint) == ("'/a': not found", "check the spelling")


def test_what_a_registry_does_not_have_is_not_found() -> None:
    missing = errors.RegistryError("host/app:1: manifest unknown", status=404, code="MANIFEST_UNKNOWN")
    sent = status.to_rpc(missing)
    assert sent.message == "host/app:1: manifest unknown: not found"
    assert status.from_rpc(sent).message == missing.message


def test_where_it_was_raised_is_told_as_a_stack_of_go() -> None:
    assert status.STACK not in told(status.to_rpc(UserError("never raised")))
    with pytest.raises(UserError) as caught:
        raise UserError("raised")
    stack = told(status.to_rpc(caught.value))["github.com/moby/buildkit/stack.Stack+json"]
    frame = stack["frames"][0]
    assert (frame["Name"], frame["File"]) == ("test_where_it_was_raised_is_told_as_a_stack_of_go", __file__)
    assert frame["Line"] > 0


def test_a_source_has_its_language_and_what_it_was_read_from() -> None:
    origin = local("dockerfile").marshal().to_bytes()
    file = SourceFile(filename="Dockerfile", data=b"x", language="Dockerfile", definition=origin)
    sent = status.to_rpc(UserError("no").located(file.at(SourceRange(start_line=1, end_line=1)).location))
    info = told(sent)[status.SOURCE]["info"]
    assert info["language"] == "Dockerfile"
    assert len(info["definition"]["def"]) == 2
    assert base64.b64decode(info["definition"]["def"][0])


def test_what_a_frontend_does_not_know_is_typed() -> None:
    request = status.to_rpc(errors.Unsupported("unsupported request x", request="x"))
    assert (request.code, told(request)[status.SUBREQUEST]) == (Code.UNIMPLEMENTED, {"name": "x"})
    capability = status.to_rpc(errors.Unsupported("unsupported frontend capability y", capability="y"))
    assert (capability.code, told(capability)[status.FRONTEND_CAP]) == (Code.UNIMPLEMENTED, {"name": "y"})


def test_a_bug_is_an_internal_error() -> None:
    sent = status.to_rpc(ZeroDivisionError("division by zero"))
    assert (sent.code, sent.message) == (Code.INTERNAL, "ZeroDivisionError: division by zero")


def test_what_is_a_status_already_stays_one() -> None:
    sent = status.to_rpc(RpcError(Code.UNIMPLEMENTED, "no"), status.detail(status.FRONTEND_CAP, {"name": "x"}))
    assert (sent.code, told(sent)) == (Code.UNIMPLEMENTED, {status.FRONTEND_CAP: {"name": "x"}})
