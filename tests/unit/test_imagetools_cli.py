"""`pybuild imagetools` at the terminal: flags in, lines out, and what a registry says cannot act there."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from buildengine.cli.app import App
from buildengine.cli.imagetools.listing import listing
from buildengine.digest import Digest
from buildengine.events import EventSink
from buildengine.platform import parse
from buildengine.registries import Combination, Combined, RemoteDocument
from tests.fakes.builder import FakeBuilder, Ran, run_cli
from worker.oci.types import OCI_INDEX, OCI_MANIFEST

ONE, TWO = (str(Digest.sha256(data)) for data in (b"1", b"2"))


@dataclass
class FakeImageTools:
    described: Mapping[str, object] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    def inspect(self, reference: str) -> RemoteDocument:
        return remote(reference, {"schemaVersion": 2})

    def describe(self, reference: str, parts: Collection[str]) -> Mapping[str, object]:
        self.asked.append(tuple(parts))
        return self.described

    def create(
        self, combination: Combination, on_event: EventSink, on_tick: Callable[[], None] | None = None
    ) -> Combined:
        self.asked.append(combination)
        return Combined(descriptor={"size": 3}, repositories=("h/a", "h/b"), raw=b"{ }")


def remote(name: str, document: Mapping[str, object]) -> RemoteDocument:
    raw = json.dumps(document).encode()
    return RemoteDocument(name=name, media_type=OCI_INDEX, digest=Digest.sha256(raw), raw=raw)


def run(tools: FakeImageTools, *args: str) -> Ran:
    builder = FakeBuilder()
    ran = run_cli(builder, "imagetools", *args, app=App(builder.open, make_image_tools=lambda config: tools))
    assert not builder.configs  # no engine was opened
    return ran


def test_every_flag_of_create(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b'{"digest": "\xc3\xa9"}')
    tools = FakeImageTools()
    ran = run(
        tools,
        *("create", "-t", "h/a:1", "--tag", "h/b", "-f", f"{tmp_path}/source", "--append", "--prefer-index=false"),
        *(
            "--annotation",
            "index,manifest-descriptor[linux/arm64]:k=v=w",
            "-p",
            "linux/amd64,linux/arm64",
            "-p",
            "linux/386",
        ),
        *("--metadata-file", f"{tmp_path}/metadata.json", "h/c:2", ONE),
    )
    assert (ran.status, ran.stdout) == (0, "")
    assert tools.asked == [
        Combination(
            sources=('{"digest": "é"}', "h/c:2", ONE),
            targets=("h/a:1", "h/b"),
            append=True,
            annotations={"annotation-index.k": "v=w", "annotation-manifest-descriptor[linux/arm64].k": "v=w"},
            platforms=tuple(map(parse, ("linux/amd64", "linux/arm64", "linux/386"))),
            prefer_index=False,
        )
    ]
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata == {"containerimage.descriptor": {"size": 3}, "image.name": "h/a,h/b"}


def test_a_dry_run_shows_the_bytes(tmp_path: Path) -> None:
    ran = run(FakeImageTools(), "create", "--dry-run", "--metadata-file", f"{tmp_path}/metadata.json", "h/a:1")
    assert (ran.status, ran.stdout, ran.stderr) == (0, "{ }\n", "")
    assert not (tmp_path / "metadata.json").exists()


@pytest.mark.parametrize(
    ("args", "status", "problem"),
    [
        ((), 2, "there are no sources"),
        (("--append", "a"), 2, "--append needs --tag"),
        (("-f", "/nonexistent/file"), 1, "cannot read the source /nonexistent/file"),
        (("--platform", "a/b/c/d", "a"), 2, "invalid platform"),
        (("--annotation", "nonsense:a=b", "a"), 2, "unknown annotation type"),
        (("-t", "a", "--metadata-file", "/nonexistent/file", "a"), 1, "cannot write /nonexistent/file"),
    ],
)
def test_wrong_flags_of_create(args: tuple[str, ...], status: int, problem: str) -> None:
    tools = FakeImageTools()
    ran = run(tools, "create", *args)
    assert ran.status == status
    assert problem in ran.stderr
    assert not tools.asked


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("{{.Name}} {{json .Manifest}}", ()),
        ("{{json .}}", ("image",)),
        ('{{(index .Image "a").Os}}{{json .Provenance}}', ("image", "Provenance")),
        ("{{json .SBOM.SPDX}}", ("SBOM",)),
    ],
)
def test_a_template_fetches_what_it_shows(template: str, parts: tuple[str, ...]) -> None:
    described = {"name": "x", "manifest": {}, "image": {"a": {"os": "y"}}, "Provenance": {}, "SBOM": {"SPDX": 1}}
    tools = FakeImageTools(described=described)
    assert run(tools, "inspect", "--format", template, "h/a").status == 0
    assert tools.asked == [parts]


def test_columns_begin_anew_behind_annotations() -> None:
    annotated = {"mediaType": OCI_MANIFEST, "digest": ONE, "annotations": {"b": "2", "long.name": "1"}}
    platform = {"os": "windows", "architecture": "amd64", "os.version": "10.0.1", "os.features": ["x", "y"]}
    document = remote(
        f"h.x/a:1@{TWO}",
        {"manifests": [{**annotated, "platform": platform}, annotated, {"mediaType": OCI_MANIFEST, "digest": TWO}]},
    )
    assert list(listing(document))[5:] == [
        f"  Name:        h.x/a:1@{ONE}",
        f"  MediaType:   {OCI_MANIFEST}",
        "  Platform:    windows/amd64",
        "  OSVersion:   10.0.1",
        "  OSFeatures:  x, y",
        "  Annotations: ",
        "    b:         2",
        "    long.name: 1",
        "             ",
        f"  Name:      h.x/a:1@{ONE}",
        f"  MediaType: {OCI_MANIFEST}",
        "             ",
        f"  Name:      h.x/a:1@{TWO}",
        f"  MediaType: {OCI_MANIFEST}",
    ]


def test_what_a_registry_says_cannot_act_on_the_terminal() -> None:
    odd = {
        "mediaType": "a\x1b[2Jb",
        "digest": ONE,
        "platform": {"os": "l\n\rx"},
        "annotations": {"k\x1b]0;x\x07": "\x9b1m"},
    }
    shown = "\n".join(listing(remote("h.x/a:1", {"manifests": [odd]})))
    assert not any(character in shown for character in "\x1b\x07\x9b\r")
    assert len(shown.splitlines()) == 10
