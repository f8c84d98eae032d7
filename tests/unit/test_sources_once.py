"""What a URL or a ref is, it is for a whole build: the first who asks settles it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, cast

from buildengine.digest import Digest
from worker.remotes import Remotes
from worker.sources.git import Access, GitRevision
from worker.sources.http import HttpRevision
from worker.sources.origin import GitOrigin, HttpOrigin


class Moving:
    """A server on which everything is something else each time."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(self, origin: HttpOrigin | GitOrigin, _: object) -> HttpRevision | GitRevision:
        self.asked += 1
        if isinstance(origin, GitOrigin):
            return GitRevision(ref=origin.ref, object=f"{self.asked:040}", commit=f"{self.asked:040}")
        return HttpRevision(digest=Digest.sha256(b"%d" % self.asked), filename="f")


class OnMoving(Remotes):
    def __init__(self) -> None:
        super().__init__(cast("Any", None), cast("Any", None), {}, None, AsyncExitStack())
        self.server = Moving()

    async def http(self) -> Any:
        return self.server

    def git(self) -> Any:
        return self.server


async def test_a_download_is_the_same_however_it_is_to_look() -> None:
    remotes, secrets = OnMoving(), cast("Any", None)
    first = await remotes.resolve_http(HttpOrigin(url="https://x/f"), secrets)
    assert await remotes.resolve_http(HttpOrigin(url="https://x/f", mode=0o755, uid=7), secrets) == first
    assert await remotes.resolve_http(HttpOrigin(url="https://x/f", headers=(("accept", "a"),)), secrets) != first


async def test_a_ref_is_one_commit_whoever_asks_and_whatever_is_taken_of_it() -> None:
    remotes, access = OnMoving(), Access(secrets=cast("Any", None))
    first = await remotes.resolve_git(GitOrigin(remote="https://x/r.git", ref="v1"), access)
    other = GitOrigin(remote="https://x/r.git", ref="v1", subdir="d", keep_git_dir=True, auth_token_secret="TOKEN")
    assert await remotes.resolve_git(other, access) == first
    assert await remotes.resolve_git(GitOrigin(remote="https://x/r.git", ref="v2"), access) != first
