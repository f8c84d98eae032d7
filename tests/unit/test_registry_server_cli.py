"""`pybuild registry serve`: flags to values, and the access log."""

from __future__ import annotations

import json
from pathlib import Path

from buildengine.builder import ServedRegistry, ServedRequest
from tests.fakes.builder import FakeBuilder, run_cli

REQUEST = ServedRequest(
    number=7,
    time=1_700_000_000.25,
    remote="127.0.0.1:40000",
    method="PUT",
    target="/v2/app/blobs/uploads/1?digest=x",
    status=201,
    received=5,
    sent=0,
    seconds=0.0123456789,
    agent='evil"\n{"number": 8}',
)


def test_flags_become_values() -> None:
    builder = FakeBuilder()
    ran = run_cli(builder, "registry", "serve")
    assert (ran.status, ran.stdout, ran.stderr) == (0, "", "serving http://127.0.0.1:5000\n")
    run_cli(
        builder,
        *("registry", "serve", "--addr", "[::1]:0", "--read-only", "--tls-cert", "c.pem", "--tls-key", "k.pem"),
        *("--htpasswd", "users"),
    )
    assert builder.registries == [
        ServedRegistry(),
        ServedRegistry(
            address="[::1]:0",
            read_only=True,
            tls_cert=Path("c.pem"),
            tls_key=Path("k.pem"),
            htpasswd=Path("users"),
        ),
    ]


def test_the_access_log_has_one_line_a_request(tmp_path: Path) -> None:
    builder = FakeBuilder(served=[REQUEST, REQUEST])
    log = tmp_path / "log"
    log.write_text("before\n")
    assert run_cli(builder, "registry", "serve", "--access-log", str(log)).status == 0
    lines = log.read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[1]) == {
        "number": 7,
        "time": "2023-11-14T22:13:20.250Z",
        "remote": "127.0.0.1:40000",
        "method": "PUT",
        "path": "/v2/app/blobs/uploads/1?digest=x",
        "status": 201,
        "received": 5,
        "sent": 0,
        "seconds": 0.012346,
        "agent": 'evil"\n{"number": 8}',
        "problem": "",
    }


def test_what_goes_wrong_inside_is_said_on_standard_error() -> None:
    problem = ServedRequest(time=0.0, method="GET", target="/v2/\x1b[31m", problem="the disk is full")
    ran = run_cli(FakeBuilder(served=[problem]), "registry", "serve")
    assert "GET /v2/" in ran.stderr
    assert "the disk is full" in ran.stderr
    assert "\x1b" not in ran.stderr


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    ran = run_cli(FakeBuilder(), "registry", "serve", "--access-log", str(tmp_path / "no" / "log"))
    assert ran.status == 1
    assert "cannot write the access log" in ran.stderr
