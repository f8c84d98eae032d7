"""What PID 1 does to build its root, one function for each operation of `operations.py`.

Runs in the step's new namespaces, before pivot_root, so the host's paths are still there. Standard library
only. It decides nothing: the plan says what, and `Assembly` is the state that the actions share. A fault of the
image or of the user's mounts raises `targets.Refused`, anything else OSError.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import stat
import struct

from worker.runtime import syscalls, targets
from worker.runtime.assembly import INERT, ROOT, Assembly, new_devices
from worker.runtime.overlay import TooManyLayers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # include/uapi/linux/sockios.h, if.h


def root(a: Assembly, lowers: list[str], upper: str | None, work: str | None) -> None:
    a.root = _writable(a, lowers, upper, work)
    a.attach(a.root, ROOT)
    a.bare = syscalls.clone_mount(a.root)
    a.stubs = targets.Stubs(a.root)


def _writable(a: Assembly, lowers: list[str], upper: str | None, work: str | None) -> int:
    """The tree, writable: what is written to a tree without an upper directory goes to memory and vanishes."""
    if upper is None:
        throwaway = a.place()
        upper, work = throwaway + "/upper", throwaway + "/work"
        os.mkdir(upper, 0o755)
        os.mkdir(work)
        if lowers:  # the root directory of an overlay is the topmost one: it must look like the tree's
            top = os.stat(lowers[0])
            os.chown(upper, top.st_uid, top.st_gid)
            os.chmod(upper, stat.S_IMODE(top.st_mode))
    return _tree(a, lowers, upper, work)


def _tree(a: Assembly, lowers: list[str], upper: str | None, work: str | None) -> int:
    try:
        return a.overlay.assemble(lowers, upper, work, attach=a.place(), attributes=a.attributes)
    except TooManyLayers as error:
        message = f"{error} layers cannot be mounted in one tree on this kernel"
        raise OSError(errno.E2BIG, message, lowers[0]) from None


def mountpoint(a: Assembly, target: str) -> None:
    """A directory on which an OCI runtime will mount something."""
    os.close(a.target(target, directory=True, nofollow=True))


def tree(
    a: Assembly, target: str, lowers: list[str], upper: str | None, work: str | None, selector: str, readonly: bool
) -> None:
    mounted = _tree(a, lowers, upper, work) if readonly or upper else _writable(a, lowers, upper, work)
    if selector:
        try:
            mounted = a.overlay.part(mounted, selector, attach=a.place())
        except targets.Refused as error:
            raise targets.Refused(f"{selector} to be mounted at {target}: {error}", hint=error.hint) from None
    syscalls.restrict_mount(mounted, a.attributes | (syscalls.ATTR_RDONLY if readonly else 0))
    a.mount(mounted, target)


def bind(a: Assembly, target: str, source: str, readonly: bool) -> None:
    a.mount(new_bind(source, a.attributes | (syscalls.ATTR_RDONLY if readonly else 0)), target)


def filesystem(
    a: Assembly, target: str, fstype: str, options: tuple[tuple[str, str | None], ...], attributes: int, nofollow: bool
) -> None:
    a.mount(a.new(syscalls.new_filesystem, fstype, options, attributes), target, nofollow=nofollow)


def file(a: Assembly, target: str, contents: bytes, uid: int, gid: int, mode: int, attributes: int) -> None:
    """A read-only mount of a file in memory."""
    path = a.place(directory=False)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as written:
        written.write(contents)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    a.mount(new_bind(path, attributes | syscalls.ATTR_RDONLY), target)


def devices(
    a: Assembly,
    target: str,
    nodes: tuple[tuple[str, int, int, int], ...],
    links: tuple[tuple[str, str], ...],
    folders: tuple[str, ...],
) -> None:
    dev = a.new(new_devices, nodes, links, folders, a.mknod)
    inside = os.dup(dev)
    a.mount(dev, target, nofollow=True)
    for name, _major, _minor, _mode in nodes:
        if stat.S_ISREG(os.stat(name, dir_fd=inside).st_mode):
            node = syscalls.clone_mount(syscalls.AT_FDCWD, f"/dev/{name}")
            syscalls.restrict_mount(node, syscalls.ATTR_RDONLY)  # writable as a device; chmod and chown are refused
            over = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=inside)
            syscalls.attach(node, over)
            os.close(over)
            os.close(node)
    a.null = os.open("null", os.O_RDONLY | os.O_CLOEXEC, dir_fd=inside)
    os.close(inside)


def cgroup(a: Assembly, target: str, writable: bool) -> None:
    """The step's own control groups, one directory for each hierarchy of v1 or the one of v2."""
    attributes = INERT | (0 if writable else syscalls.ATTR_RDONLY)
    names = tuple(name for name, _ in a.cgroups if name)
    if names:
        a.mount(a.new(new_folders, names, attributes), target)
    for name, path in a.cgroups:
        a.mount(a.new(new_bind, path, attributes), f"{target}/{name}" if name else target)


