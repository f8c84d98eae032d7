"""The process `pybuild`: as `main`, but Ctrl-C while Python still loads it, or leaves already, is no traceback.

There is nothing to tidy up then, so the signal does what it does to any program. When the command has ended the
process leaves at once: taking the interpreter apart would take another 40 ms. Imports next to nothing.
"""

from __future__ import annotations

import gc
import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the program, and end with its exit status."""
    # Modules, and thousands of vertices, all stay: looking for garbage among them is half the time of making them.
    gc.set_threshold(200_000, 20, 50)
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # otherwise ignored: a background job of a shell
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from buildengine.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    try:
        status = run()
    finally:
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    os._exit(status)  # every task, thread and process of the command has ended, and what it printed is written
