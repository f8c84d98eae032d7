"""`docker buildx build --call`: what both daemons answer of each file of `questions`, byte for byte.

In the JSON of a check the definition that the file was read with names the session, so a digest of it is another each
time; what is there besides must be the same, and in the same order.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from llb.pb import ops_pb2
from tests.conformance.sides import Side, Sides

FILES = Path(__file__).parent / "questions"
NAMES = sorted(path.name.removesuffix(".Dockerfile") for path in FILES.iterdir() if path.suffix == ".Dockerfile")
FLAGS = {
    "contexts": ("--build-arg", "MINE=given", "--build-context", "other=docker-image://base"),
    "described": ("--build-arg", "MODE=slow", "--target", "build"),
    "platforms": ("--platform", "linux/arm64"),
}


@pytest.mark.parametrize("form", ["", ",format=json"], ids=["text", "json"])
@pytest.mark.parametrize("question", ["check", "outline", "targets"])
@pytest.mark.parametrize("name", NAMES)
def test_answers(name: str, question: str, form: str, sides: Sides) -> None:
    ours, theirs = (ask(side, name, question + form) for side in sides)
    assert ours == theirs


def test_checks_of_bake(sides: Sides, tmp_path: Path) -> None:
    """Of two targets, one upon the other."""
    (tmp_path / "docker-bake.json").write_text(json.dumps(_BAKE))
    file = tmp_path / "docker-bake.json"
    for flags in (("--call=check",), ("--call=outline",), ("--call=targets",), ("--check",)):
        ours, theirs = (side.buildx.run("bake", "-f", file, *flags, "one", "two") for side in sides)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


_BAKE: Any = {
    "target": {
        "one": {"dockerfile-inline": "FROM base AS a\n# WORD is said\nARG WORD=x\nRUN echo $WORD\n"},
        "two": {"dockerfile-inline": "FROM one AS Over\nCMD echo x\n", "contexts": {"one": "target:one"}},
    }
}


def ask(side: Side, name: str, call: str) -> tuple[int, str]:
    """The status, and standard output."""
    path = FILES / f"{name}.Dockerfile"
    done = side.buildx.run("build", f"--call={call}", "-f", path, *FLAGS.get(name, ()), FILES)
    return done.returncode, without_session(done.stdout.decode())


def without_session(said: str) -> str:
    """An answer in JSON with nothing in it that is another each time."""
    if not said.startswith("{"):
        return said
    document, end = json.JSONDecoder(object_pairs_hook=_Pairs).raw_decode(said)
    return json.dumps(_alike(document), indent=2) + said[end:]


class _Pairs(list[tuple[str, Any]]):
    """An object, with the order of its fields."""


def _alike(value: Any, key: str = "") -> Any:
    match value:
        case _Pairs():
            fields = [(re.sub(r"^sha256:.*", "DIGEST", name), _alike(each, name)) for name, each in value]
            return sorted(fields, key=repr) if key in ("metadata", "locations") else fields
        case list():
            return [_operation(each) for each in value] if key == "def" else [_alike(each) for each in value]
        case str():
            return re.sub(r"(?<=lint violation found for rules: )[\w, ]+", _sorted_rules, value)
    return value


def _sorted_rules(found: re.Match[str]) -> str:
    """BuildKit has them from a map of Go: in any order."""
    return ", ".join(sorted(found[0].split(", ")))


def _operation(data: str) -> str:
    op = ops_pb2.Op.FromString(base64.b64decode(data))
    for each in op.inputs:
        each.digest = "DIGEST"
    if "local.session" in op.source.attrs:
        op.source.attrs["local.session"] = "SESSION"
    return str(op)
