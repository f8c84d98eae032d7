"""The git source against real repositories over loopback, ordinary and hostile."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from buildengine.errors import GitError, InvalidDefinition
from llb.ops import SourceOp
from tests.fakes.git_server import Repository, git_daemon, git_of_plain_files, git_over_http, make
from worker.session import SecretBytes
from worker.sources import origin as origins
from worker.sources.git import Access, GitRevision, GitSource, cache_key, choose_ref
from worker.sources.gitcli import Git, remote, without_secrets
from worker.sources.origin import GitOrigin
from worker.sources.realdirectory import open_real_directory
from worker.sources.submodules import absolute_url

PATH = {"PATH": os.environ["PATH"]}


class Locks:
    def __init__(self) -> None:
        self.held: list[str] = []

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[None]:
        assert not self.held, "a lock inside a lock can wait for ever"
        self.held.append(name)
        try:
            yield
        finally:
            self.held.remove(name)


class Given:
    """`Secrets` from a dictionary."""

    def __init__(self, values: Mapping[str, str] = {}) -> None:
        self.values = values

    async def get(self, secret_id: str) -> SecretBytes | None:
        value = self.values.get(secret_id)
        return None if value is None else SecretBytes(value.encode())


NOTHING = Access(secrets=Given())


def source(root: Path, log: list[bytes] | None = None) -> GitSource:
    seen = log if log is not None else []
    return GitSource(root / "store", Locks(), Git(PATH, seen.append))


async def check_out(
    root: Path, origin: GitOrigin, *, access: Access = NOTHING, name: str = "out"
) -> dict[str, str | bytes]:
    """Resolve and check out; what came, by path: bytes, or where a symlink leads."""
    git = source(root)
    revision = await git.resolve(origin, access)
    target = root / name
    target.mkdir()
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        await git.checkout(origin, revision, fd, access)
    finally:
        os.close(fd)
    return listing(target)


def listing(root: Path) -> dict[str, str | bytes]:
    found: dict[str, str | bytes] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if ".git/" in name:
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = ""
    return found


@asynccontextmanager
async def served(root: Path, login: str = "", *, protocol: bool = True) -> AsyncIterator[tuple[Repository, str]]:
    (root / "remote").mkdir()
    repository = make(root / "remote/app.git")
    async with git_over_http(root / "remote", login=login, protocol=protocol) as server:
        yield repository, f"{server.url}/app.git"


# --- ordinary -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [False, True])
async def test_a_server_of_plain_files(tmp_path: Path, by_id: bool) -> None:
    (tmp_path / "remote").mkdir()
    repository = make(tmp_path / "remote/app.git")
    first = repository.commit({"a": b"1"})
    tree = repository.tree({"a": b"2"})
    repository.git("update-ref", "refs/heads/main", repository.git("commit-tree", "-m", "x", "-p", first, tree))
    repository.git("update-server-info")
    async with git_of_plain_files(tmp_path / "remote") as server:
        origin = GitOrigin(remote=f"{server.url}/app.git", ref=first if by_id else "main")
        assert await check_out(tmp_path, origin) == {"a": b"1" if by_id else b"2"}


async def test_the_default_branch_with_files_modes_and_links(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        commit = repository.commit({"a": b"1", "dir/run": ("100755", "#!"), "dir/link": ("120000", "../a")})
        revision = await source(tmp_path).resolve(GitOrigin(remote=url), NOTHING)
        assert revision == GitRevision(ref="refs/heads/main", object=commit, commit=commit)
        assert await check_out(tmp_path, GitOrigin(remote=url)) == {
            "a": b"1",
            "dir": "",
            "dir/run": b"#!",
            "dir/link": "../a",
        }
    assert stat.S_IMODE((tmp_path / "out/dir/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out/a").stat().st_mode) == 0o644
    assert [path.name for path in (tmp_path / "store").iterdir() if path.suffix] == []


async def test_branches_tags_full_names_and_commits(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        one = repository.commit({"f": b"one"}, ref="refs/heads/topic/x")
        two = repository.commit({"f": b"two"})
        repository.git("tag", "light", two)
        repository.git("tag", "-a", "-m", "m", "v1", one)
        tag = repository.git("rev-parse", "v1")
        repository.git("update-ref", "refs/pull/7/head", one)
        refs = {
            "topic/x": ("refs/heads/topic/x", one, one),
            "light": ("refs/tags/light", two, two),
            "v1": ("refs/tags/v1", tag, one),
            "refs/tags/v1": ("refs/tags/v1", tag, one),
            "refs/pull/7/head": ("refs/pull/7/head", one, one),
            "pull/7/head": ("refs/pull/7/head", one, one),
            two: (two, two, two),
        }
        for number, (ref, expected) in enumerate(refs.items()):
            origin = GitOrigin(remote=url, ref=ref)
            found = await source(tmp_path).resolve(origin, NOTHING)
            assert (found.ref, found.object, found.commit) == expected
            files = await check_out(tmp_path, origin, name=f"out{number}")
            assert files == {"f": b"one" if expected[2] == one else b"two"}


async def test_the_objects_that_a_signature_is_of(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        commit = repository.commit({"f": b"one"})
        repository.git("tag", "-a", "-m", "released", "v1", commit)
        tag = repository.git("rev-parse", "v1")
        for ref in ("main", "v1", tag, commit):
            origin = GitOrigin(remote=url, ref=ref)
            found = await source(tmp_path).resolve(origin, NOTHING)
            objects = await source(tmp_path).objects(origin, found, NOTHING)
            assert objects.commit == commit
            assert named("commit", objects.commit_object) == commit
            assert (named("tag", objects.tag_object) == tag) == (ref in ("v1", tag))
            assert bool(objects.tag_object) == (ref in ("v1", tag))


def named(kind: str, data: bytes) -> str:
    """What git calls an object."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


