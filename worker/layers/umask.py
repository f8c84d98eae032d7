"""Which permission bits a new file may not have got from open(2), so that chmod(2) is needed only for those."""

from __future__ import annotations

SPECIAL_BITS = 0o7000  # set-user-ID is lost to chown(2)
_ALL = 0o7777


def unusual_bits() -> int:
    """The bits that this process's umask takes away, and the special ones.

    os.umask cannot tell the umask without changing it under other threads; proc(5) can.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return SPECIAL_BITS | int(line.split()[1], 8)
    except OSError:
        pass
    return _ALL
