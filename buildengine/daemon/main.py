"""`pybuildd`: the daemon. The build API is not served yet; the program says so instead of pretending."""

from __future__ import annotations

import sys

from buildengine import __version__
from buildengine.errors import HostError


def main() -> int:
    """Answer --version and --help; anything else is refused with the exit status of a HostError."""
    arguments = sys.argv[1:]
    if "--version" in arguments:
        print(f"pybuildd {__version__}")
        return 0
    if "--help" in arguments or "-h" in arguments:
        print("usage: pybuildd [--version]\n\nThe gRPC build API is not served yet: build with `pybuild build`.")
        return 0
    print("error: pybuildd does not serve the build API yet", file=sys.stderr)
    print("hint: no daemon is needed: `pybuild build` runs the engine itself", file=sys.stderr)
    return HostError.exit_status


if __name__ == "__main__":
    sys.exit(main())
