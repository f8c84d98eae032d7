"""A step that says when it runs and goes on only when a test lets it: no test has to guess how long anything takes.

    FROM base
    RUN <gate.step>          # prints `at NAME`, then waits
                             # test: await job.until_output("at NAME"); gate.open()

It works through a cache mount, which the test finds in the state directory. Each run of the step leaves a line there.
"""

from __future__ import annotations

import os

from tests.builds import Store


class Gate:
    def __init__(self, store: Store, name: str = "gate") -> None:
        self._mounts = store.root / "cachemounts"
        self._name = name

    @property
    def said(self) -> str:
        """What the step prints when it has come to the gate."""
        return f"at {self._name}"

    @property
    def run(self) -> str:
        """The instruction. Its result is an empty file with the name of the gate."""
        name, door = self._name, f"/gates/{self._name}.door"
        return (
            f"RUN --mount=type=cache,id=gates,target=/gates echo run >> /gates/{name}.runs; "
            f"[ -p {door} ] || mkfifo {door}; touch /{name}; echo at {name}; cat {door}"
        )

    @property
    def runs(self) -> int:
        """How often the step has begun."""
        return sum(path.read_text().count("run\n") for path in self._mounts.glob(f"*/{self._name}.runs"))

    def put(self, name: str) -> None:
        """Make a file that the step sees as `/gates/NAME`."""
        (door,) = self._mounts.glob(f"*/{self._name}.door")
        (door.parent / name).touch()

    def open(self) -> None:
        """Let the step that has come to the gate through."""
        (door,) = self._mounts.glob(f"*/{self._name}.door")
        os.close(os.open(door, os.O_WRONLY))  # until a reader is there, then that one reads the end
