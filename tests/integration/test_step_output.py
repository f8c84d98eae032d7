"""What is told of a step that prints much: as much as BuildKit tells of it."""

from __future__ import annotations

from pathlib import Path

from tests.builds import FIXTURES, Store, write

pytest_plugins = [FIXTURES]

DOCKERFILE = "FROM base\nRUN head -c 1000000 /dev/zero | tr '\\0' x; echo the end; exit {status}\n"
CLIPPED = "[output clipped, log limit 200KiB/s reached]"


async def test_much_output_is_clipped(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path, {"Dockerfile": DOCKERFILE.format(status=0)})
    output = (await store.build(context)).step("RUN head").output
    assert output.startswith("x" * (200 << 10))
    assert CLIPPED in output
    assert output.count("x") < 1_000_000


async def test_of_a_step_that_fails_the_end_is_told(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path, {"Dockerfile": DOCKERFILE.format(status=1)})
    output = (await store.build(context, status=1)).step("RUN head").output
    assert CLIPPED in output
    assert output.endswith("xthe end\n")


async def test_the_limits_are_in_the_environment(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path, {"Dockerfile": DOCKERFILE.format(status=0)})
    store.environment["BUILDKIT_STEP_LOG_MAX_SPEED"] = "-1"
    assert (await store.build(context)).step("RUN head").output == "x" * 1_000_000 + "the end\n"
