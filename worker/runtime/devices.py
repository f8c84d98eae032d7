"""The device allow list of a step: as lines for the v1 `devices` controller, as eBPF for a v2 cgroup.

Pure and standard library only. Any device file may be made (packages ship them), only these may be opened: the
list of runc (libcontainer/specconv, AllowedDevices), without /dev/net/tun as in its newer versions.
"""

from __future__ import annotations

import struct

# type, major, minor (None: any), access of r(ead) w(rite) m(knod)
Rule = tuple[str, "int | None", "int | None", str]

DEFAULT: list[Rule] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 7, "rwm"),  # full
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 5, 0, "rwm"),  # tty
    ("c", 5, 2, "rwm"),  # ptmx
    ("c", 136, None, "rwm"),  # pts
]
EVERYTHING: list[Rule] = [("c", None, None, "rwm"), ("b", None, None, "rwm")]
TUN: Rule = ("c", 10, 200, "rwm")  # runc 1.1 allows it to its containers, and can only allow what its parent may


def v1_line(rule: Rule) -> str:
    kind, major, minor, access = rule
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor} {access}"


# include/uapi/linux/bpf.h: struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, where
# access_type is access << 16 | type
_TYPE = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LOAD32, _MOVE, _MOVE_VALUE, _AND, _SHIFT_RIGHT, _JUMP_NOT_EQUAL, _EXIT = 0x61, 0xBF, 0xB7, 0x57, 0x77, 0x55, 0x95
_RESULT, _CONTEXT, _KIND, _WANTED, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5  # registers


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, to | source << 4, offset, value)


def ebpf(rules: list[Rule]) -> bytes:
    """A BPF_PROG_TYPE_CGROUP_DEVICE program that returns 1 for what a rule allows, else 0."""
    code = [
        _instruction(_LOAD32, _KIND, _CONTEXT, 0),
        _instruction(_MOVE, _WANTED, _KIND),
        _instruction(_AND, _KIND, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _WANTED, value=16),
        _instruction(_LOAD32, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD32, _MINOR, _CONTEXT, 8),
    ]
    for rule in rules:
        code += _ebpf_rule(rule)
    code += [_instruction(_MOVE_VALUE, _RESULT, value=0), _instruction(_EXIT)]
    return b"".join(code)


def _ebpf_rule(rule: Rule) -> list[bytes]:
    kind, major, minor, access = rule
    refused = 7 & ~sum(_ACCESS[letter] for letter in access)
    tests = [(_KIND, _TYPE[kind]), (_MAJOR, major), (_MINOR, minor)]
    wanted = [(register, value) for register, value in tests if value is not None]
    length = 2 + 1 + len(wanted) + 2
    code = [_instruction(_MOVE, _RESULT, _WANTED), _instruction(_AND, _RESULT, value=refused)]
    for register, value in [(_RESULT, 0), *wanted]:
        code.append(_instruction(_JUMP_NOT_EQUAL, register, offset=length - len(code) - 1, value=value))
    return [*code, _instruction(_MOVE_VALUE, _RESULT, value=1), _instruction(_EXIT)]
