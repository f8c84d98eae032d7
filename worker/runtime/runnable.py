"""Which platforms this host can run and how: gathers the facts for `emulation.how`. Takes about a millisecond."""

from __future__ import annotations

import os
import re
import shutil
import struct
from functools import cache
from pathlib import Path

from buildengine import platform as platforms
from buildengine.builder import RunnablePlatform
from buildengine.errors import HostError
from buildengine.platform import Platform, rank
from worker.runtime import binfmt, emulation
from worker.runtime.emulation import FORMATS, PLATFORMS, Facts, How, Registration

_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PT_INTERP = 3
# exit(0), by machine
_EXIT = {3: b"\x31\xdb\x8d\x43\x01\xcd\x80", 40: b"\x01\x70\xa0\xe3\x00\x00\xa0\xe3\x00\x00\x00\xef"}
_BASE = 0x10000


def choose(platform: Platform, *, directory: Path | None = None) -> How:
    """How a step for `platform` runs. `directory` has the emulators, if not the usual ones. Raises HostError."""
    local = platforms.local()
    if platform.architecture == local.architecture and platform.os == local.os:
        return How(kind="native")
    return emulation.how(platform, _facts(platform, local, str(directory) if directory else _DIRECTORIES))


def table(*, directory: Path | None = None, runtime: str = "builtin") -> list[RunnablePlatform]:
    """Every platform that we know of, with how it runs or why it does not, under the runtime of that name."""
    rows = []
    for platform in PLATFORMS:
        try:
            how = choose(platform, directory=directory)
            if how.emulator is not None and runtime in ("runc", "crun"):
                raise emulation.not_under(runtime, how.emulator)
            rows.append(RunnablePlatform(platform=platform, how=str(how)))
        except HostError as error:
            rows.append(RunnablePlatform(platform=platform, reason=error.message, hint=error.hint or ""))
    return rows


def _facts(platform: Platform, local: Platform, directories: str) -> Facts:
    form = FORMATS.get(platform.architecture)
    if form is None:
        return Facts(local=local, kernel=(0, 0))
    numbers = re.findall(r"\d+", os.uname().release)
    return Facts(
        local=local,
        kernel=(int(numbers[0]), int(numbers[1])),
        registrations=tuple(_registration(entry) for entry in binfmt.entries()),
        emulator=find_emulator(form.qemu, directories),
        compatible=rank(local, platform) is not None and _runs(form.machine),
    )


def _registration(entry: dict[str, str]) -> Registration:
    return Registration(
        interpreter=entry.get("interpreter", ""),
        flags=entry.get("flags", ""),
        offset=int(entry.get("offset", "0")),
        magic=bytes.fromhex(entry["magic"]),
        mask=bytes.fromhex(entry["mask"]),
    )


def find_emulator(qemu: str, directories: str) -> str:
    """The path of an emulator that needs no other file, or "". In some distributions the static one has no suffix."""
    for name in (f"qemu-{qemu}-static", f"qemu-{qemu}"):
        path = shutil.which(name, path=directories)
        if path is not None and _static(Path(path)):
            return os.path.realpath(path)
    return ""


def _static(program: Path) -> bool:
    """A 64-bit ELF file that names no dynamic loader: it would be looked up in the image."""
    with program.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:5] != b"\x7fELF\x02":
            return False
        order = "<" if head[5] == 1 else ">"
        (start,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
        file.seek(start)
        table = file.read(size * count)
    kinds = [struct.unpack_from(order + "I", table, number * size)[0] for number in range(count)]
    return _PT_INTERP not in kinds


@cache
def _runs(machine: int) -> bool:
    """Whether a 32-bit program for our processor's ancestor runs here: ask one that ends at once."""
    code = _EXIT.get(machine)
    if code is None:
        return False
    fd = os.memfd_create("probe", os.MFD_CLOEXEC)
    try:
        os.write(fd, program_32(machine, code))
        path = f"/proc/self/fd/{fd}"
        return os.waitpid(os.posix_spawn(path, [path], {}), 0)[1] == 0
    except OSError:  # exec format error
        return False
    finally:
        os.close(fd)


def program_32(machine: int, code: bytes) -> bytes:
    """A static little-endian ELF file of one segment, which begins with `code` (elf(5))."""
    size = 52 + 32 + len(code)
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, _BASE + 84, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x1000)
    return ident + header + segment + code