async def test_a_branch_wins_over_a_tag_of_the_same_name(tmp_path: Path) -> None:
    listing = b"".join(
        b"%s\t%s\n" % (digit * 40, name)
        for digit, name in ((b"1", b"refs/heads/x"), (b"2", b"refs/tags/x"), (b"3", b"refs/tags/x^{}"))
    )
    found = choose_ref("x", listing)
    assert found == GitRevision(ref="refs/heads/x", object="1" * 40, commit="1" * 40)
    assert choose_ref("tags/x", listing) == GitRevision(ref="refs/tags/x", object="2" * 40, commit="3" * 40)
    assert choose_ref("y", listing) is None


async def test_a_second_checkout_of_a_known_commit_asks_nobody(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        commit = repository.commit({"f": b"1"})
        origin = GitOrigin(remote=url, ref=commit)
        await check_out(tmp_path, origin)
    assert await check_out(tmp_path, origin, name="again") == {"f": b"1"}


async def test_a_moved_branch_gives_the_commit_that_was_resolved(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        old = repository.commit({"f": b"old"})
        origin = GitOrigin(remote=url, ref="main")
        git = source(tmp_path)
        revision = await git.resolve(origin, NOTHING)
        repository.commit({"f": b"new"})
        out = tmp_path / "out"
        out.mkdir()
        fd = os.open(out, os.O_RDONLY)
        await git.checkout(origin, revision, fd, NOTHING)
        os.close(fd)
    assert revision.commit == old
    assert listing(out) == {"f": b"old"}


async def test_a_directory_of_the_repository_becomes_the_root(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        repository.commit(
            {
                "other": b"x",
                "a/b/f": b"1",
                "a/b/c/g": b"2",
                "a/bad": b"3",
                "link": ("120000", "a"),
                ".gitattributes": b"",
            }
        )
        assert await check_out(tmp_path, GitOrigin(remote=url, subdir="a/b")) == {"f": b"1", "c": "", "c/g": b"2"}
        for wrong in ("nowhere", "other", "link/b", "a/b/f"):
            with pytest.raises(GitError, match=f"has no directory '{wrong}'"):
                await check_out(tmp_path, GitOrigin(remote=url, subdir=wrong), name=wrong.replace("/", "-"))


async def test_attributes_above_a_directory_hold_inside_it(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        repository.commit({".gitattributes": b"*.txt eol=crlf\n", "a/f.txt": b"line\n"})
        assert await check_out(tmp_path, GitOrigin(remote=url, subdir="a")) == {"f.txt": b"line\r\n"}


async def test_an_empty_commit(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        repository.commit({})
        assert await check_out(tmp_path, GitOrigin(remote=url)) == {}


@pytest.mark.parametrize("ref", ["main", "v1", "commit"])
async def test_git_dir_is_kept_and_knows_where_it_came_from(tmp_path: Path, ref: str) -> None:
    async with served(tmp_path) as (repository, url):
        repository.commit({"f": b"older"})
        commit = repository.commit({"f": b"1"})
        repository.git("tag", "-a", "-m", "m", "v1", commit)
        secret_url = url.replace("http://", "http://user:hunter2@")
        origin = GitOrigin(remote=secret_url, ref=commit if ref == "commit" else ref, keep_git_dir=True)
        assert await check_out(tmp_path, origin) == {"f": b"1", ".git": ""}
        kept = Repository.__new__(Repository)
        kept.path = tmp_path / "out/.git"
        assert kept.git("rev-parse", "HEAD") == commit
        assert kept.git("log", "--oneline").count("\n") == 0
        assert kept.git("config", "remote.origin.url") == url
        if ref != "commit":
            assert kept.git("rev-parse", f"{ref}^{{commit}}") == commit
        assert kept.git("--work-tree", str(tmp_path / "out"), "status", "--porcelain") == ""
        everything = b"".join(path.read_bytes() for path in kept.path.rglob("*") if path.is_file())
        assert b"hunter2" not in everything
        assert str(tmp_path / "store").encode() not in everything
        assert not (kept.path / "hooks").exists()


async def test_sha256_repositories(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    repository = make(tmp_path / "remote/app.git", sha256=True)
    commit = repository.commit({"f": b"1"})
    async with git_over_http(tmp_path / "remote") as server:
        for number, keep in enumerate((False, True)):
            origin = GitOrigin(remote=f"{server.url}/app.git", ref="main", keep_git_dir=keep)
            assert (await source(tmp_path).resolve(origin, NOTHING)).commit == commit
            assert (await check_out(tmp_path, origin, name=str(number)))["f"] == b"1"


async def test_over_the_git_protocol(tmp_path: Path) -> None:
    repository = make(tmp_path / "app.git")
    commit = repository.commit({"f": b"1"})
    async with git_daemon(tmp_path) as host:
        assert await check_out(tmp_path, GitOrigin(remote=f"git://{host}/app.git", ref=commit)) == {"f": b"1"}


async def test_a_server_that_gives_only_what_refs_name(tmp_path: Path) -> None:
    async with served(tmp_path, protocol=False) as (repository, url):
        tree = repository.tree({"f": b"deep"})
        deep = repository.git("commit-tree", "-m", "deep", tree)
        top = repository.git("commit-tree", "-m", "top", "-p", deep, repository.tree({"f": b"top"}))
        repository.git("update-ref", "refs/heads/main", top)
        assert await check_out(tmp_path, GitOrigin(remote=url, ref="main")) == {"f": b"top"}
        assert await check_out(tmp_path, GitOrigin(remote=url, ref=deep), name="deep") == {"f": b"deep"}
        with pytest.raises(GitError, match=f"does not have the commit {'0' * 40}"):
            await check_out(tmp_path, GitOrigin(remote=url, ref="0" * 40), name="none")


async def test_what_a_killed_git_left_is_swept_away(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        repository.commit({"f": b"1"})
        await check_out(tmp_path, GitOrigin(remote=url))
        (bare,) = (tmp_path / "store").iterdir()
        for name in ("shallow.lock", "config.lock", "refs/pybuild/x.lock"):
            (bare / name).touch()
        repository.commit({"f": b"2"})
        assert await check_out(tmp_path, GitOrigin(remote=url), name="again") == {"f": b"2"}


async def test_a_checksum_must_match_commit_or_tag(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        commit = repository.commit({"f": b"1"})
        repository.git("tag", "-a", "-m", "m", "v1", commit)
        tag = repository.git("rev-parse", "v1")
        for good in (commit, commit[:7], tag, tag[:12]):
            await source(tmp_path).resolve(GitOrigin(remote=url, ref="v1", checksum=good), NOTHING)
        with pytest.raises(GitError, match="expected checksum to match 0000000, got"):
            await source(tmp_path).resolve(GitOrigin(remote=url, ref="v1", checksum="0000000"), NOTHING)
        with pytest.raises(GitError, match="expected checksum"):
            await source(tmp_path).resolve(GitOrigin(remote=url, ref=commit, checksum="0000000"), NOTHING)


def test_keys_differ_where_content_differs() -> None:
    revision = GitRevision(ref="refs/tags/v1", object="t" * 40, commit="c" * 40)
    base = GitOrigin(remote="https://h/x.git", ref="v1")
    keys = [
        cache_key(base, revision),
        cache_key(GitOrigin(remote=base.remote, subdir="a"), revision),
        cache_key(GitOrigin(remote=base.remote, keep_git_dir=True), revision),
        cache_key(GitOrigin(remote=base.remote, submodules=False), revision),
    ]
    assert keys == ["c" * 40, "c" * 40 + ":a", "t" * 40 + ".git#refs/tags/v1", "c" * 40 + "(skip-submodules)"]
    assert cache_key(GitOrigin(remote="https://other/x.git"), revision) == keys[0]


# --- secrets ------------------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_there_for_no_client(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, url):
        pass
    with pytest.raises(GitError) as caught:
        await source(tmp_path).resolve(GitOrigin(remote=url), NOTHING)
    assert not caught.value.is_clients


async def test_tokens_and_headers_open_private_repositories(tmp_path: Path) -> None:
    async with served(tmp_path, login="x-access-token:hunter2") as (repository, url):
        repository.commit({"f": b"1"})
        host = url.split("/")[2]
        header = "Basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg=="
        given = [
            {"GIT_AUTH_TOKEN": "hunter2"},
            {f"GIT_AUTH_TOKEN.{host}": "hunter2", "GIT_AUTH_TOKEN": "wrong"},
            {"GIT_AUTH_HEADER": header, "GIT_AUTH_TOKEN": "wrong"},
        ]
        origin = GitOrigin(remote=url, auth_token_secret="GIT_AUTH_TOKEN", auth_header_secret="GIT_AUTH_HEADER")
        for number, values in enumerate(given):
            access = Access(secrets=Given(values))
            assert await check_out(tmp_path, origin, access=access, name=str(number)) == {"f": b"1"}
        login = GitOrigin(remote=url.replace("//", "//x-access-token:hunter2@"))
        assert await check_out(tmp_path, login, name="url") == {"f": b"1"}
        with pytest.raises(GitError) as caught:
            await source(tmp_path).resolve(origin, Access(secrets=Given({"GIT_AUTH_TOKEN": "wrong-token"})))
    assert "GIT_AUTH_TOKEN" in (caught.value.hint or "")
    assert caught.value.is_clients  # another one may have the right token
    assert "wrong-token" not in str(caught.value)
    assert "hunter2" not in "".join(str(path) for path in (tmp_path / "store").rglob("*"))


def test_secrets_are_removed_from_what_git_says() -> None:
    place = remote("https://user:hunter2@h/x.git")
    assert place.url == "https://h/x.git"
    assert place.authorization is not None
    encoded = place.authorization.reveal().split()[1]
    text = b"fatal: https://me:pw@h/x " + encoded + b" " + place.authorization.reveal()
    assert without_secrets(text, place.authorization) == b"fatal: https://***@h/x *** ***"
    assert "hunter2" not in repr(place)


def test_a_token_is_for_its_repository_but_github_is_one() -> None:
    token = SecretBytes(b"Basic x")
    assert remote("https://github.com/a/b.git", authorization=token).reaches("https://github.com/c/d.git")
    assert not remote("https://h/a.git", authorization=token).reaches("https://h/b.git")
    assert not remote("https://github.com/a/b.git").reaches("https://github.com/c/d.git")


# --- submodules ---------------------------------------------------------------------------------------------


def gitmodules(**urls: str) -> bytes:
    return "".join(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n' for path, url in urls.items()).encode()


async def test_submodules_come_along_nested_and_relative(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        inner = make(tmp_path / "remote/inner.git").commit({"i": b"i"})
        middle = make(tmp_path / "remote/middle.git").commit(
            {"m": b"m", ".gitmodules": gitmodules(deep="../inner.git"), "deep": ("160000", inner)}
        )
        modules = gitmodules(sub=f"{url.rpartition('/')[0]}/middle.git")
        repository.commit({"f": b"f", ".gitmodules": modules, "sub": ("160000", middle)})
        files = await check_out(tmp_path, GitOrigin(remote=url))
        assert {name: data for name, data in files.items() if not name.endswith(".gitmodules")} == {
            "f": b"f",
            "sub": "",
            "sub/m": b"m",
            "sub/deep": "",
            "sub/deep/i": b"i",
        }
        without = await check_out(tmp_path, GitOrigin(remote=url, submodules=False), name="without")
        assert without == {"f": b"f", ".gitmodules": modules, "sub": ""}


async def test_only_submodules_below_the_directory_are_fetched(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        inner = make(tmp_path / "remote/inner.git").commit({"i": b"i"})
        modules = b'[submodule "x"]\n\tpath = a/sub\n\turl = ../inner.git\n' + gitmodules(gone="../gone.git")
        repository.commit(
            {".gitmodules": modules, "a/f": b"f", "a/sub": ("160000", inner), "gone": ("160000", "1" * 40)}
        )
        files = await check_out(tmp_path, GitOrigin(remote=url, subdir="a"))
    assert files == {"f": b"f", "sub": "", "sub/i": b"i"}


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///etc", "invalid git address"),
        ("/etc", "invalid git address"),
        ("ext::sh -c touch% /tmp/pwned", "invalid git address"),
        ("--upload-pack=touch /tmp/pwned", "invalid git address"),
        ("ssh://-oProxyCommand=touch/x", "invalid git address"),
        ("../../../../etc", "invalid git address"),
    ],
)
async def test_submodules_from_where_they_must_not_come(tmp_path: Path, url: str, problem: str) -> None:
    async with served(tmp_path) as (repository, address):
        repository.commit({".gitmodules": gitmodules(sub=f'"{url}"'), "sub": ("160000", "1" * 40)})
        with pytest.raises(GitError, match=f"the submodule at 'sub': {problem}"):
            await check_out(tmp_path, GitOrigin(remote=address))


async def test_a_submodule_is_not_written_through_a_symlink(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    async with served(tmp_path) as (repository, url):
        inner = make(tmp_path / "remote/inner.git").commit({"i": b"i"})
        modules = b'[submodule "x"]\n\tpath = link/sub\n\turl = ../inner.git\n'
        repository.commit({".gitmodules": modules, "link": ("120000", str(victim))})
        tree = repository.git("rev-parse", "main^{tree}")
        lines = repository.git("ls-tree", tree)
        nested = repository.git("mktree", "--missing", input=f"160000 commit {inner}\tsub\n".encode())
        twice = repository.git("mktree", "--missing", input=f"{lines}\n040000 tree {nested}\tlink\n".encode())
        repository.git("update-ref", "refs/heads/main", repository.git("commit-tree", "-m", "x", twice))
        files = await check_out(tmp_path, GitOrigin(remote=url))  # git lets the directory win
    assert files["link/sub/i"] == b"i"
    assert list(victim.iterdir()) == []


def test_directories_are_opened_without_following_symlinks(tmp_path: Path) -> None:
    (tmp_path / "real/.git").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    root = os.open(tmp_path, os.O_RDONLY)
    os.close(open_real_directory(root, "real"))
    for path in ("link", "file", "gone", "real/.git", "real/../real", "", "/", "real/.GIT"):
        with pytest.raises(GitError):
            open_real_directory(root, path)
    os.close(root)


async def test_submodules_without_end(tmp_path: Path) -> None:
    async with served(tmp_path) as (repository, url):
        last = repository.commit({"f": b"f"})
        for _ in range(10):
            last = repository.commit({".gitmodules": gitmodules(s=url), "s": ("160000", last)})
        with pytest.raises(GitError, match="too many submodules, or nests them too deeply"):
            await check_out(tmp_path, GitOrigin(remote=url))


@pytest.mark.parametrize(
    ("url", "parent", "expected"),
    [
        ("https://x/y.git", "https://h/a/b.git", "https://x/y.git"),
        ("../c.git", "https://h/a/b.git", "https://h/a/c.git"),
        ("../../c.git", "https://h/a/b.git/", "https://h/c.git"),
        ("./c.git", "https://h/a/b.git", "https://h/a/b.git/c.git"),
        ("../c.git", "git@h:a/b.git", "git@h:a/c.git"),
        ("../c.git", "git@h:b.git", "git@h:c.git"),
        ("../../c/d.git", "git@h:a/b.git", "git@h:c/d.git"),
    ],
)
def test_relative_submodules(url: str, parent: str, expected: str) -> None:
    assert absolute_url(url, parent) == expected


# --- hostile ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identifier",
    [
        "git://ext::sh -c id",
        "git://file:///etc/passwd",
        "git://--upload-pack=id",
        "git://host/x#--upload-pack=id",
        "git://host/x#+refs/heads/*:refs/heads/*",
        "git://host/x#a..b",
        "git://host/x#a b",
        "git://host/x#HEAD~1",
        "git://host/x#ref\nother",
        "git://-oProxyCommand=id/x",
        "git://user@-oProxyCommand=id:x",
    ],
)
def test_identifiers_that_git_must_not_see(identifier: str) -> None:
    with pytest.raises(InvalidDefinition):
        origins.parse(SourceOp(identifier=identifier))


@pytest.mark.parametrize("full_url", ["ext::sh -c id", "file:///etc", "-x", "fd::17", "ssh://-oX=y/z"])
def test_full_urls_that_git_must_not_see(full_url: str) -> None:
    with pytest.raises(InvalidDefinition):
        origins.parse(SourceOp(identifier="git://host/x", attrs={"git.fullurl": full_url}))


def test_a_signature_that_nobody_would_verify_is_no_source() -> None:
    with pytest.raises(InvalidDefinition, match=r"git\.sig\.pubkey: this engine does not verify"):
        origins.parse(SourceOp(identifier="git://host/x", attrs={"git.sig.pubkey": "key"}))


@pytest.mark.parametrize("url", ["file://{}", "{}", "ext::git %S {}"])
async def test_even_if_they_came_that_far_git_would_refuse(tmp_path: Path, url: str) -> None:
    make(tmp_path / "x.git").commit({"f": b"1"})
    with pytest.raises(GitError, match="not allowed"):
        await Git(PATH).run("ls-remote", "--", url.format(tmp_path / "x.git"))


async def test_hooks_filters_and_configuration_do_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[filter "x"]\n\tsmudge = touch {ran}\n[core]\n\tfsmonitor = touch {ran}\n\tsshCommand = touch {ran}\n'
        f'[credential]\n\thelper = "!touch {ran}"\n[init]\n\ttemplateDir = {home}\n'
    )
    (home / "hooks").mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        hook = home / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
        hook.chmod(0o755)
    environment = {**PATH, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "GIT_TEMPLATE_DIR": str(home)}
    async with served(tmp_path) as (repository, url):
        repository.commit({".gitattributes": b"* filter=x\n", "f": b"1"})
        for number, keep in enumerate((False, True)):
            git = GitSource(tmp_path / "store", Locks(), Git(environment))
            origin = GitOrigin(remote=url, keep_git_dir=keep)
            out = tmp_path / str(number)
            out.mkdir()
            fd = os.open(out, os.O_RDONLY)
            await git.checkout(origin, await git.resolve(origin, NOTHING), fd, NOTHING)
            os.close(fd)
            assert (out / "f").read_bytes() == b"1"
    assert not ran.exists()


@pytest.mark.parametrize("name", [".git", "..", ".", "GIT~1", ".GIT"])
async def test_trees_with_names_that_would_escape(tmp_path: Path, name: str) -> None:
    async with served(tmp_path) as (repository, url):
        blob = bytes.fromhex(repository.blob(b"evil"))
        entry = b"100644 " + name.encode() + b"\0" + blob
        tree = repository.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", input=entry)
        repository.git("update-ref", "refs/heads/main", repository.git("commit-tree", "-m", "x", tree))
        with pytest.raises(GitError):
            await check_out(tmp_path, GitOrigin(remote=url))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == []


async def test_a_cancelled_fetch_leaves_nothing_running(tmp_path: Path) -> None:
    """It is cancelled while it waits for a server that never answers."""
    asked = trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        asked.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, silent, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/r.git"
        async with trio.open_nursery() as fetching:
            fetching.start_soon(source(tmp_path).resolve, GitOrigin(remote=url), NOTHING)
            await asked.wait()
            assert running(url)
            fetching.cancel_scope.cancel()
        assert not running(url)
        nursery.cancel_scope.cancel()


def running(argument: str) -> list[str]:
    """Processes with this in their command lines."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and argument.encode() in command_line(pid)]


def command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
