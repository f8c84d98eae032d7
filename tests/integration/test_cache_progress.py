"""What is said of cached steps: in the order in which they would run, and only of what a record stands for."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Store, Told, write
from tests.fakes.build_gate import Gate

pytest_plugins = [FIXTURES]

STAGES = """\
FROM base AS one
COPY a /a
RUN cat /a
FROM base AS two
RUN echo two > /two
RUN cat /two
FROM base
COPY --from=one /a /a
COPY --from=two /two /two
RUN cat /a /two
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": STAGES, "a": "x"})


def assert_inputs_end_first(told: Told) -> None:
    ended = {step.digest: number for number, step in enumerate(told.order)}
    for step in told.order:
        late = [told.steps[i].name for i in step.inputs if ended.get(i, -1) > ended[step.digest]]
        assert late == [], f"{step.name} has ended before {late}"


async def test_steps_end_after_what_they_are_made_from(store: Store, context: Path) -> None:
    """Whether they run or not, all or a part of them."""
    assert_inputs_end_first(await store.build(context))
    cached = await store.build(context)
    assert_inputs_end_first(cached)
    assert cached.ran == []
    write(context, {"a": "y"})
    assert_inputs_end_first(await store.build(context))
    assert_inputs_end_first(await store.build(context, "--no-cache-filter", "two"))


async def test_a_page_of_cached_steps_reads_from_top_to_bottom(store: Store, context: Path) -> None:
    await store.build(context)
    page = store.command("build", "--progress", "plain", context).error
    assert re.findall(r"#\d+ \[\S+ (\d/\d \w+ .*?)(?:@.*)?\n#\d+ CACHED", page.replace("] ", " ")) == [
        "1/3 FROM docker.io/library/base:latest",
        "2/3 COPY a /a",
        "3/3 RUN cat /a",
        "2/4 COPY --from=one /a /a",
        "2/3 RUN echo two > /two",
        "3/3 RUN cat /two",
        "3/4 COPY --from=two /two /two",
        "4/4 RUN cat /a /two",
    ]


async def test_a_step_that_is_cancelled_is_never_cached(store: Store, tmp_path: Path) -> None:
    gate = Gate(store)
    dockerfile = f"FROM base\nRUN echo before\n{gate.run}\nRUN echo after\n"
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    with store.start("build", context) as command:
        command.until_output(gate.said)
        command.process.send_signal(signal.SIGINT)
        built = command.wait(status=130)
    assert built.step(gate.run).outcomes[-1] == "canceled"
    assert built.step("RUN echo after").outcomes == ["unstarted"]
    assert built.cached == []
    with store.start("build", "--progress", "plain", context) as command:
        while not command.text.endswith(f"{gate.said}\n"):
            command.more()
        command.process.send_signal(signal.SIGINT)
        page = command.wait(status=130).error
    assert re.findall(r"^#\d+ (CACHED|CANCELED|DONE)", page, re.MULTILINE)[-2:] == ["CACHED", "CANCELED"]
    assert "echo after" not in page.partition("error")[0]


async def test_a_step_whose_result_was_pruned_is_not_called_cached(store: Store, context: Path) -> None:
    """What the last step was made from is gone, but the last step itself is there: a hit, over nothing."""
    await store.build(context, "-t", "app")
    store.command("prune", "--force", "--filter", 'description~="two 3/3|two 2/3"')
    built = await store.build(context)
    assert built.ran == []
    assert built.step("RUN cat /a /two").outcome == "cached"
    assert built.step("RUN echo two").outcome == "unstarted"
