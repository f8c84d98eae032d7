"""binfmt_misc: what the host has registered, and registering an emulator in the user namespace that we are in.

Since Linux 6.7 every user namespace can have an instance; one that has none uses its parent's. Standard library
only: the launcher's processes use it too. Nothing is attached anywhere: an instance is looked at and written to
through a detached mount, and what was registered lives as long as a mount of that instance, so as its descriptor.
Format of the files: Documentation/admin-guide/binfmt-misc.rst.
"""

from __future__ import annotations

import os

from worker.runtime import controlfiles, syscalls

_CONTROL = ("register", "status")


def mounted() -> int:
    """The instance of this process's user namespace, as a detached mount."""
    return syscalls.new_filesystem("binfmt_misc", (), syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV | syscalls.ATTR_NOEXEC)


def entries() -> list[dict[str, str]]:
    """Every enabled registration by magic: interpreter, flags, offset, magic, and mask if it has one.

    Empty where this kernel has no binfmt_misc, or nobody may mount it.
    """
    try:
        instance = mounted()
    except OSError:
        return []
    try:
        if _read(instance, "status").strip() != "enabled":
            return []
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=instance)
        try:
            names = [name for name in os.listdir(directory) if name not in _CONTROL]
        finally:
            os.close(directory)
        return [entry for entry in (_parse(_read(instance, name)) for name in names) if entry]
    finally:
        os.close(instance)


def _read(directory: int, name: str) -> str:
    try:
        return controlfiles.read(name, dir_fd=directory)
    except FileNotFoundError:  # unregistered just now
        return ""


def _parse(text: str) -> dict[str, str] | None:
    """`enabled`, then lines of a word and its value. None for what is disabled or goes by a file's extension."""
    state, _, rest = text.partition("\n")
    words = dict(line.rstrip().partition(" ")[::2] for line in rest.splitlines())
    if state != "enabled" or "magic" not in words:
        return None
    return {"mask": "", **{name.rstrip(":"): value for name, value in words.items()}}


def register(instance: int, name: str, magic: bytes, mask: bytes, program: str, flags: str = "POCF") -> None:
    """By default with C and O (set-id programs work), F (opened now) and P (argv[0] is kept)."""
    line = f":{name}:M:0:{_escaped(magic)}:{_escaped(mask)}:{program}:{flags}"
    try:
        controlfiles.write("register", line, dir_fd=instance)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"registering {name} with binfmt_misc") from None


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)
