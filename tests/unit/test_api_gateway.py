"""The LLBBridge service in front of a bridge without a build: what goes in, and what comes out on the wire."""

from __future__ import annotations

import json
import stat
from dataclasses import replace

import pytest
from google.protobuf.any_pb2 import Any as Anything
from google.rpc.status_pb2 import Status

from buildengine.api import gateway_pb2 as pb
from buildengine.api import policy_pb2, sourcemeta
from buildengine.api.attestations import heard
from buildengine.api.bridge import Attestation, Ref, Result
from buildengine.api.capabilities import LLB
from buildengine.api.rpc import Code, RpcError
from buildengine.attestation import Claim, Kind, Subject, SubjectKind
from buildengine.builder import CacheEntry
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.sourcepolicy import Action, Policy, Rule, Selector
from frontends.gateway import (
    AttestationChain,
    ChainBlob,
    Details,
    FileInfo,
    ResolvedGit,
    ResolvedHttp,
    ResolvedImage,
    ResolvedSource,
)
from frontends.testing import ARM64
from llb.definition import Definition
from llb.ops import SourceOp
from llb.pb import ops_pb2
from llb.sources import image, local
from llb.state import scratch
from tests.fakes.bridges import WORKER, FakeBridge, served

CONTEXT = local("context").marshal()
DIGEST = Digest.sha256(b"it")


def message(definition: Definition) -> ops_pb2.Definition:
    return ops_pb2.Definition.FromString(definition.to_bytes())


# --- what the service says of itself -----------------------------------------------------------------------------


async def test_ping_tells_of_the_worker_and_of_what_can_be_done() -> None:
    async with served(FakeBridge()) as call:
        pong = await call("Ping", pb.PingRequest())
    enabled = {cap.ID for cap in pong.FrontendAPICaps if cap.Enabled}
    assert {
        "solve.base",
        "return",
        "proto.refarray",
        "readdir",
        "statfile",
        "source.metaresolver",
        "gateway.exec",
    } <= enabled
    assert [cap.ID for cap in pong.FrontendAPICaps if cap.Deprecated] == ["solve.inlinereturn"]
    assert {cap.ID for cap in pong.LLBCaps} == set(LLB)
    (worker,) = pong.Workers
    assert (worker.ID, dict(worker.Labels), worker.platforms[0].Architecture) == ("w1", {"executor": "oci"}, "amd64")


async def test_a_runtime_without_containers_promises_none() -> None:
    async with served(FakeBridge(), worker=replace(WORKER, containers=False)) as call:
        pong = await call("Ping", pb.PingRequest())
    assert not [cap.ID for cap in pong.FrontendAPICaps if cap.ID.startswith("gateway.exec")]


async def test_what_is_refused_in_a_build_is_not_promised() -> None:
    assert {"mergeop", "diffop", "exec.mount.secret", "file.symlink.create"} <= set(LLB)
    assert not {"exec.meta.cdi", "source.git.signatureverify"} & set(LLB)


async def test_a_build_that_is_not_there_is_named_with_the_call() -> None:
    async with served(RpcError(Code.NOT_FOUND, "no such job x")) as call:
        with pytest.raises(RpcError, match="forwarding Ping: no such job x") as caught:
            await call("Ping", pb.PingRequest())
    assert caught.value.code is Code.NOT_FOUND


# --- solve -------------------------------------------------------------------------------------------------------


async def test_a_definition_is_passed_on_and_its_reference_comes_back() -> None:
    bridge = FakeBridge()
    async with served(bridge) as call:
        request = pb.SolveRequest(
            Definition=message(CONTEXT), allowResultReturn=True, allowResultArrayRef=True, Evaluate=True
        )
        answer = await call("Solve", request)
    ((_, order),) = bridge.asked
    assert order.definition.ops == CONTEXT.ops
    assert order.evaluate
    assert answer.ref == ""
    assert answer.result.ref.id == "r1"
    assert getattr(answer.result.ref, "def") == message(CONTEXT)


