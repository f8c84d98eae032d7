"""Build files that mean harm: each ends in a clear error, and nothing but its own build has noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.builds import FIXTURES, Engine, Store, write
from tests.fakes import leftovers
from tests.fakes.hostile_build_files import HOSTILE, RAW

pytest_plugins = [FIXTURES]

HONEST = """
async def build(ctx):
    return (await ctx.image("base")).run("echo honest", ignore_cache=True)
"""
AT_ONCE = 4
OURS = ("cache", "worker", "trio", "frontends")  # modules


def file_of(name: str) -> str:
    return f"{name.replace(' ', '_')}.py"


def write_all(directory: Path) -> Path:
    """All of them in one directory, with what one of them may want beside it."""
    write(directory, {"honest.py": HONEST, "raw.py": RAW})
    write(directory, {f"{name}.py": "raise SystemError('loaded')\n" for name in OURS})
    write(directory, {file_of(name): hostile.text.encode("latin-1") for name, hostile in HOSTILE.items()})
    (directory / "link").symlink_to("/etc/passwd")
    return directory


async def attack(engine: Engine, context: Path, names: list[str]) -> dict[str, str]:
    """What each of these has led to, by name, while honest builds go on."""
    said: dict[str, str] = {}
    slots = trio.CapacityLimiter(AT_ONCE)

    async def run(name: str) -> None:
        async with slots:
            built = await engine.build(context, "-f", context / file_of(name), status=1)
            said[name] = built.error

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(run, name)
        while len(said) < len(names):
            honest = await engine.build(context, "-f", context / "honest.py")
            assert honest.step("echo honest").output == "honest\n"
    return said


@pytest.mark.timeout(400)  # forty builds
async def test_hostile_build_files(store: Store, tmp_path: Path) -> None:
    """Also what takes all the time that it gets leaves no process."""
    context = write_all(tmp_path / "context")
    said: dict[str, str] = {}
    with leftovers.watch(tmp_path, marker=str(tmp_path)) as watch:
        for patient, seconds in ((False, "600s"), (True, "2s")):
            store.environment["PYBUILD_WORKER_BUILD_FILE_SECONDS"] = seconds
            async with store.engine() as engine:
                names = [name for name, hostile in HOSTILE.items() if hostile.patient is patient]
                said |= await attack(engine, context, names)
        assert watch.remaining() == []
    assert {name: error for name, error in said.items() if HOSTILE[name].said not in error} == {}
