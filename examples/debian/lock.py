#!/usr/bin/env python3
"""Pin what is in packages.yaml: each package that apt would install today, by its URL and its sha256.

    lock.py [DIRECTORY] [-o FILE]     reads DIRECTORY/packages.yaml, writes DIRECTORY/packages.lock

apt decides, with this host's configuration: sources, keyrings, preferences, proxies. It verifies the signature of each
Release file with the keyring that the source names, each index with the Release file, and takes the packages' checksums
from the index; nothing here goes around that. It works in a directory of its own, so nothing of this host's
apt changes, no root is needed, and any architecture will do.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import listing

TOOL = "busybox-static"  # unpacks the others, see build.py
_URI = re.compile(r"'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("-o", "--output", type=Path, help="instead of DIRECTORY/packages.lock")
    given = parser.parse_args()
    file = given.directory / "packages.yaml"
    try:
        listed = listing.parse(file.read_text())
    except OSError as error:
        sys.exit(f"{file}: {error.strerror}")
    except listing.Wrong as error:
        sys.exit(f"{file}:{error.line}: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
    native = run("dpkg", "--print-architecture").strip()
    pinned = lock(list(listed.packages), list(listed.architectures) or [native], native)
    output = given.output or given.directory / "packages.lock"
    output.write_text(json.dumps(pinned, indent=1) + "\n")
    print(f"{output}: " + ", ".join(f"{len(found)} packages for {name}" for name, found in pinned["packages"].items()))


def lock(packages: list[str], architectures: list[str], native: str) -> dict[str, Any]:
    """`packages` by architecture, `tool` by the architecture of who builds, and the time of the newest Release file."""
    with tempfile.TemporaryDirectory(prefix="pybuild-debian-lock.") as work, ThreadPoolExecutor() as pool:
        builders = list(dict.fromkeys([*architectures, native]))
        apts = dict(zip(builders, pool.map(lambda name: Apt(Path(work, name), name, native), builders), strict=True))
        found = {name: pool.submit(apts[name].install, packages) for name in architectures}
        tools = {name: pool.submit(apts[name].install, [TOOL]) for name in builders}
        return {
            "asked": packages,
            "released": max(apt.released for apt in apts.values()),
            "packages": {name: pins.result() for name, pins in found.items()},
            "tool": {name: pins.result() for name, pins in tools.items()},
        }


class Apt:
    """apt for one architecture, in `work`: the host's configuration, an index of its own, and nothing installed."""

    def __init__(self, work: Path, architecture: str, native: str) -> None:
        lists = work / "lists"
        for directory in (lists / "partial", work / "cache/archives/partial"):
            directory.mkdir(parents=True)
        options = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Install-Recommends": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Languages": "none",
            "Dir::Cache": work / "cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::State::lists": lists,
            "Dir::State::extended_states": work / "extended_states",
            "Dir::State::status": "/dev/null",
        }
        self._command = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
        if architecture == native:
            seed(lists)
        run(*self._command, "update")  # apt only warns of a source that it cannot reach: what is known of it counts
        self.released = newest(lists.glob("*Release"))

    def install(self, packages: list[str]) -> list[dict[str, str]]:
        """What would be installed for these and their dependencies, in apt's order."""
        told = run(*self._command, "install", "--print-uris", "--yes", "--no-remove", *packages)
        return [pin(match) for match in map(_URI.fullmatch, told.splitlines()) if match]


def pin(match: re.Match[str]) -> dict[str, str]:
    name, version, _ = match["file"].removesuffix(".deb").split("_")
    if not match["url"].startswith(("http://", "https://")):
        sys.exit(f"{match['url']}: a build fetches packages over http or https only")
    return {"name": name, "version": unquote(version), "url": match["url"], "sha256": match["sha256"]}


def seed(lists: Path) -> None:
    """Begin with the index that the host's apt has: what is up to date need not come again. apt verifies it anew."""
    host = Path(run("apt-config", "shell", "lists", "Dir::State::lists/d").strip().partition("=")[2].strip("'"))
    for file in host.glob("*_*"):
        if file.is_file():
            shutil.copy2(file, lists)


def newest(releases: Iterable[Path]) -> int:
    """When the newest of these was made, in seconds since the epoch."""
    dates = [re.search(r"^Date: (.*)$", file.read_text(), re.MULTILINE) for file in releases]
    seconds = [int(parsedate_to_datetime(date[1]).timestamp()) for date in dates if date]
    if not seconds:
        sys.exit("apt has no index of packages: can it reach its sources?")
    return max(seconds)


def run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr.strip()}")
    sys.stderr.write(done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
