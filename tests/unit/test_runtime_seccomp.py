"""The seccomp filter, decided by an interpreter and compared with what libseccomp makes of docker's profile."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache
from typing import Any

import pytest

from tests.fakes.runtime_bpf import run_filter
from worker.runtime import seccomp, seccomp_profile
from worker.runtime.syscall_numbers import numbers

MACHINES = ["x86_64", "aarch64"]
PAIRS = [(machine, arch) for machine in MACHINES for arch in seccomp.ARCHITECTURES[machine]]


def decide(machine: str, arch: str, number: int, *arguments: int) -> int:
    return run_filter(seccomp.program(machine), seccomp.AUDIT_ARCH[arch], number, arguments)


@pytest.mark.parametrize(("machine", "arch"), PAIRS)
def test_every_known_call(machine: str, arch: str) -> None:
    for name, number in numbers(arch).items():
        if name in seccomp_profile.ALLOWED or name in seccomp_profile.ALLOWED_ON[arch]:
            expected = seccomp.RET_ALLOW
        elif name == "clone3":
            expected = seccomp.RET_ENOSYS
        elif name in ("socket", "personality", "clone"):
            continue
        else:
            expected = seccomp.RET_EPERM
        assert decide(machine, arch, number) == expected, name


@pytest.mark.parametrize(("machine", "arch"), PAIRS)
def test_unknown_numbers_are_missing_calls(machine: str, arch: str) -> None:
    known = set(numbers(arch).values())
    for number in (*range(1000), 0x40000000, 0x40000001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        if number not in known:
            assert decide(machine, arch, number) == seccomp.RET_ENOSYS, number


@pytest.mark.parametrize(("machine", "arch"), PAIRS)
def test_arguments_are_seen_as_the_kernel_sees_them(machine: str, arch: str) -> None:
    number = numbers(arch)
    high = 1 << 32
    for family, allowed in [
        (1, True),
        (10, True),
        (38, False),
        (39, True),
        (40, False),
        (41, True),
        (high | 38, False),
    ]:
        assert (decide(machine, arch, number["socket"], family) == seccomp.RET_ALLOW) is allowed, family
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(machine, arch, number["clone"], flag | 17) == seccomp.RET_EPERM
    assert decide(machine, arch, number["clone"], 0x3D0F00) == seccomp.RET_ALLOW  # a thread of glibc
    for persona in (*seccomp_profile.PERSONALITIES, high | 8):
        assert decide(machine, arch, number["personality"], persona) == seccomp.RET_ALLOW
    assert decide(machine, arch, number["personality"], 0x40000) == seccomp.RET_EPERM


def test_a_foreign_architecture_is_killed() -> None:
    assert run_filter(seccomp.program("x86_64"), 0xC00000B7, 0) == seccomp.RET_KILL_PROCESS


def test_the_filter_is_small() -> None:
    """The kernel takes 4096 instructions; ours must also be cheap where no call is cached as always allowed."""
    for machine in MACHINES:
        assert len(seccomp.assemble(machine)) < 600


def test_there_is_no_filter_for_a_machine_that_we_do_not_know() -> None:
    with pytest.raises(KeyError):
        seccomp.program("s390x")


def test_jumps_that_do_not_fit_in_a_byte() -> None:
    runs = [(number * 2, seccomp._ALLOW if number % 2 else seccomp._DENY) for number in range(2000)]
    code = (seccomp._load(0), *seccomp._tree(runs))
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
    for number in (0, 1, 2, 3, 1999, 2000, 2001, 3998, 5000):
        expected = seccomp.RET_ALLOW if min(number // 2, 1999) % 2 else seccomp.RET_EPERM
        assert run_filter(program, 0, number) == expected


def test_profile_names_exist() -> None:
    """A name without a number would silently be no rule at all."""
    known = set().union(*(numbers(arch) for _, arch in PAIRS))
    assert known >= seccomp_profile.ALLOWED
    for arch, names in seccomp_profile.ALLOWED_ON.items():
        assert names <= set(numbers(arch)), arch


# --- the oracle -------------------------------------------------------------------------------------------


class Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


_OPERATORS = {"SCMP_CMP_LT": 2, "SCMP_CMP_EQ": 4, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}


@cache
def libseccomp() -> Any:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    return library


@cache
def oracle(machine: str) -> bytes:
    """libseccomp's filter for the profile that we hand to OCI runtimes, as runc would build it."""
    library = libseccomp()
    context = ctypes.c_void_p(library.seccomp_init(seccomp.RET_EPERM))
    for arch in seccomp.ARCHITECTURES[machine]:
        library.seccomp_arch_add(context, ctypes.c_uint32(seccomp.AUDIT_ARCH[arch]))
    if os.uname().machine != machine:
        library.seccomp_arch_remove(context, ctypes.c_uint32(0))
    rules: Any = seccomp.oci_profile(machine)["syscalls"]
    for rule in rules:
        action = seccomp.RET_ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else 0x50000 | rule["errnoRet"]
        compare = [Comparison(c["index"], _OPERATORS[c["op"]], c["value"], c["valueTwo"]) for c in rule.get("args", [])]
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != -1:
                array = (Comparison * max(1, len(compare)))(*compare)
                result = library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(compare), array)
                assert result == 0, (name, result)
    fd = os.memfd_create("bpf")
    assert library.seccomp_export_bpf(context, fd) == 0
    library.seccomp_release(context)
    data = os.pread(fd, 1 << 20, 0)
    os.close(fd)
    return data


@pytest.mark.parametrize(("machine", "arch"), PAIRS)
def test_same_decisions_as_libseccomp(machine: str, arch: str) -> None:
    library = libseccomp()
    theirs, audit = oracle(machine), seccomp.AUDIT_ARCH[arch]
    libc = ctypes.CDLL(None)
    values = [0, 1, 8, 17, 38, 39, 40, 41, 0x20000, 0x20008, 0x40000, 0x3D0F00, 0x10000011, 0xFFFFFFFF]
    compared = 0
    for name, number in numbers(arch).items():
        resolved = library.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(audit), number)
        if resolved is None:
            continue  # newer than this libseccomp
        assert ctypes.string_at(resolved).decode() == name
        libc.free(ctypes.c_void_p(resolved))
        for value in values:
            mine = decide(machine, arch, number, value)
            assert mine == run_filter(theirs, audit, number, (value,)), (name, hex(value))
            compared += 1
    assert compared > 4000
    assert errno.EPERM == 1
