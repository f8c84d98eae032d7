"""The linter's table: the files of BuildKit's tests of each rule, and what is found in them, as `RULE LINE: message`.

Each is asked of the frontend as `--check` does, and of `pybuild lint`, which knows no base image and so cannot tell
which variables are undefined in what is based on one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from frontends.dockerfile import alone, ignore
from frontends.dockerfile.lines import SourceFile
from tests.fakes.gateway import build, image_config

CASES: list[Mapping[str, Any]] = json.loads((Path(__file__).parents[1] / "golden/lint_findings.json").read_bytes())
IMAGES = {
    f"docker.io/library/{name}:{tag}": image_config()
    for name, tag in (("alpine", "latest"), ("busybox", "latest"), ("busybox", "stable"), ("busybox", "stable-musl"))
}


def _ids(case: Mapping[str, Any]) -> str:
    return str(case["file"].strip()[:40])


@pytest.mark.parametrize("case", CASES, ids=_ids)
async def test_findings(case: Mapping[str, Any]) -> None:
    arguments = {f"build-arg:{name}": value for name, value in case.get("arguments", {}).items()}
    ignored = case.get("ignored", "").encode()
    options = {"requestid": "frontend.lint", **arguments}
    built = await build(case["file"], options, images=IMAGES, files={".dockerignore": ignored})
    answer = json.loads(built.result.metadata["result.json"])
    assert _told(answer["warnings"] or ()) == case["found"]

    source = SourceFile(filename="Dockerfile", data=case["file"].encode())
    checked = alone.check(source, arguments, ignore.read(SourceFile(filename=".dockerignore", data=ignored)))
    found = [f"{each.rule} {each.location.ranges[0].start_line}: {each.message}" for each in checked.findings]
    assert set(found) <= set(case["found"])
    assert all(each.startswith("UndefinedVar ") for each in set(case["found"]) - set(found))


def _told(warnings: Any) -> list[str]:
    found = [(each["location"]["ranges"][0]["start"]["line"], each["ruleName"], each["detail"]) for each in warnings]
    return [f"{rule} {line}: {message}" for line, rule, message in sorted(found)]
