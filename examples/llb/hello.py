"""A build without a Dockerfile: its graph is made in Python and shown, one operation a line.

    python examples/llb/hello.py          as JSON, the way `pybuild debug dump-llb` shows a definition
    python examples/llb/hello.py FILE     and the definition itself in FILE, which BuildKit's buildctl reads as well

A state is an immutable value: a file system, and what the next step on it inherits. Nothing is built here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from llb.definition import Definition
from llb.inspect import to_json
from llb.state import merge, mkdir, scratch, symlink


def hello() -> Definition:
    """A greeting and a link to it, made independently of each other and laid on top of each other."""
    greeting = scratch().file(mkdir("/srv").mkfile("/srv/hello.txt", b"hello\n"), name="write the greeting")
    link = scratch().file(symlink("srv/hello.txt", "/hello.txt"))
    return merge([greeting, link], name="gather").marshal()


def main(arguments: list[str]) -> None:
    definition = hello()
    for line in to_json(definition):
        print(line)
    if arguments:
        Path(arguments[0]).write_bytes(definition.to_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
