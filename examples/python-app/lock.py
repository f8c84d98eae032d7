#!/usr/bin/env python3
"""Pin what pyproject.toml depends on, for every platform: pylock.toml, the standard's lock file (PEP 751).

    lock.py [DIRECTORY] [--python 3.12] [--platform linux/amd64,linux/arm64]

pip decides, with this host's configuration: index, proxies, credentials. Newer pips write such a file themselves
(`pip lock`), as uv and pdm do; what they write will do as well. Wheels that pip has found in a directory of this host
are copied to DIRECTORY/wheels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
GLIBC = ("2_34", "2_28", "2_17")  # of base images of these years; 2_17 is manylinux2014


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--python", default="3.12", help="version of Python in the image (default: 3.12)")
    parser.add_argument("--platform", default=",".join(MACHINES), help="as `pybuild build` takes it")
    given = parser.parse_args()
    project = tomllib.loads((given.directory / "pyproject.toml").read_text())["project"]
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for platform in given.platform.split(","):
        for item in resolve(project.get("dependencies", []), given.python, platform):
            package = (item["metadata"]["name"].lower(), item["metadata"]["version"])
            wheel = pin(item["download_info"], given.directory)
            found.setdefault(package, {})[wheel["name"]] = wheel
    (given.directory / "pylock.toml").write_text(lock(found))
    print(f"{given.directory / 'pylock.toml'}: {', '.join(f'{name} {version}' for name, version in sorted(found))}")


def resolve(requirements: list[str], python: str, platform: str) -> list[dict[str, Any]]:
    """What pip would install, wheels only, as its report has it."""
    if not requirements:
        return []
    machine = MACHINES.get(platform) or sys.exit(f"unknown platform {platform}: one of {', '.join(MACHINES)}")
    tags = [f"--platform=manylinux_{version}_{machine}" for version in GLIBC]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", "--ignore-installed"]
    command += [
        "--target",
        "/nonexistent",
        "--only-binary",
        ":all:",
        f"--python-version={python}",
        *tags,
        *requirements,
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"pip failed:\n{done.stderr.strip()}")
    items: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return items


def pin(download: dict[str, Any], directory: Path) -> dict[str, str]:
    parts = urlsplit(download["url"])
    file = Path(unquote(parts.path))
    wheel = {"name": file.name, "sha256": sha256(download, file)}
    if parts.scheme != "file":
        return wheel | {"url": download["url"]}
    (directory / "wheels").mkdir(exist_ok=True)
    shutil.copy(file, directory / "wheels")
    return wheel | {"path": f"wheels/{file.name}"}


def sha256(download: dict[str, Any], file: Path) -> str:
    """As the index says it; pip before 23.1 knows no other, and none of a file of this host."""
    known: str | None = download["archive_info"].get("hashes", {}).get("sha256")
    if known is not None:
        return known
    if download["url"].startswith("file:"):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    sys.exit(f"the index has no sha256 for {download['url']}: run this with pip 23.1 or newer, which looks for itself")


def lock(found: dict[tuple[str, str], dict[str, dict[str, str]]]) -> str:
    lines = ['lock-version = "1.0"', 'created-by = "lock.py"']
    for (name, version), wheels in sorted(found.items()):
        lines += ["", "[[packages]]", f'name = "{name}"', f'version = "{version}"', "wheels = ["]
        for _, wheel in sorted(wheels.items()):
            place = "url" if "url" in wheel else "path"
            where = f'{place} = "{wheel[place]}"'
            lines.append(f'  {{name = "{wheel["name"]}", {where}, hashes = {{sha256 = "{wheel["sha256"]}"}}}},')
        lines.append("]")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
