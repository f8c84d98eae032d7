"""Rules that no linter knows: joined paths, the environment, what a start imports, what a module must not know."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.test_size import PACKAGES, ROOT, sources

# Paths of images, contexts and archives are resolved with openat2, never joined (buildengine/inroot.py).
UNTRUSTED = ("worker/layers", "worker/ops", "worker/mounts", "worker/exporters")
READS_ENVIRONMENT = (
    "buildengine/config.py",
    "buildengine/cli/",
    "buildengine/settings.py",
    "buildengine/client/connect.py",  # sets what grpcio reads as it is imported
)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_untrusted_paths_are_never_joined(path: Path) -> None:
    relative = str(path.relative_to(ROOT))
    if relative.startswith(UNTRUSTED):
        assert "os.path.join" not in path.read_text()


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_configuration_reads_the_environment(path: Path) -> None:
    relative = str(path.relative_to(ROOT))
    if relative.startswith(READS_ENVIRONMENT):
        return
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    assert not used & {"environ", "getenv"}, f"{relative} reads the environment"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_check_is_silenced_and_nothing_is_left_undone(path: Path) -> None:
    """What a type checker or linter says is mended, and what a class leaves to its heirs is an abstract method."""
    text = path.read_text()
    for mark in ("type: ignore", "noqa", "NotImplementedError", "TODO", "FIXME"):
        assert mark not in text


def test_the_parts_that_decide_import_nothing_that_acts() -> None:
    """The edge machine, the layer names, the documents of images, caches and what is attested: no trio, no os."""
    documents = (
        "worker/exporters/document.py",
        "worker/exporters/statement.py",
        "worker/remotecache/document.py",
    )
    provenance = [str(path.relative_to(ROOT)) for path in (ROOT / "worker/provenance").glob("*.py")]
    machine = ("solver/edge.py", "solver/messages.py", "solver/cachekey.py")
    for name in (*machine, "worker/layers/tar.py", *documents, *provenance):
        imported = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(ast.parse((ROOT / name).read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not imported & {"trio", "os", "subprocess", "socket"}, name


def test_the_command_starts_without_what_is_heavy() -> None:
    """`pybuild --help` imports no engine, no event loop, no parser."""
    program = (
        "import sys; from buildengine.cli.main import main; main(['--help']);"
        "print(' '.join(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    loaded = set(done.stderr.split())
    parsers = {"lark", "google.protobuf", "h11", "h2", "re2"}
    heavy = {"trio", "networkx", "rich", "grpc", "nacl", "sqlite3", "worker"} | parsers
    assert "buildengine.cli.main" in loaded
    assert not loaded & heavy


def test_the_process_of_a_build_file_starts_with_little() -> None:
    """What it imports each build pays for: trio is for those who use it, and so is the Dockerfile's language."""
    program = "import sys, buildengine.client.buildfile; print(' '.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"trio", "asyncio", "lark", "grpc", "h2", "ssl", "worker", "solver", "buildengine.api.control_pb2"}
    assert "frontends.python.context" in loaded
    assert not loaded & (heavy | {f"frontends.dockerfile.{name}" for name in ("lines", "options", "source", "lint")})


def test_the_repository_stands_alone() -> None:
    """Nothing in it points outside of it."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        if (
            name.endswith((".py", ".md", ".toml", "Makefile", ".lark", ".proto"))
            and name != "tests/architecture/test_rules.py"
        ):
            text = (ROOT / name).read_text()
            assert "../shared" not in text, name


def test_packages_are_what_is_shipped() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{package}"' in text for package in PACKAGES)
