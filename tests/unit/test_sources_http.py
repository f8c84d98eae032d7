"""The http source: what is asked of a server, what is believed of its answers, and the file that comes out."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from buildengine.digest import Digest
from buildengine.errors import HttpError, InvalidDefinition
from llb.ops import SourceOp
from tests.fakes.http_server import Reply, Request, Server, serve
from worker.registry.transport import open_transport
from worker.session import SecretBytes
from worker.sources import filename, http
from worker.sources import origin as origins
from worker.sources.http import HttpSource, cache_key
from worker.sources.origin import HttpOrigin

BODY = b"the body\n"
DIGEST = Digest.sha256(BODY)
GZIP = {"content-encoding": "gzip"}
MODIFIED = "Sat, 01 Jan 2022 00:00:00 GMT"


class Given:
    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self.values = values or {}

    async def get(self, secret_id: str) -> SecretBytes | None:
        value = self.values.get(secret_id)
        return None if value is None else SecretBytes(value.encode())


class State(dict[str, bytes]):
    def put(self, key: str, value: bytes) -> None:
        self[key] = value


class Place:
    """A source on its own directories, and a server."""

    def __init__(self, root: Path, server: Server, source: HttpSource, out: int) -> None:
        self.root, self.server, self.source, self.out = root, server, source, out

    def origin(self, path: str = "/dir/file.txt", **fields: object) -> HttpOrigin:
        return HttpOrigin(url=self.server.url + path, **fields)

    async def get(self, origin: HttpOrigin, secrets: Mapping[str, str] | None = None) -> Path:
        revision = await self.source.resolve(origin, Given(secrets))
        await self.source.fetch(origin, revision, self.out, Given(secrets))
        return self.root / "out" / revision.filename

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.server.requests]


@asynccontextmanager
async def place(
    root: Path, handler: Callable[[Request], Reply], state: State | None = None, max_size: int = 1 << 20
) -> AsyncIterator[Place]:
    for name in ("out", "spool"):
        (root / name).mkdir(exist_ok=True)
    out, spool = os.open(root / "out", os.O_RDONLY), os.open(root / "spool", os.O_RDONLY)
    async with serve(handler) as server, open_transport() as transport:
        typed: http.Transport = transport  # the two Protocols agree
        source = HttpSource(typed, State() if state is None else state, spool, max_size=max_size)
        try:
            yield Place(root, server, source, out)
        finally:
            source.close()
            for fd in (out, spool):
                os.close(fd)
    assert list((root / "spool").iterdir()) == []


def ok(request: Request) -> Reply:
    return Reply(body=BODY)


# --- the file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
async def test_a_server_may_write_its_dates_in_three_ways(tmp_path: Path, written: str) -> None:
    async with place(tmp_path, lambda request: Reply(body=BODY, headers={"last-modified": written})) as at:
        assert (await at.get(at.origin())).stat().st_mtime == 784111777


async def test_one_request_makes_the_file(tmp_path: Path) -> None:
    async with place(tmp_path, lambda request: Reply(body=BODY, headers={"last-modified": MODIFIED})) as at:
        path = await at.get(at.origin(mode=0o640, uid=7, gid=8))
        (request,) = at.server.requests
    info = path.stat()
    assert path.name == "file.txt"
    assert path.read_bytes() == BODY
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o640, 7, 8, 1640995200)
    assert (request.method, request.headers["accept-encoding"]) == ("GET", "gzip")
    assert request.headers["user-agent"].startswith("pybuild/")


async def test_defaults_are_private_and_of_no_time(tmp_path: Path) -> None:
    async with place(tmp_path, ok) as at:
        info = (await at.get(at.origin())).stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_mtime) == (0o600, 0, 0)


async def test_with_a_checksum_nothing_is_asked_before_the_file_is_wanted(tmp_path: Path) -> None:
    async with place(tmp_path, ok) as at:
        origin = at.origin(checksum=DIGEST)
        revision = await at.source.resolve(origin, Given())
        assert revision.digest == DIGEST
        assert not at.server.requests
        assert (await at.get(origin)).read_bytes() == BODY
        assert at.methods == ["GET"]


async def test_other_bytes_than_the_checksum_are_refused(tmp_path: Path) -> None:
    async with place(tmp_path, ok) as at:
        wrong = Digest.sha256(b"other")
        with pytest.raises(HttpError, match=f"digest mismatch for .*: {DIGEST} \\(expected: {wrong}\\)"):
            await at.get(at.origin(checksum=wrong))
    assert list((tmp_path / "out").iterdir()) == []


async def test_a_body_of_several_steps(tmp_path: Path) -> None:
    body = os.urandom(3_000_000)
    async with place(tmp_path, lambda request: Reply(body=body), max_size=1 << 30) as at:
        assert hashlib.sha256((await at.get(at.origin())).read_bytes()).digest() == hashlib.sha256(body).digest()


async def test_a_content_coding_is_undone(tmp_path: Path) -> None:
    """As Go's net/http does it for BuildKit; the digest is that of the file."""
    body = bytes(5_000_000) + os.urandom(300_000)
    coded = gzip.compress(body) + gzip.compress(b"") + gzip.compress(BODY)
    async with place(tmp_path, lambda request: Reply(body=coded, headers=GZIP), max_size=len(body) + 9) as at:
        origin = at.origin(checksum=Digest.sha256(body + BODY))
        assert (await at.get(origin)).read_bytes() == body + BODY
    async with place(tmp_path, lambda request: Reply(headers={"content-encoding": "GZip"})) as at:
        assert (await at.get(at.origin(path="/empty"))).read_bytes() == b""


