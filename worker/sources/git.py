"""The git source: a ref becomes a commit, and the commit's files go into a directory.

    revision = await source.resolve(origin, access)          # ls-remote; nothing for a whole commit id
    key = cache_key(origin, revision)
    await source.checkout(origin, revision, directory_fd, access)

Each remote has one bare repository under the directory of this source, shared by all builds and locked by name
while it is used. Files are written by plumbing (`read-tree`, `checkout-index`) into a descriptor's directory, so
no hook, filter or path of the repository can lead elsewhere. Submodules are fetched by us, each through the bare
repository of its own remote, into a directory opened inside the checkout: `git submodule` is never run.

Facts: BuildKit's source/git/source.go (ref resolution, key, checksum, secrets).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from buildengine.errors import GitError
from buildengine.inroot import open_in_root
from buildengine.limits import DISK, offload
from buildengine.programs import Completed
from buildengine.values import dataclass
from llb import giturl
from worker.session import SecretBytes, Secrets
from worker.sources.gitcli import Git, Remote, basic, failure, remote
from worker.sources.origin import GitOrigin
from worker.sources.realdirectory import move_up, open_real_directory
from worker.sources.submodules import Link, submodule_links

_MAX_DEPTH = 8
_MAX_SUBMODULES = 500
_LISTING = 512 << 20
_OBJECT = 4 << 20  # a commit or a tag
_FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head")
# What git says when the ref is gone, or the server gives away only what its refs name (fetch-pack.c, upload-pack.c).
_NOT_SHALLOW = b"does not support shallow"
_NOT_GIVEN = (b"couldn't find remote ref", b"not our ref", b"unadvertised object", b"no such remote ref")


class Locks(Protocol):
    """Locks by name that hold between processes."""

    def exclusive(self, name: str) -> AbstractAsyncContextManager[None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the build may use: its secrets, and the socket of a forwarded ssh agent."""

    secrets: Secrets
    ssh_socket: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitObjects:
    """The bytes of a commit, and of the annotated tag that was named; b"" where a commit was."""

    commit: str
    commit_object: bytes
    tag_object: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitRevision:
    """What a ref named when it was asked for. `object` is the commit, or the annotated tag that names `commit`."""

    ref: str
    object: str
    commit: str


def cache_key(origin: GitOrigin, revision: GitRevision) -> str:
    """What identifies the checkout: BuildKit's shaToCacheKey."""
    key = revision.object if origin.keep_git_dir else revision.commit
    if origin.keep_git_dir:
        key += f".git#{revision.ref}"
    if origin.subdir:
        key += f":{origin.subdir}"
    return key if origin.submodules else f"{key}(skip-submodules)"


