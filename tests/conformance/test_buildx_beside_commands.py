"""docker-buildx's other commands before pybuildd and before buildkitd: bake, caches, du, prune, history, builders."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.builds import write
from tests.conformance import alike
from tests.conformance.sides import Sides

DOCKERFILE = """\
FROM base AS made
ARG WHO=world
RUN echo "hello $WHO" > /hello
FROM scratch AS last
COPY --from=made /hello /
COPY a.txt /srv/
"""
BAKE = """\
variable "WHO" {
  default = "bake"
  description = "who is greeted"
}
group "default" {
  targets = ["each", "upon"]
}
target "common" {
  args = { WHO = upper(WHO) }
  labels = { made = "here" }
}
target "each" {
  name = "each-${item}"
  description = "one for every word"
  inherits = ["common"]
  matrix = { item = ["a", "b"] }
  args = { WHO = item }
  output = ["out/each-${item}"]
}
target "linked" {
  inherits = ["common"]
}
target "upon" {
  dockerfile-inline = "FROM linked\\nCOPY --from=other a.txt /more\\n"
  contexts = { linked = "target:linked", other = "." }
  output = ["out/upon"]
}
"""
OVERRIDE = {"target": {"upon": {"args": {"X": "1"}, "dockerfile-inline": "FROM linked\nARG X\nCOPY a.txt /x$X\n"}}}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    files = {"Dockerfile": DOCKERFILE, "a.txt": "public", "docker-bake.hcl": BAKE, "more.json": json.dumps(OVERRIDE)}
    return write(tmp_path / "context", files)


# --- bake -----------------------------------------------------------------------------------------------------

BAKED: Mapping[str, str] = {
    "default": "",
    "--set": "--set each-a.args.WHO=set --set *.labels.x=y",
    "--file": "-f docker-bake.hcl -f more.json upon",
    "--no-cache, --pull": "--no-cache --pull each",
    "--provenance": "--provenance mode=min upon",
    "--sbom": "--sbom generator=scanner upon",
    "--metadata-file": "--metadata-file {work}/metadata upon",
    "--allow": "--allow network.host --set each-a.entitlements=network.host each-a",
    "--push": "--set linked.output=type=image --set linked.tags={repository}/baked:1 --push linked",
    "WHO": "linked upon",
}
ASKED: Mapping[str, str] = {
    "--print": "--print",
    "--print of one": "--print upon --set upon.tags=x",
    "--list targets": "--list targets",
    "--list variables": "--list type=variables,format=json",
    "--check": "--check",
    "--call": "--call outline each-a",
    "no such target": "nothing",
    "what is not allowed": "--set each-a.output=/etc/nothing each-a",
}


@pytest.mark.parametrize("flag", BAKED)
def test_what_is_baked(flag: str, sides: Sides, context: Path) -> None:
    made = []
    for side in sides:
        own = write(side.work / context.parent.name, {p.name: p.read_text() for p in context.iterdir()})
        write(side.work, {"metadata": "{}"})
        side.buildx("bake", *side.filled(BAKED[flag]), cwd=own, WHO="somebody" if flag == "WHO" else "bake")
        made.append([alike.files(side, own / "out"), alike.document(side, (side.work / "metadata").read_bytes())])
    assert made[0] == made[1]


@pytest.mark.parametrize("flag", ASKED)
def test_what_is_not_built(flag: str, sides: Sides, context: Path) -> None:
    said = []
    for side in sides:
        done = side.buildx.run("bake", *side.filled(ASKED[flag]), cwd=context)
        said.append((done.returncode, alike.text(side, done.stdout.decode())))
    assert said[0] == said[1]


# --- caches ---------------------------------------------------------------------------------------------------

CACHES: Mapping[str, tuple[str, str]] = {
    "an image": ("--cache-to type=inline", "type=registry,ref={repository}/cached:1"),
    "an image, by its name": ("--cache-to type=inline", "{repository}/cached:1"),
    "an image without": ("", "{repository}/cached:1"),
    "no image": ("--cache-to type=inline", "{repository}/nothing:1"),
}


@pytest.mark.parametrize("kind", CACHES)
def test_caches(kind: str, sides: Sides, context: Path) -> None:
    """What is there for the second build, which has nothing else."""
    to, source = CACHES[kind]
    flags = f'--target made --build-arg "WHO={kind}" --push -t {{repository}}/cached:1'
    found = []
    for side in sides:
        side.buildx.build(context, *side.filled(f"{to} {flags}"))
        side.buildx("prune", "--force", "--all")
        told = side.buildx.build(context, *side.filled(f"--cache-from {source} {flags}"))
        found.append((set(re.findall(r"\[.*\] RUN .*", told)), " CACHED" in told))
    assert found[0] == found[1]
    assert found[0][1] == (kind in ("an image", "an image, by its name"))


# --- usage ----------------------------------------------------------------------------------------------------

USED: Mapping[str, str] = {
    "all": "--format json",
    "by type": "--filter type=source.local --format json",
    "by id": "--filter id~=^[0-9a-z] --format json",
    "by what it is": "--filter description~=COPY --format json",
    "by age": "--filter until=1ms --format json",
    "none": "--filter until=24h --format json",
    "by two": "--filter type=regular --filter description~=COPY --format json",
    "by an operator that there is not": "--filter type==regular",
    "a template": "--format '{{.Type}} {{.Reclaimable}} {{.Shared}}'",
}


@pytest.fixture
def used(sides: Sides, context: Path) -> Sides:
    """The same was built on both sides, and nothing else is there."""
    (context / "Dockerfile").write_text(DOCKERFILE.replace("RUN", "RUN --mount=type=cache,target=/cache"))
    for side in sides:
        side.buildx("prune", "--force", "--all")
        side.buildx.build(context)
    return sides


@pytest.mark.parametrize("question", USED)
def test_usage(question: str, used: Sides) -> None:
    ours, theirs = (_records(side.buildx.run("du", *side.filled(USED[question]))) for side in used)
    assert ours == theirs


def _records(done: subprocess.CompletedProcess[bytes]) -> tuple[int, list[str]]:
    """What both know of records; of a step theirs says how it was started and ours what it was called."""
    lines = [line for line in done.stdout.decode().splitlines() if not line.startswith(("Reclaimable:", "Total:"))]
    return done.returncode, sorted(_record(line) for line in lines)


_OWN = ("ID", "CreatedAt", "Size", "UsageCount")  # theirs counts that somebody looked at the size


def _record(line: str) -> str:
    if not line.startswith("{"):
        return line
    known = {name: value for name, value in json.loads(line).items() if name not in _OWN}
    known["Mutable"] = known["Mutable"] and known["Type"] != "regular"  # it is made immutable when somebody needs that
    known["LastUsedAt"], known["Parents"] = bool(known["LastUsedAt"]), len(known.get("Parents") or ())
    known["Description"] = re.sub(r"^mount / from exec .*|^\[made 2/2\] RUN .*", "a step", known["Description"])
    known["Description"] = re.sub(r"^(cached mount) .*", r"\1", known["Description"])
    return json.dumps(known, sort_keys=True)


PRUNED: Mapping[str, str] = {
    "everything": "--all",
    "what is not kept": "",
    "--max-used-space": "--max-used-space 1",
    "--max-used-space, and there is less": "--max-used-space 1TB",
    "--reserved-space": "--reserved-space 1TB",
    "--min-free-space": "--min-free-space 500TB",
    "--filter until": "--filter until=24h",
    "--filter type": "--filter type=exec.cachemount",
    "--filter, and all": "--all --filter type=source.local",
}


@pytest.mark.parametrize("flags", PRUNED)
def test_prune(flags: str, used: Sides) -> None:
    """What is left."""
    left = []
    for side in used:
        assert "Total:" in side.buildx("prune", "--force", *side.filled(PRUNED[flags]))
        left.append(_records(side.buildx.run("du", "--format", "json")))
    assert left[0] == left[1]


# --- history --------------------------------------------------------------------------------------------------

ASKED_OF_RECORDS: Mapping[str, str] = {
    "ls": "ls --format '{{.Name}} {{.Status}}'",
    "ls --filter status": "ls --filter status=error --format '{{.Name}} {{.Status}}'",
    "ls --filter not": "ls --filter status!=error --format '{{.Name}}'",
    "ls --filter ref": "ls --filter ref=nothing --no-trunc",
    "ls --filter of nothing": "ls --filter nothing=1",
    "ls --local": "ls --local",
    "inspect": "inspect {ref}",
    "inspect --format json": "inspect --format json {ref}",
    "inspect --format": "inspect --format '{{.Name}} {{.Status}} {{.NumCompletedSteps}}' {failed}",
    "inspect, the last": "inspect",
    "inspect, one before": "inspect ^1",
    "inspect, of nothing": "inspect nothing",
    "inspect attachment --type": "inspect attachment --type provenance {ref}",
    "inspect attachment --platform": "inspect attachment --platform linux/amd64 {ref}",
    "inspect attachment, none": "inspect attachment --type nothing {ref}",
    "logs of nothing": "logs nothing",
    "open": "open {ref}",
}


@pytest.fixture(scope="module")
def recorded(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> list[Mapping[str, str]]:
    """One build that went well, then one that failed; their refs, by `ref` and `failed`, on either side."""
    context = write(tmp_path_factory.mktemp("recorded") / "context", {"Dockerfile": DOCKERFILE, "a.txt": "public"})
    refs = []
    for side in sides:
        image = "--target last --push -t {repository}/recorded:1 --provenance mode=min --label a=b --build-arg WHO=him"
        side.buildx.build(context, *side.filled(image), "--metadata-file", side.work / "metadata")
        told = json.loads((side.work / "metadata").read_text())
        side.buildx.build(context, "-f", "-", stdin=b"FROM base\nRUN echo oops && exit 3\n", status=1)
        latest = [json.loads(line) for line in side.buildx("history", "ls", "--format=json").splitlines()]
        refs.append({"ref": told["buildx.build.ref"], "failed": latest[0]["ref"]})
    return [{name: ref.rpartition("/")[2] for name, ref in each.items()} for each in refs]


@pytest.mark.parametrize("question", ASKED_OF_RECORDS)
def test_history(question: str, sides: Sides, recorded: list[Mapping[str, str]]) -> None:
    said = []
    for side, refs in zip(sides, recorded, strict=True):
        words = ASKED_OF_RECORDS[question]
        for name, ref in refs.items():
            words = words.replace(f"{{{name}}}", ref)
        done = side.buildx.run("history", *side.filled(words), cwd=side.work)
        text = (done.stdout + done.stderr).decode()
        shown = alike.document(side, text) if text.startswith("{\n") else alike.text(side, text).splitlines()
        said.append((done.returncode, shown[:3] if question.startswith("ls") else _without_counts(shown)))
    assert said[0] == said[1]


def _without_counts(shown: list[Any]) -> list[Any]:
    """A push is a step of its own here, so that nothing is pushed when another output fails; usage is not told."""
    return [each for each in shown if not re.search("Steps|llbDefinition|sysUsage|resourceUsage", str(each))]


def test_logs_and_exports(sides: Sides, recorded: list[Mapping[str, str]]) -> None:
    """The names of the steps, and the kinds of what an exported record has."""
    told = []
    for side, refs in zip(sides, recorded, strict=True):
        lines = side.buildx("history", "logs", "--progress=rawjson", refs["ref"]).splitlines()
        steps = {step["name"] for line in lines for step in json.loads(line).get("vertexes") or ()}
        side.buildx("history", "export", "--finalize", "-o", side.work / "record.tar", refs["ref"])
        named = {alike.text(side, step) for step in steps if not step.startswith("pushing ")}
        told.append([named, _kinds(side.work / "record.tar")])
    assert told[0] == told[1]


def _kinds(archive: Path) -> list[list[str]]:
    with tarfile.open(archive) as opened:

        def read(name: str) -> Any:
            return json.load(opened.extractfile(name) or pytest.fail(name))

        manifests = [read(f"blobs/sha256/{each['digest'][7:]}") for each in read("index.json")["manifests"]]
    return [[each["mediaType"] for each in (manifest["config"], *manifest["layers"])] for manifest in manifests]
