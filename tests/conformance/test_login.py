"""`pybuild login` and docker's own client: the same bytes in the file, the same statuses."""

from __future__ import annotations

from tests.fakes.docker_home import Home

pytest_plugins = ["tests.fakes.login_fixtures"]


def test_docker_and_we_write_the_same_bytes(home: Home, host: str) -> None:
    assert home.docker("login", "-u", "user", "--password-stdin", host, stdin=b"secret").returncode == 0
    theirs = home.file.read_bytes()
    home.file.unlink()
    assert home.log_in(host).status == 0
    assert home.file.read_bytes() == theirs
    before = home.file.stat().st_ino
    assert "stored unencrypted" not in home.log_in(host).text
    assert home.file.stat().st_ino == before  # there was nothing to write
    assert home.docker("logout", host).returncode == 0
    emptied = home.file.read_bytes()
    assert home.log_in(host).status == 0
    assert home.run("logout", host).status == 0
    assert home.file.read_bytes() == emptied


def test_the_statuses_are_dockers(home: Home, host: str) -> None:
    for arguments, stdin in (
        (("login", "-u", "user", "--password-stdin", host), b"wrong"),
        (("login", "--password-stdin", host), b"secret"),
        (("login", "-u", "user", "-p", "x", "--password-stdin", host), b"secret"),
        (("login", "-u", "user", host), b""),
        (("login", host), b""),
        (("logout", host), b""),
        (("logout",), b""),
    ):
        assert home.run(*arguments, stdin=stdin).status == home.docker(*arguments, stdin=stdin).returncode, arguments
