"""Platforms as messages of the API, and back."""

from __future__ import annotations

from buildengine.platform import Platform, normalize
from llb.pb import ops_pb2


def platform_message(platform: Platform) -> ops_pb2.Platform:
    return ops_pb2.Platform(
        OS=platform.os,
        Architecture=platform.architecture,
        Variant=platform.variant,
        OSVersion=platform.os_version,
        OSFeatures=platform.os_features,
    )


def platform_of(message: ops_pb2.Platform) -> Platform:
    return normalize(platform_as_sent(message))


def platform_as_sent(message: ops_pb2.Platform) -> Platform:
    """Not normalised: where whoever sends it has done that."""
    return Platform(
        os=message.OS,
        architecture=message.Architecture,
        variant=message.Variant,
        os_version=message.OSVersion,
        os_features=tuple(message.OSFeatures),
    )
