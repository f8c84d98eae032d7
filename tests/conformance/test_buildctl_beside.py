"""buildctl before pybuildd and before buildkitd: each command and flag does the same.

A row of a table is a command; what is compared is what it prints, or what a user sees of what it does.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llb.sources import image
from llb.state import mkdir
from tests.builds import write
from tests.conformance import alike
from tests.conformance.peer import directory
from tests.conformance.sides import Side, Sides
from tests.fakes.image_tools import files_in

DOCKERFILE = """\
FROM base AS made
ARG WHO=world
RUN echo "hello $WHO" > /hello
FROM scratch AS last
COPY --from=made /hello /
COPY a.txt /srv/
"""
DOCKER = "build --progress plain --frontend dockerfile.v0 --local context={context} --local dockerfile={context}"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a.txt": "public"})


def ask(side: Side, words: str, context: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return side.raw(*side.filled(words.replace("{context}", str(context))), stdin=stdin)


# --- builds ---------------------------------------------------------------------------------------------------

FILES: Mapping[str, str] = {
    "--opt": "--opt target=made --opt build-arg:WHO=me --opt platform=linux/amd64",
    "--opt platform": "--opt platform=linux/arm64,linux/amd64",
    "--no-cache": "--no-cache",
    "--opt no-cache": "--opt no-cache=made,last",
    "--opt attest": "--opt attest:provenance=mode=min",
    "--opt attest:sbom": "--opt attest:sbom=generator=scanner",
    "--opt context": "--opt context:made=docker-image://base --opt target=made",
    "--allow": "--allow network.host --opt force-network-mode=host",
    "--import-cache": "--import-cache type=registry,ref={repository}/nothing:1",
}


@pytest.mark.parametrize("flag", FILES)
def test_files(flag: str, sides: Sides, context: Path, tmp_path: Path) -> None:
    made = []
    for side in sides:
        out = side.work / tmp_path.name
        done = ask(side, f"{DOCKER} {FILES[flag]} --output type=local,dest={out}", context)
        assert done.returncode == 0, done.stderr.decode()
        made.append(alike.files(side, out))
    assert made[0] == made[1]


def test_what_is_written_beside_it(sides: Sides, context: Path) -> None:
    """--metadata-file, --ref-file, --trace, --debug-json-cache-metrics"""
    flags = "--metadata-file {work}/metadata --ref-file {work}/ref --trace {work}/trace "
    flags += "--debug-json-cache-metrics stdout --output type=image,name={repository}/ctl:1,push=true --no-cache"
    told = []
    for side in sides:
        done = ask(side, f"{DOCKER} {flags}", context)
        assert done.returncode == 0, done.stderr.decode()
        lines = [json.loads(line) for line in (side.work / "trace").read_text().splitlines()]
        names = {alike.text(side, step["name"]) for line in lines for step in line.get("vertexes") or ()}
        counted = {name for line in done.stdout.splitlines() if line[:1] == b"{" for name in json.loads(line)}
        metadata = alike.document(side, (side.work / "metadata").read_text())
        ref = alike.text(side, (side.work / "ref").read_text())
        told.append([metadata, ref, {name for name in names if not name.startswith("pushing ")}, counted])
    assert told[0] == told[1]
    assert told[0][3]


POLICIES: Mapping[str, Any] = {
    "deny": [{"action": "DENY", "selector": {"identifier": "docker-image://docker.io/library/base:*"}}],
    "convert": [
        {
            "action": "CONVERT",
            "selector": {"identifier": "docker-image://docker.io/library/gone:latest"},
            "updates": {"identifier": "docker-image://docker.io/library/base:latest"},
        }
    ],
    "allow": [
        {"action": "DENY", "selector": {"identifier": "*"}},
        {"action": "ALLOW", "selector": {"identifier": "docker-image://docker.io/library/base:latest*"}},
        {"action": "ALLOW", "selector": {"identifier": "local://*"}},
    ],
    "by expression": [
        {"action": "DENY", "selector": {"identifier": "docker-image://.*library/b[a-z]+:.*", "match_type": "REGEX"}}
    ],
}


@pytest.mark.parametrize("policy", POLICIES)
def test_source_policies(policy: str, sides: Sides, context: Path) -> None:
    """--source-policy-file"""
    name = "gone" if policy == "convert" else "base"
    write(
        context, {"Dockerfile": f"FROM {name}\nCOPY a.txt /\n", "policy.json": json.dumps({"rules": POLICIES[policy]})}
    )
    said = []
    for side in sides:
        done = ask(side, f"{DOCKER} --source-policy-file {{context}}/policy.json", context)
        lines = re.findall(r"^error: .*|^#\d+ (\[.*(?:FROM|COPY).*)", done.stderr.decode(), re.MULTILINE)
        said.append((done.returncode, sorted({alike.text(side, line) for line in lines}), b"denied" in done.stderr))
    assert said[0] == said[1]
    assert said[0][0] == (1 if policy in ("deny", "by expression") else 0)


PROGRESS = ("plain", "rawjson", "auto", "tty")


@pytest.mark.parametrize("progress", PROGRESS)
def test_progress(progress: str, sides: Sides, context: Path) -> None:
    """The names of the steps."""
    named = []
    for side in sides:
        done = ask(side, f"{DOCKER} --progress {progress}", context)
        text = alike.text(side, (done.stdout + done.stderr).decode())
        named.append((done.returncode, set(re.findall(r"\[\w+ \d/\d\] [A-Z]+ [^\n\"\\]*", text))))
    assert named[0] == named[1]


MISTAKES: Mapping[str, str] = {
    "a frontend": "build --frontend nothing",
    "no frontend and no definition": "build",
    "an output": DOCKER + " --output type=nothing",
    "an output without a type": DOCKER + " --output dest=x",
    "a secret": DOCKER + " --secret id=x,src=/nothing",
    "a directory": "build --frontend dockerfile.v0 --local context={context}",
    "a target": DOCKER + " --opt target=nothing",
    "an entitlement": DOCKER + " --allow nothing",
    "a network that is not allowed": DOCKER + " --opt force-network-mode=host",
    "a cache": DOCKER + " --export-cache type=nothing",
    "a subrequest": DOCKER + " --opt requestid=nothing",
    "a filter of workers": "debug workers --filter =",
    "a filter of records": "du --filter ==x",
    "what to get": "debug get sha256:" + "0" * 64,
    "a ref": "debug logs nothing",
    "a ref to change": "debug ctl --pin nothing",
}
IN_OUR_WORDS = {  # docs/daemon.md
    "a directory",
    "a network that is not allowed",
    "a subrequest",
    "a filter of workers",
    "a filter of records",
    "what to get",
    "a ref to change",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, sides: Sides, context: Path) -> None:
    said = []
    for side in sides:
        done = ask(side, MISTAKES[mistake], context)
        *_, last = done.stderr.decode().strip().splitlines()
        said.append((done.returncode, bool(last) if mistake in IN_OUR_WORDS else alike.text(side, last)))
    assert said[0] == said[1]


def test_definitions_on_standard_input(sides: Sides, tmp_path: Path) -> None:
    made = []
    definition = image("docker.io/library/base:latest").file(mkdir("/made")).run(["sh", "-c", "id > /made/by"]).root
    for side in sides:
        out = side.work / tmp_path.name
        done = side.raw(
            "build", "--no-cache", "--output", f"type=local,dest={out}", stdin=definition.marshal().to_bytes()
        )
        assert done.returncode == 0, done.stderr.decode()
        made.append(files_in(out / "made"))
        broken = side.raw("build", stdin=b"no definition")
        assert broken.returncode == 1
        made.append(alike.text(side, broken.stderr.decode().splitlines()[-1]))
    assert made[:2] == made[2:]


# --- questions ------------------------------------------------------------------------------------------------

QUESTIONS: Mapping[str, str] = {
    "debug info": "debug info --format '{{not .BuildkitVersion.Package}}'",
    "debug workers": "debug workers --format '{{range .}}{{.Labels}}{{end}}'",
    "debug workers --filter": "debug workers --filter id==nothing",
    "debug ctl of two minds": "debug ctl --pin --unpin nothing",
    "du": "du --filter type==frontend --format '{{len .}}'",
    "du --filter": "du --filter type==nothing --verbose",
    "prune --filter": "prune --filter type==nothing",
    "prune --all": "prune --all --filter type==nothing --verbose",
    "prune --keep-storage": "prune --keep-storage 1000000",
    "prune --keep-duration": "prune --keep-duration 24h",
    "prune --free-storage": "prune --free-storage 1000000 --filter type==nothing",
    "prune --keep-storage-min": "prune --keep-storage-min 1000000",
    "prune --format": "prune --filter type==nothing --format '{{json .}}'",
    "--timeout, --wait": "--timeout 7 --wait debug info --format ok",
    "--debug": "--debug --log-format json debug info --format ok",
    "no such command": "nothing",
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_answers(question: str, sides: Sides) -> None:
    said = []
    for side in sides:
        done = ask(side, QUESTIONS[question], side.work)
        said.append((done.returncode, alike.text(side, (done.stdout + done.stderr).decode()).splitlines()))
    assert said[0] == said[1]


def test_what_is_known_of_workers(sides: Sides) -> None:
    """--verbose: but for platforms, which are more where there are emulators, and who made it."""
    shown = []
    for side in sides:
        lines = side.ctl("debug", "workers", "--verbose").splitlines()
        shown.append([re.sub(r"^(ID|Platforms|BuildKit):.*", r"\1", line) for line in lines])
    assert shown[0] == shown[1]


def test_the_monitor_and_the_histories(sides: Sides, context: Path) -> None:
    """`debug monitor` tells of a build while it runs, `debug histories` and `debug logs` when it has ended."""
    told, refs = [], []
    for side in sides:
        argv = [str(directory() / "buildctl"), "--addr", side.address.replace("unix:", "unix://"), "debug", "monitor"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as monitor:
            assert monitor.stdout is not None
            ended = ask(side, f"{DOCKER} --no-cache --ref-file {{work}}/ref", context)
            assert ended.returncode == 0, ended.stderr
            refs.append(ref := (side.work / "ref").read_text().strip())
            events: list[str] = []
            for line in monitor.stdout:
                events += [line] if ref in line or events else []
                if "attestation" in line:
                    break
            monitor.terminate()
        histories = side.ctl("debug", "histories", "--format", "{{.Record.Ref}} {{.Type}} {{.Record.Frontend}}")
        (own,) = [line for line in histories.splitlines() if ref in line]
        logs = side.raw("debug", "logs", "--progress", "plain", ref)
        steps = set(re.findall(rb"\[\w+ \d/\d\] [A-Z]+ [^\n]*", logs.stdout + logs.stderr))
        kinds = [re.sub(r"size:\d+", "", alike.text(side, line)) for line in (*events, own) if "trace" not in line]
        told.append([kinds, steps])
    assert told[0] == told[1]
    spans = sides.ours.ctl("debug", "logs", "--trace", refs[0])  # theirs has one a while later
    assert "RUN echo" in spans
