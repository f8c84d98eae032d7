"""Interpreters for the two kinds of BPF that the runtime assembles: what the kernel would decide, without it."""

from __future__ import annotations

import struct

_ALLOW_64 = 2**64 - 1


def run_filter(program: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """The return value of a classic BPF seccomp filter for one system call."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = scratch = at = 0
    memory = [0] * 16
    while True:
        op, true, false, k = code[at]
        at += 1
        match op:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x05:
                at += k
            case 0x15:
                at += true if accumulator == k else false
            case 0x25:
                at += true if accumulator > k else false
            case 0x35:
                at += true if accumulator >= k else false
            case 0x45:
                at += true if accumulator & k else false
            case 0x54:
                accumulator &= k
            case 0x02:
                memory[k] = accumulator
            case 0x60:
                accumulator = memory[k]
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"instruction {op:#x} with {scratch}")


def run_device_program(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """The result of an eBPF cgroup device program."""
    code = list(struct.iter_unpack("=BBhi", program))
    registers = [0] * 11
    context = {0: access << 16 | kind, 4: major, 8: minor}
    at = 0
    while True:
        op, both, offset, value = code[at]
        to, source = both & 15, both >> 4
        at += 1
        match op:
            case 0x61:
                registers[to] = context[offset]
            case 0xBF:
                registers[to] = registers[source]
            case 0xB7:
                registers[to] = value & _ALLOW_64
            case 0x57:
                registers[to] &= value & _ALLOW_64
            case 0x77:
                registers[to] >>= value
            case 0x55:
                at += offset if registers[to] != value & _ALLOW_64 else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"instruction {op:#x}")
