"""git as a program that obeys only us: environment and configuration built, transports named, secrets kept out.

What a hostile repository or server could reach through git is shut here, for every command alike:

    configuration  no system, global or XDG file; the repositories it runs on were made by us
    transports     GIT_ALLOW_PROTOCOL: http, https, ssh and git; no ext::, fd::, file:// or paths
    programs       hooks, fsmonitor, credential helpers, ASKPASS, pagers and background maintenance are off;
                   filters need configuration, which there is not
    arguments      remotes and refs come after `--` or were checked by `llb.giturl`
    secrets        travel as GIT_CONFIG_VALUE_n in the environment: not in argv, not in a file, not in an error
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from urllib.parse import unquote, urlsplit

from buildengine.errors import GitError
from buildengine.programs import Completed, run
from buildengine.values import dataclass
from llb import giturl
from worker.session import SecretBytes

Log = Callable[[bytes], object]
"""Takes what git writes to standard error, secrets removed."""

_NOWHERE = "/nonexistent"
_PASSED_ON = ("PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
_CONFIG = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.autocrlf", "false"),
    ("core.symlinks", "true"),
    ("credential.helper", ""),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
    ("http.lowSpeedLimit", "1"),  # a server that sends nothing for a minute is left
    ("http.lowSpeedTime", "60"),
)
# Of git, its http transport and ssh; what one must not see is not found.
_DENIED = re.compile(
    r"Authentication failed|could not read Username|error: 40[134]|[Nn]ot found|Permission denied|access rights"
)
_ERROR_LINE = re.compile(r"^(?:fatal|error|remote|ssh|warning|Host key|Permission)", re.IGNORECASE)
_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A repository to talk to: its URL without secrets, and what proves who we are.

    `authorization` is the value of an Authorization header, sent to URLs that begin with `scope`.
    """

    url: str
    scope: str = ""
    authorization: SecretBytes | None = field(default=None, compare=False)
    ssh_socket: str = ""
    known_hosts_file: str = ""

    def reaches(self, url: str) -> bool:
        """Whether the authorization is meant for `url` as well."""
        return self.authorization is not None and url.startswith(self.scope)


def remote(url: str, *, authorization: SecretBytes | None = None, ssh_socket: str = "") -> Remote:
    """The remote at `url`; a user name and password in it become its authorization."""
    parts = urlsplit(url) if url.startswith(("http://", "https://")) else None
    if parts is not None and "@" in parts.netloc:
        user, _, host = parts.netloc.rpartition("@")
        url = url.replace(parts.netloc, host, 1)
        authorization = authorization or basic(unquote(user).encode())
    return Remote(url=url, scope=_scope(url), authorization=authorization, ssh_socket=ssh_socket)


def basic(pair: bytes) -> SecretBytes:
    """`user:password` as the value of an Authorization header."""
    return SecretBytes(b"Basic " + base64.b64encode(pair))


def _scope(url: str) -> str:
    """GitHub's tokens are good for all of it, submodules included; everywhere else only for the repository."""
    for prefix in ("https://github.com/", "https://www.github.com/"):
        if url.startswith(prefix):
            return prefix
    return url


