"""The same Dockerfile, built by us and by buildah: the same files and the same config, but for what is explained."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bases import debian_minbase, digest, image, push
from tests.fakes import file_trees
from tests.fakes import image_tools as tools
from tests.fakes.image_case import EVERY_CONFIG, Case
from tests.fakes.image_cases import CASES
from tests.fakes.image_cases_slow import SLOW_CASES, WHOLE_DEBIAN
from tests.fakes.image_tools import Bench

pytest_plugins = [tools.FIXTURES]

_COMPRESSIONS = ("gzip", "zstd", "uncompressed")


def _flags(case: Case, context: Path) -> list[str]:
    return [flag.format(context=context) for flag in case.flags]


def _build(bench: Bench, case: Case, work: Path) -> Path:
    """One command, every exporter; the context."""
    context = case.prepare(work / "context")
    outputs = [f"type=oci,name=x,compression={c},force-compression=true,dest={work}/{c}.oci" for c in _COMPRESSIONS]
    outputs += [f"type=docker,name=x,dest={work}/ours.docker", f"type=tar,dest={work}/ours.tar"]
    outputs += [f"type=local,dest={work}/local"]
    bench.pybuild.build(context, *_flags(case, context), *(f"--output={output}" for output in outputs))
    return context


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_image_as_buildah_makes(bench: Bench, case: Case, work: Path) -> None:
    _compare(bench, case, work)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", SLOW_CASES, ids=lambda case: case.name)
def test_the_same_image_thoroughly(bench: Bench, case: Case, work: Path) -> None:
    _compare(bench, case, work)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_whole_debian(bench: Bench, work: Path) -> None:
    push(bench.host, "library/whole", image(debian_minbase(work)))
    _compare(bench, WHOLE_DEBIAN, work)
    assert tools.run_container(work / "gzip.layout", work, tag="latest") == "someone\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("variable", ["RUNTIME=runc", "RUNTIME=crun", "SNAPSHOTTER=copy"])
def test_the_same_files_whoever_runs_and_keeps_the_steps(bench: Bench, work: Path, variable: str) -> None:
    """Not compared: writing to one of several names of a file, which overlayfs separates and a copy does not."""
    name, _, value = variable.partition("=")
    other = replace(
        bench.pybuild,
        root=work / "state",
        environment={**bench.pybuild.environment, f"PYBUILD_WORKER_{name}": value},
    )
    for case in CASES:
        context = case.prepare(work / case.name / "context")
        trees = []
        for number, engine in enumerate((bench.pybuild, other)):
            archive, directory = work / case.name / f"{number}.tar", work / case.name / str(number)
            engine.build(context, *_flags(case, context), "-o", f"type=tar,dest={archive}")
            trees.append(file_trees.listing(_extract(archive, directory)))
        _explained(file_trees.differences(*trees, since=bench.since), {})


def _compare(bench: Bench, case: Case, work: Path) -> None:
    context = _build(bench, case, work)
    theirs = f"docker-archive:{work}/theirs.docker:x"
    file = ["-f", context / "Dockerfile.theirs"]
    bench.buildah.build(context, theirs, *file, *case.their_flags, *_flags(case, context))
    ours = f"docker-archive:{work}/ours.docker:x"

    tree = file_trees.listing(tools.unpack(tools.extracted(work / "gzip.oci"), work / "ours", tag="latest"))
    other = file_trees.listing(tools.unpack(tools.layout_of(theirs, work / "theirs.layout"), work / "theirs"))
    _explained(file_trees.differences(tree, other, since=bench.since), case.tree)

    config, their_config = tools.inspect(ours, "--config", "--raw"), tools.inspect(theirs, "--config", "--raw")
    _explained(_config_differences(config, their_config), case.config, EVERY_CONFIG)

    _check_archives(work, config)
    _check_trees(work, tree)


# --- the other outputs ----------------------------------------------------------------------------------------


def _check_archives(work: Path, config: Mapping[str, Any]) -> None:
    """Whatever the compression, the layers are the ones that the config names."""
    for compression in _COMPRESSIONS:
        with tarfile.open(work / f"{compression}.oci") as archive:
            index = json.loads(_member(archive, "index.json"))
            manifest = json.loads(_blob(archive, index["manifests"][0]))
            assert json.loads(_blob(archive, manifest["config"])) == config
            assert [_diff_id(archive, layer) for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]


def _diff_id(archive: tarfile.TarFile, layer: Mapping[str, Any]) -> str:
    data = _blob(archive, layer)
    if layer["mediaType"].endswith("+gzip"):
        data = gzip.decompress(data)
    elif layer["mediaType"].endswith("+zstd"):
        data = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    else:
        assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    return digest(data)


def _blob(archive: tarfile.TarFile, descriptor: Mapping[str, Any]) -> bytes:
    data = _member(archive, "blobs/" + descriptor["digest"].replace(":", "/"))
    assert (len(data), digest(data)) == (descriptor["size"], descriptor["digest"])
    return data


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _check_trees(work: Path, tree: Mapping[str, file_trees.Entry]) -> None:
    """The tar and the local exporter give the tree that the layers make.

    A local tree is the user's own, without what gives anybody rights; of files with several names only regular ones
    keep them (BuildKit, fsutil). A directory's time alone is no change, so layers may have an older one.
    """
    _extract(work / "ours.tar", work / "tar")
    for directory, wanted in (("tar", tree), ("local", {n: _unprivileged(entry) for n, entry in tree.items()})):
        found = _comparable(file_trees.listing(work / directory))
        _explained(file_trees.differences(found, _comparable(wanted), since=float("inf")), {})


def _extract(archive: Path, directory: Path) -> Path:
    """All that is in a tar archive, as GNU tar extracts it."""
    directory.mkdir()
    tools.run("tar", "--extract", "--same-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*",
              "--numeric-owner", "--file", archive, "--directory", directory)  # fmt: skip
    return directory


def _comparable(tree: Mapping[str, file_trees.Entry]) -> dict[str, file_trees.Entry]:
    """The tree without its root, which is the destination, and without the times of directories."""
    return {
        name: replace(entry, mtime=0) if entry.kind == "directory" else entry
        for name, entry in tree.items()
        if name != "."
    }


def _unprivileged(entry: file_trees.Entry) -> file_trees.Entry:
    mode = int(entry.mode, 8)
    if entry.kind == "file":
        mode &= 0o1777
    elif entry.device is not None:
        mode &= 0o600
    return replace(
        entry,
        owner=(0, 0),
        mode=f"{mode:04o}",
        same_file=entry.same_file if entry.kind == "file" else "",
        xattrs={name: value for name, value in (entry.xattrs or {}).items() if name != "security.capability"},
    )


# --- comparing ------------------------------------------------------------------------------------------------


def _config_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """`KEY: OURS THEIRS` for what the two say of a container, and of how many steps there were."""
    found = []
    mine, other = _flat(ours), _flat(theirs)
    for key in sorted(mine.keys() | other.keys()):
        if mine.get(key) != other.get(key):
            found.append(f"{key}: {mine.get(key)!r} {other.get(key)!r}")
    return found


def _flat(config: Mapping[str, Any]) -> dict[str, object]:
    inner = {key: value for key, value in config["config"].items() if value}
    flat: dict[str, object] = {key: config.get(key) for key in ("architecture", "os", "author")}
    flat["history"] = len(config["history"])
    flat["Env"] = dict(entry.split("=", 1) for entry in inner.pop("Env", ()))  # the order means nothing
    for key in ("Labels", "ExposedPorts", "Volumes"):
        flat |= {f"{key}.{name}": value for name, value in inner.pop(key, {}).items()}
    return flat | inner


def _explained(found: Iterable[str], reasons: Mapping[str, str], usual: Mapping[str, str] | None = None) -> None:
    """Every difference has a reason, and every reason but the usual ones a difference."""
    found, patterns = list(found), [*reasons, *(usual or {})]
    unexplained = [line for line in found if not any(re.match(pattern, line) for pattern in patterns)]
    stale = [pattern for pattern in reasons if not any(re.match(pattern, line) for line in found)]
    assert not unexplained, "\n".join(unexplained)
    assert not stale, "\n".join(stale)
