"""The step's seccomp filter as classic BPF bytes: `program(machine)`, pure and compiled once a process.

Decisions of docker's default profile (`seccomp_profile.py`), with two deliberate differences. Argument checks
look at the 32 bits that the kernel looks at: libseccomp compares 64, so a family of 0x1_0000_0026 passes as
"not AF_ALG" there. A call number that is not in our table gets ENOSYS, not EPERM, so that a newer libc takes
its fallback; x32 call numbers get ENOSYS too.

A filter is a binary tree over runs of equal decisions: about ten comparisons a call, and loads, jumps and
returns only, so that the kernel can prove which calls are always allowed and skip the filter for them
(kernel/seccomp.c, seccomp_is_const_allow).
"""

from __future__ import annotations

import errno
import functools
import struct
from typing import NamedTuple

from worker.runtime.seccomp_profile import (
    ALLOWED,
    ALLOWED_ON,
    CLONE_NAMESPACE_FLAGS,
    DENIED_SOCKET_FAMILIES,
    PERSONALITIES,
    PRETEND_MISSING,
)
from worker.runtime.syscall_numbers import numbers

# include/uapi/linux/audit.h; a 64-bit kernel also runs programs of its 32-bit ancestor
AUDIT_ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
ARCHITECTURES = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}

# include/uapi/linux/seccomp.h
RET_ALLOW = 0x7FFF0000
RET_KILL_PROCESS = 0x80000000
RET_EPERM = 0x00050000 | errno.EPERM
RET_ENOSYS = 0x00050000 | errno.ENOSYS

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]. Little-endian machines only.
_NR, _ARCH, _ARG0 = 0, 4, 16

# include/uapi/linux/bpf_common.h
_LOAD, _JA, _JEQ, _JGE, _JSET, _RET = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06


class Instruction(NamedTuple):
    """struct sock_filter. `true` and `false` say how many instructions to skip."""

    code: int
    true: int
    false: int
    k: int


Block = tuple[Instruction, ...]


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, offset)


def _return(value: int) -> Instruction:
    return Instruction(_RET, 0, 0, value)


def _one_of(values: tuple[int, ...], found: int, other: int) -> Block:
    """Return `found` if argument 0 is among `values`, else `other`."""
    jumps = tuple(Instruction(_JEQ, len(values) - at, 0, value) for at, value in enumerate(values))
    return (_load(_ARG0), *jumps, _return(other), _return(found))


# What happens to a call: blocks that end in a return.
_ALLOW: Block = (_return(RET_ALLOW),)
_DENY: Block = (_return(RET_EPERM),)
_MISSING: Block = (_return(RET_ENOSYS),)
_BY_ARGUMENT: dict[str, Block] = {
    "socket": _one_of(DENIED_SOCKET_FAMILIES, RET_EPERM, RET_ALLOW),
    "personality": _one_of(PERSONALITIES, RET_ALLOW, RET_EPERM),
    "clone": (
        _load(_ARG0),
        Instruction(_JSET, 0, 1, CLONE_NAMESPACE_FLAGS),
        _return(RET_EPERM),
        _return(RET_ALLOW),
    ),
}


def _decision(name: str, architecture: str) -> Block:
    if name in ALLOWED or name in ALLOWED_ON[architecture]:
        return _ALLOW
    if name in PRETEND_MISSING:
        return _MISSING
    return _BY_ARGUMENT.get(name, _DENY)


def _runs(architecture: str) -> list[tuple[int, Block]]:
    """(first number, decision) of each run of numbers that share a decision, from 0 to the end of all numbers."""
    decisions = {number: _decision(name, architecture) for name, number in numbers(architecture).items()}
    runs: list[tuple[int, Block]] = []
    for number in sorted({0} | set(decisions) | {number + 1 for number in decisions}):
        block = decisions.get(number, _MISSING)
        if not runs or runs[-1][1] is not block:
            runs.append((number, block))
    return runs


def _tree(runs: list[tuple[int, Block]]) -> Block:
    """Binary search for the run that holds the accumulator."""
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    lower, upper = _tree(runs[:middle]), _tree(runs[middle:])
    start = runs[middle][0]
    if len(lower) <= 255:  # conditional jumps are 8 bits wide
        return (Instruction(_JGE, len(lower), 0, start), *lower, *upper)
    return (Instruction(_JGE, 0, 1, start), Instruction(_JA, 0, 0, len(lower)), *lower, *upper)


def assemble(machine: str) -> Block:
    """The filter for `machine` (as uname spells it) and its 32-bit ancestor. KeyError: we have no table for it."""
    code: Block = (_load(_ARCH),)
    for architecture in ARCHITECTURES[machine]:
        block = (_load(_NR), *_tree(_runs(architecture)))
        code += (Instruction(_JEQ, 1, 0, AUDIT_ARCH[architecture]), Instruction(_JA, 0, 0, len(block)), *block)
    return (*code, _return(RET_KILL_PROCESS))


@functools.cache
def program(machine: str) -> bytes:
    """The filter as an array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in assemble(machine))


def oci_profile(machine: str) -> dict[str, object]:
    """The same profile as the `linux.seccomp` object of an OCI runtime's config.json."""
    architectures = {"x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]}

    def rule(name: str, operator: str, value: int, two: int = 0) -> dict[str, object]:
        argument = {"index": 0, "op": operator, "value": value, "valueTwo": two}
        return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]}

    alg, vsock = DENIED_SOCKET_FAMILIES
    allowed = ALLOWED.union(*(ALLOWED_ON[a] for a in ARCHITECTURES[machine]))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": architectures[machine],
        "syscalls": [
            {"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"},
            {"names": sorted(PRETEND_MISSING), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
            rule("socket", "SCMP_CMP_LT", alg),
            *(rule("socket", "SCMP_CMP_EQ", family) for family in range(alg + 1, vsock)),
            rule("socket", "SCMP_CMP_GT", vsock),
            *(rule("personality", "SCMP_CMP_EQ", value) for value in PERSONALITIES),
            rule("clone", "SCMP_CMP_MASKED_EQ", CLONE_NAMESPACE_FLAGS, 0),
        ],
    }