class Git:
    """Runs git commands. `environment` is where PATH and the proxy variables are taken from."""

    def __init__(self, environment: Mapping[str, str], log: Log = lambda data: None) -> None:
        self._passed_on = {name: value for name, value in environment.items() if name.upper() in _PASSED_ON and value}
        self._log = log

    async def run(
        self,
        *arguments: str,
        directory: str | None = None,
        remote: Remote | None = None,
        cwd: str = "/",
        input: bytes = b"",
        variables: Mapping[str, str] | None = None,
        limit: int = 64 << 20,
    ) -> bytes:
        """The standard output of `git arguments` on the repository `directory`. Raises GitError, HostError."""
        completed = await self.attempt(
            *arguments,
            directory=directory,
            remote=remote,
            cwd=cwd,
            input=input,
            variables=variables,
            limit=limit,
        )
        if completed.code != 0:
            raise failure(arguments, completed, remote)
        return completed.stdout

    async def attempt(
        self,
        *arguments: str,
        directory: str | None = None,
        remote: Remote | None = None,
        cwd: str = "/",
        input: bytes = b"",
        variables: Mapping[str, str] | None = None,
        limit: int = 64 << 20,
    ) -> Completed:
        """As `run`, for a command whose failure is an answer."""
        env = {
            **self._environment(remote),
            "GIT_DIR": directory or _NOWHERE,
            **(variables or {}),
        }
        secret = remote.authorization if remote else None
        return await run(
            ["git", *arguments],
            env=env,
            cwd=cwd,
            input=input,
            limit=limit,
            on_stderr=lambda data: self._log(without_secrets(data, secret)),
        )

    def _environment(self, remote: Remote | None) -> dict[str, str]:
        config = list(_CONFIG)
        if remote is not None and remote.authorization is not None:
            header = "Authorization: " + remote.authorization.reveal().decode("utf-8", "surrogateescape")
            config.append((f"http.{remote.scope}.extraHeader", header))
            # git sends the header on to wherever the first answer redirects (http.c, http_get_default_headers)
            config.append(("http.followRedirects", "false"))
        env = {
            **self._passed_on,
            "HOME": _NOWHERE,
            "XDG_CONFIG_HOME": _NOWHERE,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": ":".join(giturl.TRANSPORTS),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_SSH_COMMAND": _ssh_command(remote),
            "GIT_SSH_VARIANT": "ssh",
            "GIT_CONFIG_COUNT": str(len(config)),
            "LC_ALL": "C",
        }
        if remote is not None and remote.ssh_socket:
            env["SSH_AUTH_SOCK"] = remote.ssh_socket
        for number, (key, value) in enumerate(config):
            env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return env


def failure(arguments: Sequence[str], completed: Completed, remote: Remote | None) -> GitError:
    """What git said when it failed, for a person: the lines that matter, without secrets."""
    text = without_secrets(completed.stderr, remote.authorization if remote else None).decode("utf-8", "replace")
    lines = ["".join(c for c in line if c.isprintable()).strip() for line in text.splitlines()]
    said = [line for line in lines if _ERROR_LINE.match(line)] or [line for line in lines if line]
    reason = "; ".join(said[-_MAX_SHOWN:])[:1000] or f"exit code {completed.code}"
    subject = f"git {arguments[0]}" + (f" of {giturl.redacted(remote.url)}" if remote else "")
    error = GitError(f"{subject} failed: {reason}", hint=_hint(text))
    error.is_clients = _DENIED.search(text) is not None
    return error


def without_secrets(data: bytes, secret: SecretBytes | None) -> bytes:
    """`data` with the user information of URLs, and `secret` in every form it travels in, replaced."""
    if secret is not None:
        value = secret.reveal()
        for part in filter(None, (value, *value.split()[1:])):
            data = data.replace(part, b"***")
    return re.sub(rb"(://)[^/@\s]+@", rb"\1***@", data)


def _hint(text: str) -> str | None:
    if "Authentication failed" in text or "could not read Username" in text or "HTTP 403" in text:
        return "give a token for it: --secret id=GIT_AUTH_TOKEN,env=..."
    if "Host key verification failed" in text or "Permission denied (publickey" in text:
        return "ssh remotes need a forwarded agent with a key that the server knows"
    if re.search(r"returned error: 30\d", text):
        return "it redirects, and a secret goes nowhere but where it was meant for: write the address that it leads to"
    if "transport" in text and "not allowed" in text:
        return "git sources use http, https, ssh or git URLs"
    return None


def _ssh_command(remote: Remote | None) -> str:
    """As BuildKit: known hosts when the client sent them, else trust (git.knownsshhosts)."""
    # No key of root's own: whoever writes the address of a repository must not act as root of this host.
    command = "ssh -F /dev/null -o IdentityFile=none -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=30"
    if remote is not None and remote.known_hosts_file:
        # Quoted twice: for the shell that git starts, and for ssh, which splits the list of files at blanks.
        known_hosts = shlex.quote(f'UserKnownHostsFile="{remote.known_hosts_file}"')
        return f"{command} -o {known_hosts} -o GlobalKnownHostsFile=/dev/null"
    return f"{command} -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no"