async def test_a_frontend_is_passed_on_with_options_and_inputs() -> None:
    bridge = FakeBridge()
    async with served(bridge) as call:
        request = pb.SolveRequest(
            Frontend="dockerfile.v0",
            FrontendOpt={"target": "x"},
            FrontendInputs={"context": message(CONTEXT)},
            CacheImports=[pb.CacheOptionsEntry(Type="registry", Attrs={"ref": "a"})],
        )
        await call("Solve", request)
    ((_, order),) = bridge.asked
    assert (order.definition, order.frontend, dict(order.options)) == (None, "dockerfile.v0", {"target": "x"})
    assert order.inputs["context"].ops == CONTEXT.ops
    assert order.cache_imports == (CacheEntry(type="registry", attrs={"ref": "a"}),)


async def test_a_definition_and_a_frontend_together_are_refused() -> None:
    async with served(FakeBridge()) as call:
        with pytest.raises(RpcError, match="both Definition and Frontend"):
            await call("Solve", pb.SolveRequest(Definition=message(CONTEXT), Frontend="dockerfile.v0"))


SET = Result(refs={"linux/amd64": Ref(id="a"), "linux/arm64": Ref()}, metadata={"k": b"v"})


@pytest.mark.parametrize("new", [True, False])
async def test_a_set_of_results_in_both_forms(new: bool) -> None:
    async with served(FakeBridge(solve=SET)) as call:
        answer = await call("Solve", pb.SolveRequest(allowResultReturn=True, allowResultArrayRef=new))
    ids = {key: ref.id for key, ref in answer.result.refs.refs.items()} or dict(answer.result.refsDeprecated.refs)
    assert ids == {"linux/amd64": "a", "linux/arm64": ""}
    assert answer.result.WhichOneof("result") == ("refs" if new else "refsDeprecated")
    assert dict(answer.result.metadata) == {"k": b"v"}


async def test_a_client_that_knows_no_results_gets_an_id_and_no_set() -> None:
    async with served(FakeBridge()) as call:
        answer = await call("Solve", pb.SolveRequest(Definition=message(CONTEXT)))
    assert (answer.ref, answer.result.refDeprecated) == ("r1", "r1")
    async with served(FakeBridge(solve=SET)) as call:
        with pytest.raises(RpcError, match="did not return default result"):
            await call("Solve", pb.SolveRequest())


async def test_a_final_solve_is_the_result_with_what_the_exporter_is_told() -> None:
    bridge = FakeBridge(solve=Result(ref=Ref(id="r"), metadata={"theirs": b"2"}))
    async with served(bridge) as call:
        await call("Solve", pb.SolveRequest(Final=True, ExporterAttr=b'{"containerimage.config": "e30="}'))
    assert bridge.result == Result(ref=Ref(id="r"), metadata={"containerimage.config": b"{}", "theirs": b"2"})


# --- files -------------------------------------------------------------------------------------------------------


async def test_a_part_of_a_file_and_all_of_it() -> None:
    bridge = FakeBridge(read_file=b"data")
    async with served(bridge) as call:
        part = pb.ReadFileRequest(Ref="r", FilePath="/f", Range=pb.FileRange(Offset=3, Length=0))
        assert (await call("ReadFile", part)).Data == b"data"
        await call("ReadFile", pb.ReadFileRequest(Ref="r", FilePath="/f"))
        with pytest.raises(RpcError, match="does not begin before the file"):
            await call("ReadFile", pb.ReadFileRequest(Ref="r", FilePath="/f", Range=pb.FileRange(Offset=-1)))
    assert bridge.asked == [("read_file", "r", "/f", 3, 0), ("read_file", "r", "/f", 0, None)]


