"""Dockerfiles of other people, converted by our frontend and by BuildKit's: all that `test_dockerfiles` compares.

None is kept here. DOCKERFILES names a directory of them. Their base images are made up (`any_image`), so nothing is
fetched; digests of images are taken off, as nobody can make those. What BuildKit's frontend refuses is refused by ours,
in the same words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.builds import write
from tests.conformance import peer
from tests.conformance.any_image import every_image
from tests.conformance.asked import ask
from tests.conformance.test_dockerfiles import places, shown
from tests.fakes.daemon import daemon, grpc

_FILES = sorted(path for path in Path(os.environ.get("DOCKERFILES") or "/nonexistent").glob("*") if path.is_file())
__test__ = bool(_FILES)  # there are none of these tests where nobody names any files
_PLATFORMS = ("linux/amd64", "linux/arm64", "linux/amd64,linux/arm64")
_SUGGESTED = re.compile(r" \(did you mean .*\?\)$")


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Of our daemon, and of BuildKit's."""
    work = tmp_path_factory.mktemp("real")
    with ExitStack() as stack:
        config = work / "buildkitd.toml"
        config.write_text(stack.enter_context(every_image(path.read_bytes() for path in _FILES)))
        (work / "peer").mkdir()
        stack.enter_context(peer.daemon(work / "peer", "--config", config))
        ours = stack.enter_context(daemon(work / "root", work / "ours", "--config", config))
        yield ours.address.replace("unix:", "unix://"), f"unix://{work}/peer/buildkitd.sock"


@pytest.mark.parametrize("platform", _PLATFORMS)
@pytest.mark.parametrize("file", _FILES, ids=lambda path: path.name)
def test_conversion(addresses: tuple[str, str], file: Path, platform: str, tmp_path: Path) -> None:
    dockerfile = re.sub(rb"@sha256:[0-9a-f]{64}", b"", file.read_bytes())
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    options = {"platform": platform}
    try:
        theirs = ask(addresses[1], context, options, {})
    except grpc.RpcError as refused:
        with pytest.raises(grpc.RpcError) as caught:
            ask(addresses[0], context, options, {})
        assert _words(caught.value) == _words(refused)
        return
    ours = ask(addresses[0], context, options, {})
    assert shown(ours) == shown(theirs)
    for name, there in theirs.definitions.items():
        assert places(there).items() <= places(ours.definitions[name]).items()


@pytest.mark.parametrize("file", _FILES, ids=lambda path: path.name)
def test_findings(addresses: tuple[str, str], file: Path, tmp_path: Path) -> None:
    dockerfile = re.sub(rb"@sha256:[0-9a-f]{64}", b"", file.read_bytes())
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    options = {"requestid": "frontend.lint", "build-arg:BUILDKIT_DOCKERFILE_CHECK": "experimental=all"}
    ours, theirs = [ask(address, context, options, {}).metadata for address in addresses]
    assert _ordered(ours["result.txt"]) == _ordered(theirs["result.txt"])
    assert ours["result.statuscode"] == theirs["result.statuscode"]


def _words(error: grpc.RpcError) -> str:
    """Without our suggestions: there are more of them."""
    assert isinstance(error, grpc.aio.AioRpcError)
    return _SUGGESTED.sub("", error.details() or "")


def _ordered(text: bytes) -> object:
    """Go's sort of more than 12 warnings leaves those of one line in any order."""
    found = text.decode().split("\nWARNING: ")
    return sorted(found) if len(found) > 13 else found
