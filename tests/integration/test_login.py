"""`pybuild login` beside skopeo and docker's registry: one file for all, no password where it can be seen."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import trio

from tests.fakes.commands import PYBUILD
from tests.fakes.docker_home import Home
from tests.fakes.http_server import Reply, Request
from tests.fakes.registry_server import Image, fake_registry

pytest_plugins = ["tests.fakes.login_fixtures"]
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def test_a_login_lets_everybody_in_who_reads_the_file(home: Home, host: str) -> None:
    ended = home.log_in(host)
    assert (ended.status, ended.stdout) == (0, b"Login Succeeded\n")
    assert f"stored unencrypted in '{home.file}'" in ended.text
    assert home.file.stat().st_mode & 0o777 == 0o600
    assert home.file.parent.stat().st_mode & 0o777 == 0o700
    image = f"docker://{host}/app:1"
    assert home.skopeo("inspect", "--tls-verify=false", image).returncode == 0
    assert home.run("imagetools", "inspect", f"{host}/app:1").status == 0
    assert home.run("logout", host).stdout == f"Removing login credentials for {host}\n".encode()
    assert home.auths == {}
    assert home.skopeo("inspect", "--tls-verify=false", image).returncode != 0
    denied = home.run("imagetools", "inspect", f"{host}/app:1")
    assert (denied.status, f"pybuild login {host}" in denied.text) == (1, True)


def test_a_wrong_password_is_not_kept(home: Home, host: str) -> None:
    ended = home.log_in(host, b"hunter2")
    assert ended.status == 1
    assert "the user name or password is wrong" in ended.text
    assert "hunter2" not in ended.text
    assert not home.file.exists()
    debugged = home.run("--debug", "login", "-u", "user", "--password-stdin", host, stdin=b"hunter2")
    assert "hunter2" not in debugged.text


def test_a_login_needs_no_rights_and_touches_no_state(home: Home, host: str, tmp_path: Path) -> None:
    arguments = ("--root", f"{tmp_path}/state", "login", "-u", "user", "--password-stdin", host)
    ended = home.run(*arguments, stdin=b"secret", prefix=WITHOUT_RIGHTS)
    assert ended.status == 0, ended.text
    assert not (tmp_path / "state").exists()


def test_skopeo_logs_in_for_us_and_out_for_us(home: Home, host: str) -> None:
    login = home.skopeo("login", "--tls-verify=false", "-u", "user", "-p", "secret", host)
    assert login.returncode == 0, login.stderr
    assert home.run("imagetools", "inspect", f"{host}/app:1").status == 0
    again = home.run("login", host)
    assert (again.status, again.stdout) == (0, b"Login Succeeded\n")
    assert "Authenticating with existing credentials... [Username: user]" in again.text
    assert home.skopeo("logout", host).returncode == 0
    assert home.run("imagetools", "inspect", f"{host}/app:1").status == 1


async def test_an_identity_token_takes_the_place_of_the_password(home: Home) -> None:
    def tokens(request: Request) -> Reply | None:
        if request.path != "/token":
            return None
        form = parse_qs(request.body.decode())
        if form.get("refresh_token") == ["for ever"]:
            return Reply(body=b'{"access_token": "token-2"}')
        offline = parse_qs(request.query).get("offline_token") == ["true"]
        return Reply(body=b'{"token": "token-1", "refresh_token": "for ever"}') if offline else Reply(status=401)

    async with fake_registry(bearer="user:secret", rules=[tokens]) as registry:
        registry.put("app", "1", Image())
        ended = await trio.to_thread.run_sync(home.log_in, registry.host)
        assert (ended.status, ended.text) == (0, "Login Succeeded\n")
        assert home.auths == {registry.host: {"auth": "dXNlcjo=", "identitytoken": "for ever"}}
        inspect = ("imagetools", "inspect", f"{registry.host}/app:1")
        assert (await trio.to_thread.run_sync(home.run, *inspect)).status == 0
        assert len(registry.server.seen("POST", "/token")) == 1
        again = await trio.to_thread.run_sync(home.run, "login", registry.host)
        assert "standard input is not a terminal" in again.text  # as docker: who we are is asked once more


@pytest.mark.parametrize("section", ["credsStore", "credHelpers"])
def test_a_credential_helper_keeps_the_password(home: Home, host: str, section: str) -> None:
    kept = home.add_helper()
    home.file.parent.mkdir()
    settings = {section: "test" if section == "credsStore" else {host: "test"}, "detachKeys": "ctrl-x"}
    home.file.write_text(json.dumps(settings))
    ended = home.log_in(host)
    assert ended.status == 0, ended.text
    assert "unencrypted" not in ended.text
    assert json.loads(home.file.read_bytes()) == {**settings, "auths": {host: {}}}
    stored = json.loads((kept / host).read_bytes())
    assert stored == {"ServerURL": host, "Username": "user", "Secret": "secret"}
    assert home.run("imagetools", "inspect", f"{host}/app:1").status == 0
    if section == "credHelpers":  # skopeo does not know the other one
        assert home.skopeo("inspect", "--tls-verify=false", f"docker://{host}/app:1").returncode == 0
    out = home.run("logout", host)
    assert (out.status, out.stderr) == (0, b"")  # it knows one spelling of the host, and that is enough
    assert os.listdir(kept) == []
    assert home.auths == {}
    assert b"secret" not in (home.path / "started").read_bytes()


def test_a_helper_that_fails_keeps_nothing_and_says_nothing(home: Home, host: str) -> None:
    home.add_helper()
    program = home.path / "bin/docker-credential-test"
    program.write_text("#!/bin/sh\ncat; cat >&2; exit 7\n")
    home.file.parent.mkdir()
    home.file.write_text('{"credsStore": "test"}')
    ended = home.log_in(host)
    assert ended.status == 1
    assert "docker-credential-test store failed" in ended.text
    assert b"secret" not in ended.stdout + ended.stderr
    assert home.file.read_text() == '{"credsStore": "test"}'
    assert b"could not erase credentials" in home.run("logout", host).stderr


@pytest.mark.parametrize(
    ("server", "user", "password", "problem"),
    [
        ("https://", "user", b"x", "is not a registry"),
        ("a b", "user", b"x", "is not a registry"),
        ("-h.example", "user", b"x", "no such option"),
        ("h.example:port", "user", b"x", "is not a registry"),
        ("localhost:1", "us:er", b"x", "has a colon in it"),
        ("localhost:1", "user", b"\xff", "must be valid UTF-8"),
        ("localhost:1", "user", b"x", "cannot reach http://localhost:1/v2/"),
    ],
)
def test_what_cannot_be_asked(home: Home, server: str, user: str, password: bytes, problem: str) -> None:
    ended = home.run("login", "-u", user, "--password-stdin", server, stdin=password)
    assert ended.status in (1, 2)
    assert problem in ended.text
    assert not home.file.exists()


@pytest.mark.parametrize("point", ["file.written", "file.linked"])
def test_a_login_that_is_killed_leaves_the_old_file(home: Home, host: str, point: str) -> None:
    home.file.parent.mkdir()
    home.file.write_text("{}")
    arguments = ("login", "-u", "user", "--password-stdin", host)
    environment = {**home.environment, "PYBUILD_TRACEPOINT": point}
    assert home.commands.run(*arguments, environment=environment, stdin=b"secret").status == -9
    assert home.file.read_text() == "{}"
    for name in os.listdir(home.file.parent):
        assert (home.file.parent / name).stat().st_mode & 0o077 == 0 or name == "config.json"
    assert home.log_in(host).status == 0
    assert os.listdir(home.file.parent) == ["config.json"]


def test_logins_at_once_lose_nothing(home: Home, host: str) -> None:
    port = host.partition(":")[2]
    names = [host, f"localhost:{port}"]
    started = [
        subprocess.Popen(
            [PYBUILD, "login", "-u", "user", "-p", "secret", name],
            env=home.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [process.wait() for process in started] == [0, 0]
    assert set(home.auths) == set(names)
