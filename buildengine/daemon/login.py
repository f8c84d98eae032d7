"""`buildengine.registries.Registries` in this process: logins, checked with the registry and kept where docker does.

Needs neither root nor an engine: nothing here knows the state directory.
"""

from __future__ import annotations

import re
from functools import partial

from buildengine.config import Config
from buildengine.daemon.running import run_to_end
from buildengine.errors import BuildError, UserError
from buildengine.limits import DISK, offload
from buildengine.reference import DOCKER_HUB
from buildengine.registries import Forgotten, Kept, Login
from worker.registry import configfile, dockerconfig
from worker.registry.configured import registry_config
from worker.registry.credhelper import CredentialHelper
from worker.registry.creds import DockerCredentials
from worker.registry.hosts import endpoints, tls
from worker.registry.login import log_in
from worker.registry.transport import open_transport
from worker.session import IDENTITY_TOKEN, Credential, SecretBytes

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[A-Fa-f0-9:]+\])(?::[0-9]{1,5})?")


class LocalRegistries:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._file = config.docker_config / "config.json"

    def known_user(self, server: str) -> str | None:
        return run_to_end(partial(self._known_user, _host(server)))

    def log_in(self, server: str, login: Login | None) -> Kept:
        return run_to_end(partial(self._log_in, _host(server), login))

    def log_out(self, server: str) -> Forgotten:
        return run_to_end(partial(self._log_out, _host(server), server))

    async def _known_user(self, host: str) -> str | None:
        known = await self._stored(host)
        return None if known is None or known.username == IDENTITY_TOKEN else known.username

    async def _stored(self, host: str) -> Credential | None:
        return await DockerCredentials(await self._docker(), env=self._config.environment).get(host)

    async def _docker(self) -> dockerconfig.DockerConfig:
        raw = await offload(configfile.read, self._file, limiter=DISK)
        return dockerconfig.parse_docker_config(raw, filename=str(self._file))

    async def _log_in(self, host: str, login: Login | None) -> Kept:
        docker = await self._docker()  # a file that cannot be read is no reason to send a password first
        credential = await self._stored(host) if login is None else _credential(login)
        if credential is None:
            raise UserError(f"there are no credentials for {host}", hint="give --username and --password-stdin")
        registries = registry_config(self._config.registries, self._config.environment)
        endpoint = endpoints(host, registries)[-1]  # mirrors come first, the registry itself last
        async with open_transport(lambda name: tls(name, registries), registries.proxies.choose) as transport:
            identity = await log_in(endpoint, credential, transport, user_agent=registries.user_agent)
        user = credential.username
        kept = credential if identity is None else Credential(username=IDENTITY_TOKEN, password=identity)
        is_new = await self._keep(docker.helper(host), host, kept, user)
        is_plain = is_new and not docker.helper(host) and identity is None
        return Kept(host=host, unencrypted=self._file if is_plain else None)

    async def _keep(self, helper: str, host: str, credential: Credential, user: str) -> bool:
        """Whether docker's file changed."""
        if helper:
            key = dockerconfig.key_of(host)
            await CredentialHelper(helper, self._config.environment).store(key, credential)
        in_file = None if helper else credential

        def change(raw: bytes) -> bytes:
            return dockerconfig.with_credential(raw, host, in_file, user=user, filename=str(self._file))

        return await offload(configfile.edit, self._file, change, limiter=DISK)

    async def _log_out(self, host: str, server: str) -> Forgotten:
        docker = await self._docker()
        keys = dict.fromkeys((*dockerconfig.keys_of(host), server))
        problems = []
        if name := docker.helper(host):
            helper = CredentialHelper(name, self._config.environment)
            for key in keys:
                try:
                    await helper.erase(key)
                except BuildError as error:
                    problems.append(error.message)

        def change(raw: bytes) -> bytes:
            return dockerconfig.without_credentials(raw, keys, filename=str(self._file))

        if self._file.exists():
            await offload(configfile.edit, self._file, change, limiter=DISK)
        # Helpers may fail for a spelling of old that they do not know; then another one was the one.
        return Forgotten(key=dockerconfig.key_of(host), problems=tuple(problems) if len(problems) == len(keys) else ())


def _host(server: str) -> str:
    """The registry that `server` means: a host, or a URL of one; "" is Docker Hub."""
    host = dockerconfig.host_of(server or DOCKER_HUB)
    if not _HOST.fullmatch(host):
        raise UserError(
            f"{server[:300]!r} is not a registry", hint="a registry is host[:port], e.g. ghcr.io or localhost:5000"
        )
    return host


def _credential(login: Login) -> Credential:
    if ":" in login.username:  # RFC 7617, section 2: the server would take the rest for the password
        raise UserError(f"the user name {login.username[:100]!r} has a colon in it")
    try:
        password = login.password.encode()
        login.username.encode()
    except UnicodeEncodeError:
        raise UserError("the user name and the password must be valid UTF-8") from None
    return Credential(username=login.username, password=SecretBytes(password))