async def test_files_are_described_as_fsutil_describes_them() -> None:
    link = FileInfo(path="l", mode=stat.S_IFLNK | 0o777, link="a", modified=5)
    odd = FileInfo(
        path="\udcff", mode=stat.S_IFREG | stat.S_ISUID | 0o755, uid=1, gid=2, size=3, xattrs={"user.x": b"y"}
    )
    bridge = FakeBridge(read_dir=[link, odd], stat_file=FileInfo(path="d", mode=stat.S_IFDIR | 0o1777))
    async with served(bridge) as call:
        first, second = (await call("ReadDir", pb.ReadDirRequest(Ref="r", DirPath="/", IncludePattern="*"))).entries
        found = (await call("StatFile", pb.StatFileRequest(Ref="r", Path="/d"))).stat
    assert (first.path, first.mode, first.linkname, first.modTime) == ("l", 1 << 27 | 0o777, "a", 5)
    assert (second.path, second.mode, second.uid, second.gid) == ("�", 1 << 23 | 0o755, 1, 2)
    assert (second.size, dict(second.xattrs)) == (3, {"user.x": b"y"})
    assert (found.path, found.mode) == ("d", 1 << 31 | 1 << 20 | 0o777)
    assert bridge.asked == [("read_dir", "r", "/", "*"), ("stat_file", "r", "/d")]


async def test_an_error_keeps_its_class_on_the_way() -> None:
    async with served(FakeBridge(evaluate=SourceError("x: no such file"))) as call:
        with pytest.raises(RpcError, match="no such file") as caught:
            await call("Evaluate", pb.EvaluateRequest(Ref="r"))
    assert caught.value.code is Code.UNKNOWN  # as BuildKit's are
    assert any(json.loads(detail.value).get("class") == "SourceError" for detail in caught.value.details)


# --- sources -----------------------------------------------------------------------------------------------------

GIT, FILE = SourceOp(identifier="git://x"), SourceOp(identifier="https://x/f")
REPLACED = SourceOp(identifier="docker-image://docker.io/library/b:1")
IMAGE = ResolvedImage(source=REPLACED, digest=DIGEST, config=b"{}")


async def test_an_image_is_resolved_for_a_platform() -> None:
    bridge = FakeBridge(resolve_source=IMAGE)
    rules = policy_pb2.Policy(rules=[policy_pb2.Rule(selector=policy_pb2.Selector(identifier="*"))])
    async with served(bridge) as call:
        platform = ops_pb2.Platform(OS="linux", Architecture="aarch64")
        request = pb.ResolveImageConfigRequest(Ref="a", Platform=platform, ResolveMode="pull", LogName="load a")
        answer = await call("ResolveImageConfig", request)
        await call("ResolveImageConfig", pb.ResolveImageConfigRequest(Ref="a:1", SourcePolicies=[rules]))
        bridge.answers["resolve_source"] = ResolvedHttp(source=FILE, checksum=DIGEST, filename="f")
        with pytest.raises(RpcError, match=r"ref mutated by policy to non-image: .*/library/a -> https://x/f"):
            await call("ResolveImageConfig", pb.ResolveImageConfigRequest(Ref="a"))
    assert (answer.Digest, answer.Config, answer.Ref) == (DIGEST, b"{}", "docker.io/library/b:1")
    allow = Policy(rules=(Rule(action=Action.ALLOW, selector=Selector(identifier="*")),))
    assert bridge.asked[:2] == [
        ("resolve_source", "docker-image://docker.io/library/a", {}, ARM64, "pull", "load a", ()),
        ("resolve_source", "docker-image://docker.io/library/a:1", {}, None, "default", "", (allow,)),
    ]


async def test_an_image_of_a_layout_is_a_source_of_its_own() -> None:
    bridge = FakeBridge(resolve_source=IMAGE)
    request = pb.ResolveImageConfigRequest(Ref="a@sha256:1", ResolverType=1, StoreID="store", SessionID="s1")
    async with served(bridge) as call:
        answer = await call("ResolveImageConfig", request)
    assert (answer.Digest, answer.Config) == (DIGEST, b"{}")
    attrs = {"oci.store": "store", "oci.session": "s1"}
    assert bridge.asked == [("resolve_source", "oci-layout://a@sha256:1", attrs, None, "default", "", ())]


