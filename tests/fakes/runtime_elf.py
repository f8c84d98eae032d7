"""Tiny static programs, made of machine code, for what no shell can do."""

from __future__ import annotations

import os
import struct
from pathlib import Path

MACHINE = os.uname().machine
_EM = {"x86_64": 62, "aarch64": 183}
_BASE = 0x400000

# An instruction that no processor has: ends in SIGILL.
CRASH = {"x86_64": b"\x0f\x0b", "aarch64": b"\0\0\0\0"}


def write_program(path: Path, code: bytes, mode: int = 0o755) -> None:
    """An ELF file of one segment that starts with `code`."""
    size = 64 + 56 + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack(
        "<HHIQQQIHHHHHH", 2, _EM[MACHINE], 1, _BASE + 120, 64, 0, 0, 64, 56, 1, 64, 0, 0
    )  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ident + header + segment + code)
    path.chmod(mode)


def exit_with_errno_of_opening(target: str) -> bytes:
    """x86_64: exit status = errno of open(target, O_WRONLY | O_TRUNC), 0 when it works."""
    code = (
        b"\xb8\x02\x00\x00\x00"  # mov eax, SYS_open
        b"\x48\x8d\x3d\x16\x00\x00\x00"  # lea rdi, [rip + 22]: the end of this code
        b"\xbe\x01\x02\x00\x00"  # mov esi, O_WRONLY | O_TRUNC: a running program is ETXTBSY, unless it is EROFS first
        b"\x0f\x05"  # syscall
        b"\xf7\xd8"  # neg eax
        b"\x79\x02"  # jns +2
        b"\x31\xc0"  # xor eax, eax
        b"\x89\xc7"  # mov edi, eax
        b"\xb8\xe7\x00\x00\x00"  # mov eax, SYS_exit_group
        b"\x0f\x05"  # syscall
    )
    return code + target.encode() + b"\0"


def elf_interpreter(program: Path) -> str:
    """The dynamic loader that a 64-bit little-endian program names (PT_INTERP)."""
    data = program.read_bytes()
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for number in range(count):
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", data, offset + number * size)
        if kind == 3:
            return data[start : start + length].rstrip(b"\0").decode()
    raise AssertionError(f"{program} is static")
