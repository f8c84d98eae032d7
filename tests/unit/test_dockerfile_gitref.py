"""Git repositories as Dockerfiles and contexts name them: BuildKit's tables of addresses, and what they mean."""

from __future__ import annotations

import pytest

from buildengine.errors import UserError
from frontends.dockerfile.gitref import GitRef, parse
from llb import giturl

MOBY = "https://github.com/moby/buildkit.git"
SCP = "git@github.com:moby/buildkit.git"
SHORT = "https://github.com/moby/buildkit"  # what github.com/moby/buildkit stands for

REPOSITORIES = [
    ("https://example.com/foo.git", GitRef(remote="https://example.com/foo.git")),
    ("https://example.com/foo.git#deadbeef", GitRef(remote="https://example.com/foo.git", ref="deadbeef")),
    ("https://example.com/foo.git#release/1.2", GitRef(remote="https://example.com/foo.git", ref="release/1.2")),
    ("git://example.com/foo", GitRef(remote="git://example.com/foo")),
    ("github.com/moby/buildkit", GitRef(remote=SHORT)),
    ("github.com/moby/buildkit#master", GitRef(remote=SHORT, ref="master")),
    ("github.com/moby/buildkit?tag=v1.0.0", GitRef(remote=SHORT, ref="refs/tags/v1.0.0")),
    (MOBY, GitRef(remote=MOBY)),
    ("https://foo:bar@github.com/moby/buildkit.git", GitRef(remote="https://foo:bar@github.com/moby/buildkit.git")),
    ("git@github.com:moby/buildkit", GitRef(remote="git@github.com:moby/buildkit")),
    (SCP, GitRef(remote=SCP)),
    ("git@bitbucket.org:atlassianlabs/atlassian-docker.git",
     GitRef(remote="git@bitbucket.org:atlassianlabs/atlassian-docker.git")),
    ("https://github.com/foo/bar.git#baz/qux:quux/quuz",
     GitRef(remote="https://github.com/foo/bar.git", ref="baz/qux", subdir="quux/quuz")),
    (f"{MOBY}#:myfolder", GitRef(remote=MOBY, subdir="myfolder")),
    (f"{MOBY}?ref=v1.0.0&subdir=/subdir", GitRef(remote=MOBY, ref="v1.0.0", subdir="/subdir")),
    (f"{MOBY}?subdir=/subdir#v1.0.0", GitRef(remote=MOBY, ref="v1.0.0", subdir="/subdir")),
    (f"{SCP}?subdir=/subdir#v1.0.0", GitRef(remote=SCP, ref="v1.0.0", subdir="/subdir")),
    (f"{MOBY}?tag=v1.0.0", GitRef(remote=MOBY, ref="refs/tags/v1.0.0")),
    (f"{MOBY}?tag=refs/tags/v1", GitRef(remote=MOBY, ref="refs/tags/v1")),
    (f"{MOBY}?branch=v1.0", GitRef(remote=MOBY, ref="refs/heads/v1.0")),
    (f"{MOBY}?checksum=abc&submodules=0&keep-git-dir",
     GitRef(remote=MOBY, checksum="abc", submodules=False, keep_git_dir=True)),
    (f"{MOBY}?commit=abc&keep-git-dir=false&submodules=",
     GitRef(remote=MOBY, checksum="abc", submodules=True, keep_git_dir=False)),
]  # fmt: skip

OTHERS = [
    "https://example.com/", "https://example.com/foo", "https://example.com/foo.git/", "https://example.com/foo.git.bar",
    "custom.xyz/moby/buildkit.git", "https://github.com/moby/buildkit", "http://github.com/docker/docker.git:#branch",
    "./.git", ".git", "../a.git", "httpx://github.com/moby/buildkit.git",
]  # fmt: skip

