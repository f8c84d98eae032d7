"""`pybuild history`: what a daemon remembers, asked of it and read beside it, in buildx's shapes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Built, Store, write
from tests.fakes.daemon import daemon
from tests.fakes.remote_command import Remote, remote

pytest_plugins = [FIXTURES]

FAILING = "FROM base\nRUN echo one; echo two; exit 3\n"
Run = Callable[..., Built]


@pytest.fixture(scope="module")
def sides(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Remote, Store]]:
    """A daemon that has built twice, and its state directory."""
    place = tmp_path_factory.mktemp("history")
    store = store_with_base.copy(place / "root")
    good = write(place / "good", {"sub/Dockerfile": "FROM base AS it\nARG A\nRUN echo said $A\n"})
    bad = write(place / "bad", {"Dockerfile": FAILING})
    with daemon(store.root, place) as running:
        there = remote(running, store)
        options = ("--build-arg", "A=1", "--label", "one=1", "--target", "it", "--add-host", "h:10.0.0.1")
        there.run("build", good, "-f", good / "sub/Dockerfile", *options)
        there.run("build", bad, status=1)
        yield there, store


@pytest.fixture(params=["there", "here"])
def run(request: pytest.FixtureRequest, sides: tuple[Remote, Store]) -> Run:
    there, here = sides
    return there.run if request.param == "there" else here.command


def listed(run: Run, *flags: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in run("history", "ls", "--format", "json", *flags).stdout.splitlines()]


def test_list(run: Run) -> None:
    lines = run("history", "ls").stdout.splitlines()
    assert lines[0].split("  ")[0] == "BUILD ID"
    assert re.fullmatch(r"BUILD ID +NAME +STATUS +CREATED AT +DURATION", lines[0])
    assert [re.split(r"  +", line)[-3] for line in lines[1:]] == ["Error", "Completed"]
    failed, good = listed(run)
    assert (failed["status"], failed["name"], good["name"]) == ("Error", "", "it")
    assert set(good) == {
        "ref", "name", "status", "created_at", "completed_at", "total_steps", "completed_steps", "cached_steps",
    }  # fmt: skip
    assert run("history", "ls", "--format", "{{.FullRef}} {{.Status}}").stdout.splitlines()[0] == (
        f"{failed['ref']} Error"
    )


def test_filters(run: Run) -> None:
    assert [record["status"] for record in listed(run, "--filter", "status=completed")] == ["Completed"]
    assert len(listed(run, "--filter", "startedAt>=24h", "--filter", "status!=completed")) == 1
    assert listed(run, "--filter", "completedAt<=24h") == []
    assert "unsupported filter" in run("history", "ls", "--filter", "color=red", status=1).error
    assert "compared with = and !=" in run("history", "ls", "--filter", "status>=completed", status=1).error


def test_inspect_one_that_succeeded(run: Run) -> None:
    shown = run("history", "inspect", "^1").stdout
    assert re.search(r"^Name:\t+it\nDockerfile:\t+Dockerfile\nTarget:\t+it\n", shown)
    assert re.search(
        r"\nStarted:\t+20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\nDuration:\t+\d+\.\ds\nBuild Steps:\t+\d/\d \(", shown
    )
    assert "\nExtra Hosts:\th=10.0.0.1\n" in shown
    assert "\nBUILD ARG\tVALUE\nA\t\t1\n\nLABEL\tVALUE\none\t1\n\n" in shown
    document = json.loads(run("history", "inspect", "--format", "json", "^1").stdout)
    assert (document["Status"], document["Labels"]) == ("completed", [{"Name": "one", "Value": "1"}])
    assert document["Duration"] > 0
    assert "Error" not in document
    assert run("history", "inspect", "^1", "--format", "{{.Ref}}: {{json .Labels}}").stdout.startswith(document["Ref"])


def test_inspect_one_that_failed(run: Run) -> None:
    shown = run("history", "inspect").stdout
    assert shown.startswith("Ref:\t")
    assert "Dockerfile:2\n" in shown
    assert "   2 | >>> RUN echo one; echo two; exit 3\n" in shown
    assert "\nLogs:\n> => [2/2] RUN echo one; echo two; exit 3:\n> one\n> two\n" in shown
    error = json.loads(run("history", "inspect", "--format", "json", "^0").stdout)["Error"]
    assert error["Logs"] == ["one", "two"]
    assert b">>> RUN" in base64.b64decode(error["Sources"])


def test_logs(run: Run) -> None:
    plain = run("history", "logs", "^1").error
    assert re.search(r"#\d+ \S+ said 1\n", plain)
    told = run("history", "logs", "--progress", "rawjson")
    assert told.step("RUN echo one").outcome == "failed"
    assert told.step("RUN echo one").output == "one\ntwo\n"


def test_what_there_is_not(run: Run) -> None:
    assert "no record found for ref 'nothing'" in run("history", "inspect", "nothing", status=1).error
    assert "no build found with offset 7" in run("history", "logs", "^7", status=1).error
    assert "nothing" in run("history", "rm", "nothing", status=1).error
    assert "either --all or at least one REF" in run("history", "rm", status=2).error


def test_forget(store_with_base: Store, tmp_path: Path) -> None:
    """Also beside the daemon, which sees at once that they have gone; their logs go with them."""
    store = store_with_base.copy(tmp_path / "root")
    assert store.command("history", "ls").stdout.count("\n") == 1
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\n"})
    with daemon(store.root, tmp_path / "d") as running:
        there = remote(running, store)
        for _ in range(4):
            there.run("build", context)
        refs = [str(record["ref"]) for record in listed(there.run)]
        there.run("history", "rm", refs[3])
        store.command("history", "rm", "^0", "^1")
        assert [record["ref"] for record in listed(there.run)] == [refs[2]]
        there.run("history", "rm", "--all")
        assert listed(there.run) == []
    assert list((store.root / "history").iterdir()) == []
    assert store.command("build", context).status == 0
    assert listed(store.command) == []  # without a daemon a build leaves no record


def test_where_nobody_has_built(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", tmp_path)
    assert store.command("history", "ls").stdout.count("\n") == 1
    assert "no records found" in store.command("history", "logs", status=1).error
    assert store.command("du").status == 0


def test_a_running_build(store_with_base: Store, tmp_path: Path) -> None:
    store = store_with_base.copy(tmp_path / "root")
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN echo up; sleep 1000\n"})
    with daemon(store.root, tmp_path / "d") as running:
        there = remote(running, store)
        with there.start("build", context) as command:
            command.until_output("up")
            (record,) = listed(there.run)
            assert record["status"] == "Running"
            assert "+" in there.run("history", "ls").stdout.splitlines()[1]
            assert " (running)" in there.run("history", "inspect").stdout
            with there.start("history", "logs", "--progress", "rawjson") as logs:
                logs.until_output("up")
            command.process.terminate()
            command.wait(status=130)
        assert "Status:\t\tCanceled" in there.run("history", "inspect").stdout
