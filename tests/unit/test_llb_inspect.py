"""A definition as JSON in the shape of `buildctl debug dump-llb`, and as a drawing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from llb.definition import Definition
from llb.inspect import to_dot, to_json, to_networkx
from llb.sources import image, local
from llb.state import Bind, Secret, copy, merge, mkdir, scratch
from tests.unit.llb_samples import AMD64

CONTEXT = local("context")
COPIED = image("busybox").file(copy(CONTEXT, "src", "/src/", owner="app:5").mkfile("/f", b"\xff"))
RAN = COPIED.run(
    'make "all"\n', mounts=[Bind(target="/ctx", source=CONTEXT, readonly=True), Secret(id="s")], name="[2/2] make"
)
DEFINITION = RAN.marshal(AMD64)


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in to_json(DEFINITION)]


def test_json() -> None:
    busybox, context, copied, ran, terminal = lines()
    assert [op["Digest"] for op in (busybox, context, copied, ran, terminal)] == list(DEFINITION.digests())
    assert busybox == {
        "Op": {
            "Op": {"source": {"identifier": "docker-image://docker.io/library/busybox:latest"}},
            "platform": {"Architecture": "amd64", "OS": "linux"},
            "constraints": {},
        },
        "Digest": DEFINITION.digests()[0],
        "OpMetadata": {"caps": {"source.image": True}},
    }
    assert copied["Op"]["inputs"] == [{"digest": busybox["Digest"]}, {"digest": context["Digest"]}]
    assert ran["OpMetadata"]["description"] == {"llb.customname": "[2/2] make"}
    assert ran["Op"]["Op"]["exec"]["mounts"][2] == {
        "input": -1,
        "dest": "/run/secrets/s",
        "mountType": 1,
        "secretOpt": {"ID": "s", "mode": 0o400},
    }
    assert terminal["Op"] == {"Op": {}, "inputs": [{"digest": ran["Digest"]}]}


def test_json_of_file_actions() -> None:
    copied = lines()[2]
    assert copied["Op"]["Op"]["file"]["actions"] == [
        {
            "input": 0,
            "secondaryInput": 1,
            "output": -1,
            "Action": {
                "copy": {
                    "src": "/src",
                    "dest": "/src/",
                    "owner": {"user": {"User": {"byName": {"name": "app"}}}, "group": {"User": {"byId": 5}}},
                    "mode": -1,
                    "timestamp": -1,
                }
            },
        },
        {
            "input": 2,
            "secondaryInput": -1,
            "output": 0,
            "Action": {"mkfile": {"path": "/f", "mode": 0o644, "data": "/w==", "timestamp": -1}},
        },
    ]


def test_json_of_root_as_owner() -> None:
    """Go leaves an id of 0 out, as any default."""
    made = scratch().file(mkdir("/d", owner="0:0")).marshal(AMD64)
    (action,) = json.loads(next(iter(to_json(made))))["Op"]["Op"]["file"]["actions"]
    assert action["Action"]["mkdir"]["owner"] == {"user": {"User": {}}, "group": {"User": {}}}


def test_dot() -> None:
    busybox, context, copied, ran, terminal = DEFINITION.digests()
    lines = to_dot(DEFINITION).splitlines()
    assert lines[0] == "digraph {"
    assert lines[-1] == "}"
    assert f'  "{busybox}" [label="docker-image://docker.io/library/busybox:latest" shape="ellipse"];' in lines
    assert f'  "{ran}" [label="[2/2] make" shape="box"];' in lines
    assert f'  "{context}" -> "{copied}" [label=""];' in lines
    assert f'  "{context}" -> "{ran}" [label="/ctx"];' in lines
    assert f'  "{ran}" -> "{terminal}" [label=""];' in lines


def test_dot_quotes_what_would_end_a_string() -> None:
    definition = image("x").run(['echo "\\\n']).marshal(AMD64)
    assert r'label="echo \"\\\n"' in to_dot(definition)


def test_the_graph_has_an_edge_for_every_input() -> None:
    layer = scratch().file(mkdir("/a"))
    graph = to_networkx(merge([layer, layer]).marshal(AMD64))
    assert sorted(d for _, d in graph.in_degree()) == [0, 1, 2]
    assert [label for _, label in graph.nodes(data="label")][1] == "merge (mkdir /a, mkdir /a)"


def test_what_would_not_load_is_shown() -> None:
    unknown = b"\x42\x00"
    definition = Definition(ops=(unknown,))
    assert json.loads(next(to_json(definition)))["Op"] == {"Op": {}}
    assert f'label="{definition.digests()[0]}" shape="plaintext"' in to_dot(definition)


def test_networkx_is_imported_only_to_draw() -> None:
    code = "import sys, llb.inspect, llb.state, llb.graph; sys.exit('networkx' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
