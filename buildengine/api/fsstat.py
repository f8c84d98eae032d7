"""Entries of a tree as fsutil's messages, both ways. No I/O.

Names are bytes in both: the other side may have names that are no UTF-8.
"""

from __future__ import annotations

import os
import stat

from buildengine.api.fspackets_pb2 import Attribute, Stat
from buildengine.api.fsutil import NO_XATTRS, Entry, check_attributes, go_mode, st_mode


def stat_of(entry: Entry) -> Stat:
    major, minor = entry.device
    return Stat(
        path=entry.path,
        mode=go_mode(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size,
        mtime=entry.mtime_ns,
        link=entry.link,
        major=major,
        minor=minor,
        xattrs=[Attribute(name=os.fsencode(name), value=value) for name, value in entry.xattrs.items()],
    )


def entry_of(listed: Stat) -> Entry:
    """Raises ProtocolError for what no file of Linux can be."""
    mode = st_mode(listed.mode)
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        device = (0, 0)
    else:
        device = (listed.major, listed.minor)
    attributes = {os.fsdecode(one.name): one.value for one in listed.xattrs} or NO_XATTRS
    entry = Entry(listed.path, mode, listed.uid, listed.gid, listed.size, listed.mtime, listed.link, device, attributes)
    check_attributes(entry)
    return entry
