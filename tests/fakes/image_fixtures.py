"""Fixtures for tests of whole images: a registry with bases, and the engines that build from it.

A test module asks for them with `pytest_plugins = [image_tools.FIXTURES]`. What they leave on the disk is gone when
the tests are over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bases import busybox, debian, docker_registry, image, push
from tests.fakes import image_tools as tools
from tests.fakes.image_tools import Bench

_TRIGGERS = ["COPY package.json ./", "RUN echo done > installed", "ENV TRIGGERED=yes"]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    work = tmp_path_factory.mktemp("images")
    with docker_registry(work) as host:
        small = busybox(work)
        push(host, "library/busybox", image(small))
        push(host, "library/triggers", image(small, WorkingDir="/srv", OnBuild=_TRIGGERS))
        push(host, "library/debian", image(*debian(work)))
        ours, theirs = tools.pybuild(work, host), tools.buildah(work, host)
        yield Bench(work=work, host=host, pybuild=ours, buildah=theirs, since=int(time.time()))
    tools.remove(work)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A directory for the test's own files, which are many."""
    yield tmp_path
    tools.remove(tmp_path)
