"""The corners of the language (`corners.py`), converted by our frontend and by BuildKit's: the same comes of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.builds import write
from tests.conformance import corners, peer
from tests.conformance.any_image import every_image
from tests.conformance.asked import ask
from tests.conformance.test_dockerfiles import shown
from tests.fakes.daemon import daemon, grpc

_TRANSFER = f"FROM alpine\nARG E=env\nARG M=644\nARG U=1:2\nARG SUM=sha256:{'b' * 64}\nWORKDIR /w/\n"
_WORDS = 'FROM alpine\nARG P=80\nARG V=a/b/b/c\nENV E=""\nENV OUT={0}\nLABEL l={0}\nCOPY a /{0}\n'
_STAGES = "FROM alpine AS s\nARG Q\nRUN x\nFROM s AS t\nRUN y\n"
_CASES: list[tuple[str, Mapping[str, str]]] = [
    *[(f"FROM alpine\nARG A=alpine\nRUN {text}\n", {}) for text in corners.RUNS],
    *[(f"{_TRANSFER}{text}\n", {}) for text in corners.TRANSFERS],
    *[(f"FROM alpine\nARG P=80\n{text}\n", {}) for text in corners.SETTINGS],
    *[(_WORDS.format(text), {}) for text in corners.WORDS],
    *[(_STAGES, options) for options in corners.OPTIONS],
    *[(text, {}) for text in corners.FILES],
]


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Of our daemon, and of BuildKit's."""
    work = tmp_path_factory.mktemp("corners")
    with ExitStack() as stack:
        config = work / "buildkitd.toml"
        config.write_text(stack.enter_context(every_image(())))
        (work / "peer").mkdir()
        stack.enter_context(peer.daemon(work / "peer", "--config", config))
        ours = stack.enter_context(daemon(work / "root", work / "ours", "--config", config))
        yield ours.address.replace("unix:", "unix://"), f"unix://{work}/peer/buildkitd.sock"


@pytest.mark.parametrize(("dockerfile", "options"), _CASES)
def test_conversion(addresses: tuple[str, str], dockerfile: str, options: Mapping[str, str], tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    ours, theirs = (_answer(address, context, {"platform": "linux/amd64", **options}) for address in addresses)
    assert ours == theirs


def _answer(address: str, context: Path, options: Mapping[str, str]) -> dict[str, Any] | str | None:
    try:
        return shown(ask(address, context, options, {}))
    except grpc.aio.AioRpcError as refused:
        return refused.details()
