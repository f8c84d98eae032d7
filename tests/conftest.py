"""What every test may rely on."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

from worker.runtime import isolate

settings.register_profile("patient", deadline=None)  # on a busy machine an example may take any time
settings.load_profile("patient")


def pytest_configure() -> None:
    """Let the programs that tests start hear signals.

    A shell's `&` and nohup ignore SIGINT, SIGQUIT or SIGHUP for whatever they start, and the program honours that: a
    test that interrupts a build would wait for ever. A handler, unlike "ignore", is not inherited through exec.
    """
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart() -> None:
    """A mount namespace for all tests, before the first thread: one that had started would never be in it."""
    if os.geteuid() == 0:
        isolate.private_mounts()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`machine("x86_64")`: a test of that processor does not exist on another one."""
    elsewhere = {item for item in items for mark in item.iter_markers("machine") if os.uname().machine not in mark.args}
    config.hook.pytest_deselected(items=list(elsewhere))
    items[:] = [item for item in items if item not in elsewhere]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What should be tested and was not is a failure, and so is one that is expected."""
    report = yield
    if report.skipped or hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"not tested, and all tests are wanted: {report.longrepr}"
        vars(report).pop("wasxfail", None)
    return report
