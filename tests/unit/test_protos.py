"""The generated modules are what protoc makes of the .proto files: llb/pb/ops.proto and those of the build API."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.rpc import status_pb2

ROOT = Path(__file__).parents[2]
GOOGLE = Path(status_pb2.__file__).parents[2]  # where google/rpc/status.proto is installed
SOURCES = ["llb/pb/ops.proto", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("buildengine/api/*.proto"))]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("protoc")
    options = [f"--python_out={out}", f"--mypy_out=quiet:{out}", f"--descriptor_set_out={out}/set.bin"]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"-I{GOOGLE}", *options, *SOURCES],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},  # protoc-gen-mypy
    )
    return out


@pytest.fixture(scope="module")
def made(generated: Path) -> dict[str, FileDescriptorProto]:
    files = FileDescriptorSet.FromString((generated / "set.bin").read_bytes()).file
    return {file.name: file for file in files}


def test_every_generated_module_has_its_source() -> None:
    committed = {str(path.relative_to(ROOT)) for path in ROOT.glob("buildengine/api/*_pb2.py")}
    assert committed == {source.replace(".proto", "_pb2.py") for source in SOURCES[1:]}


@pytest.mark.parametrize("source", SOURCES)
def test_descriptor(made: dict[str, FileDescriptorProto], source: str) -> None:
    committed = FileDescriptorProto()
    importlib.import_module(source.replace("/", ".").replace(".proto", "_pb2")).DESCRIPTOR.CopyToProto(committed)
    for file in (made[source], committed):
        file.ClearField("source_code_info")
        for message in file.message_type:
            _without_json_names(message)
        for service in file.service:
            for method in service.method:  # a `false` may be written down, or left out
                method.client_streaming, method.server_streaming = method.client_streaming, method.server_streaming
    assert made[source] == committed


@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi"])
@pytest.mark.parametrize("source", SOURCES)
def test_files(generated: Path, source: str, suffix: str) -> None:
    name = source.replace(".proto", suffix)
    made, committed = [_without_version((root / name).read_text()) for root in (generated, ROOT)]
    assert made == committed


def _without_json_names(message: DescriptorProto) -> None:
    """protoc writes them into a set, not into the Python module."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _without_json_names(nested)


def _without_version(text: str) -> str:
    """What every protoc makes of the file: without its version, in a comment and as numbers of a call."""
    text = re.sub(r"(# Protobuf Python Version: )\S+", r"\1", text)
    return re.sub(r"(ValidateProtobufRuntimeVersion\()[^)]*", r"\1", text)
