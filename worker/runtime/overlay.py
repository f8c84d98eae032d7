"""One layer stack as one detached mount: `assemble(...)` gives a descriptor, and closing it dissolves the mount.

Used by PID 1 of a step for its root and tree mounts, and by `worker/mounts/tree.py` in the engine. Standard
library only. It is told paths and mounts them; which layers make a tree is the cache's business.
"""

from __future__ import annotations

import errno
import os

from worker.runtime import syscalls, targets

MAX_LAYERS = 500  # OVL_MAX_STACK, fs/overlayfs/params.h

# Said aloud, because a distribution may build other defaults in, and a layer is only portable without them.
# nofollow instead of off: a redirect xattr that came with a hostile layer is not followed either.
_OPTIONS: list[tuple[str, str | None]] = [("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off")]
_STRING_LIMIT = 255  # fsconfig(2) takes strings of at most 256 bytes
_PAGE = 4096  # and mount(2) all its options in one page


class TooManyLayers(Exception):
    """More layers than an overlay of this kernel can have. The tree has to be flattened first."""


class Overlay:
    """How this process makes overlays: with the calls that the kernel has, or those that a test leaves it."""

    def __init__(self) -> None:
        self.lowerdir_append = True  # fsconfig `lowerdir+`, Linux 6.7
        self.clone_detached = True  # open_tree of a mount that is attached nowhere, Linux 6.15

    def assemble(
        self, lowers: list[str], upper: str | None, work: str | None, *, attach: str, attributes: int = 0
    ) -> int:
        """The tree as a detached mount. Without `upper` it is read-only.

        `attach` is a directory of this process's own mount namespace, over which a fallback may mount for a moment.
        """
        if len(lowers) > MAX_LAYERS:
            raise TooManyLayers(len(lowers))
        if not upper:
            attributes |= syscalls.ATTR_RDONLY
        layers = [upper, *lowers] if upper else lowers
        if not layers:
            return syscalls.new_filesystem("tmpfs", (("size", "4k"), ("mode", "755")), attributes)
        if len(layers) > 1:
            return self._overlay(lowers, (upper, work or "") if upper else None, attach, attributes)
        fd = syscalls.clone_mount(syscalls.AT_FDCWD, layers[0])
        syscalls.restrict_mount(fd, attributes)
        return fd

    def _overlay(self, lowers: list[str], upper: tuple[str, str] | None, attach: str, attributes: int) -> int:
        options = list(_OPTIONS)
        if upper:
            # volatile: no sync of the whole file system at unmount. Durability is the store's (one syncfs a batch).
            options += [("upperdir", upper[0]), ("workdir", upper[1]), ("volatile", None)]
        if not self.lowerdir_append:
            return _mounted_by_mount(lowers, options, attach, attributes)
        try:
            return _mounted_by_fsconfig(lowers, options, attributes)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            if upper and _forget_volatile(upper[1]):
                return _mounted_by_fsconfig(lowers, options, attributes)
            fd = _mounted_by_mount(lowers, options, attach, attributes)
            self.lowerdir_append = False  # only now known: EINVAL can also mean a layer that no overlay can have
            return fd

    def part(self, tree: int, path: str, *, attach: str) -> int:
        """The file or directory `path` of a detached tree as a detached mount. Closes `tree`.

        Raises Refused when there is no such place in the tree.
        """
        held = [tree]
        try:
            held.append(_enter(tree, path))
            if self.clone_detached:
                try:
                    return syscalls.clone_mount(held[-1])
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self.clone_detached = False
            _attach(tree, attach)
            try:
                return syscalls.clone_mount(held[-1])
            finally:
                syscalls.unmount(attach)
        finally:
            for fd in held:
                os.close(fd)


def _enter(tree: int, path: str) -> int:
    try:
        return syscalls.open_beneath(tree, path, os.O_PATH)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            raise
        why = targets.obstacle(tree, path, where="in the source of the mount")
        hint = "no link leads out of the source of a mount: give as its source what the link should lead to"
        raise targets.Refused(why or str(error.strerror), hint=hint if "symbolic link" in why else "") from None


def _forget_volatile(work: str) -> bool:
    """Whether an earlier mount left its mark, which is now gone.

    The kernel refuses such a work directory since the layer may not be on disk. That is the store's to know.
    """
    try:
        os.unlink(f"{work}/work/incompat/volatile/dirty")
        os.rmdir(f"{work}/work/incompat/volatile")
        os.rmdir(f"{work}/work/incompat")
    except OSError:
        return False
    return True


def _attach(mounted: int, directory: str) -> None:
    target = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.attach(mounted, target)
    finally:
        os.close(target)


def _mounted_by_fsconfig(lowers: list[str], options: list[tuple[str, str | None]], attributes: int) -> int:
    held: list[int] = []

    def short(path: str) -> str:
        if len(os.fsencode(path)) <= _STRING_LIMIT:
            return path
        held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{held[-1]}"

    try:
        layers: list[tuple[str, str | None]] = [("lowerdir+", short(path)) for path in lowers]
        rest = [(key, value and short(value)) for key, value in options]
        return syscalls.new_filesystem("overlay", [*layers, *rest], attributes)
    finally:
        for fd in held:
            os.close(fd)


def _mounted_by_mount(lowers: list[str], options: list[tuple[str, str | None]], attach: str, attributes: int) -> int:
    """mount(2) takes one page of options: directories are named by descriptor, about 220 layers fit."""
    held: list[int] = []

    def short(path: str) -> str:
        held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{held[-1]}"

    try:
        words = ["lowerdir=" + ":".join(short(path) for path in lowers)]
        for key, value in options:
            directory = key in ("upperdir", "workdir")
            words.append(key if value is None else f"{key}={short(value) if directory else value}")
        text = ",".join(words)
        if len(text) >= _PAGE:
            raise TooManyLayers(len(lowers))
        syscalls.mount("overlay", attach, "overlay", attributes, text)
        try:
            return syscalls.clone_mount(syscalls.AT_FDCWD, attach)
        finally:
            syscalls.unmount(attach)
    finally:
        for fd in held:
            os.close(fd)
