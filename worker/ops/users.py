"""Who a step runs as: `user[:group]` resolved in the image's own /etc/passwd and /etc/group.

The two files belong to the image: they are read as bounded regular files and parsed as bytes. Nothing here
asks the host's name services. Rules: runc's and BuildKit's (executor/oci/user.go): a numeric id needs no
entry; without a group the passwd entry's group counts, and the supplementary groups are those that list the
user's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from buildengine.errors import UserError
from buildengine.ids import LARGEST_ID
from buildengine.inroot import read_regular
from buildengine.values import dataclass

_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`groups` are the supplementary ones."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"

    @property
    def all_groups(self) -> tuple[int, ...]:
        """With its own group among them: a file that excludes the group excludes the process (CVE-2023-25173)."""
        return self.groups if self.gid in self.groups else (self.gid, *self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: str
    id: int
    gid: int
    home: str
    members: tuple[str, ...]


def _read(root: int, path: str) -> Iterator[list[str]]:
    try:
        data = read_regular(root, path, limit=_LIMIT)
    except OSError:
        return
    except UserError as error:
        raise UserError(
            f"the image's {error.message}, so no user can be looked up in it", hint="give it a regular file there"
        ) from None
    for line in data.decode("utf-8", "replace").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.split(":")


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) < 20):  # int() refuses thousands of digits
        return None
    return int(text) if int(text) <= LARGEST_ID else None


def _users(root: int) -> Iterator[_Entry]:
    for fields in _read(root, "/etc/passwd"):
        if len(fields) >= 4 and (uid := _number(fields[2])) is not None:
            home = fields[5] if len(fields) > 5 and fields[5] and "\0" not in fields[5] else "/"
            yield _Entry(name=fields[0], id=uid, gid=_number(fields[3]) or 0, home=home, members=())


def _groups(root: int) -> Iterator[_Entry]:
    for fields in _read(root, "/etc/group"):
        if len(fields) >= 3 and (gid := _number(fields[2])) is not None:
            members = tuple(m for m in fields[3].split(",") if m) if len(fields) > 3 else ()
            yield _Entry(name=fields[0], id=gid, gid=gid, home="", members=members)


def _id(text: str, kind: str) -> int | None:
    number = _number(text)
    if number is None and text.lstrip("-").isdigit():
        raise UserError(f"{kind} id {text} is out of range", hint=f"ids go from 0 to {LARGEST_ID}")
    return number


def find_account(root: int, name: str) -> tuple[int, int]:
    """The uid and gid that `name` (a name or digits) has in the tree at `root`. Raises UserError."""
    number = _id(name, "user")
    if number is not None:
        return number, number
    for user in _users(root):
        if user.name == name:
            return user.id, user.gid
    raise UserError(
        f"unable to find user {name}: no matching entry in passwd file", hint="create it, or use its number"
    )


def find_group(root: int, name: str) -> int:
    """The gid that `name` (a name or digits) has in the tree at `root`. Raises UserError."""
    number = _id(name, "group")
    if number is not None:
        return number
    for group in _groups(root):
        if group.name == name:
            return group.id
    raise UserError(
        f"unable to find group {name}: no matching entry in group file", hint="create it, or use its number"
    )


def resolve(root: int, spec: str) -> Identity:
    """The identity that `spec` (`""`, `user`, `uid`, `user:group`) names in the tree at `root`.

    When nobody is named it is root, also in an image whose files are of no use.
    """
    if not spec:
        with suppress(UserError):
            return resolve(root, "0")
        return Identity()
    user_text, _, group_text = spec.partition(":")
    user_text = user_text or "0"
    number = _id(user_text, "user")
    entry = next((u for u in _users(root) if (u.id == number if number is not None else u.name == user_text)), None)
    if entry is None:
        entry = _Entry(name="", id=find_account(root, user_text)[0], gid=0, home="/", members=())
    if group_text:
        return Identity(uid=entry.id, gid=find_group(root, group_text), home=entry.home)
    extra = tuple(g.id for g in _groups(root) if entry.name and entry.name in g.members)
    return Identity(uid=entry.id, gid=entry.gid, groups=extra, home=entry.home)
