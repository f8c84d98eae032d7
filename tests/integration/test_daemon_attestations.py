"""Attestations of builds whose frontend is the test: what it attests itself, and whose provenance a result has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buildengine.api import control_pb2
from buildengine.api import gateway_pb2 as pb
from llb.definition import Definition
from llb.pb import ops_pb2
from llb.sources import image
from llb.state import mkfile, scratch
from tests.builds import FIXTURES, Store
from tests.fakes.daemon import PATIENCE, Daemon, daemon, grpc
from tests.integration.test_daemon_gateway import Build

pytest_plugins = [FIXTURES]

DOCKERFILE = """
FROM base AS one
RUN --network=none echo 1 > /1
FROM base AS two
RUN echo 2 > /2
"""
PLATFORMS = {
    "Platforms": [
        {"ID": f"linux/{name}", "Platform": {"os": "linux", "architecture": name}} for name in ("amd64", "arm64")
    ]
}


@pytest.fixture(scope="module")
def running(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("daemon")
    (place / "env.d").mkdir()
    (place / "env.d/ci.json").write_text('{"ci": "here"}')
    config = place / "buildkitd.toml"
    config.write_text(f'provenanceEnvDir = "{place}/env.d"\n')
    with daemon(store_with_base.copy(place / "root").root, place, "--config", config) as started:
        yield started


def message(definition: Definition) -> Any:
    return ops_pb2.Definition.FromString(definition.to_bytes())


def document(running: Daemon, digest: str) -> Any:
    root = Path(running.process.args[running.process.args.index("--root") + 1])
    for path in (root / "history" / digest.removeprefix("sha256:"), root / "blobs/sha256" / digest[7:]):
        if path.exists():
            return json.loads(path.read_bytes())
    pytest.fail(f"there is no {digest}")


def run_dockerfile(build: Build, target: str) -> pb.Ref:
    """Our frontend, run for the client's: it gets the Dockerfile as an input."""
    read = scratch().file(mkfile("/Dockerfile", DOCKERFILE.encode())).marshal()
    request = pb.SolveRequest(
        Frontend="dockerfile.v0",
        FrontendOpt={"target": target, "build-arg:FOO": target},
        FrontendInputs={"dockerfile": message(read)},
        allowResultReturn=True,
        allowResultArrayRef=True,
    )
    answer = build("Solve", request)
    assert isinstance(answer.result.ref, pb.Ref)
    return answer.result.ref


def test_whose_provenance_a_result_has(running: Daemon) -> None:
    """Each result that a frontend made for the client's is told with what that frontend was asked."""
    with running.client() as client:
        build = Build(client)
        build.solve(image("base").run("echo mine > /x").root.marshal(), evaluate=True)
        refs = {"linux/amd64": run_dockerfile(build, "one"), "linux/arm64": run_dockerfile(build, "two")}
        result = pb.Result(refs=pb.RefMap(refs=refs), metadata={"refs.platforms": json.dumps(PLATFORMS).encode()})
        build("Return", pb.ReturnRequest(result=result))
        build.solving.result(PATIENCE)
        record = client.record(build.ref)
    told = {}
    for platform, info in record.Results.items():
        (blob,) = info.Attestations
        told[platform] = document(running, blob.digest)
    for platform, target in (("linux/amd64", "one"), ("linux/arm64", "two")):
        parameters = told[platform]["invocation"]["parameters"]
        assert parameters["frontend"] == "dockerfile.v0"
        assert parameters["args"] == {"target": target, "build-arg:FOO": target}
        assert [each["uri"].partition("?")[0] for each in told[platform]["materials"]] == ["pkg:docker/base@latest"]
        assert told[platform]["invocation"]["environment"] == {"platform": "linux/amd64", "ci": "here"}
    hermetic = "https://mobyproject.org/buildkit@v1#hermetic"
    assert told["linux/amd64"]["metadata"][hermetic] is True
    assert hermetic not in told["linux/arm64"]["metadata"]


def attested(build: Build, *said: pb.Attestation, ref: str = "") -> dict[str, str]:
    result = pb.Result(ref=pb.Ref(id=ref), attestations={"linux/amd64": pb.Attestations(attestation=said)})
    build("Return", pb.ReturnRequest(result=result))
    return dict(build.solving.result(PATIENCE).ExporterResponse)


def test_a_frontend_attests(running: Daemon) -> None:
    """Predicates in files and bundles of statements, read out of references."""
    statement = {"predicateType": "https://example.com/b", "subject": [], "predicate": {"from": "a bundle"}}
    tree = scratch().file(
        mkfile("/plain.json", b'{"from": "a file"}').mkfile("/statement.json", json.dumps(statement).encode())
    )
    with running.client() as client:
        build = Build(client, Exporters=[control_pb2.Exporter(Type="image", Attrs={"name": "app:1"})])
        held = pb.Ref(id=build.solve(tree.marshal()))
        subject = pb.InTotoSubject(kind=pb.Raw, name="it", digest=["sha256:00"])
        plain = pb.Attestation(
            ref=held, path="/plain.json", inTotoPredicateType="https://example.com/a", inTotoSubjects=[subject]
        )
        only = build.solve(scratch().file(mkfile("/s.json", json.dumps(statement).encode())).marshal())
        bundle = pb.Attestation(kind=pb.Bundle, ref=pb.Ref(id=only), path="/")
        response = attested(build, plain, bundle, ref=build.solve(tree.marshal()))
    index = document(running, response["containerimage.digest"])
    manifest = document(running, index["manifests"][1]["digest"])
    first, second = (document(running, layer["digest"]) for layer in manifest["layers"])
    assert (first["predicateType"], first["predicate"]) == ("https://example.com/a", {"from": "a file"})
    assert first["subject"] == [{"name": "it", "digest": {"sha256": "00"}}]
    assert (second["predicateType"], second["predicate"]) == ("https://example.com/b", {"from": "a bundle"})
    assert second["subject"][0]["name"] == "pkg:docker/app@1?platform=linux%2Famd64"


def test_a_frontend_writes_no_provenance(running: Daemon) -> None:
    with running.client() as client:
        build = Build(client, Exporters=[control_pb2.Exporter(Type="image")])
        held = build.solve(scratch().file(mkfile("/p.json", b"{}")).marshal())
        said = pb.Attestation(ref=pb.Ref(id=held), path="/p.json", inTotoPredicateType="https://slsa.dev/provenance/v1")
        with pytest.raises(grpc.RpcError, match="frontend may not set provenance attestations"):
            attested(build, said, ref=held)
