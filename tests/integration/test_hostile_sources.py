"""git repositories, web servers and their addresses that mean harm, for contexts and for ADD."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

import pytest
import trio

from tests.fakes.git_server import git_over_http, make
from tests.fakes.hostile import Attack, Outcome
from tests.fakes.http_server import Reply, Request, serve

pytest_plugins = ["tests.fakes.hostile_fixtures"]

Entries = Mapping[str, bytes | tuple[str, str]]

# Addresses that git itself would take for an option, a command or a path of this host.
ADDRESSES = [
    "ext::sh -c touch% CANARY/made",
    "fd::17/x",
    "file://CANARY",
    "git://-oProxyCommand=touch/x.git",
    "ssh://-oProxyCommand=touch%20CANARY/x.git",
    "git@-oProxyCommand=x:y.git",
    "-uCANARY/x.git",
    "--upload-pack=CANARY/x.git",
    "https://x.invalid/a.git#--upload-pack=touch",
    "https://x.invalid/a.git#-x",
    "https://x.invalid/a.git#a..b",
    "https://x.invalid/a.git#a b",
    "https://x.invalid/a.git#@{-1}",
    "https://x.invalid/a.git#:../../etc",
    "http://",
    "http://[::bad/x",
    "http://x.invalid:99999999/x",
    "http:///etc/shadow",
    "http://x.invalid/\x1b[31m",
    "https://user:p4ssw0rd@127.0.0.1:1/a.git",
]


@pytest.mark.parametrize("number", range(len(ADDRESSES)))
def test_addresses(attack: Attack, number: int) -> None:
    address = ADDRESSES[number].replace("CANARY", str(attack.canary))
    outcome = attack.run("build", "--", address)
    assert outcome.ended.status in (1, 2), outcome.ended.text
    assert "p4ssw0rd" not in outcome.ended.text
    if "\x1b" not in address:
        outcome = attack.build(f'FROM base\nADD ["{address}", "/out/"]\n').refused(line=2)
        assert "p4ssw0rd" not in outcome.ended.report.partition("Dockerfile:")[0]


async def _in_thread(run: Callable[..., Outcome], *arguments: object, **more: object) -> Outcome:
    return await trio.to_thread.run_sync(partial(run, *arguments, **more))


def _module(url: str, *, path: str = "m", name: str = "x") -> Entries:
    text = f'[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n'
    return {".gitmodules": text.encode(), "m": ("160000", "a" * 40)}


# name: (what is in the repository, what the report says; None: it stays inside)
REPOSITORIES: dict[str, tuple[Entries, str | None]] = {
    "a link to the host": ({"secret": ("120000", "/etc/shadow"), "a": b""}, None),
    "a module by command": (_module("ext::sh -c touch"), "invalid git address 'ext::sh -c touch'"),
    "a module on this host": (_module("file:///etc"), "invalid git address 'file:///etc'"),
    "a module by path": (_module("/etc"), "invalid git address '/etc'"),
    "a module above everything": (_module("../../../../../etc"), "invalid git address"),
    "a module that is an option": (_module("-u./x"), "invalid git address '-u./x'"),
    "a module of two lines": (_module('"a\\nb"'), "invalid git address"),
    "a module that climbs": (_module("https://x.invalid/a", path="../../m", name="../../x"), "has no URL"),
    "modules from a link": ({".gitmodules": ("120000", "/etc/shadow"), "m": ("160000", "a" * 40)}, "invalid path"),
    "filters": (
        {
            ".gitattributes": b"* filter=evil diff=evil merge=evil ident\n",
            ".gitconfig": b'[filter "evil"]\n\tsmudge = touch /tmp/pybuild-canary\n',
            "a": b"$Id$\n",
        },
        None,
    ),
    "hooks": ({"hooks/post-checkout": ("100755", "#!/bin/sh\ntouch /tmp/pybuild-canary\n"), "a": b""}, None),
    "a worktree's settings": ({"config": b"[core]\n\tfsmonitor = touch /tmp/pybuild-canary\n", "a": b""}, None),
    "names of escape sequences": ({"a\x1bb": b"", "c\x07": b""}, None),
}


@pytest.mark.parametrize("name", REPOSITORIES)
async def test_repositories(attack: Attack, name: str) -> None:
    entries, fragment = REPOSITORIES[name]
    make(attack.directory / "served" / "r.git").commit(entries)
    async with git_over_http(attack.directory / "served") as server:
        for keep in ("false", "true"):
            text = f"FROM base\nADD --keep-git-dir={keep} {server.url}/r.git#main /out/\nRUN test ! -s /out/secret\n"
            outcome = await _in_thread(attack.build, text, root=attack.root)
            if fragment is None:
                outcome.harmless()
            else:
                outcome.refused(fragment, line=2)


PLACES: dict[str, tuple[Entries, str, str]] = {
    "no such ref": ({"a": b""}, "#nope", "repository does not contain ref nope"),
    "no such commit": ({"a": b""}, f"#{'a' * 40}", "does not have the commit"),
    "no such directory": ({"a": b""}, "#main:sub", "has no directory 'sub'"),
    "a directory that is a link": ({"sub": ("120000", "/etc")}, "#main:sub", "has no directory 'sub'"),
    "a directory behind a link": ({"sub": ("120000", "/etc")}, "#main:sub/ssh", "has no directory"),
    "a directory that climbs": ({"a": b""}, "#main:../../etc", "has no directory 'etc'"),
    "no Dockerfile": ({"a": b""}, "#main", "failed to read dockerfile: open Dockerfile"),
    "a Dockerfile that is a link": ({"Dockerfile": ("120000", "/etc/shadow")}, "#main", "hint: it is a symbolic link"),
    "a bad Dockerfile": ({"Dockerfile": b"FROM base\nBOGUS\n"}, "#main", "Dockerfile:2"),
    "a source that is a link": (
        {"Dockerfile": b"FROM base\nCOPY a /\n", "a": ("120000", "/etc/shadow")},
        "#main",
        "hint: /a is a symbolic link",
    ),
}


@pytest.mark.parametrize("name", PLACES)
async def test_contexts_in_repositories(attack: Attack, name: str) -> None:
    entries, place, fragment = PLACES[name]
    make(attack.directory / "served" / "r.git").commit(entries)
    async with git_over_http(attack.directory / "served") as server:
        (await _in_thread(attack.run, "build", f"{server.url}/r.git{place}")).refused(fragment)


# --- http -------------------------------------------------------------------------------------------------------

DISPOSITIONS = [
    'attachment; filename="../../etc/passwd"',
    'attachment; filename="/etc/passwd"',
    'attachment; filename=".."',
    'attachment; filename=""',
    'attachment; filename=".wh.passwd"',
    'attachment; filename=".wh..wh..opq"',
    "attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd",
    "attachment; filename*=UTF-8''%00%0a%1b%5b31m",
    f'attachment; filename="{"x" * 5000}"',
    'attachment; filename="a\\"b\\\\c"',
    "attachment; filename*=evil''%ff",
]


async def test_names_from_a_server(attack: Attack) -> None:
    """However the server calls it, it is one file below the destination."""
    async with serve(lambda request: _named(DISPOSITIONS[int(request.path[1:])])) as server:
        lines = [f"ADD {server.url}/{number} /out{number}/\n" for number in range(len(DISPOSITIONS))]
        check = "RUN grep -q root /etc/passwd && test $(find /out* -type f | wc -l) = " + str(len(DISPOSITIONS)) + "\n"
        (await _in_thread(attack.build, "FROM base\n" + "".join(lines) + check)).harmless()


def _named(disposition: str) -> Reply:
    return Reply(body=b"data", headers={"content-disposition": disposition})


# name: (answer, what the report says)
ANSWERS: dict[str, tuple[Reply, str]] = {
    "nothing there": (Reply(status=404), "invalid response status 404"),
    "a file of this host": (Reply(status=302, headers={"location": "file:///etc/shadow"}), "which is not an http URL"),
    "a circle": (Reply(status=302, headers={"location": "/x"}), "more than 10 redirects"),
    "no address": (Reply(status=302, headers={"location": "http://[::bad"}), "redirects to what is not a URL"),
    "exabytes": (Reply(body=b"x", length="9" * 19), "more than the 68719476736 allowed"),
    "a negative length": (Reply(body=b"x", length="-1"), "Content-Length"),
    "half of it": (Reply(body=b"xyz", cut=1), "broke off"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers(attack: Attack, name: str) -> None:
    reply, fragment = ANSWERS[name]
    async with serve(lambda request: reply) as server:
        outcome = await _in_thread(attack.build, f"FROM base\nADD {server.url}/x /\n")
        outcome.refused(server.url, fragment, line=2)


async def test_other_bytes_than_promised(attack: Attack) -> None:
    async with serve(lambda request: Reply(body=b"evil")) as server:
        text = f"FROM base\nADD --checksum=sha256:{'0' * 64} {server.url}/x /\n"
        (await _in_thread(attack.build, text)).refused("digest mismatch for", "hint:", line=2)
        text = f"FROM base\nADD --checksum=sha256:evil {server.url}/x /\n"
        (await _in_thread(attack.build, text)).refused("invalid digest 'sha256:evil'", line=2)


@pytest.mark.parametrize(
    ("body", "fragments"),
    [
        (b"FROM base\nBOGUS\n", ("unknown instruction: BOGUS", "/x:2")),
        (b"<html>", ("unknown instruction: <html>", "/x:1")),
        (b"\x1f\x8b\x08broken", ("failed to read dockerfile", "hint: what was downloaded could not be unpacked")),
        (b"", ("the Dockerfile cannot be empty",)),
        (b"\0" * 2000, ("holds a NUL byte",)),
    ],
)
async def test_contexts_from_a_server(attack: Attack, body: bytes, fragments: tuple[str, ...]) -> None:
    async with serve(lambda request: Reply(body=body)) as server:
        (await _in_thread(attack.run, "build", f"{server.url}/x")).refused(*fragments)


async def test_a_secret_stays_with_its_host(attack: Attack) -> None:
    """A token for one host does not follow a redirect to another."""
    async with serve(lambda request: Reply(body=b"x")) as thief:
        elsewhere = f"http://localhost:{thief.host.rpartition(':')[2]}/stolen"
        async with serve(lambda request: Reply(status=302, headers={"location": elsewhere})) as server:
            attack.environment["T"] = "t0ken"
            flags = ("--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=T")
            outcome = await _in_thread(attack.build, f"FROM base\nADD {server.url}/x /\n", *flags)
            outcome.harmless()
            assert server.requests[0].headers["authorization"] == "Bearer t0ken"
            assert [request.path for request in thief.requests] == ["/stolen"]
            assert "authorization" not in thief.requests[0].headers
            assert "t0ken" not in outcome.ended.text


async def test_a_git_secret_stays_with_its_host(attack: Attack) -> None:
    """git itself would take the header along to wherever the first answer redirects."""
    make(attack.directory / "served" / "r.git").commit({"a": b""})
    attack.environment["T"] = "t0ken"
    async with git_over_http(attack.directory / "served") as thief:
        port = thief.host.rpartition(":")[2]

        def redirect(request: Request) -> Reply:
            return Reply(status=302, headers={"location": f"http://localhost:{port}{request.target}"})

        async with serve(redirect) as server:
            text = f"FROM base\nADD {server.url}/r.git#main /out/\n"
            (await _in_thread(attack.build, text)).harmless()  # without a secret there is nothing to lose
            outcome = await _in_thread(attack.build, text, "--secret", "id=GIT_AUTH_TOKEN,env=T", "--no-cache")
            outcome.refused("returned error: 302", "hint: it redirects", line=2)
            assert thief.requests
            assert all("authorization" not in request.headers for request in thief.requests)


def test_ssh_uses_no_key_of_roots_own(attack: Attack) -> None:
    """Nor its configuration, agent or known hosts."""
    programs, seen = attack.directory / "bin", attack.directory / "seen"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}; env >> {seen}; exit 255\n')
    (programs / "ssh").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "SSH_AUTH_SOCK": "/evil", "GIT_SSH": "/evil"}
    attack.build("FROM base\nADD git@127.0.0.1:x.git /out/\n", environment=environment).refused(line=2)
    lines = seen.read_text().splitlines()
    assert "IdentityFile=none" in lines
    assert lines[lines.index("-F") + 1] == "/dev/null"
    assert not any("/evil" in line for line in lines)
