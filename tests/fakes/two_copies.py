"""A build that copies two files, each for a command of its own: what a change makes run again is then plain to see."""

from __future__ import annotations

from pathlib import Path

from tests.builds import Store

DOCKERFILE = """\
FROM base
COPY one /one
RUN cat /one > /from-one
COPY two /two
RUN cat /two > /from-two
"""
ALL = ["COPY one /one", "RUN cat /one > /from-one", "COPY two /two", "RUN cat /two > /from-two"]


async def again(store: Store, context: Path, *flags: str) -> list[str]:
    """What a further build runs; everything else must be cached."""
    built = await store.build(context, *flags)
    assert {step.outcome for step in built.steps.values() if step.instruction} <= {"done", "cached"}
    return built.ran
