"""Layers as the kernel's overlayfs makes and shows them: what a step changed survives the way through an archive."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cache.overlay import TreeMount
from tests.unit.layers_trees import Node, describe, read_entries
from worker.layers.apply import apply
from worker.layers.tar import END, TarHeader

BASE = """
mkdir -p usr/bin usr/lib/deep etc opt/app var
for f in usr/bin/tool usr/lib/libc usr/lib/deep/x etc/passwd etc/hosts opt/app/a opt/app/b; do echo $f > $f; done
ln -s usr/lib lib; ln etc/hosts etc/hosts2; chmod 4755 usr/bin/tool; chown 5:6 opt/app
mkfifo var/fifo; mknod var/dev c 1 3
find . -exec touch -h -d @1600000000 {} +
"""

CHANGES = {
    "nothing": "true",
    "reading only": "cat etc/passwd usr/bin/tool > /dev/null; find . > /dev/null",
    "a new file": "echo new > opt/new",
    "a changed file": "echo more >> etc/passwd",
    "a deleted file": "rm etc/passwd",
    "a deleted tree": "rm -r usr/lib",
    "a tree deleted and made anew": "rm -r usr/lib; mkdir -p usr/lib/deep; echo 1 > usr/lib/deep/y",
    "partly the old tree": "rm -r opt/app; mkdir opt/app; cd opt/app; echo opt/app/a > a; touch -r ../../etc a",
    "new and deleted again": "mkdir opt/t; touch opt/t/f; rm -r opt/t",
    "a moved tree": "mv usr/lib usr/lib2",
    "a moved file": "mv etc/passwd etc/shadow",
    "a replaced file": "echo x > t; mv t etc/passwd",
    "a file for a tree": "rm -r opt/app; echo x > opt/app",
    "a tree for a file": "rm etc/passwd; mkdir etc/passwd; touch etc/passwd/x",
    "a tree for a symlink": "rm lib; mkdir lib; touch lib/x",
    "a symlink for a tree": "rm -r opt/app; ln -s /usr opt/app",
    "a file through a symlink": "echo x > lib/through; rm lib/libc",
    "modes and owners": "chmod 0711 usr/lib; chown 7:8 etc/hosts; chmod u-s usr/bin/tool",
    "only the mode of a directory": "chmod 1777 var",
    "a mode that stays": "chmod 4755 usr/bin/tool",
    "times": "touch -d @1500000000 etc/passwd; touch -d @5 opt",
    "links": "ln etc/passwd opt/link; ln usr/lib/libc usr/lib/libc2; ln etc/hosts etc/hosts3",
    "new links": "echo x > opt/1; ln opt/1 etc/1; ln opt/1 usr/bin/1; ln -s 1 opt/s; ln opt/s opt/s2 || true",
    "special files": "mkfifo opt/p; mknod opt/b b 7 9; rm var/fifo; mknod var/fifo c 1 5",
    "a whiteout in a new tree": "mkdir -p a/b/c; touch a/b/c/d; rm -r a/b",
    "deep inside": "mkdir -p opt/app/1/2/3/4; touch opt/app/1/2/3/4/5; rm opt/app/b",
    "long names": "n=$(printf 'n%.0s' $(seq 250)); mkdir -p $n/$n; echo 1 > $n/$n/$n; ln -s $n$n lnk",
    "the longest name deleted": "n=$(printf 'n%.0s' $(seq 255)); touch opt/$n; rm opt/$n; touch $n",
    "other alphabets": "echo 1 > $'opt/\\xff\\xfe'; mkdir opt/ünï; echo 2 > opt/ünï/日本; chown 3000000 opt/ünï",
    "capabilities": "cp /bin/true opt/t; setcap cap_net_raw+ep opt/t; setcap cap_net_raw+ep usr/bin/tool",
    "a sparse file": "truncate -s 4M opt/sparse; echo x >> opt/sparse",
    "everything": "rm -r usr etc opt var lib",
}

TWICE = {
    "deleted, then made again": ("rm -r usr/lib", "mkdir usr/lib; echo 1 > usr/lib/libc"),
    "made anew, then changed": ("rm -r opt/app; mkdir opt/app; touch opt/app/c", "rm opt/app/c; touch opt/app/a"),
    "a moved tree, moved back": ("mv usr/lib usr/l", "mv usr/l usr/lib"),
    "links over layers": ("ln etc/passwd opt/1; echo 2 > opt/2", "ln opt/1 opt/3; ln opt/2 opt/4"),
    "through a symlink of the middle": ("ln -s ../opt/app etc/app", "echo x > etc/app/x; rm etc/app/a"),
    "replaced twice": ("rm -r opt/app; echo 1 > opt/app", "rm opt/app; mkdir opt/app; echo 2 > opt/app/a"),
}


RANDOM = [f"random {seed}" for seed in range(4)]
UMOCI = "for umoci"
NO_CHANGE = ("nothing", "reading only", "new and deleted again", "a mode that stays")


@dataclass(slots=True, kw_only=True)
class Stack:
    """Layers that were made by the kernel, and the same ones as their archives made them. Topmost first."""

    scripts: tuple[str, ...]
    real: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    archives: list[bytes] = field(default_factory=list)
    real_tree: dict[str, Node] = field(default_factory=dict)
    applied_tree: dict[str, Node] = field(default_factory=dict)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stack]:
    """Every scenario, all of them in few processes: layer by layer on one base."""
    base = tmp_path_factory.mktemp("stacks")
    first = Stack(scripts=(BASE,))
    _build(base, {"base": first})
    scripts = {name: (script,) for name, script in CHANGES.items()} | TWICE
    scripts |= {name: tuple(_random_script(name + str(i)) for i in range(3)) for name in RANDOM}
    scripts[UMOCI] = tuple(CHANGES[name] for name in ("links", "long names", "capabilities", "modes and owners"))
    scripts[UMOCI] += (CHANGES["a tree deleted and made anew"], "rm etc/hosts3; ln opt/link opt/link2")
    stacks = {
        name: Stack(scripts=each, real=[*first.real], applied=[*first.applied], archives=[*first.archives])
        for name, each in scripts.items()
    }
    _build(base, stacks)
    layers = [stack.real for stack in stacks.values()] + [stack.applied for stack in stacks.values()]
    shown = pickle.loads(_run("show", str(base), layers))
    for number, stack in enumerate(stacks.values()):
        stack.real_tree, stack.applied_tree = shown[number], shown[number + len(stacks)]
    return stacks


def _build(base: Path, stacks: dict[str, Stack]) -> None:
    for depth in range(max(len(stack.scripts) for stack in stacks.values())):
        steps = []
        for number, (name, stack) in enumerate(stacks.items()):
            if depth < len(stack.scripts):
                upper = base / f"{'base' if name == 'base' else number}-{depth}"
                upper.mkdir()
                steps.append((stack, [*stack.real], str(upper), stack.scripts[depth]))
        _run("change", [step[1:] for step in steps])
        for stack, _, upper, _ in steps:
            data, copy = Path(f"{upper}.tar").read_bytes(), Path(f"{upper}.applied")
            copy.mkdir()
            apply(io.BytesIO(data), copy, lowers=TreeMount(lowers=tuple(stack.applied)))
            stack.real.insert(0, upper)
            stack.applied.insert(0, str(copy))
            stack.archives.append(data)


def _run(command: str, *arguments: object) -> bytes:
    module = "tests.integration.layers_in_namespace"
    run = ["unshare", "-m", "--propagation", "private", sys.executable, "-m", module, command]
    text = pickle.dumps(arguments)
    return subprocess.run(run, input=text, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[2]).stdout


def _random_script(seed: str) -> str:
    choose = random.Random(seed)
    return "set +e; exec 2> /dev/null\n" + "\n".join(_operation(choose) for _ in range(40)) + "\ntrue"


def _operation(choose: random.Random) -> str:
    places = ["a", "b", "usr", "usr/lib", "usr/lib/deep", "opt", "opt/app", "etc", "etc/passwd", "opt/app/a", "lib"]
    one, two = choose.choice(places), choose.choice(places)
    return choose.choice(
        [
            f"rm -rf {one}",
            f"mkdir -p {one} || true",
            f"[ -d {one} ] && echo {choose.random()} > {one}/f{choose.randrange(3)} || true",
            f"[ -d {one} ] && rm -rf {one}/f{choose.randrange(3)} || true",
            f"[ -e {one} ] && chmod {choose.choice(['700', '755', '644'])} {one} || true",
            f"[ -e {one} ] && [ ! -e {two} ] && mv {one} {two} || true",
            f"[ -f {one} ] && [ -d {two} ] && ln -f {one} {two}/l{choose.randrange(3)} || true",
            f"[ -e {one} ] || ln -s {two} {one} || true",
        ]
    )


@pytest.mark.parametrize("name", [*CHANGES, *TWICE, *RANDOM])
def test_changes_survive_their_archives(stacks: dict[str, Stack], name: str) -> None:
    stack = stacks[name]
    assert stack.applied_tree == stack.real_tree
    for data in stack.archives:
        entries = [os.fsdecode(event.name) for event in read_entries([data]) if isinstance(event, TarHeader)]
        assert len(set(entries)) == len(entries)


@pytest.mark.parametrize("name", NO_CHANGE)
def test_what_changed_nothing_makes_an_empty_archive(stacks: dict[str, Stack], name: str) -> None:
    assert stacks[name].archives[-1] == END


def test_umoci_unpacks_the_same_tree(stacks: dict[str, Stack], tmp_path: Path) -> None:
    stack = stacks[UMOCI]
    _write_image(tmp_path / "image", stack.archives)
    run = ["umoci", "raw", "unpack", "--image", f"{tmp_path / 'image'}:t", str(tmp_path / "rootfs")]
    subprocess.run(run, check=True, capture_output=True)
    assert describe(tmp_path / "rootfs", times=False, whole_seconds=True) == stack.applied_tree


def _write_image(image: Path, archives: list[bytes]) -> None:
    """An OCI image layout of these layers."""
    blobs = image / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layers = [blob(data, "layer.v1.tar") for data in archives]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    config = blob(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), "config.v1+json")
    manifest = blob(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode(), "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    (image / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (image / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
