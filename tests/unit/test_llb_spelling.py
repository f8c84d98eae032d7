"""Image references, git addresses, paths, names and capabilities: how things are spelled in LLB."""

from __future__ import annotations

import doctest
import importlib

import pytest

from buildengine.errors import UserError
from buildengine.reference import normalize
from llb import caps, giturl, ops, paths
from llb.names import name
from llb.ops import ContentCache, Mount, MountType, NetMode, Op, OpMetadata, SecurityMode
from tests.unit.llb_samples import FULL_EXEC, FULL_FILE

HEX = "a" * 64


@pytest.mark.parametrize("module", ["actions", "giturl", "mounts", "order", "paths", "sourcemap", "state"])
def test_examples_in_the_documentation(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"llb.{module}"))
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("a/b", "docker.io/a/b:latest"),
        ("docker.io/x", "docker.io/library/x:latest"),
        ("index.docker.io/x", "docker.io/library/x:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x:y", "localhost:5000/x:y"),
        ("host:5000/a/b_c/d__e--f.g", "host:5000/a/b_c/d__e--f.g:latest"),
        ("Host/x", "Host/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        (f"x@sha256:{HEX}", f"docker.io/library/x@sha256:{HEX}"),
        (f"x:t@sha256:{HEX}", f"docker.io/library/x:t@sha256:{HEX}"),
    ],
)
def test_references(reference: str, full: str) -> None:
    assert normalize(reference) == full
    assert normalize(full) == full


@pytest.mark.parametrize(
    "reference",
    ["", "/", "a//b", "x:", "x@", "X", "a/B", "x y", "x:-t", HEX, "x@sha256:12", f"x:t:u@sha256:{HEX}", "-x", "x\n"],
)
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(UserError):
        normalize(reference)


@pytest.mark.parametrize(
    "reference", ["a" * 300, "a/" * 200 + "a", "a-" * 100_000, "a." * 100_000 + "/", "/" * 100_000]
)
def test_absurd_references_are_refused_at_once(reference: str) -> None:
    with pytest.raises(UserError) as caught:
        normalize(reference)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        (
            "https://user:pw@host:8443/a/b.git?x=1#v1:sub/dir",
            giturl.GitURL(
                scheme="https",
                host="host:8443",
                path="/a/b.git",
                remote="https://user:pw@host:8443/a/b.git",
                ref="v1",
                subdir="sub/dir",
                query="x=1",
            ),
        ),
        (
            "git@host:a/b.git?x=1#v1",
            giturl.GitURL(scheme="ssh", host="host", path="a/b.git", remote="git@host:a/b.git", ref="v1", query="x=1"),
        ),
        ("ssh://git@host/a", giturl.GitURL(scheme="ssh", host="host", path="/a", remote="ssh://git@host/a")),
        ("git://host/a", giturl.GitURL(scheme="git", host="host", path="/a", remote="git://host/a")),
    ],
)
def test_git_addresses(remote: str, expected: giturl.GitURL) -> None:
    assert giturl.parse(remote) == expected


def test_one_repository_has_one_identity() -> None:
    remotes = ["https://h/a/b.git", "ssh://git@h/a/b.git", "git@h:a/b.git", "https://h//a/./b.git"]
    assert {giturl.parse(remote).identity for remote in remotes} == {"h/a/b.git"}


@pytest.mark.parametrize(
    "remote", ["ext::sh -c id", "file:///etc", "/etc", "--upload-pack=id", "https://", "http:///x", "https://[x", "a b"]
)
def test_addresses_that_git_must_not_see(remote: str) -> None:
    with pytest.raises(UserError, match="invalid git"):
        giturl.parse(remote)


@pytest.mark.parametrize(
    ("directory", "path", "resolved", "destination"),
    [
        ("/", "a", "/a", "/a"),
        ("/a", "", "/a", "/a"),
        ("/a", ".", "/a", "/a"),
        ("/a", "..", "/", "/"),
        ("/a", "../../../b/", "/b", "/b/"),
        ("/a", "/b//c/", "/b/c", "/b/c/"),
        ("/a", "//b", "/b", "/b"),
        ("", "b", "/b", "/b"),
        ("/a", "/", "/", "/"),
        ("/a", "b/.", "/a/b", "/a/b/."),
        ("/a", "/.", "/", "/."),
    ],
)
def test_paths(directory: str, path: str, resolved: str, destination: str) -> None:
    assert paths.resolve(directory, path) == resolved
    assert paths.destination(directory, path) == destination


