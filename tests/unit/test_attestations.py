"""What is asked to be attested, how a scanner runs, and what becomes of attestations: statements, manifests, files."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from buildengine.attestation import SBOM_CORE, SPDX, Claim, Kind, Subject, SubjectKind
from buildengine.cli import attests
from buildengine.cli.attests import Attest
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.platform import Platform
from frontends import attestations
from frontends.attestations import Scanner
from frontends.dockerfile.build import DockerfileFrontend
from frontends.gateway import FrontendResult
from frontends.sbom import Targets, open_scanner
from frontends.testing import FakeGateway
from llb import graph
from llb.ops import ExecOp, MountType
from llb.sources import local
from llb.state import scratch
from tests.fakes.gateway import BASES, gateway, image_config, request
from worker.exporters import statement
from worker.exporters.attestations import Attestation, unbundled
from worker.exporters.document import OCI
from worker.exporters.statement import Named
from worker.oci.types import Descriptor

AMD64 = Platform(os="linux", architecture="amd64")
SHA = "sha256:" + "a" * 64
SCANNER = "docker.io/library/scanner:latest"
IMAGE = Named(name="pkg:docker/app@1", digests={"sha256": "a" * 64})


# --- asked for ---------------------------------------------------------------------------------------------------


def test_what_options_ask_for() -> None:
    read = attestations.read
    assert read({"build-arg:A": "attest:sbom"}) == {}
    assert read({"attest:provenance": ""}) == {"provenance": {"version": "v0.2"}}
    assert read({"attest:PROVENANCE": 'mode=min,"builder-id=a,b",version=v1'}) == {
        "provenance": {"mode": "min", "builder-id": "a,b", "version": "v1"}
    }
    assert read({"build-arg:BUILDKIT_ATTEST_SBOM": "x"})["sbom"] == {
        "generator": "docker/buildkit-syft-scanner:stable-1",
        "x": "",
    }
    assert attestations.scanner({}) is None
    found = attestations.scanner({"attest:sbom": "generator=scanner,A=1"})
    assert found == Scanner(image=SCANNER, parameters={"A": "1"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attest:sbim": ""}, 'unknown attestation type "sbim"'),
        ({"attest:sbom": '"'}, "failed to parse sbom: "),
        ({"attest:sbom": "generator="}, "sbom generator cannot be empty"),
        ({"attest:sbom": "generator=A"}, "failed to parse sbom scanner A: "),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        attestations.scanner(options)
    assert caught.value.message.startswith(message)


def test_flags() -> None:
    provenance, sbom = attests.shorthand("provenance"), attests.shorthand("sbom")
    assert attests.attest("type=sbom,generator=a,K=v") == sbom("generator=a,K=v")
    assert attests.attest('type=provenance,"a=1,2"').text == '"a=1,2"'
    assert (provenance("true"), provenance("0")) == (Attest(type="provenance"), Attest(type="provenance", text=None))
    assert attests.attest("type=sbom,disabled=true") == sbom("false")
    assert attests.options([provenance("mode=min"), sbom("false")]) == {"attest:provenance": "mode=min"}
    with pytest.raises(UserError, match="duplicate attestation field sbom"):
        attests.options([sbom("true"), sbom("false")])
    for text in ("", "type=sbim", "mode=max", "type=sbom,disabled=x"):
        with pytest.raises(UserError):
            attests.attest(text)


# --- scanned -----------------------------------------------------------------------------------------------------


def scanned(result: FrontendResult) -> tuple[ExecOp, Claim]:
    """The step of the scanner, and what its outcome is to be."""
    (made,) = result.results
    (attested,) = made.attestations
    assert attested.definition is not None
    nodes = graph.load(attested.definition).nodes.values()
    (step,) = [op for node in nodes if "generating sbom" in node.name and isinstance(op := node.op.payload, ExecOp)]
    return step, attested.claim


def with_scanner(dockerfile: str, **files: bytes) -> FakeGateway:
    asked = gateway(dockerfile, files=files)
    config = image_config(Entrypoint=["/scan"], Cmd=["-q"], Env=["A=1"], WorkingDir="/w")
    asked.images = {**BASES, SCANNER: config}
    return asked


async def test_a_scanner_reads_the_result_and_writes_a_bundle() -> None:
    options = {"attest:sbom": "generator=scanner,FORMAT=x"}
    asked = with_scanner("FROM busybox\nRUN true\n")
    step, claim = scanned(await DockerfileFrontend().build(asked, request(options)))
    assert (claim.kind, claim.predicate_type, claim.metadata[SBOM_CORE]) == (Kind.BUNDLE, SPDX, b"sbom")
    assert (step.meta.args, step.meta.cwd) == (("/scan", "-q"), "/w")
    assert step.meta.env == (
        "A=1",
        "BUILDKIT_SCAN_DESTINATION=/run/out/",
        "BUILDKIT_SCAN_SOURCE=/run/src/core/sbom",
        "BUILDKIT_SCAN_FORMAT=x",
    )
    assert [(mount.dest, mount.type, mount.readonly) for mount in step.mounts] == [
        ("/", MountType.BIND, False),
        ("/run/out/", MountType.BIND, False),
        ("/run/src/core/sbom", MountType.BIND, True),
        ("/tmp", MountType.TMPFS, False),
    ]


DOCKERFILE = """
ARG {globally}
FROM busybox AS first
ARG {first}
RUN one
FROM busybox AS second
COPY --from=first / /first/
FROM busybox
ARG {last}
COPY --from=second / /
COPY a /a
"""


@pytest.mark.parametrize(
    ("given", "extras"),
    [
        ({}, []),
        ({"globally": "BUILDKIT_SBOM_SCAN_STAGE=true"}, ["first", "second"]),
        ({"globally": "BUILDKIT_SBOM_SCAN_STAGE=second,other"}, ["second"]),
        ({"globally": "BUILDKIT_SBOM_SCAN_STAGE=1", "first": "BUILDKIT_SBOM_SCAN_STAGE=0"}, ["second"]),
        ({"first": "BUILDKIT_SBOM_SCAN_STAGE=true"}, ["first"]),
        ({"last": "BUILDKIT_SBOM_SCAN_CONTEXT=true"}, ["context"]),
        ({"first": "BUILDKIT_SBOM_SCAN_CONTEXT=true"}, []),  # it is the target's to ask for
    ],
)
async def test_what_is_scanned_besides(given: dict[str, str], extras: list[str]) -> None:
    text = DOCKERFILE.format(**({"globally": "A", "first": "A", "last": "A"} | given))
    asked = with_scanner(text, a=b"")
    step, _ = scanned(await DockerfileFrontend().build(asked, request({"attest:sbom": "generator=scanner"})))
    prefix = "/run/src/extras/sbom-"
    assert [mount.dest.removeprefix(prefix) for mount in step.mounts if mount.dest.startswith(prefix)] == extras
    assert ("BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras" in step.meta.env) == bool(extras)


async def test_a_scanner_needs_a_command() -> None:
    asked = FakeGateway(images={SCANNER: image_config()})
    with pytest.raises(UserError, match="does not have cmd"):
        await open_scanner(asked, Scanner(image=SCANNER), AMD64)


async def test_what_ignores_the_cache_is_scanned_anew() -> None:
    asked = with_scanner("FROM busybox\n")
    scan = await open_scanner(asked, Scanner(image=SCANNER), AMD64)
    for ignored in (True, False):
        targets = Targets(core=local("context"), extras={"x": scratch()}, ignore_cache=ignored)
        definition = scan("linux/amd64", targets, AMD64).definition
        assert definition is not None
        steps = [node for node in graph.load(definition).nodes.values() if isinstance(node.op.payload, ExecOp)]
        assert [node.metadata.ignore_cache for node in steps] == [ignored]


# --- stated ------------------------------------------------------------------------------------------------------


def stated(*subjects: Subject, predicate: bytes = b'{"a":1}', beside: tuple[Named, ...] = (IMAGE,)) -> Any:
    claim = Claim(predicate_type="t", path="/out/p.json", subjects=subjects)
    return statement.statement(claim, predicate, beside)


def test_subjects_of_a_statement() -> None:
    image = {"name": IMAGE.name, "digest": {"sha256": "a" * 64}}
    assert stated().document == {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "t",
        "subject": [image],
        "predicate": {"a": 1},
    }
    assert stated(Subject(name="_")).document["subject"] == [image]
    assert stated(Subject(name="also")).document["subject"] == [image, {**image, "name": "also"}]
    assert stated(Subject(name="x"), beside=()).document["subject"] == []
    raw = Subject(kind=SubjectKind.RAW, name="file", digests=("sha512:1", "sha256:0"))
    assert stated(raw, Subject(kind=SubjectKind.RAW)).document["subject"] == [
        {"name": "file", "digest": {"sha256": "0", "sha512": "1"}},
        {"name": "_", "digest": {}},
    ]
    assert stated(predicate=b"").document["predicate"] is None
    for wrong in (b"{", b"[NaN]", b"[-Infinity]", b"[1e999]", b"[" * 100_000):
        with pytest.raises(UserError, match=r"/out/p\.json is not JSON"):
            stated(predicate=wrong)


def test_however_deep_a_statement_is_it_is_written_or_refused() -> None:
    refused = 0
    for depth in range(800, 1100, 7):
        try:
            statement.files([stated(predicate=b"[" * depth + b"]" * depth)], prefix="")
        except UserError as error:
            refused += "nested too deeply" in error.message
    assert refused


def test_a_manifest_of_statements() -> None:
    image = Descriptor(media_type=OCI.manifest, digest=Digest(SHA), size=7)
    for artifact in (False, True):
        made = statement.manifest([stated()], image, OCI, artifact=artifact)
        layer, config, raw = made.blobs
        document = json.loads(raw)
        assert made.descriptor.digest == Digest.sha256(raw)
        assert made.descriptor.annotations["vnd.docker.reference.digest"] == SHA
        assert document["layers"] == [
            {
                "mediaType": "application/vnd.in-toto+json",
                "digest": Digest.sha256(layer),
                "size": len(layer),
                "annotations": {"in-toto.io/predicate-type": "t"},
            }
        ]
        assert document["config"]["digest"] == Digest.sha256(config)
        if artifact:
            assert document["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
            assert document["subject"] == {"mediaType": OCI.manifest, "digest": SHA, "size": 7}
            assert (config, document["config"]["data"]) == (b"{}", "e30=")
        else:
            assert json.loads(config)["rootfs"]["diff_ids"] == [Digest.sha256(layer)]


def test_statements_as_files() -> None:
    (name,) = statement.files([stated()], prefix="x-")
    assert name == "x-p.json"
    (name,) = statement.files([stated()], prefix="", platform="linux/arm/v7")
    assert name == "p.linux_arm_v7.json"
    for path in ("/", "/..", "a\0"):
        with pytest.raises(UserError, match="names no file"):
            statement.files([statement.statement(Claim(path=path), b"", ())], prefix="")
    with pytest.raises(UserError, match=r"duplicate attestation path name p\.json"):
        statement.files([stated(), stated()], prefix="")


# --- unbundled ---------------------------------------------------------------------------------------------------


class FakeTrees:
    """One tree, whatever the stack."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def ensure(self, stack: tuple[str, ...]) -> None:
        return

    def open_stack(self, stack: tuple[str, ...]) -> Any:
        @contextmanager
        def opened() -> Any:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield fd
            finally:
                os.close(fd)

        return opened()


