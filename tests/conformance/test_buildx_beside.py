"""docker-buildx before pybuildd and before buildkitd: each flag of a build does the same.

A row of a table is a Dockerfile, or none for `DOCKERFILE`, and the flags. What is compared is what a user sees of it:
the files that come out, or what the client prints.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.builds import write
from tests.conformance import alike
from tests.conformance.sides import Side, Sides

DOCKERFILE = """\
FROM base AS made
ARG WHO=world
RUN echo "hello $WHO" > /hello
FROM scratch AS last
COPY --from=made /hello /
COPY a.txt /srv/
LABEL of=file
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a.txt": "public", "sub/Other": DOCKERFILE})


def build(side: Side, context: Path, flags: str = "", *, status: int = 0, **environment: str) -> str:
    return side.buildx.build(context, *side.filled(flags), status=status, **environment)


# --- what a step sees -----------------------------------------------------------------------------------------

LOOKS: Mapping[str, tuple[str, str]] = {
    "--add-host": ("--add-host a.example:10.1.2.3 --add-host b.example=::1", "cat /etc/hosts"),
    "--ulimit": ("--ulimit nofile=100:200 --ulimit core=0", "ulimit -Sn; ulimit -Hn; ulimit -c"),
    "--shm-size": ("--shm-size 8m", "grep /dev/shm /proc/mounts"),
    "--network none": ("--network none", "ls /sys/class/net"),
    "--network host": ("--network host --allow network.host", "ls /sys/class/net"),
    "--allow": ("--allow security.insecure", "grep -c ^ /proc/self/status"),
    "--build-arg": (
        "--build-arg WHO=me --build-arg HTTP_PROXY=http://p --build-arg UNKNOWN=1",
        "env | grep -v TRACE | sort",
    ),
    "--secret": (
        "--secret id=word,env=GIVEN --secret id=file,src={work}/secret",
        "cat /run/secrets/*; ls -ln /run/secrets",
    ),
}


@pytest.mark.parametrize("flag", LOOKS)
def test_what_a_step_sees(flag: str, sides: Sides, tmp_path: Path) -> None:
    flags, command = LOOKS[flag]
    mounts = "--mount=type=secret,id=word --mount=type=secret,id=file" if flag == "--secret" else ""
    mounts += " --security=insecure" if flag == "--allow" else ""
    dockerfile = f"FROM base AS made\nARG WHO\nRUN {mounts} ({command}) > /seen 2>&1\n"
    dockerfile += "FROM scratch\nCOPY --from=made /seen /\n"
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    seen = []
    for side in sides:
        write(side.work, {"secret": "from a file"})
        build(side, context, f"{flags} -o {{work}}/{tmp_path.name}", GIVEN="given")
        seen.append(alike.text(side, (side.work / tmp_path.name / "seen").read_text()))
    assert seen[0] == seen[1]


# --- what comes out -------------------------------------------------------------------------------------------

FILES: Mapping[str, str] = {
    "--target": "--target made",
    "--file": "-f {context}/sub/Other",
    "--platform": "--platform linux/arm64,linux/amd64",
    "--attest": "--attest type=provenance,mode=min",
    "--sbom": "--sbom generator=scanner",
    "--no-cache-filter": "--no-cache-filter made,last",
    "--no-cache": "--no-cache --pull",
    "--build-context": "--build-context made=docker-image://base --target made",
}


@pytest.mark.parametrize("flag", FILES)
def test_files(flag: str, sides: Sides, context: Path, tmp_path: Path) -> None:
    made = []
    for side in sides:
        out = side.work / tmp_path.name
        build(side, context, FILES[flag].replace("{context}", str(context)) + f" --output {out}")
        made.append(alike.files(side, out))
    assert made[0] == made[1]


_NAME = "name={repository}/flags:1,push=true"
IMAGES: Mapping[str, str] = {
    "--tag": "--push -t {repository}/flags:1 -t {repository}/flags:2",
    "--label": "--push -t {repository}/flags:1 --label who=me --label x=y=z",
    "--annotation": "--push -t {repository}/flags:1 --annotation a=b --annotation manifest:c=d",
    "--annotation of an index": "--push -t {repository}/flags:1 --platform linux/amd64,linux/arm64 "
    "--annotation index:i=1 --annotation manifest:m=2 --annotation manifest[linux/arm64]:own=3 "
    "--annotation manifest-descriptor:md=4",
    "--provenance": "--push -t {repository}/flags:1 --provenance mode=min",
    "--provenance, SLSA 1": "--push -t {repository}/flags:1 --provenance mode=max,version=v1,reproducible=true",
    "--provenance=false": "--push -t {repository}/flags:1 --provenance=false",
    "--attest": "--push -t {repository}/flags:1 --attest type=provenance,mode=min,builder-id=me "
    "--attest type=sbom,generator=scanner",
    "--sbom": "--push -t {repository}/flags:1 --sbom generator=scanner --platform linux/amd64,linux/arm64",
    "docker's media types": f"--output type=image,oci-mediatypes=false,{_NAME}",
    "OCI's media types": f"--output type=image,oci-mediatypes=true,{_NAME}",
    "zstd": f"--output type=image,compression=zstd,force-compression=true,oci-mediatypes=true,{_NAME}",
    "without compression": f"--output type=registry,compression=uncompressed,force-compression=true,{_NAME}",
}


