"""The levels of x86-64 that this host's processor has, as variants of its platform: linux/amd64/v3 is AVX2 and more.

Facts: x86-64 psABI, "Micro-Architecture Levels"; names of flags: Linux arch/x86/include/asm/cpufeatures.h.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from buildengine.platform import Platform

_LEVELS = {
    "v2": {"cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"},
    "v3": {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
    "v4": {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
}


def variants(platform: Platform, flags: Set[str]) -> list[Platform]:
    """Those of `platform`, lowest first, on a processor with these flags; other architectures have none here."""
    if platform.architecture != "amd64":
        return []
    return [replace(platform, variant=name) for name in takewhile(lambda name: _LEVELS[name] <= flags, _LEVELS)]


def processor_flags(text: str | None = None) -> Set[str]:
    """What /proc/cpuinfo says of the first processor."""
    said = Path("/proc/cpuinfo").read_text() if text is None else text
    line = next((line for line in said.splitlines() if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())
