"""Operations to bytes and back: the bytes are fixed, and they are BuildKit's."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition
from llb import codec, ops
from llb.pb import ops_pb2 as pb
from tests.unit.llb_samples import AMD64, SAMPLES, A, all_ops

GOLDEN = Path(__file__).parents[1] / "golden" / "llb_ops.json"


@pytest.mark.parametrize("name", SAMPLES)
def test_bytes_of_operations_never_change(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    data = codec.encode(SAMPLES[name])
    assert base64.b64encode(data).decode() == golden["bytes"]
    assert Digest.sha256(data) == golden["digest"]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_field_survives(name: str) -> None:
    assert codec.decode(codec.encode(SAMPLES[name])) == SAMPLES[name]


@given(all_ops)
def test_decoding_undoes_encoding(op: ops.Op) -> None:
    data = codec.encode(op)
    assert codec.decode(data) == op
    assert codec.encode(codec.decode(data)) == data


def _digest(op: ops.Op) -> str:
    return Digest.sha256(codec.encode(op)).hex


def _input(hexadecimal: str) -> ops.Input:
    return ops.Input(digest=Digest.of_hex(hexadecimal))


class TestDigestsThatBuildKitPublished:
    """From `digestMapping` and `llbDefinition` of a build's provenance attestation, made by BuildKit in April 2025."""

    image = "de26ac856cfa3a78d41f9afc56cbf99148b029f067c24adfc65a4635fc06f5fa"
    context = "89e2f16e1b3612bab3c8c7f6a58b6e59b72b4453381874fed3c7827ef1b95894"
    copied = "0dc4de8261b5f57fb8841320b739fcfab7aa37bad994059fa7e656b1a8613b25"
    result = "d177efd10a9c6867868470b75a11251105d3a3ecc44b233623a35f31a6bb6aae"

    def test_image(self) -> None:
        pinned = "@sha256:fb93ca595ad82020cc52ff60604cddc1a6d393229ef5ecc8f6ac7c7fb52bacda"
        source = ops.SourceOp(identifier=f"docker-image://docker.io/library/python:alpine3.14{pinned}")
        assert _digest(ops.Op(payload=source, platform=AMD64)) == self.image

    def test_copy(self) -> None:
        action = ops.CopyAction(
            src="/README.md",
            dest="/README.md",
            follow_symlink=True,
            dir_copy_contents=True,
            create_dest_path=True,
            allow_wildcard=True,
            allow_empty_wildcard=True,
        )
        step = ops.FileAction(action=action, input=0, secondary_input=1, output=0)
        op = ops.Op(inputs=(_input(self.image), _input(self.context)), payload=ops.FileOp(actions=(step,)))
        assert _digest(op) == self.copied

    def test_terminal(self) -> None:
        assert _digest(ops.Op(inputs=(_input(self.copied),))) == self.result


def test_a_tmpfs_says_so_without_a_size() -> None:
    """As Go's client, and no other mount does."""
    mounts = (ops.Mount(dest="/"), ops.Mount(dest="/t", type=ops.MountType.TMPFS))
    data = codec.encode(ops.Op(payload=ops.ExecOp(meta=ops.Meta(args=("x",)), mounts=mounts)))
    assert [mount.HasField("TmpfsOpt") for mount in pb.Op.FromString(data).exec.mounts] == [False, True]


@pytest.mark.parametrize("trees", [{"lower": pb.LowerDiffInput(input=0)}, {"upper": pb.UpperDiffInput(input=0)}])
def test_a_diff_of_one_tree_is_refused(trees: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition, match="without a lower or an upper"):
        codec.decode(pb.Op(diff=pb.DiffOp(**trees)).SerializeToString())


def test_payload_is_written_last() -> None:
    data = codec.encode(SAMPLES["exec-plain"])
    before = pb.Op.FromString(data)
    before.ClearField("exec")
    assert data.startswith(before.SerializeToString(deterministic=True))


def test_maps_are_sorted() -> None:
    attrs = dict.fromkeys("zyxabc", "")
    assert codec.encode(ops.Op(payload=ops.SourceOp(identifier="x://", attrs=attrs))) == codec.encode(
        ops.Op(payload=ops.SourceOp(identifier="x://", attrs=dict(sorted(attrs.items()))))
    )


def test_a_foreign_platform_is_normalised() -> None:
    message = pb.Op(source=pb.SourceOp(identifier="x://"), platform=pb.Platform(OS="linux", Architecture="x86_64"))
    assert codec.decode(message.SerializeToString()).platform == AMD64


def test_an_empty_user_is_nobody_in_particular() -> None:
    action = pb.FileActionMkDir(path="/a", owner=pb.ChownOpt(user=pb.UserOpt()))
    data = pb.Op(file=pb.FileOp(actions=[pb.FileAction(mkdir=action)])).SerializeToString()
    payload = codec.decode(data).payload
    assert isinstance(payload, ops.FileOp)
    assert payload.actions[0].action == ops.MkDir(path="/a", mode=0, owner=ops.Owner(), timestamp=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff\xff", "not an LLB message"),
        (pb.Op(inputs=[pb.Input(digest="latest")]).SerializeToString(), "invalid digest 'latest'"),
        (pb.Op(diff=pb.DiffOp()).SerializeToString(), "diff operation without"),
        (pb.Op(file=pb.FileOp(actions=[pb.FileAction()])).SerializeToString(), "unknown kind of file action"),
        (b"\x42\x00", "unknown kind of operation (field 8)"),  # PassthroughOp of later versions
        (b"\x12\x04\x12\x02\x30\x09", "9 is not a valid MountType"),
        (b"\x1a\x03\x0a\x01\xff", "not an LLB message"),  # an identifier that is not UTF-8
    ],
)
def test_what_is_no_operation_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        codec.decode(data)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "payload",
    [
        ops.SourceOp(identifier="local://\udc80"),
        ops.FileOp(actions=(ops.FileAction(action=ops.MkDir(path="/", mode=1 << 40)),)),
        ops.FileOp(actions=(ops.FileAction(action=ops.MkDir(path="/", mode=0, owner=ops.Owner(user=-1))),)),
        ops.BuildOp(builder=-1, definition=b"\xff"),
    ],
)
def test_what_the_wire_cannot_hold_is_refused(payload: ops.Payload) -> None:
    with pytest.raises(InvalidDefinition, match="cannot be encoded"):
        codec.encode(ops.Op(payload=payload))


def test_fields_of_later_versions_are_skipped() -> None:
    data = codec.encode(SAMPLES["merge"]) + b"\xf2\x07\x01x"  # field 126
    assert codec.decode(data) == SAMPLES["merge"]
    assert A in [edge.digest for edge in codec.decode(data).inputs]
