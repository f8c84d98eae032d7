"""Killed at every named trace point: nothing is left, the next build succeeds, the store is sound."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

import cache
import worker
from buildengine import wholefile
from tests.builds import FIXTURES, Store
from tests.fakes.crash_builds import Site

pytest_plugins = [FIXTURES, "tests.fakes.crash_fixtures"]

POINTS = (*cache.TRACEPOINTS, *worker.TRACEPOINTS, *wholefile.TRACEPOINTS)
ALL = (*POINTS, *worker.HELPER_TRACEPOINTS)
PRUNE = ("layer.deleted",)  # passed by another command than build
LATER = {"file.linked": 1}  # only a second build has an old file to replace


def test_every_point_of_the_source_is_in_the_list() -> None:
    here = Path(__file__).parents[2]
    packages = ("buildengine", "cache", "frontends", "llb", "solver", "worker")
    texts = [path.read_text() for package in packages for path in (here / package).rglob("*.py")]
    reached = {name for text in texts for name in re.findall(r'\breach\("([a-z.]+)"\)', text)}
    assert reached == set(ALL)


@pytest.mark.parametrize("point", [point for point in POINTS if point not in PRUNE])
def test_command_killed(template: Store, tmp_path: Path, point: str) -> None:
    killed(Site(template, tmp_path), point)


def killed(site: Site, point: str) -> None:
    with site.watched() as watch:
        if point in LATER:
            site.rebuild()
        with site.start(watch, *site.arguments(held=False), environment={"PYBUILD_TRACEPOINT": point}) as build:
            build.wait(status=-signal.SIGKILL)
        site.recover(watch)
