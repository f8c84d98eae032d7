"""One call of a command: what comes out of it, and which signals end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from buildengine.daemon.running import run_to_end

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def ignored() -> Iterator[set[signal.Signals]]:
    """All that would end a call are ignored, as under `nohup` in a shell's background; as before afterwards."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    yield set(ENDING)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_with_every_signal_ignored_a_call_runs_to_its_end(ignored: set[signal.Signals]) -> None:
    async def main() -> str:
        for number in ignored:
            os.kill(os.getpid(), number)
        await trio.testing.wait_all_tasks_blocked()
        return "done"

    assert run_to_end(main) == "done"
    assert {signal.getsignal(number) for number in ENDING} == {signal.SIG_IGN}


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_call_and_what_was_there_is_cleaned_up(number: signal.Signals) -> None:
    ended = []

    async def main() -> None:
        os.kill(os.getpid(), number)
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_to_end(main)
    assert ended == [True]


@pytest.mark.parametrize("number", ENDING)
def test_one_that_is_not_ignored_still_ends_a_call(ignored: set[signal.Signals], number: signal.Signals) -> None:
    signal.signal(number, signal.default_int_handler)

    async def main() -> None:
        for other in ignored - {number}:
            os.kill(os.getpid(), other)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), number)
        await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        run_to_end(main)


STUCK = """
import signal, trio
from buildengine.daemon.running import run_to_end

async def main():
    try:
        print("runs", flush=True)
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):  # a thread that writes to a pipe which nobody reads
            print("cancelled", flush=True)
            while signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
                await trio.sleep(0.01)
            print("second", flush=True)
            await trio.sleep_forever()

run_to_end(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_does_not_let_itself_be_cancelled_is_ended_by_the_third_signal(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True) as stuck:
        assert stuck.stdout is not None
        for line in ("runs", "cancelled", "second"):
            assert stuck.stdout.readline() == f"{line}\n"
            stuck.send_signal(number)
        assert stuck.wait(60) == -number