NO_METADATA = OpMetadata()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (ops.SourceOp(identifier="local://context"), "local://context"),
        (FULL_EXEC, "/bin/sh -c make"),
        (FULL_FILE, "mkdir /a, mkfile /a/f, symlink /a/l -> f, rm /a/*, copy /x /y/"),
        (ops.MergeOp(inputs=(0, 1)), "merge (one, two)"),
        (ops.DiffOp(upper=1), "diff scratch -> (two)"),
        (ops.DiffOp(lower=0), "diff (one) -> scratch"),
        (ops.BuildOp(builder=-1), "build"),
        (None, "result"),
    ],
)
def test_names(payload: ops.Payload | None, expected: str) -> None:
    assert name(Op(payload=payload), NO_METADATA, ["one", "two"]) == expected


def test_names_of_inputs_are_shortened() -> None:
    made = name(Op(payload=ops.MergeOp(inputs=(0, 7))), NO_METADATA, ["x" * 1000])
    assert made == f"merge ({'x' * 99}…, ?)"


def exec_with(**options: object) -> ops.ExecOp:
    fields = {"meta": ops.Meta(args=("x",)), "mounts": (), **options}
    return ops.ExecOp(**fields)


ALWAYS = {"exec.meta.base", "exec.meta.setsdefaultpath"}


@pytest.mark.parametrize(
    ("payload", "needed"),
    [
        (None, set()),
        (ops.SourceOp(identifier="docker-image://x", attrs={"image.resolvemode": "local"}), {"source.image"}),
        (
            ops.SourceOp(identifier="docker-image://x", attrs={"image.resolvemode": "pull"}),
            {"source.image", "source.image.resolvemode"},
        ),
        (
            ops.SourceOp(identifier="http://x", attrs={"http.uid": "1", "http.header.accept": "x"}),
            {"source.http", "soruce.http.uidgid", "source.http.header"},
        ),
        (
            ops.SourceOp(identifier="git://x", attrs={"git.fullurl": "y", "git.subdir": "z"}),
            {"source.git", "source.git.fullurl"},
        ),
        (ops.SourceOp(identifier="local://x", attrs={"local.unique": "y"}), {"source.local", "source.local.unique"}),
        (exec_with(), ALWAYS),
        (exec_with(network=NetMode.HOST), {*ALWAYS, "exec.meta.network"}),
        (exec_with(security=SecurityMode.INSECURE), {*ALWAYS, "exec.meta.security"}),
        (exec_with(mounts=(Mount(dest="/", selector="s"),)), {*ALWAYS, "exec.mount.bind", "exec.mount.selector"}),
        (
            exec_with(mounts=(Mount(dest="/", content_cache=ContentCache.ON),)),
            {*ALWAYS, "exec.mount.bind", "exec.mount.cache.content"},
        ),
        (
            exec_with(mounts=(Mount(dest="/t", type=MountType.TMPFS, tmpfs_size=1),)),
            {*ALWAYS, "exec.mount.tmpfs", "exec.mount.tmpfs.size"},
        ),
        (
            FULL_FILE,
            {
                "file.base",
                "file.copy.includeexcludepatterns",
                "file.copy.requiredpaths",
                "file.copy.alwaysreplaceexistingdestpaths",
                "file.symlink.create",
            },
        ),
        (ops.MergeOp(inputs=()), {"mergeop"}),
        (ops.DiffOp(), {"diffop"}),
        (ops.BuildOp(builder=-1), set()),
        (ops.BuildOp(builder=-1, attrs={"llbbuild.filename": "x"}), {"source.buildop.llbfilename"}),
    ],
)
def test_capabilities(payload: ops.Payload | None, needed: set[str]) -> None:
    assert caps.required(Op(payload=payload)) == needed
    assert needed <= caps.KNOWN


def test_every_capability_that_we_ask_for_is_known() -> None:
    assert caps.required(Op(payload=FULL_EXEC)) <= caps.KNOWN
    assert len(caps.KNOWN) == 81