def bundle(path: str = "/out", predicate_type: str = SPDX) -> Attestation:
    claim = Claim(kind=Kind.BUNDLE, path=path, predicate_type=predicate_type, metadata={SBOM_CORE: b"sbom", "k": b"v"})
    return Attestation(claim=claim, stack=("l",))


def write(root: Path, **statements: Any) -> Any:
    (root / "out").mkdir(exist_ok=True)
    for name, document in statements.items():
        text = document if isinstance(document, str) else json.dumps(document)
        (root / "out" / f"{name}.spdx.json").write_text(text)
    return FakeTrees(root)


async def test_a_bundle_is_taken_apart(tmp_path: Path) -> None:
    of = {"predicateType": SPDX, "subject": [{"name": "s", "digest": {"sha256": "0"}}]}
    trees = write(tmp_path, extra={**of, "predicate": {"n": 1}}, sbom={"predicateType": SPDX, "predicate": 2})
    core, extra = await unbundled(trees, [bundle()])
    assert (core.claim.path, extra.claim.path) == ("/out/sbom.spdx.json", "/out/extra.spdx.json")  # the core first
    assert core.claim.subjects == ()
    assert extra.claim.subjects == (Subject(kind=SubjectKind.RAW, name="s", digests=("sha256:0",)),)
    assert extra.claim.metadata["k"] == b"v"
    assert extra.content is not None
    assert await extra.content() == b'{"n":1}'


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"a"', "cannot decode in-toto statement a.spdx.json"),
        ("{} {}", "cannot decode in-toto statement a.spdx.json"),
        ("[]", "it has not the shape of one"),
        ('{"subject": [1], "predicateType": "https://spdx.dev/Document"}', "a subject has a name and digests"),
        ('{"predicateType": "x"}', f"bundle entry x does not match required predicate type {SPDX}"),
    ],
)
async def test_a_bundle_that_is_none(document: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        await unbundled(write(tmp_path, a=document), [bundle()])
    assert message in caught.value.message


async def test_nobody_else_writes_a_provenance(tmp_path: Path) -> None:
    kind = "https://slsa.dev/provenance/v1"
    with pytest.raises(UserError, match="frontend may not bundle provenance"):
        await unbundled(write(tmp_path, a={"predicateType": kind}), [bundle(predicate_type="")])
    with pytest.raises(UserError, match="frontend may not set provenance"):
        await unbundled(write(tmp_path), [Attestation(claim=Claim(predicate_type=kind, path="p"), stack=("l",))])


async def test_what_is_not_there(tmp_path: Path) -> None:
    trees = write(tmp_path)
    with pytest.raises(SourceError, match="cannot read attestation bundle /nowhere"):
        await unbundled(trees, [bundle("/nowhere")])
    for claim, message in (
        (Claim(), "attestation does not have set path"),
        (Claim(path="p"), "attestation does not have available content"),
        (Claim(kind=Kind.BUNDLE), "no ref provided for attestation bundle"),
    ):
        with pytest.raises(UserError, match=message):
            await unbundled(trees, [Attestation(claim=claim)])
