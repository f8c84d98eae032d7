"""The generated modules are what protoc makes of llb/pb/ops.proto."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from llb.pb import ops_pb2

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("protoc")
    options = [f"--python_out={out}", f"--mypy_out={out}", f"--descriptor_set_out={out}/ops.bin"]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", *options, "llb/pb/ops.proto"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},  # protoc-gen-mypy
    )
    return out


def test_descriptor(generated: Path) -> None:
    made = FileDescriptorSet.FromString((generated / "ops.bin").read_bytes()).file[0]
    made.ClearField("source_code_info")
    committed = FileDescriptorSet().file.add()
    ops_pb2.DESCRIPTOR.CopyToProto(committed)
    for file in (made, committed):  # protoc writes them into a set, not into the Python module
        for message in file.message_type:
            for field in message.field:
                field.ClearField("json_name")
            for nested in message.nested_type:
                for field in nested.field:
                    field.ClearField("json_name")
    assert made == committed


@pytest.mark.parametrize("name", ["ops_pb2.py", "ops_pb2.pyi"])
def test_files(generated: Path, name: str) -> None:
    made, committed = [_without_version((root / "llb" / "pb" / name).read_text()) for root in (generated, ROOT)]
    assert made == committed


def _without_version(text: str) -> str:
    """What every protoc makes of the file: without its version, in a comment and as numbers of a call."""
    text = re.sub(r"(# Protobuf Python Version: )\S+", r"\1", text)
    return re.sub(r"(ValidateProtobufRuntimeVersion\()[^)]*", r"\1", text)
