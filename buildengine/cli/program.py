"""The process `pybuild`: as `main`, but Ctrl-C while Python still loads it, or leaves already, is no traceback.

There is nothing to tidy up then, so the signal does what it does to any program. Imports next to nothing.
"""

from __future__ import annotations

import signal


def main() -> int:
    """Run the program; its exit status."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # otherwise ignored: a background job of a shell
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from buildengine.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    try:
        return run()
    finally:
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
