"""A git server on loopback: `git http-backend` behind the fake HTTP server, and `git daemon` on a plain socket.

    async with git_over_http(directory) as server:
        url = f"{server.url}/repo.git"

`make` builds repositories by plumbing, so that they can also hold what git's porcelain refuses to make.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from tests.fakes.http_server import Reply, Request, Server, serve

_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


class Repository:
    """A bare repository that tests write commits into."""

    def __init__(self, path: Path, *, sha256: bool = False) -> None:
        self.path = path
        self.git("init", "-q", "--bare", "-b", "main", *(("--object-format=sha256",) if sha256 else ()), str(path))
        self.git("config", "http.receivepack", "false")

    def git(self, *arguments: str, input: bytes = b"") -> str:
        env = {**_ENV, "GIT_DIR": str(self.path)}
        done = subprocess.run(["git", *arguments], env=env, input=input, capture_output=True, check=True)
        return done.stdout.decode().strip()

    def blob(self, data: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", input=data)

    def tree(self, entries: Mapping[str, bytes | tuple[str, str]]) -> str:
        """A tree of nested names; a value is a file's bytes, or (mode, object or link target)."""
        lines = []
        nested: dict[str, dict[str, bytes | tuple[str, str]]] = {}
        for name, value in entries.items():
            head, slash, rest = name.partition("/")
            if slash:
                nested.setdefault(head, {})[rest] = value
            elif isinstance(value, bytes):
                lines.append(f"100644 blob {self.blob(value)}\t{name}")
            else:
                mode, what = value
                kind = "commit" if mode == "160000" else "blob"
                target = what if mode == "160000" else self.blob(what.encode())
                lines.append(f"{mode} {kind} {target}\t{name}")
        lines += [f"040000 tree {self.tree(inner)}\t{name}" for name, inner in nested.items()]
        return self.git("mktree", "--missing", input="".join(line + "\n" for line in lines).encode())

    def commit(self, entries: Mapping[str, bytes | tuple[str, str]], *, ref: str = "refs/heads/main") -> str:
        commit = self.git("commit-tree", "-m", "message", self.tree(entries))
        if ref:
            self.git("update-ref", ref, commit)
        return commit


def make(path: Path, *, sha256: bool = False) -> Repository:
    return Repository(path, sha256=sha256)


@asynccontextmanager
async def git_over_http(directory: Path, *, login: str = "", protocol: bool = True) -> AsyncIterator[Server]:
    """Serves the repositories below `directory`; with `login` (`user:password`) only to who has it.

    Without `protocol` it speaks version 0, in which a server gives away only what its refs name.
    """
    async with serve(partial(_backend, directory, login, protocol)) as server:
        yield server


@asynccontextmanager
async def git_of_plain_files(directory: Path) -> AsyncIterator[Server]:
    """A web server that knows nothing of git; whoever commits has to `git update-server-info`."""

    def file(request: Request) -> Reply:
        path = directory / request.path.lstrip("/")
        return Reply(body=path.read_bytes()) if path.is_file() else Reply(status=404)

    async with serve(file) as server:
        yield server


async def _backend(directory: Path, login: str, protocol: bool, request: Request) -> Reply:
    wanted = "Basic " + base64.b64encode(login.encode()).decode()
    if login and request.headers.get("authorization", "") != wanted:
        return Reply(status=401, headers={"www-authenticate": 'Basic realm="git"'})
    env = {
        **_ENV,
        "GIT_PROJECT_ROOT": str(directory),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": request.method,
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        "GIT_PROTOCOL": request.headers.get("git-protocol", "") if protocol else "",
        "REMOTE_ADDR": "127.0.0.1",
    }
    done = await trio.run_process(
        ["git", "http-backend"], stdin=request.body, env=env, capture_stdout=True, capture_stderr=True, check=False
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    headers = {}
    for line in head.decode().splitlines():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    status = int(headers.pop("status", "200").split()[0])
    return Reply(status=status, headers=headers, body=body)


@asynccontextmanager
async def git_daemon(directory: Path) -> AsyncIterator[str]:
    """`git://` on loopback; yields host:port."""

    async def connection(stream: trio.SocketStream) -> None:
        async with stream:
            duplicate = os.dup(stream.socket.fileno())
            os.set_blocking(duplicate, True)
            try:
                await trio.run_process(
                    ["git", "daemon", "--inetd", "--export-all", f"--base-path={directory}"],
                    stdin=duplicate,
                    stdout=duplicate,
                    env=_ENV,
                    check=False,
                )
            finally:
                os.close(duplicate)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, connection, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()
