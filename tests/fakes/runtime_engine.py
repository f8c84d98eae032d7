"""A program that runs one step and says when the step runs, so that a test can kill either.

    python -m tests.fakes.runtime_engine KIND BASE SCRATCH MARKER WHO

WHO: `root`, a shell with a daemon that ignores signals; `set-id`, a set-uid program that user 1000 starts;
`emulated`, the shell with its daemon on a base of arm64 programs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import trio

from buildengine.platform import parse
from tests.fakes.runtime_steps import PATH, Steps, upper
from worker.runtime import isolate, runnable
from worker.runtime.runtime import open_runtime


async def main(kind: Any, base: str, scratch: str, marker: str, who: str) -> None:
    steps = Steps(Path(base), Path(scratch))
    environment = (PATH, f"MARKER={marker}")
    if who == "set-id":
        spec = steps.spec("/sh", "-c", "echo ready; sleep 1000", env=environment, uid=1000, gid=1000)
        program = upper(spec) / "sh"
        program.write_bytes((steps.base / "bin/busybox").read_bytes())
        os.chmod(program, 0o4755)
    else:
        daemons = "setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000') &"
        script = f"trap '' HUP INT TERM; {daemons} echo ready; sleep 1000"
        emulator = runnable.choose(parse("linux/arm64")).emulator if who == "emulated" else None
        spec = steps.spec("/bin/sh", "-c", script, env=environment, emulator=emulator)
    async with open_runtime(kind) as runtime:
        await runtime.run(spec, secrets={}, on_output=os.write)


if __name__ == "__main__":
    isolate.private_mounts()
    trio.run(main, *sys.argv[1:])
