"""The frontends of an engine, by name, but for those that its configuration disables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from buildengine.builder import PYTHON
from buildengine.config import Config, FrontendConfig
from buildengine.errors import UserError
from frontends import catalog
from frontends.gateway import Frontend

if TYPE_CHECKING:  # who builds here needs none
    from buildengine.api.daemon import WorkerInfo
    from worker.runtime.runtime import Runtime

_USUAL = FrontendConfig()


class Catalog:
    """`worker` is what frontends outside of this process are told of the machine, `runtime` runs them."""

    def __init__(
        self, config: Config, worker: Callable[[], WorkerInfo], runtime: Callable[[], Awaitable[Runtime]]
    ) -> None:
        self._config = config
        self._worker = worker
        self._runtime = runtime

    def find(self, name: str) -> Frontend:
        """Raises UserError for one that there is not or that no build may use."""
        rules = self._config.frontends.get(name, _USUAL)
        if not rules.enabled:
            raise UserError(f"invalid frontend: {name}", hint="the configuration of the build daemon disables it")
        if name == "gateway.v0":
            from buildengine.daemon.frontend_images import ImageFrontend  # few builds run one

            return ImageFrontend(self._worker, self.find, rules.allowed_repositories)
        if name == PYTHON:
            return self._python()
        return catalog.find(name)

    def _python(self, entry_point: str = "") -> Frontend:
        from buildengine.daemon.pythonfrontend import Limits, PythonFrontend

        return PythonFrontend(self._runtime, self._worker, Limits.of(self._config.worker), entry_point=entry_point)