async def test_a_body_that_breaks_off_is_fetched_again(tmp_path: Path) -> None:
    replies = iter([Reply(body=BODY, cut=3), Reply(body=BODY)])
    async with place(tmp_path, lambda request: next(replies)) as at:
        assert (await at.get(at.origin())).read_bytes() == BODY
    async with place(tmp_path, lambda request: Reply(body=BODY, cut=3)) as at:
        with pytest.raises(HttpError, match="broke off"):
            await at.get(at.origin())
        assert at.methods == ["GET"] * 3


async def test_when_the_spool_is_on_another_file_system(tmp_path: Path) -> None:
    body = os.urandom(200_000)
    async with place(tmp_path, lambda request: Reply(body=body)) as at:
        elsewhere = os.open("/dev/shm", os.O_RDONLY)
        source = HttpSource(at.source._transport, State(), elsewhere)
        revision = await source.resolve(at.origin(mode=0o4755, uid=5), Given())
        await source.fetch(at.origin(mode=0o4755, uid=5), revision, at.out, Given())
        os.close(elsewhere)
    info = (tmp_path / "out/file.txt").stat()
    assert (tmp_path / "out/file.txt").read_bytes() == body
    assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o4755, 5)


async def test_on_a_file_system_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)  # always an error
    async with place(tmp_path, ok) as at:
        path = await at.get(at.origin(mode=0o644))
    assert path.read_bytes() == BODY
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path / "out") == ["file.txt"]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(status=404), "invalid response status 404"),
        (Reply(status=500, body=b"secret"), "invalid response status 500"),
        (Reply(status=206, body=BODY), "status 206"),
        (Reply(body=b"x" * 2000), "it has 2000 bytes, more than the 1000 allowed"),
        (Reply(body=b"", length="9" * 40), "cannot reach|more than the 1000 allowed"),
        (Reply(body=BODY, headers={"content-encoding": "br"}), "content encoding 'br'"),
        (Reply(body=2 * BODY, headers=GZIP), "content encoding gzip is damaged"),
        (Reply(body=gzip.compress(BODY)[:-5], headers=GZIP), "content encoding gzip ends too early"),
        (Reply(body=gzip.compress(BODY)[:-4] + b"\0\0\0\1", headers=GZIP), "content encoding gzip is damaged"),
        (Reply(body=gzip.compress(bytes(10_000)), headers=GZIP), "larger than a source may be"),
        (Reply(status=302, headers={"location": "file:///etc/passwd"}), "which is not an http URL"),
    ],
)
async def test_answers_that_are_not_the_file(tmp_path: Path, reply: Reply, problem: str) -> None:
    async with place(tmp_path, lambda request: reply, max_size=1000) as at:
        with pytest.raises(HttpError, match=problem) as caught:
            await at.get(at.origin(path="/x?token=hunter2"))
    assert f"http://{at.server.host}/x" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# --- revalidation -------------------------------------------------------------------------------------------


