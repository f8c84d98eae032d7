"""`python -m tests.bench [--peer DIR] [--runs N] [--only TEXT] [--table NAME]`: whole commands, in one run.

The engines take turns, so that a machine that slows down slows all of them; medians and ratios are printed.

    commands    builds by `pybuild`, buildah, and BuildKit's client and daemon when DIR holds `buildctl` and `buildkitd`
    daemons     the same builds by `buildctl`, before `pybuildd` and before `buildkitd`, both warm
    transfers   pull and push of a large image, where skopeo takes part too
    startup     a build file in Python beside the same Dockerfile, all cached
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench import startup, transfers
from tests.bench.bases import registry_with_bases
from tests.bench.engines import Buildah, Daemon, Engine, Pybuild, buildkitd, pybuildd
from tests.bench.scenarios import BEGIN, SCENARIOS, Scenario
from worker.runtime import isolate

TABLES = ("commands", "daemons", "transfers", "startup")


def main() -> None:
    isolate.private_mounts()  # buildah's storage is mounted: whatever is killed, no mount stays on the host
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # as Ctrl-C: what runs here is ended
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="scenarios that have this in their names")
    parser.add_argument("--table", action="append", choices=TABLES, help="repeatable; all of them by default")
    parser.add_argument("--without-buildah", action="store_true")
    arguments = parser.parse_args()
    tables: list[str] = arguments.table or list(TABLES)
    builds = not {"commands", "daemons"}.isdisjoint(tables)
    chosen = [scenario for scenario in SCENARIOS if builds and arguments.only in scenario.name]
    moves = "transfers" in tables and arguments.only in f"pull push {transfers.NAME}"
    bases = {scenario.base for scenario in chosen} | ({"large"} if moves else set())
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pybuild-bench-")))
        registry = stack.enter_context(registry_with_bases(work, bases))
        peers = [stack.enter_context(buildkitd(work, arguments.peer).running())] if arguments.peer else []
        commands: list[Engine] = [Pybuild(work)]
        if shutil.which("buildah") and not arguments.without_buildah:
            commands.append(stack.enter_context(Buildah(work).running()))
        commands += peers
        if "commands" in tables:
            _measure_builds(chosen, commands, work, registry, arguments.runs)
        if "daemons" in tables and peers:
            ours = stack.enter_context(pybuildd(work, arguments.peer).running())
            _measure_builds(chosen, [ours, *peers], work, registry, arguments.runs)
        if moves:
            _measure_transfers(commands, work, registry, arguments.runs)
        if "startup" in tables and arguments.only in "startup":
            print(_row("", "target", "Dockerfile", "build.py", "more"))
            for kind, *seconds in startup.measure(work, arguments.runs):
                print(_row(f"startup, {kind}", "0.15 s more", *(f"{each:.3f}" for each in seconds)), flush=True)


def _measure_builds(
    scenarios: Sequence[Scenario], engines: Sequence[Engine], work: Path, registry: str, runs: int
) -> None:
    if scenarios:
        print(_header(*(engine.name for engine in engines)))
    for scenario in scenarios:
        print(_measure(scenario, engines, work, registry, runs), flush=True)


def _measure_transfers(engines: Sequence[Engine], work: Path, registry: str, runs: int) -> None:
    movers: list[transfers.Mover] = [transfers.PybuildMover(work), transfers.Skopeo(work)]
    for engine in engines:
        if isinstance(engine, Buildah):
            movers.append(transfers.BuildahMover(engine.storage))
        elif isinstance(engine, Daemon):
            movers.append(transfers.BuildKitMover(work, engine))
    print(_header(*(mover.name for mover in movers)))
    for name, medians in transfers.measure(movers, work, registry, runs):
        print(_timings(name, "fastest", medians), flush=True)


def _header(*names: str) -> str:
    return _row("", "target", *names, *(f"ours/{name}" for name in names[1:]))


def _timings(name: str, target: str, medians: list[float]) -> str:
    ratios = [f"{medians[0] / other:.2f}" for other in medians[1:]]
    return _row(name, target, *(f"{median:.2f} s" for median in medians), *ratios)


def _row(*cells: str) -> str:
    return "  ".join([cells[0].ljust(44), *(cell.rjust(13) for cell in cells[1:])])


def _measure(scenario: Scenario, engines: Sequence[Engine], work: Path, registry: str, runs: int) -> str:
    directory = Path(tempfile.mkdtemp(prefix="contexts-", dir=work))
    first = _context(BEGIN, directory / "begin", registry)
    contexts = {engine.name: _context(scenario, directory / engine.name, registry) for engine in engines}
    for engine in engines:
        for _ in range(max(scenario.warm_runs, 0 if scenario.cold else 1)):
            engine.build(scenario, contexts[engine.name], timed=False)
    times: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for run in range(runs):
        for engine in engines:
            scenario.before(contexts[engine.name], run)
            if scenario.cold:
                engine.forget()
                engine.build(BEGIN, first, timed=False)
            os.sync()
            started = time.monotonic()
            engine.build(scenario, contexts[engine.name], timed=True)
            times[engine.name].append(time.monotonic() - started)
    medians = [statistics.median(times[engine.name]) for engine in engines]
    return _timings(scenario.name, f"{scenario.target:.2f}", medians)


def _context(scenario: Scenario, directory: Path, registry: str) -> Path:
    scenario.prepare(directory)
    dockerfile = directory / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("FROM bench/", f"FROM {registry}/bench/"))
    return directory


if __name__ == "__main__":
    main()
