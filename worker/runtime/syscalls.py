"""The kernel calls that Python does not wrap: namespaces, the mount API, pidfds, credentials.

Standard library only, and little of it: the launcher imports this file, and every forked step pays for its
size. Each wrapper raises OSError with the thing it was about in `filename`. Policy lives elsewhere.
Numbers and constants are copied from the kernel's uapi headers; those >= 424 are the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

_MACHINE = os.uname().machine
_PIVOT_ROOT, _KEYCTL, _SECCOMP, _BPF, _SIGACTION = {
    "x86_64": (155, 250, 317, 321, 13),
    "aarch64": (41, 219, 277, 280, 134),
}.get(_MACHINE, (-1, -1, -1, -1, -1))  # on others: ENOSYS

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 2

# include/uapi/linux/mount.h; the four below have the values of their MS_ namesakes
ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8

AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

_SIGPIPE = 13

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def _call(what: str, number: int, *arguments: object) -> int:
    return _check(int(_syscall(number, *arguments)), what)


# --- namespaces and processes -----------------------------------------------------------------------------


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(namespace: int, kind: int) -> None:
    """Enter a namespace, given by its file. `kind` is the CLONE_NEW flag that it must be of."""
    _check(_libc.setns(namespace, ctypes.c_int(kind)), "setns")


def pivot_root(new: str, old: str) -> None:
    _call("pivot_root", _PIVOT_ROOT, new.encode(), old.encode())


def set_hostname(name: bytes) -> None:
    _check(_libc.sethostname(name, ctypes.c_size_t(len(name))), "sethostname")


def pidfd_kill(pidfd: int, signal: int) -> None:
    """Send `signal`; a process that has ended already is no error."""
    try:
        _call("pidfd_send_signal", 424, pidfd, signal, None, 0)
    except ProcessLookupError:
        pass


def close_range(first: int, last: int) -> None:
    if first <= last:
        _call("close_range", 436, ctypes.c_uint(first), ctypes.c_uint(last), 0)


def prctl(option: int, argument: int = 0, second: int = 0) -> int:
    result = _libc.prctl(option, argument, second, 0, 0)
    return result if result >= 0 else _check(result, f"prctl {option}")


def bounded(capability: int) -> bool | None:
    """Whether the bounding set has a capability; None when this kernel knows no such number."""
    result = int(_libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0))
    return None if result < 0 else bool(result)


def set_process_name(name: bytes) -> None:
    prctl(PR_SET_NAME, ctypes.addressof(ctypes.create_string_buffer(name)))


def default_signals(*signals: int) -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored after exec."""
    action = bytes(32)  # the kernel's struct sigaction: SIG_DFL, no flags, an empty mask
    for signal in signals:  # the system call, since libc keeps 32 and 33 to itself
        _syscall(_SIGACTION, signal, action, None, ctypes.c_size_t(8))


def reset_signals() -> None:
    """Default actions and an empty mask, whatever we inherited. SIGPIPE stays ignored."""
    default_signals(*(number for number in range(1, 65) if number != _SIGPIPE))
    empty = ctypes.create_string_buffer(128)  # sigset_t
    _check(_libc.sigprocmask(2, empty, None), "sigprocmask")


# --- credentials ------------------------------------------------------------------------------------------


def set_capabilities(*, effective: int, permitted: int, inheritable: int) -> None:
    """capset(2), version 3: two 32-bit halves of each set."""
    header = struct.pack("=Ii", 0x20080522, 0)
    low, high = 0xFFFFFFFF, 32
    sets = (effective, permitted, inheritable)
    data = struct.pack("=6I", *(s & low for s in sets), *(s >> high for s in sets))
    _check(_libc.capset(header, data), "capset")


def join_new_session_keyring() -> None:
    """An anonymous one: the step must not read keys of the engine's session."""
    _call("keyctl", _KEYCTL, 1, None)


