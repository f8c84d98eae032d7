"""docker's config.json as we write it: nothing of it is lost, whoever writes at once, and nobody else can read it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from buildengine.errors import ConfigError
from worker.registry import configfile
from worker.registry.dockerconfig import keys_of, parse_docker_config, with_credential, without_credentials
from worker.session import IDENTITY_TOKEN, Credential, SecretBytes

HUB = "https://index.docker.io/v1/"


def credential(user: str, secret: str) -> Credential:
    return Credential(username=user, password=SecretBytes(secret.encode()))


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


# --- bytes --------------------------------------------------------------------------------------------------


def test_a_new_file_is_what_docker_writes() -> None:
    assert with_credential(b"", "h:5000", credential("bob", "secret")) == (
        b'{\n\t"auths": {\n\t\t"h:5000": {\n\t\t\t"auth": "Ym9iOnNlY3JldA=="\n\t\t}\n\t}\n}'
    )


def test_everything_else_stays_in_its_order() -> None:
    before = (
        '{"zzz": {"b": 1, "a": [2.5, null, "\\u2028<é"]}, "auths": {"z": {}, "a": {"auth": "dTpw"}}, "credsStore": "x"}'
    )
    after = with_credential(before.encode(), "docker.io", credential("bob", "pw:é"))
    expected = json.loads(before)
    expected["auths"][HUB] = auth("bob:pw:é")
    assert json.loads(after) == expected
    assert list(json.loads(after)) == ["zzz", "auths", "credsStore"]
    assert list(json.loads(after)["auths"]) == ["z", "a", HUB]
    assert without_credentials(after, [HUB]) == without_credentials(with_credential(before.encode(), "x", None), ["x"])


def test_an_identity_token_takes_the_place_of_the_password() -> None:
    raw = with_credential(b"{}", "h", credential(IDENTITY_TOKEN, "refresh"), user="bob")
    assert json.loads(raw)["auths"] == {"h": {**auth("bob:"), "identitytoken": "refresh"}}
    found = parse_docker_config(raw).auths["h"]
    assert (found.username, found.password.reveal()) == (IDENTITY_TOKEN, b"refresh")


def test_what_is_there_already_changes_no_byte() -> None:
    raw = b'{ "auths" : {"h": {"auth": "Ym9iOnNlY3JldA=="}, "kept": {} } }'
    assert with_credential(raw, "h", credential("bob", "secret")) is raw
    assert with_credential(raw, "kept", None) is raw
    assert without_credentials(raw, ["other"]) is raw
    assert with_credential(raw, "h", credential("bob", "other")) != raw


def test_the_key_of_today_wins_over_those_of_old() -> None:
    document = {
        "auths": {"h": auth("new:1"), "https://h/v1/": auth("old:2"), HUB: auth("hub:3"), "docker.io": auth("x:4")}
    }
    found = parse_docker_config(json.dumps(document).encode()).auths
    assert (found["h"].username, found["docker.io"].username) == ("new", "hub")


def test_every_key_that_may_mean_a_host() -> None:
    assert keys_of("h:5000") == ("h:5000", "http://h:5000", "https://h:5000")
    assert keys_of("docker.io")[0] == HUB


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b'{"auths": 1}', b'{"auths": {"h": {"auth": "?"}}}', b'{"credsStore": "a/b"}']
)
def test_what_is_not_understood_is_not_written_to(raw: bytes) -> None:
    with pytest.raises(ConfigError):
        with_credential(raw, "h", None)


# --- the file -----------------------------------------------------------------------------------------------


def put(path: Path, host: str) -> bool:
    return configfile.edit(path, lambda raw: with_credential(raw, host, credential("u", "p"), filename=str(path)))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "config.json"


def test_a_new_file_and_its_directory_are_the_users_alone(path: Path) -> None:
    assert configfile.read(path) == b""
    assert put(path, "h")
    assert (mode(path), mode(path.parent), os.listdir(path.parent)) == (0o600, 0o700, ["config.json"])
    inode = path.stat().st_ino
    assert not put(path, "h")
    assert path.stat().st_ino == inode


def test_a_file_that_everybody_could_read_is_the_users_alone_afterwards(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o644)
    with path.open("rb") as reader:
        put(path, "h")
        assert reader.read() == b"{}"  # whoever reads it meanwhile has the old one, whole
    assert mode(path) == 0o600


def test_the_file_stays_its_owners(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{}")
    os.chown(path, 1234, 2345)
    put(path, "h")
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (1234, 2345, 0o600)


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_stays_one(path: Path, there: bool) -> None:
    real = path.parent.parent / "dotfiles" / "docker.json"
    if there:
        real.parent.mkdir()
        real.write_text('{"detachKeys": "ctrl-x"}')
    path.parent.mkdir()
    path.symlink_to("../dotfiles/docker.json")
    put(path, "h")
    assert path.is_symlink()
    assert set(json.loads(real.read_bytes())) == ({"detachKeys", "auths"} if there else {"auths"})
    assert os.listdir(real.parent) == ["docker.json"]


def test_a_change_that_fails_leaves_the_file_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"config\.json is not valid JSON"):
        put(path, "h")
    assert path.read_bytes() == b"{"
    assert os.listdir(path.parent) == ["config.json"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write") as caught:
        put(tmp_path / "file" / "config.json", "h")
    assert "DOCKER_CONFIG" in (caught.value.hint or "")


_EDITOR = """
import sys; from pathlib import Path
from worker.registry import configfile
from worker.registry.dockerconfig import with_credential
sys.stdin.read(1)
for number in range(20):
    host = f"h{sys.argv[2]}-{number}"
    configfile.edit(Path(sys.argv[1]), lambda raw: with_credential(raw, host, None))
"""


def test_nobody_loses_an_entry_when_several_write_at_once(path: Path) -> None:
    editors = [
        subprocess.Popen([sys.executable, "-c", _EDITOR, str(path), str(number)], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for editor in editors:
        editor.communicate(b"x")
    assert [editor.returncode for editor in editors] == [0] * 4
    assert len(json.loads(path.read_bytes())["auths"]) == 80
    assert os.listdir(path.parent) == ["config.json"]
