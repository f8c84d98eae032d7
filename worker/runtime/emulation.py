"""How a step for a platform runs on this host: decided here, from facts that `runnable.py` gathers. Pure.

A program for another processor is run by an emulator that the kernel finds by the program's first bytes
(Documentation/admin-guide/binfmt-misc.rst). Flags that matter: F opens the emulator at registration, so that it need
not be in the image; P keeps argv[0], without which busybox does not know its name; C lets set-id programs work.
"""

from __future__ import annotations

import struct
from typing import Literal

from buildengine.errors import HostError
from buildengine.platform import Platform, rank
from buildengine.values import dataclass

PACKAGE = "qemu-user-static"
OWN_SINCE = (6, 7)  # Linux, from which on a user namespace can have registrations of its own
REGISTER_HINT = (
    f"or register qemu on the host: its package {PACKAGE} with binfmt-support, "
    "or `docker run --privileged --rm tonistiigi/binfmt --install all`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Programs of one architecture: qemu's name of it, and three fields of the ELF header (elf.h)."""

    qemu: str
    machine: int
    bits: Literal[32, 64] = 64
    big_endian: bool = False

    def header(self) -> bytes:
        """The first 20 bytes of a program that is not position-independent."""
        order = ">" if self.big_endian else "<"
        ident = b"\x7fELF" + bytes((self.bits // 32, 2 if self.big_endian else 1, 1)) + bytes(9)
        return ident + struct.pack(order + "HH", 2, self.machine)

    def mask(self) -> bytes:
        """Which bits of the header count: not the operating system's ABI, and ET_EXEC is as good as ET_DYN."""
        order = ">" if self.big_endian else "<"
        return b"\xff" * 7 + b"\0\0" + b"\xff" * 7 + struct.pack(order + "HH", 0xFFFE, 0xFFFF)


# by OCI architecture; numbers: EM_ in elf.h
FORMATS = {
    "amd64": Format(qemu="x86_64", machine=62),
    "386": Format(qemu="i386", machine=3, bits=32),
    "arm64": Format(qemu="aarch64", machine=183),
    "arm": Format(qemu="arm", machine=40, bits=32),
    "riscv64": Format(qemu="riscv64", machine=243),
    "ppc64le": Format(qemu="ppc64le", machine=21),
    "s390x": Format(qemu="s390x", machine=22, big_endian=True),
    "loong64": Format(qemu="loongarch64", machine=258),
    "mips64": Format(qemu="mips64", machine=8, big_endian=True),
    "mips64le": Format(qemu="mips64el", machine=8),
}

# What `pybuild debug platforms` tells about: all that BuildKit looks for (util/archutil).
PLATFORMS = tuple(
    Platform(os="linux", architecture=architecture, variant=variant)
    for architecture, variant in (
        ("amd64", ""), ("arm64", ""), ("arm", "v7"), ("arm", "v6"), ("386", ""), ("riscv64", ""), ("ppc64le", ""),
        ("s390x", ""), ("loong64", ""), ("mips64", ""), ("mips64le", ""),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One entry of the host's binfmt_misc."""

    interpreter: str
    flags: str
    offset: int
    magic: bytes
    mask: bytes

    def takes(self, header: bytes) -> bool:
        part = header[self.offset : self.offset + len(self.magic)]
        mask = self.mask or b"\xff" * len(self.magic)
        return len(part) == len(self.magic) > 0 and all(
            (a ^ b) & m == 0 for a, b, m in zip(part, self.magic, mask, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """This host, as far as one architecture is concerned.

    `emulator` is the path of a static qemu or "", `compatible` whether the processor and the kernel run its
    programs, although they are not the host's own.
    """

    local: Platform
    kernel: tuple[int, int]
    registrations: tuple[Registration, ...] = ()
    emulator: str = ""
    compatible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """What a step registers in a user namespace of its own."""

    name: str
    program: str
    magic: bytes
    mask: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """`own` has an emulator to register for the step; the two others need nothing."""

    kind: Literal["native", "host", "own"]
    emulator: Emulator | None = None

    def __str__(self) -> str:
        if self.emulator is not None:
            return f"emulated by {self.emulator.program} in the step"
        return "native" if self.kind == "native" else "registered on the host"


def how(platform: Platform, facts: Facts) -> How:
    """Raises HostError, with what to do, when steps for `platform` cannot run."""
    form = FORMATS.get(platform.architecture)
    if platform.os != facts.local.os or form is None:
        raise HostError(f"steps for {platform} cannot run on {facts.local}, and there is no emulator for them")
    if platform.architecture == facts.local.architecture:
        return How(kind="native")
    taking = [entry for entry in facts.registrations if entry.takes(form.header())]
    if taking and all("F" in entry.flags and "P" in entry.flags for entry in taking):
        return How(kind="host")
    if rank(facts.local, platform) is not None and facts.compatible:
        return How(kind="native")
    if not facts.emulator:
        raise HostError(
            f"steps for {platform} need an emulator, and this host has no static qemu-{form.qemu}",
            hint=f"install the package {PACKAGE}, or name the directory of the emulators: [worker] emulators",
        )
    if facts.kernel < OWN_SINCE:
        raise HostError(
            f"steps for {platform} need Linux {'.'.join(map(str, OWN_SINCE))} to register {facts.emulator} for "
            f"themselves; this is {'.'.join(map(str, facts.kernel))}",
            hint=f"use a newer kernel, {REGISTER_HINT}",
        )
    name = f"qemu-{form.qemu}"
    return How(kind="own", emulator=Emulator(name=name, program=facts.emulator, magic=form.header(), mask=form.mask()))


def not_under(runtime: str, emulator: Emulator) -> HostError:
    """Why a step with an emulator of its own does not run under runc or crun: only our own supervisor registers it."""
    return HostError(
        f"{runtime} does not register {emulator.program} for a step, and this host has not registered it "
        "with the flags F and P",
        hint=f"use the built-in runtime, {REGISTER_HINT}",
    )