def landlock_abi() -> int:
    """0 when the kernel has no Landlock, or has it switched off."""
    return max(0, int(_syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def landlock_scope(*, signals: bool) -> None:
    """Reach no abstract socket outside this domain, and with `signals` signal no process there (ABI 6). Needs
    CAP_SYS_ADMIN."""
    scoped = 1 | 2 if signals else 1  # ABSTRACT_UNIX_SOCKET, SIGNAL
    attributes = struct.pack("=QQQ", 0, 0, scoped)  # handled_access_fs, _net
    ruleset = _call("landlock", 444, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        _call("landlock", 446, ruleset, ctypes.c_uint(0))
    finally:
        os.close(ruleset)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install_seccomp(program: bytes) -> None:
    """SECCOMP_SET_MODE_FILTER. Needs CAP_SYS_ADMIN, since no_new_privs stays off."""
    _call("seccomp", _SECCOMP, 1, ctypes.c_uint(0), ctypes.byref(_Program(len(program) // 8, program)))


# --- mounts -----------------------------------------------------------------------------------------------


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    strings = (os.fsencode(text) or None for text in (source, target, fstype))
    result = _libc.mount(*strings, ctypes.c_ulong(flags), os.fsencode(options) or None)
    _check(result, target)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    _check(_libc.umount2(os.fsencode(target), flags), target)


def new_filesystem(fstype: str, options: Sequence[tuple[str, str | None]], attributes: int = 0) -> int:
    """A detached mount of a new file system. An option without a value is a flag."""
    context = _call(fstype, 430, fstype.encode(), 1)
    try:
        _call(fstype, 431, context, _FSCONFIG_SET_STRING, b"source", fstype.encode(), 0)  # what `mount` lists
        for key, value in options:
            what = f"{fstype}: {key}" if value is None else f"{fstype}: {key}={value}"
            if value is None:
                _call(what, 431, context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)
            else:
                _call(what, 431, context, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
        _call(fstype, 431, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(fstype, 432, context, 1, attributes)
    finally:
        os.close(context)


def clone_mount(directory: int, path: str = "") -> int:
    """A detached copy of the mount at `path`, seen from `path` down, without what is mounted below."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (0 if path else _AT_EMPTY_PATH)
    return _call(path or "open_tree", 428, directory, os.fsencode(path), flags)


def attach(mounted: int, target: int) -> None:
    """Put a detached mount over the file or directory `target`."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _call("move_mount", 429, mounted, b"", target, b"", flags)


def restrict_mount(mounted: int, attributes: int) -> None:
    """Add ATTR_ flags to a mount (mount_setattr)."""
    if attributes:
        change = struct.pack("=QQQQ", attributes, 0, 0, 0)
        _call("mount_setattr", 442, mounted, b"", _AT_EMPTY_PATH, change, ctypes.c_size_t(len(change)))


def open_beneath(root: int, path: str, flags: int, *, resolve: int = 0) -> int:
    """openat2 with `root` as `/`: no `..`, symlink or magic link leads out of it."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve)
    while True:
        try:
            raw = os.fsencode(path).lstrip(b"/") or b"."
            return _call(path, 437, root, raw, how, ctypes.c_size_t(len(how)))
        except (InterruptedError, BlockingIOError):  # EAGAIN: a rename raced with `..`, openat2(2)
            continue


# --- bpf --------------------------------------------------------------------------------------------------

_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_BPF_PROG_TYPE_CGROUP_DEVICE, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI = 15, 6, 2


def load_device_program(program: bytes) -> int:
    """A loaded BPF_PROG_TYPE_CGROUP_DEVICE program (eBPF bytes) as a descriptor."""
    code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"Apache-2.0")
    addresses = ctypes.addressof(code), ctypes.addressof(licence)
    attributes = struct.pack("=IIQQ", _BPF_PROG_TYPE_CGROUP_DEVICE, len(program) // 8, *addresses).ljust(120, b"\0")
    return _call("bpf: load device program", _BPF, _BPF_PROG_LOAD, attributes, ctypes.c_uint(len(attributes)))


def attach_device_program(cgroup: int, program: int) -> None:
    """Let `program` decide about devices for the processes of a v2 cgroup (a directory descriptor)."""
    attributes = struct.pack("=IIII", cgroup, program, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI)
    _call("bpf: attach device program", _BPF, _BPF_PROG_ATTACH, attributes, ctypes.c_uint(len(attributes)))
