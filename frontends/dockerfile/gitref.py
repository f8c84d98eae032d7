"""What ADD, build contexts and named contexts take for a git repository, and the options in such an address.

`https://host/repo.git#ref:subdir`, `git@host:repo`, `ssh://...`, `git://...`, and the options `?ref= tag= branch=
subdir= checksum= commit= keep-git-dir= submodules=`. An http(s) URL is a repository only when it ends in `.git`.
Pure.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs

from buildengine.errors import UserError
from buildengine.values import dataclass
from frontends.dockerfile import notation
from frontends.dockerfile.words import quote
from llb import giturl


@dataclass(frozen=True, slots=True, kw_only=True)
class GitRef:
    """None: the address does not say."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None


def parse(address: str, *, short_github: bool = False) -> GitRef | None:
    """None when `address` is no repository; `github.com/owner/repo` is one only for contexts. Raises UserError."""
    if address.startswith(("./", "../")):
        return None
    if address.startswith("github.com/"):
        if not short_github:
            return None
        address = "https://" + address
        return _with_options(address, short=True)
    return _with_options(address, short=False)


def _with_options(address: str, *, short: bool) -> GitRef | None:
    try:
        url = giturl.parse(address)
    except UserError:
        return None
    if not short and url.scheme in ("http", "https") and not url.path.endswith(".git"):
        return None
    found = GitRef(remote=url.remote, ref=url.ref, subdir=url.subdir)
    tag = branch = ""
    for name, values in parse_qs(url.query, keep_blank_values=True, max_num_fields=100).items():
        if len(values) > 1:
            raise _bad(f"query {quote(name)} has multiple values")
        value = values[0]
        if not value and name not in ("submodules", "keep-git-dir"):
            raise _bad(f"query {quote(name)} has no value")
        match name:
            case "tag":
                tag = value
            case "branch":
                branch = value
            case _:
                found = _with_option(found, name, value)
    if tag and branch:
        raise _bad("branch conflicts with tag")
    if tag:
        found = _with_ref(found, "refs/tags/" + tag.removeprefix("refs/tags/"))
    return _with_ref(found, "refs/heads/" + branch.removeprefix("refs/heads/")) if branch else found


def _with_option(found: GitRef, name: str, value: str) -> GitRef:
    match name:
        case "ref":
            return _with_ref(found, value)
        case "subdir":
            if found.subdir not in ("", value):
                raise _bad(f"subdir conflicts: {quote(found.subdir)} vs {quote(value)}")
            return replace(found, subdir=value)
        case "checksum" | "commit":
            return replace(found, checksum=value)
        case "keep-git-dir":
            return replace(found, keep_git_dir=_boolean(name, value))
        case "submodules":
            return replace(found, submodules=_boolean(name, value))
    raise _bad(f"unexpected query {quote(name)}")


def _with_ref(found: GitRef, ref: str) -> GitRef:
    if found.ref not in ("", ref):
        raise _bad(f"ref conflicts: {quote(found.ref)} vs {quote(ref)}")
    return replace(found, ref=ref)


def _boolean(name: str, value: str) -> bool:
    try:
        return notation.boolean(value) if value else True
    except ValueError:
        raise _bad(f"invalid {name} value: {quote(value)}") from None


def _bad(problem: str) -> UserError:
    return UserError(problem, hint="options are ref, tag, branch, subdir, checksum, keep-git-dir, submodules")
