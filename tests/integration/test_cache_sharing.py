"""Builds at the same time on one state directory: what they have in common runs once, and none disturbs another.

Steps wait at gates (`tests.fakes.build_gate`), so every order here is the one that is meant.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio._core import _thread_cache

from tests.builds import FIXTURES, Job, Store, write
from tests.fakes.build_gate import Gate

pytest_plugins = [FIXTURES]


@pytest.fixture
def gate(store: Store) -> Gate:
    return Gate(store)


@pytest.fixture
def contexts(gate: Gate, tmp_path: Path) -> tuple[Path, Path]:
    """Two directories with the same file in them, which is copied before the gate; afterwards the two differ."""
    first, second = (
        write(
            tmp_path / name,
            {"Dockerfile": f"FROM base\nCOPY file /file\n{gate.run}\nRUN echo {name}\n", "file": "x", name: name},
        )
        for name in ("first", "second")
    )
    return first, second


# --- two jobs of one engine ---------------------------------------------------------------------------------------


async def test_two_jobs_of_one_engine_run_a_shared_step_once(
    store: Store, gate: Gate, contexts: tuple[Path, Path]
) -> None:
    async with store.engine() as engine, trio.open_nursery() as nursery:
        first = engine.start(nursery, contexts[0])
        await first.until_output(gate.said)
        second = engine.start(nursery, contexts[1])
        await second.until_output(gate.said)
        gate.open()
    assert gate.runs == 1
    for name, job in (("first", first), ("second", second)):
        assert job.ran[-2:] == [gate.run, f"RUN echo {name}"], "who shares a step sees it run"


async def test_jobs_that_begin_together_run_a_shared_step_once(
    store: Store, gate: Gate, contexts: tuple[Path, Path]
) -> None:
    async with store.engine() as engine, trio.open_nursery() as nursery:
        jobs = [engine.start(nursery, context) for context in (*contexts, *contexts)]
        for job in jobs:
            await job.until_output(gate.said)
        gate.open()
    assert gate.runs == 1


@pytest.mark.parametrize("leaver", [0, 1], ids=["who began the step", "who joined it"])
async def test_one_job_is_cancelled_and_the_other_goes_on(
    store: Store, gate: Gate, contexts: tuple[Path, Path], leaver: int
) -> None:
    async with store.engine() as engine, trio.open_nursery() as nursery:
        jobs = [engine.job(context) for context in contexts]
        for number, job in enumerate(jobs):
            nursery.start_soon(_run, job, 130 if number == leaver else 0)
            await job.until_output(gate.said)
        jobs[leaver].cancel()
        await jobs[leaver].wait()
        assert jobs[leaver].step(gate.run).outcome == "canceled"
        assert jobs[1 - leaver].step(gate.run).outcome == "running"
        gate.open()
    assert gate.runs == 1
    assert gate.run in jobs[1 - leaver].ran


async def test_a_step_that_everybody_has_left_is_killed_and_runs_anew(
    store: Store, gate: Gate, contexts: tuple[Path, Path]
) -> None:
    async with store.engine() as engine:
        async with trio.open_nursery() as nursery:
            jobs = [engine.job(context) for context in contexts]
            for job in jobs:
                nursery.start_soon(_run, job, 130)
                await job.until_output(gate.said)
            for job in jobs:
                job.cancel()
        assert {job.step(gate.run).outcome for job in jobs} == {"canceled"}
        async with trio.open_nursery() as nursery:
            third = engine.start(nursery, contexts[0])
            await third.until_output(gate.said)
            gate.open()
    assert gate.runs == 2
    assert gate.run in third.ran


async def _run(job: Job, status: int) -> None:
    await job.run(status=status)


# --- two commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_commands_run_a_shared_step_once(
    store: Store, gate: Gate, contexts: tuple[Path, Path], order: tuple[int, int]
) -> None:
    with store.start("build", contexts[order[0]]) as first:
        first.until_output(gate.said)
        with store.start("build", contexts[order[1]]) as second:
            second.until("COPY", "cached")  # what is next is the gate
            gate.open()
            assert gate.run in first.wait().ran
            waited = second.wait()
    assert gate.runs == 1
    assert waited.cached == ["COPY file /file", gate.run]
    assert len(waited.ran) == 1


def test_two_commands_that_begin_together_run_a_shared_step_once(store: Store, tmp_path: Path) -> None:
    count = "RUN --mount=type=cache,target=/c echo run >> /c/runs"
    context = write(tmp_path / "context", {"Dockerfile": f"FROM base\nCOPY file /\n{count}\n", "file": "x"})
    with store.start("build", context) as first, store.start("build", context) as second:
        built = [command.wait() for command in (first, second)]
    assert sorted(one.ran + one.cached for one in built) == [["COPY file /", count]] * 2
    (runs,) = store.root.glob("cachemounts/*/runs")
    assert runs.read_text() == "run\n"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_dies_leaves_its_step_to_the_one_that_waits(
    store: Store, gate: Gate, contexts: tuple[Path, Path], how: signal.Signals
) -> None:
    with store.start("build", contexts[0]) as first:
        first.until_output(gate.said)
        with store.start("build", contexts[1]) as second:
            second.until("COPY", "cached")
            first.process.send_signal(how)
            first.wait(status=-how if how is signal.SIGKILL else 130)
            second.until_output(gate.said)
            gate.open()
            assert gate.run in second.wait().ran
    assert gate.runs == 2


def test_a_command_without_cache_does_not_wait_for_others(
    store: Store, tmp_path: Path, contexts: tuple[Path, Path]
) -> None:
    """It takes nothing from them, so why should it wait. Its own cache mounts are new: so are its gates."""
    with store.start("build", contexts[0]) as first, store.start("build", "--no-cache", contexts[0]) as second:
        first.until_output("at gate")
        second.until_output("at gate")


# --- failures -----------------------------------------------------------------------------------------------------


async def test_a_failed_step_is_not_cached(store: Store, tmp_path: Path) -> None:
    fails_once = "RUN --mount=type=cache,target=/c touch /half; mkdir /c/tried && exit 3; rm /half"
    dockerfile = f"FROM base\nRUN echo before\n{fails_once}\nRUN test ! -e /half\n"
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    failed = await store.build(context, status=1)
    assert failed.ran == ["RUN echo before"]
    assert failed.step("touch").outcome == "failed"
    assert "exit code: 3" in failed.error
    assert failed.step("test ! -e /half").outcomes == ["unstarted"]
    succeeded = await store.build(context)
    assert succeeded.cached == ["RUN echo before"]
    assert [step.outcome for step in succeeded.steps.values() if step.instruction] == ["cached", "done", "done"]


async def test_what_runs_beside_a_failure_is_cancelled_and_not_cached(store: Store, gate: Gate, tmp_path: Path) -> None:
    dockerfile = f"""\
        FROM base AS waits
        {gate.run}
        RUN echo later
        FROM base AS fails
        RUN --mount=type=cache,id=gates,target=/gates until [ -p /gates/gate.door ]; do :; done; exit 1
        FROM base
        COPY --from=waits /gate /gate
        COPY --from=fails /gate /other
        """
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    failed = await store.build(context, status=1)
    assert failed.step(gate.run).outcomes[-1] == "canceled"
    assert failed.step("exit 1").outcomes[-1] == "failed"
    assert "cached" not in {outcome for step in failed.steps.values() if step.instruction for outcome in step.outcomes}
    assert failed.step("echo later").outcomes == ["unstarted"]
    async with store.engine() as engine, trio.open_nursery() as nursery:
        job = engine.start(nursery, context, "--target", "waits")
        await job.until_output(gate.said)
        gate.open()
    assert job.ran == [gate.run, "RUN echo later"]


async def test_a_shared_step_that_fails_fails_both_jobs_and_is_tried_again(
    store: Store, gate: Gate, tmp_path: Path
) -> None:
    context = write(tmp_path / "context", {"Dockerfile": f"FROM base\n{gate.run}; exit 7\n"})
    async with store.engine() as engine:
        for runs in (1, 2):
            async with trio.open_nursery() as nursery:
                jobs = [engine.start(nursery, context, status=1) for _ in range(2)]
                for job in jobs:
                    await job.until_output(gate.said)
                gate.open()
            assert gate.runs == runs
            for job in jobs:
                assert "exit code: 7" in (await job.wait()).error


def test_a_command_that_waits_for_a_step_that_fails_tries_itself(store: Store, gate: Gate, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": f"FROM base\nRUN echo\n{gate.run}; [ -e /gates/ok ]\n"})
    with store.start("build", context) as first:
        first.until_output(gate.said)
        with store.start("build", context) as second:
            second.until("RUN echo", "cached")
            gate.open()
            first.wait(status=1)
            second.until_output(gate.said)
            gate.put("ok")
            gate.open()
            second.wait()
    assert gate.runs == 2


# --- long steps ---------------------------------------------------------------------------------------------------


async def test_a_step_outlives_the_threads_of_its_engine(
    store: Store, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent-death signal fires when the thread that forked dies, and trio's threads die when idle (after 10 s)."""
    monkeypatch.setattr(_thread_cache, "THREAD_CACHE", _thread_cache.ThreadCache())
    monkeypatch.setattr(_thread_cache, "IDLE_TIMEOUT", 0.001)
    others = set(threading.enumerate())
    context = write(tmp_path / "context", {"Dockerfile": f"FROM base\n{gate.run}\n"})
    async with store.engine() as engine, trio.open_nursery() as nursery:
        job = engine.start(nursery, context)
        await job.until_output(gate.said)
        for thread in set(threading.enumerate()) - others:
            thread.join()
        gate.open()
    assert job.ran == [gate.run]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_lone_sleep_of_40_seconds_succeeds(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN sleep 40\n"})
    assert store.command("build", context).ran == ["RUN sleep 40"]
