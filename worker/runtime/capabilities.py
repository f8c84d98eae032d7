"""Capabilities by name, and the set that a step gets. Data and arithmetic; standard library only."""

from __future__ import annotations

# include/uapi/linux/capability.h, in numerical order from 0
_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
    "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES = _NAMES.split()


def mask(*names: str) -> int:
    return sum(1 << NAMES.index(name) for name in names)


# docker's and containerd's default (containerd pkg/oci/spec.go, defaultUnixCaps)
DEFAULT = mask(
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
MKNOD = mask("MKNOD")
ALL = (1 << len(NAMES)) - 1


def names(capabilities: int) -> list[str]:
    """As OCI's config.json spells them."""
    return [f"CAP_{name}" for number, name in enumerate(NAMES) if capabilities >> number & 1]


def bounding_set(status: str) -> int:
    """From the text of /proc/self/status."""
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
