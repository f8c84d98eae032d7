"""Which numbers of users and groups there are. Pure."""

from __future__ import annotations

LARGEST_ID = 2**32 - 2  # 2**32 - 1 means "leave it as it is" to chown(2) and setresuid(2)
