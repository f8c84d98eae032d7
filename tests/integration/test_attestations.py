"""What whole builds attest of their results: provenance, and SBOMs of a scanner that the tests make."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.builds import FIXTURES, Store, write
from tests.fakes.image_tools import extracted

pytest_plugins = [FIXTURES]

BOTH = ("--platform", "linux/amd64,linux/arm64")
SPDX = "https://spdx.dev/Document"
SLSA02, SLSA1 = "https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1"
DOCKERFILE = """
FROM base AS first
ARG BUILDKIT_SBOM_SCAN_STAGE=true
COPY a /first/a
FROM base
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
ARG FOO
COPY --from=first /first /deep
RUN echo "$FOO" > /b
"""
SCANNER = """#!/bin/sh
set -e
scan() {
  files=$(cd "$1" && find . -type f -name '[ab]' | sort | sed 's,^[.]\\(.*\\),{"fileName": "\\1"},' | paste -sd,)
  cat > "$BUILDKIT_SCAN_DESTINATION/$2.spdx.json" <<EOF
{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "subject": [],
 "predicate": {"spdxVersion": "SPDX-2.3", "name": "$BUILDKIT_SCAN_NAME", "files": [$files]}}
EOF
}
scan "$BUILDKIT_SCAN_SOURCE" sbom
[ -z "$BUILDKIT_SCAN_SOURCE_EXTRAS" ] && exit
for extra in "$BUILDKIT_SCAN_SOURCE_EXTRAS"/*; do scan "$extra" "$(basename "$extra")"; done
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a": "1"})


@pytest.fixture
async def scanner(store: Store, tmp_path: Path) -> str:
    files = {"Dockerfile": 'FROM base\nCOPY --chmod=755 scan /scan\nENTRYPOINT ["/scan"]\n', "scan": SCANNER}
    await store.build(write(tmp_path / "scanner", files), "-t", "scanner")
    return "generator=scanner"


class Layout:
    """An OCI layout of one image."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs/sha256"
        (entry,) = json.loads((directory / "index.json").read_bytes())["manifests"]
        self.top = self.read(entry["digest"])

    def read(self, digest: str) -> Any:
        return json.loads((self._blobs / digest.removeprefix("sha256:")).read_bytes())

    @property
    def image(self) -> Any:
        (found,) = [each for each in self.top["manifests"] if each["platform"]["os"] != "unknown"]
        return found

    def statements(self) -> list[Any]:
        """What is attested of the image."""
        (found,) = [each for each in self.top["manifests"] if each["platform"]["os"] == "unknown"]
        assert found["platform"] == {"architecture": "unknown", "os": "unknown"}
        assert found["annotations"] == {
            "vnd.docker.reference.digest": self.image["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        }
        layers = self.read(found["digest"])["layers"]
        assert {layer["mediaType"] for layer in layers} == {"application/vnd.in-toto+json"}
        statements = [self.read(layer["digest"]) for layer in layers]
        types = [layer["annotations"]["in-toto.io/predicate-type"] for layer in layers]
        assert types == [statement["predicateType"] for statement in statements]
        return statements


async def test_the_provenance_of_an_image(store: Store, context: Path, tmp_path: Path) -> None:
    output = f"type=oci,tar=false,dest={tmp_path / 'out'}"
    args = ("--build-arg", "FOO=bar", "--label", "who=me")
    await store.build(context, *args, "--provenance", "mode=max", "-t", "app:1", "-o", output)
    layout = Layout(tmp_path / "out")
    (statement,) = layout.statements()
    assert (statement["_type"], statement["predicateType"]) == ("https://in-toto.io/Statement/v0.1", SLSA02)
    digest = {"sha256": layout.image["digest"].removeprefix("sha256:")}
    assert statement["subject"] == [{"name": "pkg:docker/app@1?platform=linux%2Famd64", "digest": digest}]
    predicate = statement["predicate"]
    (material,) = predicate["materials"]
    assert material["uri"] == "pkg:docker/base@latest?platform=linux%2Famd64"
    parameters = predicate["invocation"]["parameters"]
    assert parameters["frontend"] == "dockerfile.v0"
    assert parameters["args"] == {"build-arg:FOO": "bar", "label:who": "me"}
    assert parameters["locals"] == [{"name": "context"}, {"name": "dockerfile"}]
    assert predicate["metadata"]["completeness"] == {"parameters": True, "environment": True, "materials": False}
    steps = predicate["buildConfig"]["llbDefinition"]
    run = next(step for step in steps if "exec" in step["op"]["Op"])
    assert run["op"]["Op"]["exec"]["meta"]["args"][-1] == 'echo "$FOO" > /b'
    told = predicate["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]
    assert told["source"]["infos"][0]["filename"] == "Dockerfile"
    assert told["source"]["locations"][run["id"]]["locations"][0]["ranges"][0]["start"] == {"line": 9}
    (layers,) = told["layers"][f"{run['id']}:0"]
    held = layout.read(layout.image["digest"])["layers"]
    assert [layer["digest"] for layer in layers] == [layer["digest"] for layer in held]


async def test_mode_min_keeps_arguments_to_itself(store: Store, context: Path, tmp_path: Path) -> None:
    output = f"type=oci,tar=false,dest={tmp_path / 'out'}"
    asked = "mode=min,version=v1,builder-id=https://ci.example/1,reproducible=true"
    await store.build(context, "--build-arg", "FOO=confidential", "--provenance", asked, "-o", output)
    (statement,) = Layout(tmp_path / "out").statements()
    assert (statement["predicateType"], statement["subject"]) == (SLSA1, [])
    assert "confidential" not in json.dumps(statement)
    details = statement["predicate"]["runDetails"]
    assert details["builder"] == {"id": "https://ci.example/1"}
    assert details["metadata"]["buildkit_reproducible"] is True
    assert details["metadata"]["buildkit_completeness"] == {"request": False, "resolvedDependencies": False}
    assert "buildConfig" not in statement["predicate"]["buildDefinition"]["internalParameters"]


async def test_inline_only_is_for_stores_and_registries(store: Store, context: Path, tmp_path: Path) -> None:
    output = f"type=oci,tar=false,dest={tmp_path / 'out'}"
    asked = ("--provenance", "mode=min,inline-only=true")
    await store.build(context, *asked, "-t", "app:1", "-o", output, "-o", "type=image", "-o", str(tmp_path / "files"))
    assert "manifests" not in Layout(tmp_path / "out").top
    assert not (tmp_path / "files/provenance.json").exists()
    store.command("image", "save", "app:1", "-o", tmp_path / "saved.tar")
    saved = Layout(extracted(tmp_path / "saved.tar"))
    assert [statement["predicateType"] for statement in saved.statements()] == [SLSA02]


async def test_an_image_keeps_what_is_attested_of_it(store: Store, context: Path, tmp_path: Path) -> None:
    """When everything that nobody needs is pruned, and through an archive into another store."""
    await store.build(context, "--provenance", "true", "-t", "app:1")
    store.command("prune", "-a", "-f")
    store.command("image", "save", "app:1", "-o", tmp_path / "first.tar")
    other = Store(tmp_path / "other", tmp_path)
    other.command("image", "load", "-i", tmp_path / "first.tar")
    other.command("image", "save", "app:1", "-o", tmp_path / "second.tar")
    first, second = (Layout(extracted(tmp_path / f"{name}.tar")) for name in ("first", "second"))
    assert first.top == second.top
    assert first.statements() == second.statements()
    assert store.command("image", "inspect", "app:1", "-f", "{{.Os}}").stdout == "linux\n"


async def test_an_sbom_of_the_image_a_stage_and_the_context(
    store: Store, scanner: str, context: Path, tmp_path: Path
) -> None:
    output = f"type=oci,tar=false,dest={tmp_path / 'out'}"
    asked = ("--sbom", f"{scanner},NAME=it", "--provenance", "mode=min")
    built = await store.build(context, *asked, "-t", "app:1", "-o", output)
    assert [step.name for step in built.find("generating sbom")] == [
        "[linux/amd64] generating sbom using docker.io/library/scanner:latest"
    ]
    layout = Layout(tmp_path / "out")
    core, of_context, of_stage, provenance = layout.statements()
    assert [each["predicateType"] for each in (core, of_context, of_stage)] == [SPDX] * 3
    assert core["subject"] == provenance["subject"] != []
    layers = [layer["digest"] for layer in layout.read(layout.image["digest"])["layers"]]
    predicate = core["predicate"]
    assert predicate["name"] == "it"
    assert predicate["files"] == [
        {"fileName": "/b", "comment": f"layerID: {layers[-1]}"},
        {"fileName": "/deep/a", "comment": f"layerID: {layers[-2]}"},
    ]
    assert predicate["creationInfo"]["creators"][-1].startswith("Tool: pybuild-")
    assert of_context["predicate"]["files"] == [{"fileName": "/a"}]
    assert of_stage["predicate"]["files"] == [{"fileName": "/first/a"}]
    assert [material["uri"] for material in provenance["predicate"]["materials"]] == [
        "pkg:docker/base@latest?platform=linux%2Famd64",
        "pkg:docker/scanner@latest",
    ]


async def test_attestations_beside_files(store: Store, scanner: str, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY files /\n", "files/d/a": "1"})
    out = write(tmp_path / "out", {"d/old": "", "x-provenance.json": "old"})
    asked = ("--sbom", scanner, "--provenance", "mode=min")
    await store.build(context, *asked, "-o", f"type=local,dest={out},attestation-prefix=x-,mode=delete")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "d/a",
        "x-provenance.json",
        "x-sbom.spdx.json",
    ]
    assert (out / "x-provenance.json").stat().st_mode & 0o777 == 0o600
    for name in ("x-provenance.json", "x-sbom.spdx.json"):
        statement = json.loads((out / name).read_bytes())
        digest = {"sha256": hashlib.sha256(b"1").hexdigest()}
        assert statement["subject"] == [{"name": "d/a", "digest": digest}]
    await store.build(context, *asked, "-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert sorted(archive.getnames()) == ["d", "d/a", "provenance.json", "sbom.spdx.json"]


async def test_attestations_beside_files_of_several_platforms(store: Store, tmp_path: Path) -> None:
    dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY files /$TARGETARCH\n"
    context = write(tmp_path / "context", {"Dockerfile": dockerfile, "files/a": "1"})
    asked = (*BOTH, "--provenance", "mode=min")
    await store.build(context, *asked, "-o", str(tmp_path / "split"))
    for architecture in ("amd64", "arm64"):
        statement = json.loads((tmp_path / f"split/linux_{architecture}/provenance.json").read_bytes())
        assert [subject["name"] for subject in statement["subject"]] == [f"{architecture}/a"]
    await store.build(context, *asked, "-o", f"type=local,platform-split=false,dest={tmp_path / 'merged'}")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {
        "amd64",
        "arm64",
        "provenance.linux_amd64.json",
        "provenance.linux_arm64.json",
    }
    await store.build(context, *asked, "-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar") as archive:
        names = set(archive.getnames())
    assert {"linux_amd64/provenance.json", "linux_arm64/provenance.json", "linux_arm64/arm64/a"} <= names


async def test_what_is_wrong_is_said_before_anything_runs(store: Store, context: Path) -> None:
    for flags, message in (
        (("--provenance", "mode=most"), 'invalid mode "most"'),
        (("--provenance", "version=v3"), "invalid provenance SLSA version: v3"),
        (("--sbom", "generator="), "sbom generator cannot be empty"),
    ):
        built = await store.build(context, *flags, status=1)
        assert built.error == message
        assert not built.steps


async def test_a_scanner_that_fails_fails_the_build(store: Store, context: Path, tmp_path: Path) -> None:
    files = {"Dockerfile": 'FROM base\nENTRYPOINT ["/bin/sh", "-c", "echo no; exit 3"]\n'}
    await store.build(write(tmp_path / "scanner", files), "-t", "broken")
    built = await store.build(context, "--sbom", "generator=broken", status=1)
    assert "exit code: 3" in built.error
    assert built.printed("no\n") is not None
