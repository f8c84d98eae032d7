"""Which submodules a commit has and where they come from: decided from what git lists, fetched by `sources.git`.

`git submodule` believes a repository's .gitmodules in matters of paths, URLs and commands, and has been led astray
through each of them (CVE-2018-11235, CVE-2018-17456, CVE-2024-32002). Here a submodule is three checked values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from buildengine.errors import GitError, UserError
from buildengine.values import dataclass
from llb import giturl

_GITLINK = b"160000 commit "


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One submodule: where it lies below the checkout's top, the commit it is at, its remote."""

    path: str
    commit: str
    url: str


def submodule_links(modules: bytes, tree: bytes, subdir: str, parent: str) -> Iterator[Link]:
    """The submodules below `subdir` of the repository `parent`. Raises GitError.

    `modules` is .gitmodules as `git config -z --list` gives it, `tree` comes from `git ls-tree -r -z`.
    """
    urls = _urls_by_path(modules)
    prefix = f"{subdir}/" if subdir else ""
    for entry in tree.split(b"\0"):
        what, _, raw_path = entry.partition(b"\t")
        path = os.fsdecode(raw_path)
        if not what.startswith(_GITLINK) or not path.startswith(prefix):
            continue
        subject = f"{giturl.redacted(parent)}: the submodule at {path!r}"
        commit = what.removeprefix(_GITLINK).decode("ascii", "replace")
        if path not in urls or not giturl.is_commit(commit):
            raise GitError(f"{subject} has no URL in .gitmodules")
        try:
            url = giturl.parse(absolute_url(urls[path], parent)).remote
        except UserError as error:
            raise GitError(f"{subject}: {error.message}", hint=error.hint) from error
        yield Link(path=path.removeprefix(prefix), commit=commit, url=url)


def absolute_url(url: str, parent: str) -> str:
    """A submodule's URL; a relative one starts at its parent's remote (gitmodules(5), `submodule.<name>.url`)."""
    base, separator = parent.rstrip("/"), "/"
    if not url.startswith(("./", "../")):
        return url
    while url.startswith(("./", "../")):
        step, _, url = url.partition("/")
        if step == "..":
            separator = "/" if "/" in base else ":"
            base = base.rpartition(separator)[0]
    return base + separator + url


def _urls_by_path(modules: bytes) -> dict[str, str]:
    """Keys are `submodule.<name>.path` and `.url`, where a name may hold dots; key and value are on two lines."""
    fields: dict[str, dict[str, str]] = {}
    for entry in modules.split(b"\0"):
        key, newline, value = entry.partition(b"\n")
        name, _, kind = os.fsdecode(key).removeprefix("submodule.").rpartition(".")
        if newline:
            fields.setdefault(name, {})[kind] = os.fsdecode(value)
    return {entry["path"].rstrip("/"): entry["url"] for entry in fields.values() if "path" in entry and "url" in entry}
