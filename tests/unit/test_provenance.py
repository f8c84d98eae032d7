"""What a provenance tells: sources and what they were, whose they are, and the documents of both versions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from buildengine.digest import Digest
from buildengine.errors import SourceRange, UserError
from buildengine.platform import Platform
from llb import graph
from llb.definition import Definition
from llb.mounts import Bind, Secret, Ssh
from llb.ops import NetMode
from llb.sourcemap import SourceFile
from llb.sources import git, http, image, local, oci_layout
from llb.state import State, mkdir, scratch
from worker.provenance import options
from worker.provenance.capture import Access, Capture, GitMaterial, HttpMaterial, ImageMaterial, capture, redacted
from worker.provenance.options import ProvenanceOptions, Version
from worker.provenance.predicate import BUILD_TYPE_02, BUILD_TYPE_1, Invocation, predicate
from worker.provenance.purl import DOCKER, OCI, image_purl
from worker.provenance.scope import Scope

AMD64, ARM64 = (Platform(os="linux", architecture=name) for name in ("amd64", "arm64"))
SHA, COMMIT = "sha256:" + "a" * 64, "b" * 40
BUSYBOX = "docker.io/library/busybox:latest"
TOLD = f"{BUILD_TYPE_02}#metadata"


def captured(state: State, pins: dict[str, str] | None = None) -> Capture:
    """Of sources by how their identifiers begin; without `pins` every source has one."""
    loaded = graph.load(state.marshal(AMD64))
    identifiers = {digest: getattr(node.op.payload, "identifier", "") for digest, node in loaded.nodes.items()}

    def pin(digest: Digest) -> str:
        if pins is None:
            return SHA
        return next((pin for name, pin in pins.items() if identifiers[digest].startswith(name)), "")

    return capture(loaded, pin)


# --- what was used -----------------------------------------------------------------------------------------------


def test_each_source_is_told_with_what_it_was() -> None:
    state = image("busybox").run(
        ["true"],
        mounts=[
            Bind(target="/layout", source=oci_layout(f"app@{SHA}")),
            Bind(target="/git", source=git("https://me:secret@example.com/app.git", "v1", auth_token_secret="TOKEN")),
            Bind(target="/http", source=http("https://me@example.com/file")),
            Bind(target="/local", source=local("context")),
        ],
    )
    pins = {"docker-image": SHA, "oci-layout": SHA, "git": COMMIT, "https": SHA, "local": "session:1"}
    found = captured(state, pins)
    assert found.images == (
        ImageMaterial(reference=BUSYBOX, digest=SHA, platform=AMD64),
        ImageMaterial(reference=f"app@{SHA}", digest=SHA, platform=AMD64, is_local=True),
    )
    assert found.git == (GitMaterial(url="https://xxxxx:xxxxx@example.com/app.git#v1", commit=COMMIT),)
    assert found.http == (HttpMaterial(url="https://xxxxx@example.com/file", digest=SHA),)
    assert found.locals == ("context",)
    assert Access(id="TOKEN", optional=True) in found.secrets
    assert captured(state, {"git": COMMIT}).images == ()  # not looked at: no material


def test_what_steps_had_access_to() -> None:
    state = image("busybox").run(["a"], network=NetMode.NONE)
    assert not captured(state).network
    state = state.run(["b"], mounts=[Secret(id="s", optional=True), Ssh(id="", optional=True)])
    state = state.run(["c"], mounts=[Secret(id="s"), Secret(id="t", env="T", optional=True)])
    found = captured(state)
    assert found.network
    assert found.secrets == (Access(id="s"), Access(id="t", optional=True))
    assert found.ssh == (Access(id="default", optional=True),)


def test_thousands_of_sources_are_each_looked_at_once() -> None:
    """Who asks for them need not be a friend, and the daemon answers nobody meanwhile."""
    images = [ImageMaterial(reference=f"docker.io/library/base:{number}", digest=SHA) for number in range(20_000)]
    assert Capture.of(Capture(images=(image,)) for image in images).images == tuple(images)


def test_an_image_is_told_by_its_tag_once() -> None:
    tagged = ImageMaterial(reference=BUSYBOX, digest=SHA, platform=AMD64)
    pinned = ImageMaterial(reference=f"docker.io/library/busybox@{SHA}", digest=SHA, platform=AMD64)
    other = ImageMaterial(reference=f"docker.io/library/alpine:3@{SHA}", digest=SHA, platform=AMD64)
    arm = ImageMaterial(reference=BUSYBOX, digest=SHA, platform=ARM64)
    found = Capture.of([Capture(images=(tagged, pinned)), Capture(images=(other, arm, tagged))])
    assert found.tidied().images == (other, tagged, arm)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host/x?a=b#c", "https://xxxxx:xxxxx@host/x?a=b#c"),
        ("https://me@host", "https://xxxxx@host"),
        ("https://:secret@host", "https://:xxxxx@host"),
        ("https://host/a@b", "https://host/a@b"),
        ("git@host:me/app.git", "git@host:me/app.git"),
        ("https://[", "https://["),
    ],
)
def test_credentials_are_masked(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    ("kind", "reference", "platform", "purl"),
    [
        (DOCKER, "busybox", AMD64, "pkg:docker/busybox@latest?platform=linux%2Famd64"),
        (DOCKER, "localhost:5000/a/b:1", None, "pkg:docker/localhost%3A5000/a/b@1"),
        (DOCKER, f"a/b@{SHA}", AMD64, f"pkg:docker/a/b?digest={SHA}&platform=linux%2Famd64"),
        (OCI, f"app:1@{SHA}", None, f"pkg:oci/app@1?digest={SHA}"),
    ],
)
def test_references_as_package_urls(kind: str, reference: str, platform: Platform | None, purl: str) -> None:
    assert image_purl(kind, reference, platform) == purl


# --- whose it is -------------------------------------------------------------------------------------------------


def of(definition: Definition) -> Capture:
    return capture(graph.load(definition), lambda digest: SHA)


def test_a_result_is_of_the_frontend_that_made_it() -> None:
    outer = Scope()
    inner = outer.nested("dockerfile.v0", {"build-arg:A": "1", "attest:provenance": "", "platform": "x"})
    read, made, own = (local(name).marshal() for name in ("dockerfile", "context", "own"))
    inner.solved(read)
    inner.resolved(BUSYBOX, AMD64, Digest(SHA))
    inner.has_result(made)
    outer.solved(own)
    outer.has_result(made)  # it is known from the inner one
    scope = outer.of(made)
    assert (scope.frontend, scope.arguments) == ("dockerfile.v0", {"build-arg:A": "1"})
    found = scope.capture(made, [made], of)
    assert found is not None
    assert found.locals == ("context", "dockerfile")
    assert [each.reference for each in found.images] == [BUSYBOX]
    assert outer.of(own) is outer
    whole = outer.capture(own, [own], of)
    assert whole is not None
    assert whole.locals == ("context", "dockerfile", "own")


def test_what_a_policy_puts_in_the_place_of_a_definition_is_of_the_same_frontend() -> None:
    outer = Scope()
    inner = outer.nested("dockerfile.v0", {})
    asked, settled = local("asked").marshal(), local("settled").marshal()
    inner.solved(asked, settled)
    assert outer.of(asked) is outer.of(settled) is inner
    found = inner.capture(settled, [settled], lambda one: of(one) if one is settled else None)
    assert found == Capture(locals=("settled",))


def test_what_nobody_solved_is_not_told() -> None:
    scope = Scope()
    made, unsolved = local("context").marshal(), image("busybox").run("x").marshal()
    scope.solved(unsolved)
    found = scope.capture(made, [made], lambda one: None if one is unsolved else of(one))
    assert found == Capture(locals=("context",))
    assert scope.capture(unsolved, [unsolved], lambda one: None) is None


def test_of_several_platforms_each_tells_its_own_image() -> None:
    scope = Scope()
    both = [scratch().file(mkdir(f"/{name}")).marshal() for name in ("a", "b")]
    for platform in (AMD64, ARM64):
        scope.resolved(BUSYBOX, platform, Digest(SHA))
    scope.resolved("docker.io/library/golang:1", AMD64, Digest(SHA))  # for both: where they are built
    for made, platform in zip(both, (AMD64, ARM64), strict=True):
        found = scope.capture(made, both, of, platform=platform, platforms=(AMD64, ARM64))
        assert found is not None
        assert [(each.reference, each.platform) for each in found.images] == [
            (BUSYBOX, platform),
            ("docker.io/library/golang:1", AMD64),
        ]


def test_arguments_about_this_host_and_credentials_are_left_out() -> None:
    options = {
        "context": "https://me:secret@example.com/app.git",
        "context:base": "https://me:secret@example.com/base.git",
        "cgroup-parent": "x",
        "image-resolve-mode": "pull",
        "cache-imports": "[]",
        "build-arg:URL": "https://me:secret@example.com",
    }
    assert Scope("dockerfile.v0", options).arguments == {
        "context": "https://xxxxx:xxxxx@example.com/app.git",
        "context:base": "https://xxxxx:xxxxx@example.com/base.git",
        "build-arg:URL": "https://me:secret@example.com",
    }


# --- the document ------------------------------------------------------------------------------------------------


def told(
    found: Capture, *, definition: Definition | None = None, layers: Any = (), wanted: Any = None, **more: Any
) -> dict[str, Any]:
    invocation = Invocation(id="1", started=1.5, platform=AMD64, **more)
    definition = definition or local("context").marshal(AMD64)
    made = predicate(invocation, found, wanted or ProvenanceOptions(), definition, finished=2.0, layers=dict(layers))
    document: dict[str, Any] = json.loads(made)
    return document


def test_steps_places_and_layers() -> None:
    file = SourceFile(
        filename="Dockerfile", data=b"FROM", language="Dockerfile", definition=local("d").marshal().to_bytes()
    )
    at = SourceRange(start_line=1, start_column=2, end_line=3)
    base = image("busybox")
    state = base.run(["true"], mounts=[Bind(target="/m", source=base, readonly=True)], place=file.at(at))
    definition = state.marshal(AMD64)
    source, run, end = definition.digests()
    layer = {"mediaType": "m", "digest": SHA, "size": 1}
    document = told(Capture(), definition=definition, layers={(run, 0): [[layer]], (Digest(SHA), 0): [[layer]]})
    config = document["buildConfig"]
    assert config["digestMapping"] == {source: "step0", run: "step1", end: "step2"}
    assert [step.get("inputs", []) for step in config["llbDefinition"]] == [[], ["step0:0"], ["step1:0"]]
    assert config["llbDefinition"][0]["op"]["Op"]["source"]["identifier"].startswith("docker-image://")
    metadata = document["metadata"][TOLD]
    assert metadata["source"]["locations"] == {
        "step0": {},
        "step1": {"locations": [{"ranges": [{"start": {"line": 1, "character": 2}, "end": {"line": 3}}]}]},
    }
    (info,) = metadata["source"]["infos"]
    assert (info["filename"], info["data"]) == ("Dockerfile", "RlJPTQ==")
    assert [step["id"] for step in info["llbDefinition"]] == ["step0", "step1"]
    assert metadata["layers"] == {"step1:0": [[layer]]}


def test_a_local_source_is_told_without_its_session() -> None:
    definition = local("context", session="s1").marshal(AMD64, unique="u1")
    (source, _) = told(Capture(), definition=definition)["buildConfig"]["llbDefinition"]
    assert "s1" not in json.dumps(source)
    assert "u1" not in json.dumps(source)


def test_hermetic_is_what_saw_no_network_and_nothing_of_the_client() -> None:
    hermetic = f"{BUILD_TYPE_02}#hermetic"
    assert told(Capture())["metadata"][hermetic] is True
    for found in (Capture(network=True), Capture(locals=("context",)), Capture(incomplete=True)):
        assert hermetic not in told(found)["metadata"]
    assert told(Capture(locals=("context",)))["metadata"]["completeness"]["materials"] is False


def test_a_git_context_is_where_the_build_is_written() -> None:
    url = "https://example.com/app.git"
    found = Capture(git=(GitMaterial(url=f"{url}#v1", commit=COMMIT),))
    arguments = {"context": f"{url}#v1:docs", "filename": "app.Dockerfile", "vcs:revision": "r", "vcs:source": ""}
    document = told(found, frontend="dockerfile.v0", arguments=arguments)
    assert document["invocation"]["configSource"] == {
        "uri": f"{url}#v1",
        "digest": {"sha1": COMMIT},
        "entryPoint": "app.Dockerfile",
    }
    assert document["materials"] == [{"uri": f"{url}#v1", "digest": {"sha1": COMMIT}}]
    assert document["invocation"]["parameters"] == {"frontend": "dockerfile.v0"}
    assert document["metadata"][TOLD]["vcs"] == {"revision": "r"}
    unknown = told(Capture(), arguments={"context": "https://me:x@example.com/other.git"})
    assert unknown["invocation"]["configSource"] == {"uri": "https://xxxxx:xxxxx@example.com/other.git"}


def test_mode_min_leaves_out_what_may_be_confidential() -> None:
    found = Capture(secrets=(Access(id="s"),), ssh=(Access(id="a"),), locals=("context",))
    arguments = {"build-arg:A": "1", "label:b": "2", "target": "x"}
    wanted = ProvenanceOptions(whole=False)
    document = told(found, frontend="dockerfile.v0", arguments=arguments, wanted=wanted)
    assert document["invocation"]["parameters"] == {
        "frontend": "dockerfile.v0",
        "args": {"target": "x"},
        "locals": [{"name": "context"}],
    }
    assert document["metadata"]["completeness"]["parameters"] is False
    assert "buildConfig" not in document
    complete = told(found, frontend="dockerfile.v0", arguments={"target": "x"}, wanted=wanted)
    assert complete["metadata"]["completeness"]["parameters"] is True


def test_version_1_says_the_same() -> None:
    found = Capture(images=(ImageMaterial(reference=BUSYBOX, digest=SHA, platform=AMD64),), ssh=(Access(id="a"),))
    more: dict[str, Any] = {"frontend": "dockerfile.v0", "arguments": {"filename": "f"}, "custom": {"ci": [1]}}
    one = told(found, wanted=ProvenanceOptions(version=Version.SLSA1, builder_id="me", reproducible=True), **more)
    two = told(found, wanted=ProvenanceOptions(builder_id="me", reproducible=True), **more)
    definition, details = one["buildDefinition"], one["runDetails"]
    assert definition["buildType"] == BUILD_TYPE_1
    assert definition["resolvedDependencies"] == two["materials"]
    assert definition["externalParameters"] == {
        "configSource": {"path": "f"},
        "request": two["invocation"]["parameters"],
    }
    assert two["invocation"]["environment"] == {"platform": "linux/amd64", "ci": [1]}
    assert definition["internalParameters"] == {
        "builderPlatform": "linux/amd64",
        "ci": [1],
        "buildConfig": two["buildConfig"],
    }
    assert details["builder"] == two["builder"] == {"id": "me"}
    assert details["metadata"] == {
        "invocationID": "1",
        "startedOn": "1970-01-01T00:00:01.5Z",
        "finishedOn": "1970-01-01T00:00:02Z",
        "buildkit_metadata": {},
        "buildkit_hermetic": True,
        "buildkit_completeness": {"request": True, "resolvedDependencies": True},
        "buildkit_reproducible": True,
    }


# --- what is asked for -------------------------------------------------------------------------------------------


def test_options_of_a_provenance() -> None:
    assert options.read({}) == ProvenanceOptions()
    assert options.read({"mode": "min", "inline-only": "true", "version": "v1", "filename": "p"}) == ProvenanceOptions(
        whole=False, inline_only=True, version=Version.SLSA1, filename="p"
    )
    assert options.read({"mode": "full", "reproducible": "1", "builder-id": "me"}).whole


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"mode": "mix"}, 'invalid mode "mix"'),
        ({"version": "v2"}, "invalid provenance SLSA version: v2"),
        ({"version": ""}, "provenance SLSA version cannot be empty"),
        ({"reproducible": "maybe"}, 'failed to parse reproducible flag "maybe"'),
    ],
)
def test_options_that_cannot_be_meant(attrs: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        options.read(attrs)
    assert caught.value.message == message