async def test_sources_of_every_kind_are_resolved() -> None:
    bridge = FakeBridge(resolve_source=IMAGE)
    source = ops_pb2.SourceOp(identifier="docker-image://a", attrs={"image.checksum": "x"})
    async with served(bridge) as call:
        without = pb.ResolveSourceMetaRequest(Source=source, Image=pb.ResolveSourceImageRequest(NoConfig=True))
        as_image = await call("ResolveSourceMeta", without)
        found = ResolvedGit(source=GIT, ref="refs/heads/a", checksum="c" * 40, commit_checksum="")
        bridge.answers["resolve_source"] = found
        as_git = await call("ResolveSourceMeta", pb.ResolveSourceMetaRequest(Source=source))
        bridge.answers["resolve_source"] = ResolvedHttp(source=FILE, checksum=DIGEST, filename="f", modified=7)
        as_http = await call("ResolveSourceMeta", pb.ResolveSourceMetaRequest(Source=source))
        with pytest.raises(RpcError, match="source is required"):
            await call("ResolveSourceMeta", pb.ResolveSourceMetaRequest())
    assert as_image.Source == ops_pb2.SourceOp(identifier=REPLACED.identifier)
    assert as_image.Image.Digest == DIGEST
    assert (as_git.Git.Ref, as_git.Git.Checksum, as_git.HasField("Image")) == ("refs/heads/a", "c" * 40, False)
    assert (as_http.HTTP.Checksum, as_http.HTTP.Filename, as_http.HTTP.LastModified.seconds) == (DIGEST, "f", 7)
    asked = ("resolve_source", "docker-image://a", {"image.checksum": "x"}, None, "default", "", ())
    assert bridge.asked[0] == (*asked, Details(config=False))


CHAIN = AttestationChain(
    root=DIGEST,
    image_manifest=Digest.sha256(b"image"),
    attestation_manifest=Digest.sha256(b"attested"),
    signature_manifest=Digest.sha256(b"signed"),
    blobs=(ChainBlob(media_type="a/b", digest=Digest.sha256(b"signed"), annotations={"x": "y"}, data=b"signed"),),
)


@pytest.mark.parametrize(
    ("details", "found"),
    [
        (Details(config=False, chain=True), replace(IMAGE, config=b"", chain=CHAIN)),
        (Details(chain=True), replace(IMAGE, chain=AttestationChain(root=DIGEST, image_manifest=DIGEST))),
        (
            Details(objects=True),
            ResolvedGit(
                source=GIT,
                ref="refs/tags/a",
                checksum="c" * 40,
                commit_checksum="d" * 40,
                commit_object=b"commit",
                tag_object=b"tag",
            ),
        ),
    ],
)
async def test_what_proves_a_source_is_told_when_it_is_asked_for(details: Details, found: ResolvedSource) -> None:
    bridge = FakeBridge(resolve_source=found)
    request = pb.ResolveSourceMetaRequest(Source=ops_pb2.SourceOp(identifier="x://a"))
    sourcemeta.ask_details(request, details)
    async with served(bridge) as call:
        answer = await call("ResolveSourceMeta", request)
    assert bridge.asked[0][-1] == details
    assert sourcemeta.resolved(answer) == found


# --- the last word, inputs, warnings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "heard"),
    [
        (pb.Result(), Result()),
        (pb.Result(ref=pb.Ref(id="a"), metadata={"k": b"v"}), Result(ref=Ref(id="a"), metadata={"k": b"v"})),
        (pb.Result(refDeprecated="a"), Result(ref=Ref(id="a"))),
        (pb.Result(refs=pb.RefMap(refs={"x": pb.Ref(id="a")})), Result(refs={"x": Ref(id="a")})),
        (pb.Result(refs=pb.RefMap(refs={"y": pb.Ref()})), Result(refs={"y": Ref()})),
        (pb.Result(refsDeprecated=pb.RefMapDeprecated(refs={"x": "a"})), Result(refs={"x": Ref(id="a")})),
    ],
)  # fmt: skip
async def test_results_in_every_form(message: pb.Result, heard: Result) -> None:
    bridge = FakeBridge()
    async with served(bridge) as call:
        await call("Return", pb.ReturnRequest(result=message))
    assert bridge.result == heard


async def test_a_return_of_nothing_is_a_result() -> None:
    bridge = FakeBridge()
    async with served(bridge) as call:
        await call("Return", pb.ReturnRequest())
    assert bridge.result == Result()