class GitSource:
    """`directory` holds the bare repositories; `environment` gives git PATH and the proxy variables."""

    def __init__(self, directory: Path, locks: Locks, git: Git) -> None:
        self._directory = directory
        self._locks = locks
        self._git = git

    async def resolve(self, origin: GitOrigin, access: Access) -> GitRevision:
        """The commit that `origin` means now. Raises GitError."""
        if giturl.is_commit(origin.ref):
            revision = GitRevision(ref=origin.ref, object=origin.ref, commit=origin.ref)
        else:
            async with self._remote(origin, access) as place:
                revision = await self._ask(origin, place)
        wanted = origin.checksum
        if wanted and not revision.object.startswith(wanted) and not revision.commit.startswith(wanted):
            found = " or ".join(dict.fromkeys((revision.object, revision.commit)))
            raise GitError(f"{giturl.redacted(origin.remote)}: expected checksum to match {wanted}, got {found}")
        return revision

    async def objects(self, origin: GitOrigin, revision: GitRevision, access: Access) -> GitObjects:
        """What `revision` is, for whoever checks signatures. Raises GitError."""
        async with self._remote(origin, access) as place, self._repository(revision, place) as repository:
            named = revision.object
            kind = (await self._git.run("cat-file", "-t", named, directory=repository)).strip()
            if kind == b"commit":
                return GitObjects(commit=named, commit_object=await self._object(repository, "commit", named))
            commit = (await self._git.run("rev-parse", f"{named}^{{commit}}", directory=repository)).decode().strip()
            return GitObjects(
                commit=commit,
                commit_object=await self._object(repository, "commit", commit),
                tag_object=await self._object(repository, "tag", named),
            )

    async def checkout(self, origin: GitOrigin, revision: GitRevision, directory: int, access: Access) -> None:
        """Write the files of `revision` into the empty `directory` (a descriptor). Raises GitError."""
        async with self._remote(origin, access) as place:
            if origin.keep_git_dir and not origin.subdir:
                await self._clone(origin, revision, place, directory)
            else:
                await self._export(revision, origin.subdir, place, directory)
            if origin.submodules:
                await self._submodules(
                    revision, origin.subdir, place, directory, depth=1, budget=iter(range(_MAX_SUBMODULES))
                )

    # --- asking --------------------------------------------------------------------------------------------

    async def _ask(self, origin: GitOrigin, place: Remote) -> GitRevision:
        if not origin.ref:
            return await self._ask_head(place)
        output = await self._git.run("ls-remote", "--", place.url, origin.ref, f"{origin.ref}^{{}}", remote=place)
        revision = choose_ref(origin.ref, output)
        if revision is None:
            raise GitError(
                f"{giturl.redacted(place.url)}: repository does not contain ref {origin.ref}",
                hint="a ref is a branch, a tag or refs/...",
            )
        return revision

    async def _ask_head(self, place: Remote) -> GitRevision:
        output = await self._git.run("ls-remote", "--symref", "--", place.url, "HEAD", remote=place)
        ref = commit = ""
        for line in output.decode("utf-8", "replace").splitlines():
            value, _, name = line.partition("\t")
            if name == "HEAD" and value.startswith("ref: "):
                ref = giturl.check_ref(value.removeprefix("ref: "))
            elif name == "HEAD" and giturl.is_commit(value):
                commit = value
        if not commit:
            raise GitError(f"{giturl.redacted(place.url)} has no default branch", hint="name a ref: #branch")
        return GitRevision(ref=ref or commit, object=commit, commit=commit)

    @asynccontextmanager
    async def _remote(self, origin: GitOrigin, access: Access) -> AsyncIterator[Remote]:
        """Where to fetch from, with what the build's secrets give us for it."""
        place = remote(
            origin.remote, authorization=await _authorization(origin, access.secrets), ssh_socket=access.ssh_socket
        )
        if not origin.known_hosts:
            yield place
            return
        # By the path of a descriptor of ours, so that it needs no name: nothing of it can be left behind.
        with os.fdopen(os.memfd_create("known_hosts", os.MFD_CLOEXEC), "w") as file:
            file.write(origin.known_hosts)
            file.flush()
            yield replace(place, known_hosts_file=f"/proc/{os.getpid()}/fd/{file.fileno()}")

    # --- fetching ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _repository(self, revision: GitRevision, place: Remote) -> AsyncIterator[str]:
        """The bare repository of `place`, holding `revision`, for as long as nobody else may touch it."""
        name = hashlib.sha256(place.url.encode()).hexdigest()[:40] + ("" if len(revision.object) == 40 else "-sha256")
        path = self._directory / name
        self._directory.mkdir(parents=True, exist_ok=True)
        async with self._locks.exclusive(f"git {name}"):
            if path.exists():
                await offload(_remove_leftovers, path, limiter=DISK)
            else:
                await self._create(path, sha256=len(revision.object) == 64)
            await self._fetch(str(path), revision, place)
            yield str(path)

    async def _create(self, path: Path, *, sha256: bool) -> None:
        """Made beside and renamed: a killed one leaves no half repository under its name."""
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
        try:
            await self._git.run(
                *("init", "--quiet", "--bare", "--template=", "--initial-branch=master"),
                *(("--object-format=sha256",) if sha256 else ()),
                directory=str(temporary),
            )
            # Our own clone with .git fetches single commits from here.
            await self._git.run("config", "uploadpack.allowAnySHA1InWant", "true", directory=str(temporary))
            os.rename(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    async def _fetch(self, repository: str, revision: GitRevision, place: Remote) -> None:
        if await self._has(repository, revision.object):
            return
        # Kept under a name of ours: the next fetch then tells the server what it need not send again.
        kept = f"refs/pybuild/{hashlib.sha256(revision.ref.encode()).hexdigest()[:20]}"
        # First by name; then by id, which most servers allow, for a bare commit or a ref that has moved on.
        for wanted in dict.fromkeys((revision.ref, revision.object)):
            arguments, fetched = await self._fetch_one(repository, f"+{wanted}:{kept}", place)
            if await self._has(repository, revision.object):
                return
            if fetched.code != 0 and not any(mark in fetched.stderr for mark in _NOT_GIVEN):
                raise failure(arguments, fetched, place)
        await self._fetch_all(repository, place)
        if not await self._has(repository, revision.object):
            raise GitError(
                f"{giturl.redacted(place.url)} does not have the commit {revision.object}",
                hint="the ref may have moved while the build ran: build again",
            )

    async def _fetch_one(self, repository: str, refspec: str, place: Remote) -> tuple[tuple[str, ...], Completed]:
        """A commit without its history; with it from a server of plain files, which cannot cut that off."""
        shallow = (*_FETCH, "--depth=1", "--", place.url, refspec)
        fetched = await self._git.attempt(*shallow, directory=repository, remote=place)
        if fetched.code == 0 or _NOT_SHALLOW not in fetched.stderr:
            return shallow, fetched
        whole = (*_FETCH, "--", place.url, refspec)
        return whole, await self._git.attempt(*whole, directory=repository, remote=place)

    async def _fetch_all(self, repository: str, place: Remote) -> None:
        """Everything, for the servers that give away only what their refs name (and for deep commits there)."""
        deepen = ("--unshallow",) if os.path.exists(f"{repository}/shallow") else ()
        await self._git.run(
            *(*_FETCH, *deepen, "--", place.url),
            *("+refs/heads/*:refs/pybuild/heads/*", "+refs/tags/*:refs/pybuild/tags/*"),
            directory=repository,
            remote=place,
        )

    async def _object(self, repository: str, kind: str, name: str) -> bytes:
        return await self._git.run("cat-file", kind, name, directory=repository, limit=_OBJECT)

    async def _has(self, repository: str, commit: str) -> bool:
        found = await self._git.attempt("cat-file", "-e", f"{commit}^{{commit}}", directory=repository)
        return found.code == 0

    # --- writing files -------------------------------------------------------------------------------------

    async def _export(self, revision: GitRevision, subdir: str, place: Remote, directory: int) -> None:
        """The files of a commit, or of a directory in it, without `.git`."""
        async with self._repository(revision, place) as repository:
            if not subdir:
                await self._write_files(repository, revision.commit, "", directory)
                return
            name = f".checkout.{secrets.token_hex(8)}"
            os.mkdir(name, 0o700, dir_fd=directory)
            inner = open_in_root(directory, name, os.O_RDONLY | os.O_DIRECTORY, follow=False)
            try:
                await self._write_files(repository, revision.commit, subdir, inner)
                await offload(move_up, inner, subdir, directory, limiter=DISK)
            finally:
                os.close(inner)
                await offload(_remove_tree, name, directory, limiter=DISK)

    async def _write_files(self, repository: str, commit: str, subdir: str, directory: int) -> None:
        """Check out `commit`, or only what is below `subdir`, into the directory of a descriptor."""
        index = f"{repository}/index.{secrets.token_hex(8)}"
        cwd = f"/proc/self/fd/{directory}"
        variables = {"GIT_INDEX_FILE": index, "GIT_WORK_TREE": "."}
        try:
            await self._git.run("read-tree", commit, directory=repository, variables=variables, cwd=cwd)
            if not subdir:
                await self._git.run(
                    "checkout-index", "--all", "--quiet", directory=repository, variables=variables, cwd=cwd
                )
                return
            listing = ("ls-files", "-z", "--cached", "--", subdir)
            names = await self._git.run(*listing, directory=repository, variables=variables, cwd=cwd, limit=_LISTING)
            if not names.startswith(f"{subdir}/".encode()):
                raise GitError(f"commit {commit} has no directory {subdir!r}")
            await self._git.run(
                *("checkout-index", "--quiet", "-z", "--stdin"),
                input=names,
                directory=repository,
                variables=variables,
                cwd=cwd,
            )
        finally:
            for leftover in (index, f"{index}.lock"):
                with suppress(FileNotFoundError):
                    os.unlink(leftover)

    async def _clone(self, origin: GitOrigin, revision: GitRevision, place: Remote, directory: int) -> None:
        """The files of a commit with a `.git` that holds this commit only and knows where it came from."""
        cwd = f"/proc/self/fd/{directory}"
        sha256 = ("--object-format=sha256",) if len(revision.object) == 64 else ()
        target = f"+{revision.object}" + ("" if giturl.is_commit(revision.ref) else f":{revision.ref}")
        async with self._repository(revision, place) as repository:
            await self._git.run(
                *("init", "--quiet", "--template=", "--initial-branch=master", *sha256, "."), directory=".git", cwd=cwd
            )
            await self._git.run(
                *("fetch", "--quiet", "--no-tags", "--update-head-ok", "--depth=1", "--"),
                *(Path(repository).as_uri(), target),
                directory=".git",
                cwd=cwd,
                variables={"GIT_ALLOW_PROTOCOL": "file"},  # our own repository, and only for this command
            )
        for arguments in (
            ("checkout", "--quiet", "--detach", revision.commit),
            ("config", "remote.origin.url", giturl.redacted(origin.remote)),
            ("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
            ("reflog", "expire", "--all", "--expire=now"),
        ):
            await self._git.run(*arguments, directory=".git", cwd=cwd)
        with suppress(FileNotFoundError):
            os.unlink(f"{cwd}/.git/FETCH_HEAD")

    # --- submodules ----------------------------------------------------------------------------------------

    async def _submodules(
        self, revision: GitRevision, subdir: str, place: Remote, directory: int, *, depth: int, budget: Iterator[int]
    ) -> None:
        """Fill the submodules of a checkout, and theirs in turn. `budget` ends after as many as are allowed."""
        async with self._repository(revision, place) as repository:
            links = await self._links(repository, revision.commit, subdir, place)
        for link in links:
            if depth > _MAX_DEPTH or next(budget, None) is None:
                raise GitError(f"{giturl.redacted(place.url)} has too many submodules, or nests them too deeply")
            there = place if place.reaches(link.url) else remote(link.url, ssh_socket=place.ssh_socket)
            there = replace(there, url=remote(link.url).url, known_hosts_file=place.known_hosts_file)
            inner = GitRevision(ref=link.commit, object=link.commit, commit=link.commit)
            target = open_real_directory(directory, link.path)
            try:
                await self._export(inner, "", there, target)
                await self._submodules(inner, "", there, target, depth=depth + 1, budget=budget)
            finally:
                os.close(target)

    async def _links(self, repository: str, commit: str, subdir: str, place: Remote) -> list[Link]:
        listed = await self._git.attempt(
            *("config", "--blob", f"{commit}:.gitmodules", "--no-includes", "-z", "--get-regexp", r"^submodule\."),
            directory=repository,
        )
        if listed.code != 0:  # no .gitmodules: whatever gitlinks there are stay empty directories
            return []
        tree = await self._git.run("ls-tree", "-r", "-z", "--full-tree", commit, directory=repository, limit=_LISTING)
        return list(submodule_links(listed.stdout, tree, subdir, place.url))


def choose_ref(ref: str, listing: bytes) -> GitRevision | None:
    """What `ref` means among the lines of `git ls-remote`: a full name, then a branch, then a tag, as git does."""
    found: dict[str, str] = {}
    for line in listing.decode("utf-8", "replace").splitlines():
        value, _, name = line.partition("\t")
        if giturl.is_commit(value):
            found[name] = value
    short = ref.removeprefix("refs/")
    for name in (f"refs/{short}", f"refs/heads/{ref}", f"refs/tags/{ref}"):
        if name in found:
            return GitRevision(ref=name, object=found[name], commit=found.get(f"{name}^{{}}", found[name]))
    return None


async def _authorization(origin: GitOrigin, available: Secrets) -> SecretBytes | None:
    """The first secret there is, in BuildKit's order: for the host first, a header before a token."""
    host = giturl.parse(origin.remote).host
    for suffix in (f".{host}", ""):
        for name, is_token in ((origin.auth_header_secret, False), (origin.auth_token_secret, True)):
            secret = await available.get(name + suffix) if name else None
            if secret is not None:
                value = secret.reveal().strip()
                return basic(b"x-access-token:" + value) if is_token else SecretBytes(value)
    return None


def _remove_tree(name: str, directory: int) -> None:
    shutil.rmtree(name, dir_fd=directory)


def _remove_leftovers(repository: Path) -> None:
    """Files of a git that was killed; we hold the repository, so they are nobody's."""
    for pattern in ("*.lock", "refs/**/*.lock", "index.*", "objects/**/tmp_*"):
        for path in repository.glob(pattern):
            path.unlink(missing_ok=True)
