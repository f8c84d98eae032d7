"""Git repositories as users write them: `https://host/x.git#ref:subdir`, `git@host:x`, `ssh://…`, `git://…`.

Four transports exist: http, https, ssh (also in scp's form) and git. Whatever git or ssh could take for an option
or a command is refused here, before either sees it. What a query (`?tag=v1`) means is a frontend's business.
Facts: BuildKit's util/gitutil/git_url.go and util/sshutil/scpurl.go. Pure: nothing here runs git.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from buildengine.errors import UserError
from buildengine.values import dataclass
from llb import paths

TRANSPORTS = ("http", "https", "ssh", "git")

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_SCP = re.compile(r"([a-zA-Z0-9_-]+)@([a-zA-Z0-9.-]+):([^?#]*)")
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-fA-F]{1,64}")
# git-check-ref-format(1), rules 3 to 10, and no leading `-` or `+`, which git would take for something else.
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-+/.]|[/.]$|\.lock$|/\.|\.lock/|^@$")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitURL:
    """A repository and what to take from it. `remote` is for git; `host` has the port; `query` is as written."""

    scheme: str
    host: str
    path: str
    remote: str
    ref: str = ""
    subdir: str = ""
    query: str = ""

    @property
    def identity(self) -> str:
        """The same for one repository whatever the transport: host and cleaned path.

        >>> parse("git@example.org:me/app.git").identity
        'example.org/me/app.git'
        """
        return self.host + paths.clean("/" + self.path)


def parse(text: str) -> GitURL:
    """Raises UserError when `text` names none of the four transports, or a host or path that git must not see.

    >>> parse("https://example.org/app.git#v1:docs").subdir
    'docs'
    """
    address, _, fragment = text.partition("#")
    remote, _, query = address.partition("?")
    ref, _, subdir = fragment.partition(":")
    scheme, host, path, remote = _parts(text, remote)
    return GitURL(
        scheme=scheme,
        host=host,
        path=path,
        remote=remote,
        ref=ref,
        subdir=paths.resolve("/", subdir).lstrip("/"),
        query=query,
    )


def is_transport(text: str) -> bool:
    """Whether `text` says how to reach a repository, as a URL or in scp's form."""
    match = _SCHEME.match(text)
    return match[1].lower() in TRANSPORTS if match else _SCP.match(text) is not None


def is_commit(text: str) -> bool:
    """Whether `text` is a whole commit id, of SHA-1 or SHA-256."""
    return _COMMIT.fullmatch(text) is not None


def check_ref(ref: str) -> str:
    """`ref`, when it can be a branch, a tag, a full ref name or a commit. Raises UserError."""
    if len(ref) > 1024 or _BAD_REF.search(ref):
        raise UserError(f"invalid git ref {ref[:200]!r}", hint="a ref is a branch, a tag, refs/... or a commit id")
    return ref


def check_checksum(checksum: str) -> str:
    """`checksum` in lower case, when it can begin a commit id. Raises UserError."""
    if not _HEX.fullmatch(checksum):
        raise UserError(f"invalid git checksum {checksum[:100]!r}", hint="it is a commit id, or how one begins, in hex")
    return checksum.lower()


def redacted(text: str) -> str:
    """`text` without the user information of URLs in it.

    >>> redacted("https://me:secret@example.org/app.git")
    'https://example.org/app.git'
    """
    return re.sub(r"(://)[^/@\s]*@", r"\1", text)


def _parts(text: str, remote: str) -> tuple[str, str, str, str]:
    """Scheme, host, path and the remote as git gets it."""
    if _SCHEME.match(remote) is None:
        match = _SCP.fullmatch(remote)
        if match is None or any(part.startswith("-") for part in match.groups()) or not _is_sane(match[3]):
            raise _invalid(text)
        return "ssh", match[2], match[3], remote
    try:
        url = urlsplit(remote)
    except ValueError:
        raise _invalid(text) from None
    user, _, host = url.netloc.rpartition("@")
    scheme = url.scheme.lower()
    if scheme not in TRANSPORTS or not _HOST.fullmatch(host) or user.startswith("-") or not _is_sane(remote):
        raise _invalid(text)
    return scheme, host, url.path, scheme + remote[len(scheme) :]


def _is_sane(text: str) -> bool:
    return bool(text) and text.isprintable() and " " not in text


def _invalid(text: str) -> UserError:
    return UserError(
        f"invalid git address {redacted(text)[:300]!r}",
        hint="a repository is an http, https, ssh or git URL, or user@host:path",
    )
