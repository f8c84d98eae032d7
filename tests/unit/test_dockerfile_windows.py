"""Windows and darwin images: paths with backslashes and a drive, no PATH, versions of the base in the config."""

from __future__ import annotations

import json

import pytest

from buildengine.errors import ParseError
from buildengine.platform import Platform
from frontends.dockerfile import imagepaths
from frontends.testing import Built
from llb.ops import CopyAction, MkDir
from tests.fakes.gateway import build, findings, history

WINDOWS = Platform(os="windows", architecture="amd64")
DARWIN = Platform(os="darwin", architecture="arm64")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("C:\\app\\", "/app/"),
        ("c:/app", "/app"),
        ("app\\sub", "app/sub"),
        ("C:app", "app"),
        ("\\a\\..\\b", "/b"),
        ("C:\\", "/"),
        ("a/b", "a/b"),
    ],
)
def test_paths_without_their_drive(path: str, found: str) -> None:
    assert imagepaths.slashed(path, "windows") == found
    assert imagepaths.slashed(path, "linux") == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("D:\\x", '"D:\\\\x" is not on the system drive'),
        ("C:", 'no relative path specified in "C:"'),
        ("\\\\host\\share", "UNC paths are not supported"),
    ],
)
async def test_paths_that_no_image_has(path: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        await built(f"# escape=`\nFROM scratch\nCOPY a {path}\n")
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.locations


async def built(dockerfile: str, platform: Platform = WINDOWS, images: dict[str, bytes] | None = None) -> Built:
    return await build(dockerfile, {"platform": str(platform)}, platform, images=images)


async def test_where_files_go() -> None:
    text = "# escape=`\nFROM scratch\nWORKDIR C:\\app\nWORKDIR sub\nCOPY x\\a .\\\nCOPY b c:/c/\nADD d e\n"
    found = await built(text)
    (context,) = (node for node in found.steps if "load build context" in node.name)
    actions = [action.action for node in found.steps if node.digest != context.digest for action in node.file.actions]
    made = [action.path for action in actions if isinstance(action, MkDir)]
    copied = [(action.src, action.dest) for action in actions if isinstance(action, CopyAction)]
    assert made == ["/app", "/app/sub"]
    assert copied == [("/x/a", "/app/sub/"), ("/b", "/c/"), ("/d", "/app/sub/e")]
    assert found.config["WorkingDir"] == "\\app\\sub"
    assert history(found)[:2] == ["WORKDIR /app", "WORKDIR /app/sub"]
    assert context.source.attrs["local.followpaths"] == '["b","d","x/a"]'


async def test_an_absolute_work_directory_is_not_relative() -> None:
    assert findings(await built("# escape=`\nFROM scratch\nWORKDIR C:\\app\n")) == []
    assert len(findings(await built("# escape=`\nFROM scratch\nWORKDIR app\n"))) == 1


async def test_config_without_path() -> None:
    found = await built("FROM scratch\nCMD dir\n")
    assert "Env" not in found.config
    assert found.config["WorkingDir"] == "\\"
    assert found.config["Cmd"] == ["cmd", "/S", "/C", "dir"]
    darwin = await built("FROM scratch\nCMD ls\n", DARWIN)
    assert darwin.config["WorkingDir"] == "/"
    assert darwin.config["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert (darwin.image.document["os"], darwin.image.document["architecture"]) == ("darwin", "arm64")


async def test_the_version_comes_from_the_base() -> None:
    config = {
        "os": "windows",
        "architecture": "amd64",
        "os.version": "10.0.17763.1",
        "os.features": ["win32k"],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]},
        "config": {},
    }
    images = {"docker.io/library/nano:latest": json.dumps(config).encode()}
    found = await built("FROM nano\nCOPY a b\n", images=images)
    assert (found.image.document["os.version"], found.image.document["os.features"]) == ("10.0.17763.1", ["win32k"])
    assert "Env" not in found.config
