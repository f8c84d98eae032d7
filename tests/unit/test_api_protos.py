"""The build API is BuildKit's on the wire: every name, number and type of its schema, and bytes that its Go code wrote.

Both golden files were made once of BuildKit v0.26.3: `api_schema.txt` of the descriptors in its generated Go files,
in the lines of `schema` below; `api_messages.json` by a Go program that marshals the messages of `MESSAGES`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from buildengine.api import auth_pb2 as auth
from buildengine.api import content_pb2 as content
from buildengine.api import control_pb2 as control
from buildengine.api import errdefs_pb2 as errdefs
from buildengine.api import gateway_pb2 as gateway
from buildengine.api import health_pb2 as health
from buildengine.api import policy_pb2 as policy
from buildengine.api import policysession_pb2 as policysession
from buildengine.api import secrets_pb2 as secrets
from buildengine.api import stack_pb2 as stack
from buildengine.api import stat_pb2 as stat
from buildengine.api import trace_pb2 as trace
from buildengine.api import wire_pb2 as wire
from buildengine.api import worker_pb2 as worker
from llb.pb import ops_pb2 as pb

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
HEX: dict[str, str] = json.loads((GOLDEN / "api_messages.json").read_text())
PLACES = ["llb/pb/ops_pb2.py", "buildengine/api/*_pb2.py"]
SPANS = "opentelemetry.proto.trace.v1.ResourceSpans"  # bytes of ours, as nothing reads them


def schema(file: FileDescriptorProto) -> Iterator[str]:
    """One line for each field, value of an enum and method: where it is, its number, its name and its type."""
    for message in file.message_type:
        yield from _message(f"{file.package}.{message.name}", message)
    for enum in file.enum_type:
        yield from _enum(f"{file.package}.{enum.name}", enum)
    for service in file.service:
        yield from _service(f"{file.package}.{service.name}", service)


def _message(name: str, message: DescriptorProto) -> Iterator[str]:
    yield f"message {name}{' map' if message.options.map_entry else ''}"
    for field in message.field:
        label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
        kind = field.type_name.lstrip(".") or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        oneof = f" of {message.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") else ""
        yield f"field {name} {field.number} {field.name} {label} {kind}{oneof}"
    for nested in message.nested_type:
        yield from _message(f"{name}.{nested.name}", nested)
    for enum in message.enum_type:
        yield from _enum(f"{name}.{enum.name}", enum)


def _enum(name: str, enum: EnumDescriptorProto) -> Iterator[str]:
    for value in enum.value:
        yield f"value {name} {value.number} {value.name}"


def _service(name: str, service: ServiceDescriptorProto) -> Iterator[str]:
    for method in service.method:
        sent, received = method.input_type.lstrip("."), method.output_type.lstrip(".")
        ways = ["stream " * method.client_streaming + sent, "stream " * method.server_streaming + received]
        yield f"method {name} {method.name} {' -> '.join(ways)}"


def test_the_schema_is_buildkits() -> None:
    lines: list[str] = []
    for path in (path for place in PLACES for path in ROOT.glob(place)):
        file = FileDescriptorProto()
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        importlib.import_module(module).DESCRIPTOR.CopyToProto(file)
        if not file.package.startswith("pybuild."):  # messages of our own
            lines += schema(file)
    golden = (GOLDEN / "api_schema.txt").read_text().replace(SPANS, "bytes")
    assert sorted(lines) == golden.splitlines()


TIME = Timestamp(seconds=1_700_000_000, nanos=5)
DETAIL = Any()
DETAIL.Pack(stack.Stack(frames=[stack.Frame(Name="main.main", File="main.go", Line=7)], pid=42, version="v1"))
FAILED = Status(code=2, message="failed", details=[DETAIL])
DEFINITION = pb.Definition(**{"def": [b"op"]})
CONVERT = policy.Rule(
    action=policy.CONVERT,
    selector=policy.Selector(identifier="a", match_type=policy.REGEX),
    updates=policy.Update(identifier="b"),
)
MESSAGES: dict[str, Message] = {
    "solve": control.SolveRequest(
        Ref="r1",
        Definition=DEFINITION,
        Session="s1",
        Frontend="dockerfile.v0",
        FrontendAttrs={"target": "x"},
        Cache=control.CacheOptions(Exports=[control.CacheOptionsEntry(Type="inline")]),
        Entitlements=["network.host"],
        SourcePolicy=policy.Policy(version=1, rules=[CONVERT]),
        Exporters=[control.Exporter(Type="oci", Attrs={"name": "n"})],
        EnableSessionExporter=True,
        SourcePolicySession="s2",
    ),
    "status": control.StatusResponse(
        vertexes=[
            control.Vertex(
                digest="sha256:1",
                inputs=["sha256:0"],
                name="[1/2] RUN",
                cached=True,
                started=TIME,
                error="no",
                progressGroup=pb.ProgressGroup(id="g", weak=True),
            )
        ],
        statuses=[control.VertexStatus(ID="layer", vertex="sha256:1", current=3, total=9, timestamp=TIME)],
        logs=[control.VertexLog(vertex="sha256:1", stream=2, msg=b"hello\n")],
        warnings=[control.VertexWarning(vertex="sha256:1", level=1, short=b"w", url="u")],
    ),
    "history": control.BuildHistoryEvent(
        type=control.COMPLETE,
        record=control.BuildHistoryRecord(
            Ref="r1",
            error=FAILED,
            CompletedAt=TIME,
            logs=control.Descriptor(media_type="m", digest="sha256:2", size=5, annotations={"k": "v"}),
            Result=control.BuildResultInfo(Results={1: control.Descriptor(digest="sha256:3")}),
            Generation=3,
            pinned=True,
            numTotalSteps=4,
            numWarnings=1,
        ),
    ),
    "worker": worker.WorkerRecord(
        ID="w",
        Labels={"l": "m"},
        platforms=[pb.Platform(Architecture="amd64", OS="linux")],
        GCPolicy=[worker.GCPolicy(all=True, reservedSpace=10, filters=["type==regular"])],
        BuildkitVersion=worker.BuildkitVersion(version="v0.26.3"),
    ),
    "result": gateway.Result(
        ref=gateway.Ref(**{"id": "ref", "def": DEFINITION}),
        metadata={"containerimage.config": b"{}"},
        attestations={
            "linux/amd64": gateway.Attestations(
                attestation=[
                    gateway.Attestation(
                        kind=gateway.Bundle,
                        path="/sbom",
                        inTotoSubjects=[gateway.InTotoSubject(kind=gateway.Raw, name="n")],
                    )
                ]
            )
        },
    ),
    "exec": gateway.ExecMessage(
        ProcessID="p",
        Init=gateway.InitMessage(ContainerID="c", Meta=pb.Meta(args=["sh"]), Fds=[0, 1, 2], Tty=True),
    ),
    "exit": gateway.ExecMessage(ProcessID="p", Exit=gateway.ExitMessage(Code=3, Error=FAILED)),
    "packet": wire.Packet(
        type=wire.Packet.PACKET_STAT,
        stat=stat.Stat(
            path="a/b", mode=1 << 31 | 0o755, size=12, modTime=-1, linkname="c", xattrs={"user.x": b"\0\xff"}
        ),
        ID=9,
    ),
    "data": wire.Packet(type=wire.Packet.PACKET_DATA, ID=300, data=b"data"),
    "token": auth.FetchTokenRequest(ClientID="c", Host="h", Realm="r", Service="s", Scopes=["repository:a:pull"]),
    "secret": secrets.GetSecretRequest(ID="id", annotations={"a": "b"}),
    "failure": errdefs.Solve(
        inputIDs=["i"],
        mountIDs=["m"],
        op=pb.Op(inputs=[pb.Input(digest="sha256:1")]),
        file=errdefs.FileAction(index=2),
        description={"d": "e"},
    ),
    "decision": policysession.CheckPolicyResponse(
        decision=policysession.DecisionResponse(
            action=policy.DENY, denyMessages=[policysession.DenyMessage(message="no")]
        )
    ),
    "write": content.WriteContentRequest(
        action=content.COMMIT, ref="r", total=4, expected="sha256:4", data=b"blob", labels={"x": "y"}
    ),
    "health": health.HealthCheckResponse(status=health.HealthCheckResponse.NOT_SERVING),
}


def test_every_golden_message_is_read() -> None:
    assert HEX.keys() == MESSAGES.keys()


@pytest.mark.parametrize("name", MESSAGES)
def test_bytes_of_go(name: str) -> None:
    expected = MESSAGES[name]
    message = type(expected).FromString(bytes.fromhex(HEX[name]))
    assert message == expected
    # Go writes the members of a oneof last, so it is the size that both have in common.
    assert len(expected.SerializeToString()) == len(HEX[name]) // 2


def test_spans_pass_as_they_came() -> None:
    """A ResourceSpans is bytes here: the request is written as it was read."""
    request = bytes.fromhex("0a0412020a00") + bytes.fromhex("0a00")
    message = trace.ExportTraceServiceRequest.FromString(request)
    assert list(message.resource_spans) == [bytes.fromhex("12020a00"), b""]
    assert message.SerializeToString() == request