MISTAKES = [
    (f"{MOBY}?ref=v1.0.0#v1.2.3", "ref conflicts"),
    (f"{MOBY}?ref=v1.0.0&tag=v1.2.3", "ref conflicts"),
    (f"{MOBY}?tag=v1.0.0&branch=v1.0", "branch conflicts with tag"),
    (f"{MOBY}?subdir=a#:b", "subdir conflicts"),
    (f"{MOBY}?invalid=123", 'unexpected query "invalid"'),
    (f"{MOBY}?ref=", 'query "ref" has no value'),
    (f"{MOBY}?ref=a&ref=b", 'query "ref" has multiple values'),
    (f"{MOBY}?submodules=perhaps", 'invalid submodules value: "perhaps"'),
]

# address: scheme, host, path, ref, subdirectory, query
URLS = [
    ("http://github.com/moby/buildkit", ("http", "github.com", "/moby/buildkit", "", "", "")),
    ("https://github.com/moby/buildkit", ("https", "github.com", "/moby/buildkit", "", "", "")),
    ("HTTP://github.com/moby/buildkit", ("http", "github.com", "/moby/buildkit", "", "", "")),
    ("http://github.com/moby/buildkit#v1.0.0", ("http", "github.com", "/moby/buildkit", "v1.0.0", "", "")),
    ("http://github.com/moby/buildkit#v1.0.0:sub", ("http", "github.com", "/moby/buildkit", "v1.0.0", "sub", "")),
    ("http://foo:bar@github.com/moby/buildkit#v1", ("http", "github.com", "/moby/buildkit", "v1", "", "")),
    ("ssh://git@github.com/moby/buildkit.git", ("ssh", "github.com", "/moby/buildkit.git", "", "", "")),
    ("ssh://git@github.com:22/moby/buildkit.git", ("ssh", "github.com:22", "/moby/buildkit.git", "", "", "")),
    (SCP, ("ssh", "github.com", "moby/buildkit.git", "", "", "")),
    (f"{SCP}#v1.0.0", ("ssh", "github.com", "moby/buildkit.git", "v1.0.0", "", "")),
    (f"{SCP}#v1.0.0:hack", ("ssh", "github.com", "moby/buildkit.git", "v1.0.0", "hack", "")),
    ("other@example.com:/srv/weird/project.git", ("ssh", "example.com", "/srv/weird/project.git", "", "", "")),
    ("ssh://root@sub.example.host:2222/root/my/foo.git",
     ("ssh", "sub.example.host:2222", "/root/my/foo.git", "", "", "")),
    ("git://host.xz:1234/path/to/repo.git", ("git", "host.xz:1234", "/path/to/repo.git", "", "", "")),
    ("ssh://some@192.168.0.123:456/~/home.git", ("ssh", "192.168.0.123:456", "/~/home.git", "", "", "")),
    ("https://github.com/moby/buildkit?ref=v1.0.0&foo=bar#v1.2.3",
     ("https", "github.com", "/moby/buildkit", "v1.2.3", "", "ref=v1.0.0&foo=bar")),
    (f"{SCP}?subdir=/subdir#v1.0.0", ("ssh", "github.com", "moby/buildkit.git", "v1.0.0", "", "subdir=/subdir")),
]  # fmt: skip


@pytest.mark.parametrize(("address", "expected"), REPOSITORIES)
def test_what_is_a_repository(address: str, expected: GitRef) -> None:
    assert parse(address, short_github=True) == expected


@pytest.mark.parametrize("address", OTHERS)
def test_what_is_none(address: str) -> None:
    assert parse(address, short_github=True) is None


def test_the_short_form_is_for_contexts_only() -> None:
    assert parse("github.com/moby/buildkit") is None


@pytest.mark.parametrize(("address", "message"), MISTAKES)
def test_what_contradicts_itself(address: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(address)


@pytest.mark.parametrize(("address", "expected"), URLS)
def test_parts_of_an_address(address: str, expected: tuple[str, ...]) -> None:
    url = giturl.parse(address)
    assert (url.scheme, url.host, url.path, url.ref, url.subdir, url.query) == expected


def test_another_scheme_is_no_repository() -> None:
    with pytest.raises(UserError):
        giturl.parse("httpx://github.com/moby/buildkit")
