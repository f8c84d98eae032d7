"""What we tell the other side of an HTTP/2 connection when it begins: how much of what we take."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.settings

from buildengine.api.outbox import MAX_FRAME
from buildengine.api.streams import STREAM_WINDOW

MAX_CALLS = 1024  # at a time, that one connection may have open
MAX_HEADERS = 256 << 10  # bytes of a header list
_Setting = h2.settings.SettingCodes


def begin(*, client: bool) -> h2.connection.H2Connection:
    """A connection with our preface and settings to be sent."""
    config = h2.config.H2Configuration(client_side=client, header_encoding=False, validate_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    connection.local_settings = h2.settings.Settings(
        client=client,
        initial_values={
            _Setting.MAX_CONCURRENT_STREAMS: MAX_CALLS,
            _Setting.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
            _Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            _Setting.MAX_FRAME_SIZE: MAX_FRAME,
            **({_Setting.ENABLE_PUSH: 0} if client else {}),
        },
    )
    # h2 takes these from settings that change, not from those that it begins with.
    connection.max_inbound_frame_size = MAX_FRAME
    connection.decoder.max_header_list_size = MAX_HEADERS
    connection.initiate_connection()
    return connection
