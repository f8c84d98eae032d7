"""Chains of file actions, to be applied by `State.file`: each one sees what the ones before it did.

>>> chain = mkdir("/app", parents=True).mkfile("/app/motd", b"hello")
>>> [type(step.action).__name__ for step in chain.steps]
['MkDir', 'MkFile']
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, Unpack

from buildengine.values import dataclass
from llb import paths
from llb.ops import Action, CopyAction, MkDir, MkFile, NamedUser, Owner, Remove, Symlink
from llb.vertices import Step

if TYPE_CHECKING:
    from llb.state import State

Who = str | Owner | None
KEEP_TIME = -1


class CopyOptions(TypedDict, total=False):
    """How a copy is made."""

    owner: Who  # see Actions
    mode: int | str | None  # a number, or text as chmod(1) takes it; None keeps modes
    timestamp: int
    follow_symlink: bool  # `src` may be a link to what is meant
    contents: bool  # a directory stands for its entries
    unpack: bool  # an archive is unpacked instead, as ADD does
    parents: bool  # what is missing above `dest` is made
    wildcard: bool  # `src` is a pattern
    allow_empty_wildcard: bool  # ... that may match nothing
    include: Sequence[str]  # only these, patterns as in .dockerignore
    exclude: Sequence[str]  # not these
    required: Sequence[str]  # what `include` must have matched
    replace_existing: bool  # also where a file of another type is in the way


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """One or more actions. Relative paths start at the directory of the state that they are applied to.

    `owner` is `user[:group]` by name or number, names are looked up in that state's tree; without it, files are
    root's and copies keep theirs. `timestamp` is in nanoseconds since the epoch.
    """

    steps: tuple[Step, ...] = ()

    def copy(self, source: State, src: str, dest: str, **options: Unpack[CopyOptions]) -> Actions:
        """`src` of `source` to `dest`. A final `/` of `dest` says that it is a directory."""
        mode = options.get("mode")
        action = CopyAction(
            src=paths.resolve(source.cwd, src),
            dest=dest,
            owner=_owner(options.get("owner")),
            mode=mode if isinstance(mode, int) else 0 if mode else -1,
            mode_str=mode if isinstance(mode, str) else "",
            follow_symlink=options.get("follow_symlink", False),
            dir_copy_contents=options.get("contents", False),
            attempt_unpack=options.get("unpack", False),
            create_dest_path=options.get("parents", False),
            allow_wildcard=options.get("wildcard", False),
            allow_empty_wildcard=options.get("allow_empty_wildcard", False),
            timestamp=options.get("timestamp", KEEP_TIME),
            include_patterns=tuple(options.get("include", ())),
            exclude_patterns=tuple(options.get("exclude", ())),
            always_replace_existing_dest_paths=options.get("replace_existing", False),
            required_paths=tuple(options.get("required", ())),
        )
        return self._and(Step(action=action, source=source.output))

    def mkfile(
        self, path: str, data: bytes, *, mode: int = 0o644, owner: Who = None, timestamp: int = KEEP_TIME
    ) -> Actions:
        """A file with these bytes."""
        return self._and(Step(action=MkFile(path=path, mode=mode, data=data, owner=_owner(owner), timestamp=timestamp)))

    def mkdir(
        self,
        path: str,
        *,
        mode: int = 0o755,
        parents: bool = False,
        owner: Who = None,
        timestamp: int = KEEP_TIME,
    ) -> Actions:
        """A directory; with `parents` also those above it, and one that exists is no error."""
        return self._and(
            Step(action=MkDir(path=path, mode=mode, make_parents=parents, owner=_owner(owner), timestamp=timestamp))
        )

    def rm(self, path: str, *, missing_ok: bool = False, wildcard: bool = False) -> Actions:
        """Without a file or a directory tree; with `wildcard`, `path` is a pattern."""
        return self._and(Step(action=Remove(path=path, allow_not_found=missing_ok, allow_wildcard=wildcard)))

    def symlink(self, oldpath: str, newpath: str, *, owner: Who = None, timestamp: int = KEEP_TIME) -> Actions:
        """A link at `newpath` that says `oldpath`."""
        return self._and(
            Step(action=Symlink(oldpath=oldpath, newpath=newpath, owner=_owner(owner), timestamp=timestamp))
        )

    def _and(self, step: Step) -> Actions:
        return Actions(steps=(*self.steps, step))


_NONE = Actions()

# A chain starts with any of these.
copy = _NONE.copy
mkfile = _NONE.mkfile
mkdir = _NONE.mkdir
rm = _NONE.rm
symlink = _NONE.symlink


def resolved(step: Step, directory: str) -> Step:
    """The step with its destination made absolute, as seen from `directory`."""
    return replace(step, action=_resolved_action(step.action, directory))


def _resolved_action(action: Action, directory: str) -> Action:
    match action:
        case CopyAction():
            return replace(action, dest=paths.destination(directory, action.dest))
        case Symlink():
            return replace(action, newpath=paths.resolve(directory, action.newpath))
        case _:
            return replace(action, path=paths.resolve(directory, action.path))


def named_owners(step: Step) -> tuple[str, ...]:
    """The users and groups that a step gives by name."""
    owner = None if isinstance(step.action, Remove) else step.action.owner
    if owner is None:
        return ()
    return tuple([who.name for who in (owner.user, owner.group) if isinstance(who, NamedUser)])


def _owner(who: Who) -> Owner | None:
    if not isinstance(who, str):
        return who
    user, colon, group = who.partition(":")
    return Owner(user=_id_or_name(user), group=_id_or_name(group) if colon else None)


def _id_or_name(text: str) -> int | NamedUser:
    if text in ("", "root"):
        return 0
    # Longer ones are no ids; whoever looks up the name says so. (int() refuses a text of 4300 digits and more.)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else NamedUser(name=text)