class Versioned:
    """A server that knows about ETags, and a body that can change."""

    def __init__(self, body: bytes = BODY, **headers: str) -> None:
        self.body = body
        self.headers = headers

    def __call__(self, request: Request) -> Reply:
        headers = {"etag": f'"{hashlib.sha256(self.body).hexdigest()[:8]}"', **self.headers}
        headers = {name.replace("_", "-"): value for name, value in headers.items() if value}
        known = request.headers.get("if-none-match", "").replace("W/", "").split(", ")
        status = 304 if "etag" in headers and headers["etag"].replace("W/", "") in known else 200
        return Reply(status=status, body=self.body, headers=headers)


async def again(root: Path, server: Versioned) -> tuple[list[str], Digest]:
    """Resolve twice with the same memory; what the second time asked, and found."""
    state = State()
    async with place(root, server, state) as at:
        await at.source.resolve(at.origin(), Given())
        at.server.requests.clear()
        revision = await at.source.resolve(at.origin(), Given())
        return at.methods, revision.digest


async def test_a_known_etag_costs_one_head_request(tmp_path: Path) -> None:
    assert await again(tmp_path, Versioned()) == (["HEAD"], DIGEST)
    assert await again(tmp_path, Versioned(etag='W/"weak"')) == (["HEAD"], DIGEST)


async def test_an_old_last_modified_is_as_good_and_a_fresh_one_is_not(tmp_path: Path) -> None:
    late = "Sat, 01 Jan 2022 00:10:00 GMT"
    assert await again(tmp_path, Versioned(etag="", last_modified=MODIFIED, date=late)) == (["HEAD"], DIGEST)
    assert await again(tmp_path, Versioned(etag="", last_modified=MODIFIED, date=MODIFIED)) == (["GET"], DIGEST)
    assert await again(tmp_path, Versioned(etag="")) == (["GET"], DIGEST)


async def test_a_changed_body_is_found_and_an_older_one_recognised(tmp_path: Path) -> None:
    server = Versioned()
    state = State()
    async with place(tmp_path, server, state) as at:
        first = await at.source.resolve(at.origin(), Given())
        server.body = b"changed"
        second = await at.source.resolve(at.origin(), Given())
        assert at.methods == ["GET", "HEAD", "GET"]
        server.body = BODY
        assert await at.source.resolve(at.origin(), Given()) == first
        assert at.methods == ["GET", "HEAD", "GET", "HEAD"]
    assert second.digest == Digest.sha256(b"changed")


async def test_memory_is_for_the_same_question_only(tmp_path: Path) -> None:
    state = State()
    async with place(tmp_path, Versioned(), state) as at:
        await at.source.resolve(at.origin(), Given())
        await at.source.resolve(at.origin(mode=0o755), Given())
        assert at.methods == ["GET", "GET"]


async def test_damaged_memory_costs_a_download(tmp_path: Path) -> None:
    state = State()
    async with place(tmp_path, Versioned(), state) as at:
        await at.source.resolve(at.origin(), Given())
        (key,) = state
        for damage in (b"", b"{", b"[1]", b'[{"digest": "x"}]', b"\xff"):
            state[key] = damage
            assert (await at.source.resolve(at.origin(), Given())).digest == DIGEST
    assert set(at.methods) == {"GET"}