def new_folders(names: tuple[str, ...], attributes: int) -> int:
    """A tmpfs with empty directories to mount on."""
    fd = syscalls.new_filesystem("tmpfs", (("mode", "755"), ("size", "4k")), attributes & ~syscalls.ATTR_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=fd)
    syscalls.restrict_mount(fd, attributes)
    return fd


def new_bind(path: str, attributes: int) -> int:
    fd = syscalls.clone_mount(syscalls.AT_FDCWD, path)
    syscalls.restrict_mount(fd, attributes)
    return fd


def mask(a: Assembly, paths: list[str]) -> None:
    """Hide files behind /dev/null and directories behind an empty read-only tmpfs, where they exist."""
    for target in _existing(a, paths):
        cover = syscalls.clone_mount(a.empty if stat.S_ISDIR(os.fstat(target).st_mode) else a.null)
        syscalls.attach(cover, target)
        os.close(cover)


def freeze(a: Assembly, paths: list[str]) -> None:
    """Make parts of /proc read-only by mounting each over itself."""
    for target in _existing(a, paths):
        part = syscalls.clone_mount(target)
        syscalls.restrict_mount(part, syscalls.ATTR_RDONLY)
        syscalls.attach(part, target)
        os.close(part)


def _existing(a: Assembly, paths: list[str]) -> Iterator[int]:
    """Those of the paths that there are, one after the other, open for as long as it is looked at."""
    for path in paths:
        try:
            target = syscalls.open_beneath(a.root, path, os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS)
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield target
        os.close(target)


def workdir(a: Assembly, path: str, uid: int, gid: int) -> None:
    """Make the working directory where the image has none, owned by the step's user."""

    def own(parent: int, _parent_path: str, name: str, _directory: bool, _before: os.stat_result) -> None:
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)

    try:
        fd = targets.make(a.root, path, directory=True, made=own)
    except targets.Refused as error:
        raise targets.Refused(f"working directory {error}") from None
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        raise targets.Refused(f"working directory {path} is not a directory")
    os.close(fd)


def readonly_root(a: Assembly) -> None:
    syscalls.restrict_mount(a.root, syscalls.ATTR_RDONLY)


def network(a: Assembly) -> None:
    """A network namespace with nothing but a loopback interface that is up."""
    a.forget()  # a sysfs shows the network devices of the namespace that made it
    if a.network >= 0:
        syscalls.setns(a.network, syscalls.CLONE_NEWNET)
    else:
        syscalls.unshare(syscalls.CLONE_NEWNET)
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(any_socket.fileno(), _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    any_socket.close()


def hostname(_a: Assembly, name: str) -> None:
    syscalls.set_hostname(name.encode())


EXECUTE: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        root,
        mountpoint,
        tree,
        bind,
        filesystem,
        file,
        devices,
        cgroup,
        mask,
        freeze,
        workdir,
        readonly_root,
        network,
        hostname,
    )
}


def perform(a: Assembly, kind: str, fields: dict[str, Any]) -> None:
    EXECUTE[kind](a, **fields)
