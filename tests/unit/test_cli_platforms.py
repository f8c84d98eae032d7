"""`pybuild debug platforms`."""

from __future__ import annotations

import json

from buildengine.builder import RunnablePlatform
from buildengine.platform import parse
from tests.fakes.builder import FakeBuilder, run_cli

BUILDER = FakeBuilder(
    runnable=(
        RunnablePlatform(platform=parse("linux/amd64"), how="native"),
        RunnablePlatform(platform=parse("linux/arm/v7"), reason="there is no emulator", hint="install one"),
        RunnablePlatform(platform=parse("linux/s390x"), reason="there is no emulator", hint="install one"),
    )
)


def test_a_table_with_each_hint_once() -> None:
    ran = run_cli(BUILDER, "debug", "platforms")
    assert ran.status == 0
    assert ran.stdout.splitlines() == [
        "PLATFORM       HOW",
        "linux/amd64    native",
        "linux/arm/v7   not runnable",
        "linux/s390x    not runnable",
        "hint: install one",
    ]


def test_json_has_the_reasons() -> None:
    ran = run_cli(BUILDER, "debug", "platforms", "--json")
    assert [json.loads(line) for line in ran.stdout.splitlines()][:2] == [
        {"platform": "linux/amd64", "runs": True, "how": "native"},
        {
            "platform": "linux/arm/v7",
            "runs": False,
            "how": "not runnable",
            "reason": "there is no emulator",
            "hint": "install one",
        },
    ]
