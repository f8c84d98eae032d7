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
from tests.fakes.crash_builds import NewSite, Site

pytest_plugins = [FIXTURES, "tests.fakes.crash_fixtures"]

PRUNING = ("layer.deleted",)  # passed by another command than build
SERVING = ("served.committed",)  # killed in test_registry_serve.py
POINTS = tuple(
    point
    for point in (*cache.TRACEPOINTS, *worker.TRACEPOINTS, *wholefile.TRACEPOINTS)
    if point not in (*PRUNING, *SERVING)
)
HELPERS = worker.HELPER_TRACEPOINTS
CHOSEN = ("layer.committed", "step.requested", "step.ended")  # where the runtime makes a difference
COPIED = ("layer.filled",)  # and the snapshotter


def test_every_point_of_the_source_is_in_a_list() -> None:
    here = Path(__file__).parents[2]
    packages = ("buildengine", "cache", "frontends", "llb", "solver", "worker")
    texts = [path.read_text() for package in packages for path in (here / package).rglob("*.py")]
    reached = {name for text in texts for name in re.findall(r'^\s+reach\("([a-z.]+)"\)', text, re.MULTILINE)}
    assert reached == {*POINTS, *PRUNING, *SERVING, *HELPERS}


@pytest.mark.parametrize("point", POINTS)
def test_command_killed(site: Site, point: str) -> None:
    command_killed(site, point)


@pytest.mark.parametrize("point", [pytest.param(p, marks=() if p in CHOSEN else pytest.mark.slow) for p in POINTS])
def test_command_killed_with_runc(new_site: NewSite, point: str) -> None:
    command_killed(new_site(runtime="runc"), point)


@pytest.mark.parametrize("point", HELPERS)
def test_helper_killed(site: Site, point: str) -> None:
    helper_killed(site, point)


@pytest.mark.slow
@pytest.mark.parametrize("point", HELPERS)
def test_helper_killed_with_runc(new_site: NewSite, point: str) -> None:
    helper_killed(new_site(runtime="runc"), point)


def command_killed(site: Site, point: str) -> None:
    with site.watched() as watch:
        if point == "file.linked":
            site.rebuild()  # an old file to replace
        with site.start(watch, *site.arguments(held=False), environment={"PYBUILD_TRACEPOINT": point}) as build:
            build.wait(status=-signal.SIGKILL)
        site.recover(watch)


def helper_killed(site: Site, point: str) -> None:
    """The launcher of steps or a supervisor is killed; the engine lives and says so."""
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=False), environment={"PYBUILD_TRACEPOINT": point}) as build:
            assert "was killed" in build.wait(status=3).error
        site.recover(watch)


@pytest.mark.parametrize("point", PRUNING)
def test_prune_killed(site: Site, point: str) -> None:
    site.rebuild()
    with site.watched() as watch:
        with site.start(watch, "prune", "--all", "--force", environment={"PYBUILD_TRACEPOINT": f"{point}:2"}) as prune:
            prune.wait(status=-signal.SIGKILL)
        site.recover(watch)


@pytest.mark.parametrize(
    "point",
    [
        *("blob.renamed:2", "image.committed"),
        *(pytest.param(point, marks=pytest.mark.slow) for point in ("blob.written", "blob.committed:3")),
    ],
)
def test_load_killed(site: Site, template: Store, point: str) -> None:
    archive = str(template.root.with_name("base.tar"))
    site.run("image", "rm", "crash")
    with site.watched() as watch:
        with site.start(watch, "image", "load", "-i", archive, environment={"PYBUILD_TRACEPOINT": point}) as load:
            load.wait(status=-signal.SIGKILL)
        site.run("image", "load", "-i", archive)
        site.recover(watch)


@pytest.mark.slow
def test_killed_at_one_point_after_the_other(site: Site) -> None:
    """Nobody tidies up between them: what one left must not harm the next."""
    with site.watched() as watch:
        for point in (
            "layer.unpacked",
            "record.linked",
            "cachemount.filled",
            "step.ended",
            "blob.renamed",
            "sync.done",
        ):
            with site.start(watch, *site.arguments(held=False), environment={"PYBUILD_TRACEPOINT": point}) as build:
                build.wait(status=-signal.SIGKILL)
        site.recover(watch)


@pytest.mark.parametrize("point", [pytest.param(p, marks=() if p in COPIED else pytest.mark.slow) for p in POINTS])
def test_command_killed_with_copies(new_site: NewSite, point: str) -> None:
    """The other snapshotter: whole trees instead of overlays."""
    command_killed(new_site(PYBUILD_WORKER_SNAPSHOTTER="copy"), point)
