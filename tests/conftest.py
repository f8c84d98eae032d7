"""What every test may rely on."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let the programs that tests start hear signals.

    A shell's `&` and nohup ignore SIGINT, SIGQUIT or SIGHUP for whatever they start, and the program honours that: a
    test that interrupts a build would wait for ever. A handler, unlike "ignore", is not inherited through exec.
    """
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
