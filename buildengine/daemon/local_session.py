"""What a build in this very process may ask of its caller: the request's directories, secrets and sinks.

The other implementation of `worker.session` speaks the session tunnel; both pass the same contract test.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from buildengine.builder import BuildRequest, Export, SecretSource
from buildengine.errors import ContextError, UserError
from buildengine.limits import DISK, offload
from worker.session import Credential, Credentials, SecretBytes

_SECRET_LIMIT = 500 << 10  # as BuildKit's client: secrets are not a way to send files


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDirectories:
    paths: Mapping[str, Path]
    inline: Mapping[str, Mapping[str, bytes]]

    async def inline_files(self, name: str) -> Mapping[str, bytes]:
        return self.inline.get(name, {})

    async def local_path(self, name: str) -> str | None:
        path = self.paths.get(name)
        if path is None:
            return None
        if not path.is_dir():
            raise ContextError(f"{name}: {path} is not a directory", hint="give the path of a directory to build from")
        return str(path.absolute())


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSecrets:
    sources: Mapping[str, SecretSource]
    environment: Mapping[str, str]

    async def get(self, secret_id: str) -> SecretBytes | None:
        source = self.sources.get(secret_id)
        if source is None:
            return None
        if source.env is not None:
            value = self.environment.get(source.env)
            return None if value is None else SecretBytes(os.fsencode(value))
        return SecretBytes(await offload(_read_secret, secret_id, source.file or Path(secret_id), limiter=DISK))


def _read_secret(secret_id: str, path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UserError(f"secret {secret_id}: {path} is not a regular file")
            data = file.read(_SECRET_LIMIT + 1)
    except OSError as error:
        raise UserError(f"secret {secret_id}: cannot read {path}: {error.strerror}") from error
    if len(data) > _SECRET_LIMIT:
        raise UserError(f"secret {secret_id}: {path} is larger than {_SECRET_LIMIT // 1024} KiB")
    return data


class LocalSshAgents:
    """No agent is forwarded yet: `--ssh` comes with the issue that asks for it."""

    async def open(self, agent_id: str) -> AbstractAsyncContextManager[str] | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSinks:
    exports: tuple[Export, ...]
    stdout: int

    def file(self, export_id: int) -> AbstractAsyncContextManager[int] | None:
        dest = self.exports[export_id].dest
        if dest is None:
            return None
        return _stream(self.stdout) if dest == "-" else _whole_file(Path(dest))

    def directory(self, export_id: int) -> str | None:
        return self.exports[export_id].dest


@asynccontextmanager
async def _stream(fd: int) -> AsyncIterator[int]:
    yield fd


@asynccontextmanager
async def _whole_file(path: Path) -> AsyncIterator[int]:
    """A new file that takes the place of `path` when all went well, and vanishes otherwise.

    It has no name (O_TMPFILE) until it is whole, so that not even SIGKILL leaves a part of it behind. What is
    there and no regular file (a FIFO, a device) is written in place.
    """
    directory = _open_for_export(path, path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        in_place = path.exists() and not path.is_file()
        if in_place:
            fd = _open_for_export(path, path, os.O_WRONLY)
        else:
            fd = _open_for_export(path, path.parent, os.O_TMPFILE | os.O_RDWR)
        try:
            yield fd
            if not in_place:
                _publish(fd, directory, path.name)
        finally:
            os.close(fd)
    finally:
        os.close(directory)


def _open_for_export(destination: Path, path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(
            f"cannot write {destination}: {error.strerror}", hint="the directory must exist and be writable"
        ) from error


def _publish(fd: int, directory: int, name: str) -> None:
    """Give the unnamed file its name; linkat(2) cannot replace, so an old file is replaced through a rename."""
    source = f"/proc/self/fd/{fd}"
    try:
        os.link(source, name, dst_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        temporary = f".{name[:200]}.{os.urandom(6).hex()}"
        os.link(source, temporary, dst_dir_fd=directory, follow_symlinks=True)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSession:
    """`worker.session.Session` for one request in this process."""

    id: str
    directories: LocalDirectories
    secrets: LocalSecrets
    ssh_agents: LocalSshAgents
    credentials: Credentials
    sinks: LocalSinks


class NoCredentials:
    async def get(self, host: str) -> Credential | None:
        return None


def _inline(request: BuildRequest) -> Mapping[str, Mapping[str, bytes]]:
    """A Dockerfile from standard input is a file of the directory `dockerfile`."""
    if request.inline_dockerfile is None:
        return {}
    return {"dockerfile": {request.options.get("filename", "Dockerfile"): request.inline_dockerfile}}


def local_session(
    request: BuildRequest, *, credentials: Credentials, environment: Mapping[str, str], stdout: int = 1
) -> LocalSession:
    return LocalSession(
        id=request.ref,
        directories=LocalDirectories(paths=request.directories, inline=_inline(request)),
        secrets=LocalSecrets(sources={s.id: s for s in request.secrets}, environment=environment),
        ssh_agents=LocalSshAgents(),
        credentials=credentials,
        sinks=LocalSinks(exports=request.exports, stdout=stdout),
    )
