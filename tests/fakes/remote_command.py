"""`pybuild --addr` for a test: the program on a daemon of the test's own, and what it said.

with daemon(store.root, place) as running:
    ran = remote(running, store).run("build", context, status=1)
    assert "exit code: 3" in ran.error
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.builds import Built, Command, Store
from tests.fakes.daemon import Daemon


class Remote:
    """Commands that go to the daemon at `address`. `environment` is what they get, with no state directory in it."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self.address = address
        self._store = Store(Path("/nonexistent/root"), Path(environment["HOME"]))
        self._store.environment = {k: v for k, v in environment.items() if k != "PYBUILD_ROOT"}

    def start(self, *arguments: str | Path, **more: Any) -> Command:
        environment = {"PYBUILD_HOST": self.address, **(more.pop("environment", None) or {})}
        return self._store.start(*arguments, environment=environment, **more)

    def run(self, *arguments: str | Path, status: int = 0, **more: Any) -> Built:
        with self.start(*arguments, **more) as command:
            return command.wait(status=status)


def remote(running: Daemon, store: Store) -> Remote:
    return Remote(running.address.replace("unix:", "unix://"), store.environment)
