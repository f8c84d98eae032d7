"""The same Dockerfile, built by us and by buildah: the same files and the same config, but for what is explained."""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import file_trees
from tests.fakes import image_tools as tools
from tests.fakes.image_cases import CASES, EVERY_CONFIG, Case
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
    context = _build(bench, case, work)
    theirs = f"docker-archive:{work}/theirs.docker:x"
    file = ["-f", context / "Dockerfile.theirs"]
    bench.buildah.build(context, theirs, *file, *case.their_flags, *_flags(case, context))
    ours = f"docker-archive:{work}/ours.docker:x"

    tree = file_trees.listing(tools.unpack(tools.layout_of(ours, work / "ours.layout"), work / "ours"))
    other = file_trees.listing(tools.unpack(tools.layout_of(theirs, work / "theirs.layout"), work / "theirs"))
    assert _unexplained(file_trees.differences(tree, other, since=bench.since), case.tree) == []

    config, their_config = tools.inspect(ours, "--config"), tools.inspect(theirs, "--config")
    explained = {**EVERY_CONFIG, **case.config}
    assert _unexplained(_config_differences(config, their_config), explained, every=case.config) == []

    _check_archives(work, config)
    _check_trees(work, tree)


# --- the other outputs ----------------------------------------------------------------------------------------


def _check_archives(work: Path, config: Mapping[str, Any]) -> None:
    """Whatever the compression, the layers are the ones that the config names."""
    for compression in _COMPRESSIONS:
        manifest = tools.inspect(f"oci-archive:{work}/{compression}.oci:latest", "--raw")
        own = tools.inspect(f"oci-archive:{work}/{compression}.oci:latest", "--config")
        assert own == config
        with tarfile.open(work / f"{compression}.oci") as archive:
            assert [_diff_id(archive, layer) for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]


def _diff_id(archive: tarfile.TarFile, layer: Mapping[str, Any]) -> str:
    file = archive.extractfile("blobs/" + layer["digest"].replace(":", "/"))
    assert file is not None
    data = file.read()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == layer["digest"]
    if layer["mediaType"].endswith("+gzip"):
        data = gzip.decompress(data)
    elif layer["mediaType"].endswith("+zstd"):
        data = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    else:
        assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _check_trees(work: Path, tree: Mapping[str, file_trees.Entry]) -> None:
    """The tar and the local exporter give the tree that the layers make; a local tree is the user's own."""
    (work / "tar").mkdir()
    tools.run("tar", "--extract", "--same-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*",
              "--numeric-owner", "--file", work / "ours.tar", "--directory", work / "tar")  # fmt: skip
    extracted = file_trees.listing(work / "tar")
    assert file_trees.differences({**extracted, ".": tree["."]}, tree, since=float("inf")) == []
    local = file_trees.listing(work / "local")
    owned = {name: replace(entry, owner=(0, 0)) for name, entry in tree.items()}
    assert file_trees.differences({**local, ".": owned["."]}, owned, since=float("inf")) == []


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


def _unexplained(
    found: Iterable[str], explained: Mapping[str, str], *, every: Mapping[str, str] | None = None
) -> list[str]:
    """The differences nobody explained, and the explanations of differences that are not there."""
    found = list(found)
    left = [line for line in found if not any(re.match(pattern, line) for pattern in explained)]
    required = explained if every is None else every
    unused = [pattern for pattern in required if not any(re.match(pattern, line) for line in found)]
    return left + [f"no such difference: {pattern}" for pattern in unused]
