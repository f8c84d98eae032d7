"""Makes the entries of an archive below one open directory: what applying a layer and unpacking for ADD share.

Owners come before modes (chown(2) clears set-user-ID) and capabilities after owners (it clears them too); all that
directories carry is set at the end, so that filling them does not change it, and no directory has a default ACL or
set-group-ID bit while its files are made. Hard links keep the attributes of the file they link to.

This module must not know whiteouts, compression or where the archive comes from.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from buildengine.errors import SourceError
from buildengine.inroot import open_in_root
from worker.layers import xattrs
from worker.layers.failures import explain, explained
from worker.layers.filedata import DataCopier, write_all
from worker.layers.fileinfo import header_of, is_whiteout, kind_of
from worker.layers.lowers import Found, LowerStack
from worker.layers.names import WHITEOUT, Path, shown
from worker.layers.parents import Parent, Parents
from worker.layers.removal import remove
from worker.layers.tar import Kind, TarHeader
from worker.layers.tarreader import Data, TarReader
from worker.layers.umask import unusual_bits

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TYPES = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


class Extraction:
    """`feed` it the archive, then `finish`; `close` always.

    `fresh` says that the directory began empty and is nobody else's: then what a new file has by itself (our own
    owner, its mode under the umask) need not be set. `owner` replaces every owner in the archive. `left_out` is asked
    about each entry with `.wh.` in its name; what it says yes to is not made. `reshape` gives the entry that is made in
    the place of each, or None.
    """

    def __init__(
        self,
        root: int,
        lowers: LowerStack,
        *,
        fresh: bool,
        owner: tuple[int, int] | None = None,
        left_out: Callable[[TarHeader], bool] | None = None,
        reshape: Callable[[TarHeader], TarHeader | None] | None = None,
    ) -> None:
        self._root = root
        self._lowers = lowers
        self._fresh = fresh
        self._owner = owner
        self._left_out = left_out
        self._reshape = reshape
        self._usual_owner = (os.geteuid(), os.getegid()) if fresh else None
        self._unusual_bits = unusual_bits() if fresh else -1
        self._reader = TarReader()
        self._directories: dict[Path, TarHeader] = {}
        self._file = -1
        self._header = TarHeader(name=b"", kind=Kind.FILE)
        self.parents = Parents(root, lowers, self._directories.__setitem__)
        self._makers: dict[Kind, Callable[[Parent, bytes, TarHeader], None]] = {
            Kind.FILE: self._make_file,
            Kind.DIRECTORY: self._make_directory,
            Kind.SYMLINK: self._make_symlink,
            Kind.LINK: self._make_link,
            Kind.CHAR: self._make_node,
            Kind.BLOCK: self._make_node,
            Kind.FIFO: self._make_node,
        }

    def feed(self, chunk: bytes) -> None:
        """Make what is complete with this chunk of the archive."""
        name = b""
        try:
            for event in self._reader.feed(chunk):
                if isinstance(event, Data):
                    self._write(event)
                    continue
                name = event.name
                if self._reshape is not None:
                    changed = self._reshape(event)
                    if changed is None:
                        continue
                    event = changed
                if self._left_out is None or WHITEOUT not in event.name or not self._left_out(event):
                    self._make(event)
        except OSError as error:
            raise explain(error, f"cannot extract {shown(name)}", SourceError) from error

    def finish(self) -> None:
        """The archive has ended: give the directories what their entries say."""
        self._reader.close()
        with explained("cannot extract directories"):
            for path, header in self._directories.items():
                fd = open_in_root(self._root, b"/".join(path), _DIRECTORY, follow=False)
                try:
                    self._dress(fd, header)
                finally:
                    os.close(fd)

    def close(self) -> None:
        """Let go of all descriptors."""
        self.parents.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _make(self, header: TarHeader) -> None:
        """Make the entry; the data of a file comes later. The root's own entry is left out, as others do."""
        parent, base = self.parents.of(header.name)
        if base:
            self._header = header
            self._makers[header.kind](parent, base, header)

    def _write(self, piece: Data) -> None:
        """A piece of the file that came last; ignored when that was left out."""
        if self._file < 0:
            return
        if self._header.holes:
            os.lseek(self._file, piece.offset, os.SEEK_SET)
        write_all(self._file, piece.view)
        if piece.last:
            self._complete_file()

    # --- one method for each kind -----------------------------------------------------------------------

    def _make_file(self, parent: Parent, base: bytes, header: TarHeader) -> None:
        mode = header.mode & 0o777
        try:
            self._file = os.open(base, _CREATE, mode, dir_fd=parent.fd)
        except FileExistsError:
            self._clear(parent, base)
            self._file = os.open(base, _CREATE, mode, dir_fd=parent.fd)
        if header.size == header.holes:
            self._complete_file()

    def _complete_file(self) -> None:
        fd = self._file
        try:
            if self._header.holes:
                os.ftruncate(fd, self._header.size)
            self._dress(fd, self._header)
        finally:
            self._file = -1
            os.close(fd)

    def _dress(self, fd: int, header: TarHeader) -> None:
        owner = self._owner or (header.uid, header.gid)
        directory = header.kind is Kind.DIRECTORY
        if owner != self._usual_owner:
            os.fchown(fd, *owner)
        if directory or header.mode & self._unusual_bits:
            os.fchmod(fd, header.mode)
        if header.xattrs:
            xattrs.write(fd, header.xattrs)
        os.utime(fd, ns=(header.mtime, header.mtime))

    def _make_directory(self, parent: Parent, base: bytes, header: TarHeader) -> None:
        path = (*parent.path, base)
        try:
            os.mkdir(base, 0o700, dir_fd=parent.fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(base, dir_fd=parent.fd, follow_symlinks=False).st_mode):
                self._clear(parent, base)
                os.mkdir(base, 0o700, dir_fd=parent.fd)
                if self._fresh:  # what it replaces had hidden what the lower layers have there
                    self.parents.hide_lowers_of(parent.fd, path)
        self._directories[path] = header

    def _make_symlink(self, parent: Parent, base: bytes, header: TarHeader) -> None:
        self._place(parent, base, lambda: os.symlink(header.linkname, base, dir_fd=parent.fd))
        self._dress_by_name(parent, base, header)

    def _make_node(self, parent: Parent, base: bytes, header: TarHeader) -> None:
        if not (0 <= header.major < 1 << 12 and 0 <= header.minor < 1 << 20):
            raise SourceError(f"the archive has a device that cannot exist: {shown(header.name)}")
        if not self._fresh and header.kind is Kind.CHAR and (header.major, header.minor) == (0, 0):
            # On an overlay only overlayfs may make one: it is the mark of a deleted file.
            raise SourceError(f"the archive has a character device 0:0: {shown(header.name)}")
        device = os.makedev(header.major, header.minor)
        mode = _TYPES[header.kind] | header.mode & 0o777
        self._place(parent, base, lambda: os.mknod(base, mode, device, dir_fd=parent.fd))
        self._dress_by_name(parent, base, header)

    def _dress_by_name(self, parent: Parent, base: bytes, header: TarHeader) -> None:
        owner = self._owner or (header.uid, header.gid)
        if owner != self._usual_owner:
            os.chown(base, *owner, dir_fd=parent.fd, follow_symlinks=False)
        if header.kind is not Kind.SYMLINK:
            os.chmod(base, header.mode, dir_fd=parent.fd)
        os.utime(base, ns=(header.mtime, header.mtime), dir_fd=parent.fd, follow_symlinks=False)

    def _make_link(self, parent: Parent, base: bytes, header: TarHeader) -> None:
        source, target = self.parents.of(header.linkname)
        if not target or not self._bring_up(source, target):
            raise SourceError(
                f"the archive links {shown(header.name)} to {shown(header.linkname)}, which is not a file",
                hint="a hard link must come after the file that it links to",
            )
        try:
            os.link(target, base, src_dir_fd=source.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
        except FileExistsError:
            if _same_file(source, target, parent, base):
                return
            self._clear(parent, base)
            os.link(target, base, src_dir_fd=source.fd, dst_dir_fd=parent.fd, follow_symlinks=False)

    # --- what is there already --------------------------------------------------------------------------

    def _place(self, parent: Parent, base: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(parent, base)
            make()

    def _clear(self, parent: Parent, base: bytes) -> None:
        """Remove what a later entry replaces."""
        remove(parent.fd, base, lambda below: self._gone((*parent.path, *below)))
        self.parents.forget()

    def _gone(self, path: Path) -> None:
        self._directories.pop(path, None)
        self.parents.shown_again(path)

    def _bring_up(self, parent: Parent, base: bytes) -> bool:
        """Whether there is a file to link to, after copying it up when only a lower layer has it."""
        try:
            info = os.stat(base, dir_fd=parent.fd, follow_symlinks=False)
        except FileNotFoundError:
            path = (*parent.path, base)
            found = None if self.parents.is_hidden(path) else self._lowers.find(path)
        else:
            return not (stat.S_ISDIR(info.st_mode) or is_whiteout(info))
        if found is None:
            return False
        try:
            return self._copy_up(found, parent)
        finally:
            found.close()

    def _copy_up(self, found: Found, parent: Parent) -> bool:
        kind = kind_of(found.info)
        if kind is None or kind is Kind.DIRECTORY:
            return False
        if kind is not Kind.FILE:
            link = os.readlink(found.name, dir_fd=found.directory) if kind is Kind.SYMLINK else b""
            self._makers[kind](parent, found.name, header_of(found.name, found.info, linkname=link))
            return True
        source = os.open(found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.directory)
        try:
            header = header_of(found.name, found.info, attributes=xattrs.read(source))
            target = os.open(found.name, _CREATE, 0o600, dir_fd=parent.fd)
            try:
                DataCopier().copy(source, target, found.info)
                self._dress(target, header)
                os.fchmod(target, header.mode)
            finally:
                os.close(target)
        finally:
            os.close(source)
        return True


def _same_file(first: Parent, name: bytes, second: Parent, other: bytes) -> bool:
    one = os.stat(name, dir_fd=first.fd, follow_symlinks=False)
    two = os.stat(other, dir_fd=second.fd, follow_symlinks=False)
    return os.path.samestat(one, two)