async def test_a_file_that_changed_after_it_was_resolved(tmp_path: Path) -> None:
    server = Versioned()
    state = State()
    async with place(tmp_path, server, state) as at:
        await at.source.resolve(at.origin(), Given())
    async with place(tmp_path, server, state) as at:
        origin = HttpOrigin(url=at.server.url + "/x")
        revision = await at.source.resolve(origin, Given())
        at.source.close()
        server.body = b"changed"
        with pytest.raises(HttpError, match="digest mismatch"):
            await at.source.fetch(origin, revision, at.out, Given())


def test_keys_differ_where_files_differ() -> None:
    base = HttpOrigin(url="https://h/x")
    revision = http.HttpRevision(digest=DIGEST, filename="x")
    variants = [
        cache_key(base, revision),
        cache_key(base, http.HttpRevision(digest=DIGEST, filename="y")),
        cache_key(base, http.HttpRevision(digest=DIGEST, filename="x", modified=5)),
        cache_key(base, http.HttpRevision(digest=Digest.sha256(b""), filename="x")),
        cache_key(HttpOrigin(url=base.url, mode=0o755), revision),
        cache_key(HttpOrigin(url=base.url, uid=1), revision),
        cache_key(HttpOrigin(url=base.url, gid=1), revision),
    ]
    assert len(set(variants)) == len(variants)
    assert cache_key(HttpOrigin(url="https://mirror/x"), revision) == variants[0]


# --- secrets ------------------------------------------------------------------------------------------------


async def test_secrets_named_after_the_host_by_the_build_or_in_the_url(tmp_path: Path) -> None:
    async with place(tmp_path, ok) as at:
        host = "127.0.0.1"
        login = HttpOrigin(url=at.server.url.replace("//", "//me:p%40w@") + "/x")
        for origin, secrets in (
            (at.origin(), {f"HTTP_AUTH_HEADER_{host}": "Custom abc\n"}),
            (at.origin(), {f"HTTP_AUTH_TOKEN_{host}": "abc"}),
            (at.origin(auth_header_secret="mine"), {"mine": "Basic xyz", f"HTTP_AUTH_TOKEN_{host}": "abc"}),
            (login, {}),
            (at.origin(), {}),
        ):
            await at.source.resolve(origin, Given(secrets))
        sent = [request.headers.get("authorization") for request in at.server.requests]
        assert sent == ["Custom abc", "Bearer abc", "Basic xyz", "Basic bWU6cEB3", None]
        with pytest.raises(HttpError, match=r"the secret 'mine' for .* is missing"):
            await at.source.resolve(at.origin(auth_header_secret="mine"), Given())
        with pytest.raises(HttpError, match="not one line of printable text") as caught:
            await at.source.resolve(at.origin(auth_header_secret="mine"), Given({"mine": "hunter2\r\nX: y"}))
        assert "hunter2" not in str(caught.value)


async def test_secrets_do_not_follow_a_redirect_to_another_host(tmp_path: Path) -> None:
    async with serve(ok) as other:
        away = Reply(status=301, headers={"location": f"{other.url}/moved.bin"})
        async with place(tmp_path, lambda request: away) as at:
            secrets = {"HTTP_AUTH_TOKEN_127.0.0.1": "abc"}
            path = await at.get(at.origin(headers=(("accept", "text/x"),)), secrets)
            assert at.server.requests[0].headers["authorization"] == "Bearer abc"
    (request,) = other.requests
    assert "authorization" not in request.headers
    assert request.headers["accept"] == "text/x"
    assert path.name == "file.txt"


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "wanted", "disposition", "expected"),
    [
        ("https://h/a/b.tar.gz?x=1", "", "", "b.tar.gz"),
        ("https://h/a%20b", "", "", "a b"),
        ("https://h/a/", "", "", "a"),
        ("https://h/", "", "", "download"),
        ("https://h", "", "", "download"),
        ("https://h/..", "", "", "download"),
        ("https://h/%2e%2e", "", "", "download"),
        ("https://h/a%2fb", "", "", "b"),
        ("https://h/x", "mine", 'attachment; filename="other"', "mine"),
        ("https://h/x", "../../etc/mine", "", "mine"),
        ("https://h/x", "", 'attachment; filename="said.txt"', "said.txt"),
        ("https://h/x", "", "attachment; filename=said.txt", "said.txt"),
        ("https://h/x", "", "inline; FileName*=UTF-8''na%C3%AFve.txt; filename=x", "naïve.txt"),
        ("https://h/x", "", 'attachment; filename="../../etc/passwd"', "passwd"),
        ("https://h/x", "", 'attachment; filename="/"', "x"),
        ("https://h/x", "", "attachment; filename*=UTF-8''..%2f..%2fetc%2fpasswd", "passwd"),
        ("https://h/x", "", 'attachment; filename=".."', "download"),
        ("https://h/x", "", 'attachment; filename="a\\"b"', 'a"b'),
        ("https://h/x", "", "attachment; filename*=UTF-8''a%00b", "download"),
        ("https://h/x", "", "attachment; filename*=UTF-8''a%0Ab", "download"),
        ("https://h/x", "", 'attachment; filename=".wh..wh..opq"', "download"),
        ("https://h/x", "", f'attachment; filename="{"a" * 300}"', "download"),
        ("https://h/x", "", "attachment", "x"),
        ("https://h/x", "", ";" * 100_000, "x"),
    ],
)
def test_file_names(url: str, wanted: str, disposition: str, expected: str) -> None:
    assert filename.choose(url, wanted, disposition) == expected