async def test_an_error_is_heard_with_its_details() -> None:
    bridge = FakeBridge()
    detail = Anything(type_url="github.com/moby/buildkit/stack.Stack+json", value=b"{}")
    async with served(bridge) as call:
        await call("Return", pb.ReturnRequest(error=Status(code=99, message="no", details=[detail])))
    assert isinstance(bridge.result, RpcError)
    assert (bridge.result.code, bridge.result.message) == (Code.UNKNOWN, "no")
    assert [(d.type_url, d.value) for d in bridge.result.details] == [(detail.type_url, b"{}")]


async def test_attestations_are_heard_with_their_subjects_and_references() -> None:
    bridge = FakeBridge()
    subject = pb.InTotoSubject(kind=pb.Raw, name="file", digest=["sha256:00"])
    message = pb.Attestation(
        kind=pb.Bundle,
        metadata={"inline-only": b"true"},
        ref=pb.Ref(id="r1"),
        path="/out",
        inTotoPredicateType="https://example.com/v1",
        inTotoSubjects=[subject, pb.InTotoSubject(name="also")],
    )
    attached = {"linux/amd64": pb.Attestations(attestation=[message, pb.Attestation(path="a.json")])}
    async with served(bridge) as call:
        await call("Return", pb.ReturnRequest(result=pb.Result(attestations=attached)))
    assert isinstance(bridge.result, Result)
    bundle, plain = bridge.result.attestations["linux/amd64"]
    assert bundle.claim.is_inline_only
    assert (bundle.claim.kind, bundle.claim.path, bundle.ref) == (Kind.BUNDLE, "/out", Ref(id="r1"))
    assert bundle.claim.subjects == (
        Subject(kind=SubjectKind.RAW, name="file", digests=("sha256:00",)),
        Subject(kind=SubjectKind.SELF, name="also"),
    )
    assert (plain.claim.kind, plain.claim.path, plain.ref) == (Kind.IN_TOTO, "a.json", None)


async def test_attestations_of_a_frontend_that_ran_are_told() -> None:
    claim = Claim(
        path="a.json", predicate_type="https://example.com/v1", subjects=(Subject(name="x"),), metadata={"k": b"v"}
    )
    said = Attestation(claim=claim, ref=Ref(id="r2"))
    bridge = FakeBridge(solve=Result(ref=Ref(id="r1"), attestations={"linux/amd64": (said,)}))
    async with served(bridge) as call:
        answer = await call("Solve", pb.SolveRequest(Frontend="dockerfile.v0", allowResultReturn=True))
    assert heard(answer.result.attestations["linux/amd64"].attestation[0]) == said


async def test_inputs_are_given_as_they_came() -> None:
    async with served(FakeBridge(inputs={"base": image("a").marshal()})) as call:
        answer = await call("Inputs", pb.InputsRequest())
    assert dict(answer.Definitions) == {"base": message(image("a").marshal())}


async def test_a_warning_arrives_whole() -> None:
    bridge = FakeBridge()
    lines = ops_pb2.Range(start=ops_pb2.Position(line=2, character=1), end=ops_pb2.Position(line=4))
    request = pb.WarnRequest(
        digest=DIGEST, level=3, short=b"beware", detail=[b"one", b"two"], url="https://x",
        info=ops_pb2.SourceInfo(filename="f", data=b"text"), ranges=[lines],
    )  # fmt: skip
    async with served(bridge) as call:
        await call("Warn", request)
    ((_, warning),) = bridge.asked
    assert (warning.vertex, warning.level, warning.message) == (DIGEST, 3, "beware")
    assert (warning.detail, warning.url) == (("one", "two"), "https://x")
    (span,) = warning.location.ranges
    assert (span.start_line, span.start_column, span.end_line) == (2, 1, 4)
    assert (warning.location.filename, warning.location.text) == ("f", b"text")


async def test_an_empty_definition_is_the_empty_tree() -> None:
    bridge = FakeBridge(solve=UserError("never mind"))
    async with served(bridge) as call:
        with pytest.raises(RpcError):
            await call("Solve", pb.SolveRequest(Definition=message(scratch().marshal())))
    ((_, order),) = bridge.asked
    assert order.definition is None
