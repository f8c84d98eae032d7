"""Credentials as docker keeps them: in `config.json`, or where its credential helpers put them.

A helper for one registry wins over the general store, a store over passwords in the file; what a store does not know
is still looked for in the file. The file's content and the environment for helper programs are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping

from worker.registry.credhelper import CredentialHelper, Run, run_program
from worker.registry.dockerconfig import DockerConfig, key_of
from worker.session import Credential


class DockerCredentials:
    """`worker.session.Credentials` out of a docker configuration. `env` is the whole environment of helpers."""

    tokens: None = None

    def __init__(self, config: DockerConfig, *, env: Mapping[str, str], run: Run = run_program) -> None:
        """`run` runs a helper in another loop than trio's."""
        self._config = config
        self._env = env
        self._run = run
        self._known: dict[str, Credential | None] = {}

    async def get(self, host: str) -> Credential | None:
        """Credentials for a registry host (`docker.io` for Docker Hub). Raises RegistryError, HostError."""
        if host not in self._known:
            name = self._config.helper(host)
            found = await CredentialHelper(name, self._env, self._run).get(key_of(host)) if name else None
            self._known[host] = found or self._config.auths.get(host)
        return self._known[host]
