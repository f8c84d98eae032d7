"""Clients that do not mean well, or whose network does not: the registry stays whole, and goes on."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.commands import PYBUILD
from tests.fakes.own_registry import OwnRegistry, own_registry
from tests.fakes.registry_client import RegistryClient, digest_of, manifest, with_query

DATA = os.urandom(3 << 20)
HOST = b"Host: here\r\n"


class Served:
    """One registry for all tests of this file: what one does must not hurt the next."""

    def __init__(self, registry: OwnRegistry, root: Path) -> None:
        self.registry = registry
        self.root = root
        self.client = RegistryClient(registry.address)

    def connect(self) -> socket.socket:
        host, _, port = self.registry.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def say(self, data: bytes) -> bytes:
        """All that comes back until the registry closes; it must."""
        with self.connect() as connection:
            connection.sendall(data)
            return _everything(connection)

    def statuses(self, data: bytes) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.say(data))]


def _everything(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("hostile") / "root"
    with own_registry(root) as registry:
        yield Served(registry, root)
        assert "internal error" not in registry.complaints
        assert "Traceback" not in registry.complaints
        assert registry.stop() == 0
    assert os.listdir(root / "ingest") == []
    assert verified(root) == 0


def verified(root: Path) -> int:
    argv = [str(PYBUILD), "--root", str(root), "debug", "verify-store"]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode


# --- names and digests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/v2/../../etc/passwd",
        "/v2/../manifests/latest",
        "/v2/%2e%2e/%2e%2e/manifests/latest",
        "/v2/a/../b/blobs/sha256:" + "0" * 64,
        "/v2/a%00b/tags/list",
        "/v2/A/tags/list",
        "/v2/a//b/tags/list",
        "/v2/a/manifests/..",
        "/v2/a/manifests/%2e%2e%2f%2e%2e",
        "/v2/a/blobs/sha256:../../../../etc/passwd",
        "/v2/a/blobs/uploads/../../../x",
        "/v2/a/blobs/uploads/%2e%2e",
        "/v2/" + "a" * 300 + "/tags/list",
        "/v2/a/tags/list?n=-1",
        "/v2/a/tags/list?n=1e9",
        "/v2/a/tags/list?" + "&".join("x" * 3 for _ in range(500)),
        "/v2/a/tags/list?" + "&".join(f"x{n}=1" for n in range(500)),
        "//v2/",
        "/etc/passwd",
        "*",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "POST"])
def test_strange_targets_are_refused(served: Served, method: str, target: str) -> None:
    before = sorted(os.listdir(served.root))
    answer = served.say(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    status = int(answer[9:12])
    assert 400 <= status < 500
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["errors"]
    assert sorted(os.listdir(served.root)) == before


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:" + "g" * 64, "", "%00", "sha256%3A" + "0" * 63])
def test_an_upload_ends_under_no_strange_digest(served: Served, digest: str) -> None:
    response = served.client.ask("PUT", with_query(served.client.begin("strange"), digest=digest), b"x")
    assert (response.status, response.codes) == (400, {"DIGEST_INVALID"})


# --- what may be understood in two ways -----------------------------------------------------------------------------

SMUGGLED = b"GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4, 5\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x10\r\n",
        b"Content-Length: 99999999999999999999999999\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
    ],
    ids=lambda head: head.decode().strip().replace("\r\n", " | "),
)
def test_nothing_is_smuggled_behind_a_body_of_two_lengths(served: Served, head: bytes) -> None:
    after = served.registry.log()[-1:]
    request = b"POST /v2/app/blobs/uploads/ HTTP/1.1\r\n" + HOST + head + b"\r\n0\r\n\r\n" + SMUGGLED
    statuses = served.statuses(request)
    assert len(statuses) == 1
    assert 400 <= statuses[0] <= 501
    seen = served.registry.log(after=after[0].number if after else 0)
    assert not [line for line in seen if "smuggled" in line.path]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /v2/" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", 400),
        (b"GET /v2/ HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"GET\t/v2/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ],
)
def test_what_is_no_request(served: Served, data: bytes, status: int) -> None:
    assert served.statuses(data) == [status]


def test_an_old_client_gets_its_answer_and_the_end(served: Served) -> None:
    answer = served.say(b"GET /v2/ HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer


def test_requests_sent_ahead_are_answered_in_order(served: Served) -> None:
    ahead = b"GET /v2/ HTTP/1.1\r\n" + HOST + b"\r\n"
    last = b"GET /v2/never/tags/list HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
    posted = b"POST /v2/app/blobs/uploads/ HTTP/1.1\r\nContent-Length: 5\r\n" + HOST + b"\r\nhello"
    assert served.statuses(ahead + posted + ahead + last) == [200, 202, 200, 404]


# --- bodies ---------------------------------------------------------------------------------------------------------


def put(target: str, length: int, *more: bytes) -> bytes:
    return b"".join(
        (f"PUT {target} HTTP/1.1\r\nContent-Length: {length}\r\n".encode(), HOST, *more, b"\r\n"),
    )


def test_an_absurd_length_is_refused_before_a_byte_is_read(served: Served) -> None:
    target = with_query(served.client.begin("absurd"), digest=digest_of(DATA))
    assert served.statuses(put(target, 10**17)) == [413]


def test_a_body_that_is_cut_can_be_gone_on_with(served: Served) -> None:
    location = served.client.begin("cut")
    with served.connect() as connection:
        connection.sendall(put(with_query(location, digest=digest_of(DATA)), len(DATA)) + DATA[:2_000_000])
        connection.shutdown(socket.SHUT_WR)
        assert _everything(connection) == b""
    status = served.client.ask("GET", location)
    assert (status.status, status.header("Range")) == (204, "0-1999999")
    place = f"2000000-{len(DATA) - 1}"
    ended = served.client.ask(
        "PUT", with_query(location, digest=digest_of(DATA)), DATA[2_000_000:], Content_Range=place
    )
    assert ended.status == 201
    assert served.client.ask("GET", ended.header("Location") or "").body == DATA


def test_a_chunked_body_that_is_cut_is_not_whole(served: Served) -> None:
    location = served.client.begin("cut-chunks")
    head = f"PUT {with_query(location, digest=digest_of(b'hello'))} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    with served.connect() as connection:
        connection.sendall(head.encode() + HOST + b"\r\n5\r\nhello\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert _everything(connection) == b""
    assert served.client.ask("GET", location).header("Range") == "0-4"


def test_who_comes_back_takes_over_from_a_connection_that_is_dead(served: Served) -> None:
    location = served.client.begin("taken")
    with served.connect() as silent:
        silent.sendall(put(with_query(location, digest=digest_of(DATA)), len(DATA)) + DATA[: 1 << 20])
        while served.client.ask("GET", location).header("Range") != f"0-{(1 << 20) - 1}":
            pass
        ended = served.client.ask("PUT", with_query(location, digest=digest_of(DATA)), DATA[1 << 20 :])
        assert ended.status == 201
        assert _everything(silent).startswith(b"HTTP/1.1 409 ")


def test_more_bytes_than_announced_are_another_request(served: Served) -> None:
    location = served.client.begin("longer")
    target = with_query(location, digest=digest_of(b"hello"))
    assert served.statuses(put(target, 5) + b"hello, and more\r\n\r\n") == [201, 400]
    assert served.client.ask("GET", f"/v2/longer/blobs/{digest_of(b'hello')}").body == b"hello"


@pytest.mark.parametrize("place", ["0-99", "abc", "5-1", "0-3, 5-6", "bytes 0-4/5"])
def test_a_chunk_of_another_length_than_its_place(served: Served, place: str) -> None:
    location = served.client.begin("place")
    response = served.client.ask("PATCH", location, b"hello", Content_Range=place)
    assert response.status == 400
    assert response.codes <= {"SIZE_INVALID", "BLOB_UPLOAD_INVALID"}
    assert served.client.ask("PATCH", location, b"hello", Content_Range="0-4").status == 202


def test_one_blob_from_many_at_once(served: Served) -> None:
    statuses: list[int] = []

    def push() -> None:
        client = RegistryClient(served.registry.address)
        target = with_query(client.begin("many"), digest=digest_of(DATA))
        statuses.append(client.ask("PUT", target, DATA).status)

    pushers = [threading.Thread(target=push) for _ in range(8)]
    for pusher in pushers:
        pusher.start()
    for pusher in pushers:
        pusher.join()
    assert statuses == [201] * 8
    assert served.client.ask("GET", f"/v2/many/blobs/{digest_of(DATA)}").body == DATA


def test_a_manifest_too_large(served: Served) -> None:
    served.client.push_blob("large", b"{}")
    raw = manifest(b"{}", annotations={"a": "x" * (4 << 20)})
    assert served.client.push_manifest("large", "latest", raw).status == 413
    response = served.client.ask("PUT", "/v2/large/manifests/latest", iter([raw[: 1 << 20], raw[1 << 20 :]]))
    assert response.status == 413


def test_the_go_ahead_comes_only_when_the_body_is_wanted(served: Served) -> None:
    location = served.client.begin("expect")
    wanted = with_query(location, digest=digest_of(b"hello"))
    with served.connect() as connection:
        connection.sendall(put(wanted, 5, b"Expect: 100-continue\r\nConnection: close\r\n"))
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert _everything(connection).startswith(b"HTTP/1.1 201 ")
    gone = put(wanted, 5, b"Expect: 100-continue\r\n")
    assert served.statuses(gone) == [404]


def test_who_sends_on_although_refused_still_reads_why(served: Served) -> None:
    target = "/v2/nowhere/blobs/uploads/00000000-0000-0000-0000-000000000000?digest=" + digest_of(DATA)
    assert served.statuses(put(target, len(DATA)) + DATA) == [404]


def test_with_tls_too(tmp_path: Path) -> None:
    pem, subject = tmp_path / "both.pem", ["-subj", "/CN=127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*command, "-keyout", str(pem), "-out", str(tmp_path / "cert")], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + (tmp_path / "cert").read_bytes())
    with own_registry(tmp_path / "root", "--tls-cert", pem, "--tls-key", pem) as registry:
        host, _, port = registry.address.rpartition(":")
        trusting = ssl._create_unverified_context()
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            trusting.wrap_socket(plain) as connection,
        ):
            connection.sendall(put("/v2/a/manifests/b", 32 << 20) + bytes(32 << 20))
            assert _everything(connection).startswith(b"HTTP/1.1 413 ")


def test_a_damaged_store_is_told_to_the_log_and_hurts_nobody_else(tmp_path: Path) -> None:
    short, gone, strange = (os.urandom(1 << 20) for _ in range(3))
    with own_registry(tmp_path / "root") as registry:
        client = RegistryClient(registry.address)
        for data in (short, gone, strange):
            client.push_blob("app", data)
        paths = [tmp_path / "root" / "blobs" / "sha256" / digest_of(data)[7:] for data in (short, gone, strange)]
        os.truncate(paths[0], 1000)
        for path in paths[1:]:
            path.unlink()
        paths[2].mkdir()
        last = registry.log()[-1].number
        with pytest.raises(http.client.IncompleteRead):
            client.ask("GET", f"/v2/app/blobs/{digest_of(short)}")
        assert client.ask("GET", f"/v2/app/blobs/{digest_of(gone)}").codes == {"BLOB_UNKNOWN"}
        failed = client.ask("GET", f"/v2/app/blobs/{digest_of(strange)}")
        assert (failed.status, failed.codes) == (500, {"UNKNOWN"})
        assert str(tmp_path) not in failed.body.decode()
        log = registry.log(after=last)
        assert [line.status for line in log] == [200, 404, 500]
        assert "shorter" in log[0].problem
        assert log[1].problem == ""
        assert "Is a directory" in log[2].problem


def test_a_full_disk_ends_an_upload_and_nothing_else(tmp_path: Path) -> None:
    mounting = 'mount -t tmpfs -o size=30m none "$0" && exec "$@"'
    disk = tmp_path / "disk"
    disk.mkdir()
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mounting, disk)
    root = disk / "root"
    log = tmp_path / "log"
    with own_registry(root, "--access-log", log, prefix=prefix) as registry:
        client = RegistryClient(registry.address)
        client.push_image("app", "one")
        too_much = [os.urandom(1 << 20) for _ in range(40)]
        announced = client.ask("PUT", with_query(client.begin("app"), digest=digest_of(DATA)), b"".join(too_much))
        assert (announced.status, announced.codes) == (413, {"SIZE_INVALID"})
        location = client.begin("app")
        response = client.ask("PATCH", location, iter(too_much))
        assert (response.status, response.codes) == (500, {"UNKNOWN"})
        assert str(tmp_path) not in response.body.decode()
        assert client.ask("GET", location).status == 404
        client.push_image("app", "two", layers=(DATA,))
        assert client.ask("GET", "/v2/app/tags/list").json()["tags"] == ["one", "two"]
        assert "No space left on device" in registry.complaints
        assert registry.stop() == 0


# --- many -----------------------------------------------------------------------------------------------------------


def test_a_hundred_slow_clients_hold_up_nobody(served: Served) -> None:
    target = with_query(served.client.begin("slow"), digest=digest_of(DATA))
    connections = [served.connect() for _ in range(100)]
    try:
        for number, connection in enumerate(connections):
            connection.sendall(b"GET /v2/ HT" if number % 2 else put(target, len(DATA)) + b"x")
        digest = served.client.push_image("fast", "latest", layers=(DATA,))
        assert served.client.ask("GET", f"/v2/fast/manifests/{digest}").status == 200
        assert served.client.ask("GET", f"/v2/fast/blobs/{digest_of(DATA)}").body == DATA
    finally:
        for connection in connections:
            connection.close()


def test_a_thousand_tags(served: Served) -> None:
    served.client.push_blob("tags", b"{}")
    raw = manifest(b"{}")
    tags = [f"v{number:04}" for number in range(1000)]
    for start in range(0, 1000, 50):
        query = "&".join(f"tag={tag}" for tag in tags[start : start + 50])
        assert served.client.push_manifest("tags", f"{digest_of(raw)}?{query}", raw).status == 201
    assert served.client.ask("GET", "/v2/tags/tags/list").json()["tags"] == tags
    found: list[str] = []
    while len(found) < 1000:
        last = f"&last={found[-1]}" if found else ""
        found += served.client.ask("GET", f"/v2/tags/tags/list?n=99{last}").json()["tags"]
    assert found == tags
