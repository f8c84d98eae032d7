"""Every example is executed, as its reader would, and does what its first lines say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from buildengine.config import load as load_config
from llb.definition import Definition
from llb.graph import load
from tests.builds import PYBUILD
from tests.fakes.image_tools import inspect, run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STEPS = ("WORKDIR /src", "COPY render.awk", "COPY pages", "RUN --mount=type=cache", "COPY --from=render", "RUN ls")


def test_there_is_no_example_that_is_not_tested() -> None:
    """Here and in test_examples_*.py."""
    examples = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert examples == ["debian", "from-scratch", "llb", "monorepo", "python-app", "quickstart"]
    assert sorted(re.findall(r"^\| `([\w-]+)`", (EXAMPLES / "README.md").read_text(), re.MULTILINE)) == examples
    assert [path.name for path in (EXAMPLES / "llb").glob("*.py")] == ["hello.py"]


# --- quickstart -----------------------------------------------------------------------------------------------


def quickstart(work: Path, *arguments: Path) -> str:
    """All that it prints, on both streams, in their order."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "TMPDIR": str(work)}
    argv = [EXAMPLES / "quickstart/run", PYBUILD, *arguments]
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def quickstarted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What it printed, and the directory in which it left all that it made."""
    work = tmp_path_factory.mktemp("quickstart")
    return quickstart(work, work / "made"), work / "made"


def verdicts(told: str) -> dict[str, str]:
    """How each step of a build ended, by the name of the step, from `--progress plain`."""
    names: dict[str, str] = {}
    ended: dict[str, str] = {}
    for line in told.splitlines():
        number, _, text = line.partition(" ")
        if text.startswith("["):
            names[number] = text
        elif number in names and (text == "CACHED" or text.startswith("DONE")):
            ended[names[number]] = text.partition(" ")[0]
    return ended


def test_the_quickstart_runs_each_step_once(quickstarted: tuple[str, Path]) -> None:
    first, second = quickstarted[0].partition("== first build")[2].split("== second build")
    for build, verdict in ((first, "DONE"), (second, "CACHED")):
        ended = verdicts(build.partition("== the local image")[0])
        found = {step: end for name, end in ended.items() for step in STEPS if step in name}
        assert found == dict.fromkeys(STEPS, verdict)
    assert "rendered index" in first


def test_the_quickstart_lists_what_it_made(quickstarted: tuple[str, Path]) -> None:
    listing = quickstarted[0].partition("== the local image")[2]
    assert "quickstart/site   latest" in listing
    assert "COPY --chown=www-data:www-data" in listing
    assert "blobs/sha256/" in listing
    assert "Total:" in listing


def test_the_archive_of_the_quickstart_is_an_image(quickstarted: tuple[str, Path]) -> None:
    archive = f"oci-archive:{quickstarted[1] / 'site.tar'}"
    manifest, config = inspect(archive), inspect(archive, "--config")
    assert manifest["Architecture"] in ("amd64", "arm64")
    assert len(manifest["Layers"]) == len(config["rootfs"]["diff_ids"]) == 3
    assert config["config"]["User"] == "www-data"
    assert config["config"]["ExposedPorts"] == {"8080/tcp": {}}


def test_what_is_ignored_is_not_in_the_image(quickstarted: tuple[str, Path], tmp_path: Path) -> None:
    run("skopeo", "copy", "--quiet", f"oci-archive:{quickstarted[1] / 'site.tar'}", f"oci:{tmp_path}/site:x")
    run("umoci", "raw", "unpack", "--image", f"{tmp_path}/site:x", tmp_path / "root")
    assert sorted(os.listdir(tmp_path / "root/srv")) == ["about.html", "index.html"]


def test_the_quickstart_leaves_nothing_unless_it_is_told_where(tmp_path: Path) -> None:
    quickstart(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- LLB made in Python ---------------------------------------------------------------------------------------


def test_hello_shows_its_definition(tmp_path: Path) -> None:
    file = tmp_path / "hello.llb"
    shown = run(sys.executable, EXAMPLES / "llb/hello.py", file, cwd=tmp_path).decode().splitlines()
    assert shown == run(PYBUILD, "debug", "dump-llb", file).decode().splitlines()
    kinds = [next(iter(json.loads(line)["Op"]["Op"]), "result") for line in shown]
    assert kinds == ["file", "file", "merge", "result"]
    graph = load(Definition.from_bytes(file.read_bytes()))
    assert [node.name for node in graph.nodes.values()] == [
        "write the greeting",
        "symlink /hello.txt -> srv/hello.txt",
        "gather",
    ]


def test_hello_writes_nothing_unless_it_is_told_where(tmp_path: Path) -> None:
    assert run(sys.executable, EXAMPLES / "llb/hello.py", cwd=tmp_path).decode().count("\n") == 4
    assert list(tmp_path.iterdir()) == []


# --- the README -----------------------------------------------------------------------------------------------


def test_the_builds_of_the_readme(tmp_path: Path) -> None:
    """Its commands and its build file, as they stand there; what the commands have made stands for debian:12."""
    readme = (EXAMPLES.parent / "README.md").read_text()
    (tmp_path / "examples").symlink_to(EXAMPLES)
    environment = {
        "PATH": f"{PYBUILD.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYBUILD_ROOT": str(tmp_path / "state"),
    }
    commands = readme.partition("```sh\n")[2].partition("```")[0]
    argv = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RUN --mount=type=cache") == 3
    assert done.stderr.count("CACHED") == 6
    assert inspect(f"oci-archive:{tmp_path}/hello.tar")["Os"] == "linux"
    assert (tmp_path / "files/etc/motd").read_text() == "hello\n"
    assert re.search(r"^hello +latest", done.stdout, re.MULTILINE)
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main").write_text("print()")
    (tmp_path / "build.py").write_text(readme.partition("```python\n")[2].partition("```")[0])
    base = "debian:12=docker-image://base"
    argv = [str(PYBUILD), "build", "-f", "build.py", "--build-context", base, "-o", "out", "."]
    subprocess.run(argv, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "out/srv/app/main").read_text() == "print()"


def test_the_configuration_of_its_page(tmp_path: Path) -> None:
    page = (EXAMPLES.parent / "docs/configuration.md").read_text()
    (tmp_path / "pybuild.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    config = load_config(file=tmp_path / "pybuild.toml", environ={})
    assert (config.worker.step_memory, config.worker.step_cpus) == (2 << 30, 1.5)
    assert config.registries["docker.io"].mirrors == ("mirror.example:5000",)
