"""COPY, ADD and WORKDIR to LLB, ONBUILD triggers, and the graph of stages."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from buildengine.errors import ParseError
from frontends.testing import ARM64, Built, Step
from llb.ops import MergeOp, MkDir, MkFile, NamedUser, Owner
from tests.fakes.gateway import build, image_config

B = "FROM busybox\n"


async def step(dockerfile: str, options: dict[str, str] | None = None, **more: Any) -> Step:
    """The last operation of a Dockerfile."""
    return (await build(dockerfile, options, **more)).steps[-1]


# --- COPY, ADD, WORKDIR ---------------------------------------------------------------------------------------


async def test_copy_from_the_context() -> None:
    built = await build(B + "WORKDIR /w\nCOPY --chown=1:g --chmod=0751 --exclude=*.md a ../b /c* ./d/\n")
    node = built.steps[-1]
    assert [(c.src, c.dest) for c in node.copies] == [("/a", "/w/d/"), ("/b", "/w/d/"), ("/c*", "/w/d/")]
    for copy in node.copies:
        assert (copy.mode, copy.owner) == (0o751, Owner(user=1, group=NamedUser(name="g", input=0)))
        assert copy.exclude_patterns == ("*.md",)
        assert copy.follow_symlink
        assert copy.dir_copy_contents
        assert copy.create_dest_path
        assert copy.allow_wildcard
        assert copy.allow_empty_wildcard
        assert not copy.attempt_unpack
    assert [n.name for n in node.inputs] == ["[2/3] WORKDIR /w", "[internal] load build context"]


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (".", "/w/"),
        ("./", "/w/"),
        ("x", "/w/x"),
        ("x/", "/w/x/"),
        ("/x", "/x"),
        ("/", "/"),
        ("..", "/"),
        ("$e", "/w/"),
        ("x/.", "/w/x/."),
    ],
)
async def test_destinations(destination: str, expected: str) -> None:
    node = await step(B + f"ENV e=\nWORKDIR /w\nCOPY a {destination}\n")
    assert node.copies[0].dest == expected


async def test_copy_from_stages_by_name_index_and_image() -> None:
    built = await build(
        "FROM busybox AS Base\nRUN x\nFROM scratch\nCOPY --from=BASE a /\nCOPY --from=0 b /\nCOPY --from=alpine c /\n"
    )
    sources = [node.inputs[-1].name for node in built.steps if "COPY" in node.name]
    assert sources[:2] == ["[base 2/2] RUN x"] * 2
    assert sources[2].startswith("FROM docker.io/library/alpine:latest@sha256:")


async def test_symbolic_modes_are_passed_on() -> None:
    assert (await step(B + "COPY --chmod=u+rwX,go-w a b\n")).copies[0].mode_str == "u+rwX,go-w"


@pytest.mark.parametrize(
    ("source", "src", "include", "required"),
    [
        ("a/b", "/", ("a/b",), ("/a/b",)),
        ("./a/b", "/", ("a/b",), ("/a/b",)),
        ("a/./b/c", "/a", ("b/c",), ("/a/b/c",)),
        ("a*/./b", "/a*", ("b",), ()),
        ("/a/*/c", "/", ("a/*/c",), ()),
    ],
)
async def test_parents(source: str, src: str, include: tuple[str, ...], required: tuple[str, ...]) -> None:
    (copy,) = (await step(B + f"COPY --parents {source} /d/\n")).copies
    assert (copy.src, copy.include_patterns, copy.required_paths) == (src, include, required)


async def test_link_copies_beside_and_merges() -> None:
    built = await build(B + "COPY --link a /b\nRUN x\n")
    copied, merged = built.step("[2/3] COPY --link"), built.step("[2/3] LINK COPY --link a /b")
    assert isinstance(merged.op.payload, MergeOp)
    assert [n.name for n in merged.inputs] == [built.names[0], copied.name]
    assert copied.file.actions[0].input == -1
    assert built.steps[-1].inputs[0].name == merged.name
    assert built.steps[-1].exec.meta.env == ("PATH=/usr/bin",)
    assert built.names[-1] == "[3/3] RUN x"


@pytest.mark.parametrize("text", [B + "COPY --link --chmod=1 a /b\n", "FROM scratch\nCOPY --link a /b\n"])
async def test_link_with_chmod_or_on_scratch_is_an_ordinary_copy(text: str) -> None:
    assert not any(isinstance(each.op.payload, MergeOp) for each in (await build(text)).steps)


async def test_heredocs_become_files() -> None:
    built = await build(B + "ENV who=you\nCOPY <<A <<-'B' c /d/\nhi $who \"q\" \\$x\nA\n\t$who\nB\n")
    data = {
        a.action.path: a.action.data
        for n in built.steps[:-1]
        if "inline" in n.name
        for a in n.file.actions
        if isinstance(a.action, MkFile)
    }
    assert data == {"/A": b'hi you "q" $x\n', "/B": b"$who\n"}
    copies = built.steps[-1].copies
    assert [(c.src, c.dest) for c in copies] == [("/c", "/d/"), ("/A", "/d/"), ("/B", "/d/")]


async def test_add_local_archives_and_downloads() -> None:
    assert (await step(B + "ADD a.tar /\n")).copies[0].attempt_unpack
    assert not (await step(B + "ADD --unpack=false a.tar /\n")).copies[0].attempt_unpack
    checksum = "sha256:" + "a" * 64
    built = await build(
        B + f"ADD --checksum={checksum} --chmod=600 https://e.x/d/f.tgz?q=1 /t/\nADD --unpack https://e.x /\n"
    )
    first, second = (n for n in built.steps if "ADD" in n.name and not n.op.inputs)
    assert first.source.identifier == "https://e.x/d/f.tgz?q=1"
    assert first.source.attrs == {"http.checksum": checksum, "http.filename": "f.tgz"}
    assert second.source.attrs["http.filename"] == "__unnamed__"
    copies = [n.copies[0] for n in built.steps if "ADD" in n.name and n.op.inputs]
    assert [(c.src, c.dest, c.mode, c.attempt_unpack) for c in copies] == [
        ("/f.tgz", "/t/", 0o600, False),
        ("/__unnamed__", "/", -1, True),
    ]


async def test_a_download_is_called_as_the_path_of_its_address_ends() -> None:
    """The path as it is meant, not as it is spelled (Go's url.URL.Path)."""
    for url, name in (
        ("https://e.x/a%2Fc%41?q=/z", "cA"),
        ("https://e.x/a/b/", "b"),
        ("https://e.x/%2F", "__unnamed__"),
    ):
        built = await build(B + f"ADD {url} /t/\n")
        (download,) = (n for n in built.steps if "ADD" in n.name and not n.op.inputs)
        assert download.source.attrs["http.filename"] == name


async def test_the_first_mistake_of_a_copy_is_told() -> None:
    for text, wrong in (("--chown=${a --chmod=${b ${c ${d", "${a"), ("--chmod=${b ${c ${d", "${b"), ("${c ${d", "${c")):
        with pytest.raises(ParseError, match=re.escape(f'failed to process "{wrong}"')):
            await build(B + f"COPY {text}\n")


async def test_add_repositories() -> None:
    built = await build(
        B + "ADD --keep-git-dir https://github.com/a/b.git?tag=v1&submodules=false#:sub /r/\nADD git@h:p#x /q\n"
    )
    first, second = (n.source for n in built.steps if "ADD" in n.name and not n.op.inputs)
    assert first.identifier == "git://github.com/a/b.git#refs/tags/v1:sub"
    assert (first.attrs["git.keepgitdir"], first.attrs["git.skipsubmodules"]) == ("true", "true")
    assert second.identifier.startswith("git://h/p#x")
    assert built.steps[-1].copies[0].src == "/"


async def test_workdir_makes_the_directory_as_the_user() -> None:
    node = await step(B + "USER me\nWORKDIR a/b\n")
    (action,) = node.file.actions
    assert isinstance(action.action, MkDir)
    assert (action.action.path, action.action.mode, action.action.make_parents) == ("/a/b", 0o755, True)
    assert action.action.owner == Owner(user=NamedUser(name="me", input=0))
    assert (await build(B + "WORKDIR /\n")).names[-1].startswith("[1/2] FROM")


async def test_every_operation_knows_its_lines() -> None:
    built = await build("FROM busybox\nRUN a \\\n b\nCOPY x y\nWORKDIR /z\nCOPY <<E /e\nE\n")
    assert [node.lines for node in built.steps if node.lines] == [(1,), (2, 3), (4,), (5,), (6, 7), (6, 7)]
    definition = built.image.result.definition
    assert definition is not None
    assert definition.source.files[0].language == "Dockerfile"
    assert definition.source.files[0].definition


# --- ONBUILD --------------------------------------------------------------------------------------------------


async def test_triggers_of_an_image_run_first_and_are_gone() -> None:
    images = {"docker.io/library/b:latest": image_config(OnBuild=["ENV x=1", "COPY --from=alpine a /a", "RUN t"])}
    built = await build("FROM b\nRUN own\n", images=images)
    assert [name for name in built.names if name.startswith("[")][1:] == [
        "[2/5] ONBUILD COPY --from=alpine a /a",
        "[3/5] ONBUILD RUN t",
        "[4/5] RUN own",
    ]
    assert "OnBuild" not in built.config
    assert "x=1" in built.steps[-1].exec.meta.env
    assert ("docker-image://docker.io/library/alpine:latest", "default") in [
        (each.identifier, each.mode) for each in built.gateway.resolved
    ]


async def test_triggers_of_a_stage() -> None:
    built = await build(
        "FROM busybox AS other\nRUN o\nFROM busybox AS base\nONBUILD COPY --from=other a /a\n"
        "ONBUILD RUN <<E\nx\nE\nRUN base\n"
        "FROM base\nRUN own\n"
    )
    runs = [node.exec.meta.args[-1] for node in built.steps if "RUN" in node.name]
    assert sorted(runs) == ["base", "o", "own", "x\n"]
    assert "OnBuild" not in built.config
    assert (await build("FROM busybox AS base\nONBUILD RUN x\n")).config["OnBuild"] == ["RUN x"]


# --- stages ---------------------------------------------------------------------------------------------------


async def test_what_is_unreachable_is_neither_resolved_nor_converted() -> None:
    built = await build("FROM missing AS a\nRUN ${\nFROM busybox AS b\nCOPY --chmod=999 x y\nFROM alpine\nRUN z\n")
    assert [each.identifier for each in built.gateway.resolved] == ["docker-image://docker.io/library/alpine:latest"]


async def test_targets() -> None:
    text = "FROM busybox AS a\nRUN a\nFROM alpine AS b\nRUN b\n"
    assert (await build(text, {"target": "A"})).names[-1] == "[a 2/2] RUN a"
    assert (await build(text)).names[-1] == "[b 2/2] RUN b"


async def test_equal_stages_are_built_once_whatever_their_names() -> None:
    one = await build("FROM busybox AS a\nRUN x\nFROM scratch\nCOPY --from=a f /\n")
    other = await build("FROM busybox AS renamed\nRUN x\nFROM scratch\nCOPY --from=renamed f /\n")
    assert [n.digest for n in one.steps] == [n.digest for n in other.steps]


async def test_a_stage_name_wins_over_an_image_in_lower_case_only() -> None:
    built = await build("FROM alpine AS busybox\nRUN x\nFROM busybox\nRUN y\n")
    assert [each.identifier for each in built.gateway.resolved] == ["docker-image://docker.io/library/alpine:latest"]


async def test_platforms_of_stages() -> None:
    images = {"docker.io/library/busybox:latest linux/arm64": image_config(platform=ARM64)}
    built = await build(
        "FROM --platform=$BUILDPLATFORM alpine AS tools\nRUN t\nFROM busybox\nCOPY --from=tools a b\nRUN x\n",
        {"platform": "linux/arm64"},
        ARM64,
        images=images,
    )
    platforms = {node.exec.meta.args[-1]: str(node.op.platform) for node in built.steps if "RUN" in node.name}
    assert platforms == {"t": "linux/amd64", "x": "linux/arm64"}
    assert (built.image.document["os"], built.image.document["architecture"]) == ("linux", "arm64")


async def test_the_platform_asked_for_is_that_of_the_image() -> None:
    built = await build("FROM scratch\nCOPY a /\n", {"platform": "linux/arm64"}, ARM64)
    assert (built.image.document["architecture"], built.image.document["os"]) == ("arm64", "linux")


async def test_many_stages_and_many_steps() -> None:
    text = "".join(f"FROM {'busybox' if n == 0 else f's{n - 1}'} AS s{n}\nRUN {n}\n" for n in range(500))
    built: Built = await build(text)
    assert len(built.steps) == 501
    assert json.loads(built.image.result.config)["history"][-1]["created_by"] == "RUN /bin/sh -c 499 # buildkit"
