"""The process `pybuild-frontend`: what a frontend image of ours runs (`buildengine.client.frontendimage`)."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

_USAGE = """\
usage: pybuild-frontend [FRONTEND]

The process of a frontend image. FRONTEND is dockerfile.v0 (the default) or MODULE:ATTRIBUTE, a `build` in Python.
A build daemon starts it, with a connection as its standard input and output: it is of no use on a terminal.
"""


def main() -> NoReturn:
    arguments = sys.argv[1:] or ["dockerfile.v0"]
    if len(arguments) > 1 or arguments[0].startswith("-") or os.isatty(0):
        sys.stderr.write(_USAGE)
        sys.exit(2)
    from buildengine.client import frontendimage

    sys.exit(frontendimage.main(arguments[0], os.environ))