@pytest.mark.parametrize("flag", IMAGES)
def test_images(flag: str, sides: Sides, context: Path) -> None:
    """All documents of what was pushed, and what is said of it in `--metadata-file` and `--iidfile`."""
    told = []
    for side in sides:
        write(side.work, {"metadata": "", "iid": ""})
        build(side, context, f"{IMAGES[flag]} --metadata-file {{work}}/metadata --iidfile {{work}}/iid")
        metadata = (side.work / "metadata").read_bytes()
        digest, iid = json.loads(metadata)["containerimage.digest"], (side.work / "iid").read_text()
        told.append([pushed(side, digest), alike.document(side, metadata), alike.text(side, iid)])

    assert told[0] == told[1]


def pushed(side: Side, digest: str) -> Any:
    """A manifest or index, and what it names that is JSON."""
    document = json.loads(_fetched(side, "manifests", digest))
    below = [pushed(side, entry["digest"]) for entry in document.get("manifests", ())]
    for entry in [*filter(None, [document.get("config")]), *document.get("layers", ())]:
        if entry["mediaType"].endswith("json"):
            below.append(alike.document(side, _fetched(side, "blobs", entry["digest"])))
    return [alike.document(side, json.dumps(document)), *below]


def _fetched(side: Side, kind: str, digest: str) -> bytes:
    kinds = ",".join([*_INDEXES, *_MANIFESTS])
    url = f"http://{side.registry}/v2/{side.name}/flags/{kind}/{digest}"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": kinds})) as answer:
        return bytes(answer.read())


_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")

# --- what the client prints -----------------------------------------------------------------------------------


def steps(lines: str) -> set[tuple[str, bool]]:
    """The names of what was done, and whether it failed, from --progress=rawjson."""
    told = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    vertices = {each["digest"]: each for document in told for each in document.get("vertexes", ())}
    return {(each["name"], bool(each.get("error"))) for each in vertices.values()}


@pytest.mark.parametrize("broken", [False, True], ids=["a build", "a failure"])
def test_progress(broken: bool, sides: Sides, context: Path) -> None:
    if broken:
        (context / "Dockerfile").write_text("FROM base\nRUN echo out; echo err >&2; exit 3\n")
    shown = []
    for side in sides:
        raw = side.buildx.run("build", "--progress=rawjson", "--no-cache", context)
        quiet = side.buildx.run("build", "--progress=quiet", context)
        nothing = side.buildx.run("build", "-q", context)
        status = [done.returncode for done in (raw, quiet, nothing)]
        printed = [alike.text(side, (done.stdout + done.stderr).decode()) for done in (quiet, nothing)]
        named = {(alike.text(side, name), failed) for name, failed in steps((raw.stdout + raw.stderr).decode())}
        shown.append([status, printed, named])
    assert shown[0] == shown[1]


MISTAKES: Mapping[str, tuple[str, str]] = {
    "a target": ("--target nothing", ""),
    "a platform": ("--platform linux/nothing/x/y", ""),
    "an entitlement": ("--allow nothing", ""),
    "a network mode": ("--network nothing", ""),
    "a network that is not allowed": ("--network host", ""),
    "a step that is not allowed": ("", "FROM base\nRUN --security=insecure true\n"),
    "a secret": ("", "FROM base\nRUN --mount=type=secret,id=gone,required true\n"),
    "an agent": ("", "FROM base\nRUN --mount=type=ssh,required true\n"),
    "an output": ("--output type=nothing", ""),
    "an attestation": ("--attest type=nothing", ""),
    "a mode of provenance": ("--provenance mode=nothing", ""),
    "a size": ("--shm-size nothing", ""),
    "a limit": ("--ulimit nothing=1", ""),
    "a host": ("--add-host nothing", ""),
    "a file": ("--file nothing", ""),
    "a context": ("--build-context made=docker-image://{registry}/nothing", ""),
    "a cache to write": ("--cache-to type=nothing", ""),
    "a cache to read": ("--cache-from type=nothing", ""),
    "a scanner": ("--sbom generator={registry}/nothing", ""),
    "a compression": ("--output type=oci,compression=nothing,dest={work}/x", ""),
    "an annotation": ("--annotation nothing:a=b --push -t {repository}/flags:1", ""),
}
IN_OUR_WORDS = {"a step that is not allowed", "an agent", "a context", "a scanner", "a compression"}  # docs/daemon.md


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, sides: Sides, context: Path) -> None:
    """The last line, which says what is wrong, and the status."""
    flags, dockerfile = MISTAKES[mistake]
    if dockerfile:
        (context / "Dockerfile").write_text(dockerfile)
    said = []
    for side in sides:
        status, line = failure(side, context, flags)
        said.append((status, bool(line) if mistake in IN_OUR_WORDS else alike.text(side, line)))
    assert said[0] == said[1]


def failure(side: Side, context: Path, flags: str) -> tuple[int, str]:
    """The status, and the last line that tells of an error.

    A build that fails at once may end buildx's own watching first: it then tells of that, and is asked again.
    """
    for _ in range(5):
        done = side.buildx.run("build", "--progress=plain", *side.filled(flags), context)
        *_, line = re.findall(r"^ERROR: .*", done.stderr.decode(), re.MULTILINE) or [""]
        if not line.endswith("context canceled"):
            break
    return done.returncode, line