async def test_a_server_chooses_a_name_but_not_a_place(tmp_path: Path) -> None:
    reply = Reply(body=BODY, headers={"content-disposition": 'attachment; filename="../../../tmp/evil"'})
    async with place(tmp_path, lambda request: reply) as at:
        assert await at.get(at.origin()) == tmp_path / "out/evil"


# --- attributes ---------------------------------------------------------------------------------------------


def test_attributes() -> None:
    attrs = {
        "http.checksum": str(DIGEST),
        "http.filename": "f",
        "http.perm": "0755",
        "http.uid": "1000",
        "http.gid": "0x10",
        "http.authheadersecret": "s",
        "http.header.user-agent": "me",
        "http.header.Accept": "text/x",
        "http.header.cookie": "no",
        "something.else": "x",
    }
    assert origins.parse(SourceOp(identifier="https://h/x", attrs=attrs)) == HttpOrigin(
        url="https://h/x",
        checksum=DIGEST,
        filename="f",
        mode=0o755,
        uid=1000,
        gid=16,
        auth_header_secret="s",
        headers=(("accept", "text/x"), ("user-agent", "me")),
    )


@pytest.mark.parametrize(
    ("identifier", "attrs"),
    [
        ("https://h/x", {"http.perm": "rwx"}),
        ("https://h/x", {"http.perm": "077777"}),
        ("https://h/x", {"http.uid": "-1"}),
        ("https://h/x", {"http.uid": "9" * 30}),
        ("https://h/x", {"http.checksum": "md5:abc"}),
        ("gopher://h/x", {}),
        ("nothing", {}),
        ("", {}),
        ("local://x", {"local.includepattern": "{"}),
        ("local://x", {"local.followpaths": "[1]"}),
        ("local://x", {"local.excludepatterns": "[" * 100_000}),
        ("local://x", {"local.differ": "other"}),
        ("docker-image://x", {"image.resolvemode": "maybe"}),
        ("docker-image://x", {"image.layerlimit": "many"}),
        ("git://h/x", {"git.checksum": "zz"}),
    ],
)
def test_attributes_that_cannot_be(identifier: str, attrs: Mapping[str, str]) -> None:
    with pytest.raises(InvalidDefinition):
        origins.parse(SourceOp(identifier=identifier, attrs=attrs))


def test_a_local_source_of_another_session() -> None:
    attrs = {"local.session": "sub:abc", "local.includepattern": '["a"]', "local.followpaths": '["b"]'}
    found = origins.parse(SourceOp(identifier="local://context", attrs=attrs))
    assert found == origins.LocalOrigin(name="sub-context", session="abc", include_patterns=("a",), follow_paths=("b",))
