"""A small Debian archive on loopback: packages made on the spot, indexed, signed with a key of its own.

    with debian_mirror(work) as mirror:
        run("examples/debian/lock.py", directory, environment=mirror.environment)     # apt knows this archive only

`busybox-static` is the host's. The others are `base-passwd`, `hello` with a configuration file and a script, `libhello`
that `hello` depends on, for amd64 and arm64: a program is a shell script here.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RELEASED = 1_700_000_000  # Tue, 14 Nov 2023 22:13:20 UTC
ARCHITECTURES = ("amd64", "arm64")
_PACKAGES: dict[str, tuple[Mapping[str, str], Mapping[str, str]]] = {  # name: fields, files; DEBIAN/ is control data
    "base-passwd": (
        {},
        {
            "usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/sh\n",
            "usr/share/base-passwd/group.master": "root:*:0:\n",
        },
    ),
    "libhello": ({"Multi-Arch": "same"}, {"lib/{triplet}/libhello.so": "for {architecture}\n"}),
    "hello": (
        {"Depends": "libhello (>= 1)"},
        {
            "usr/bin/hello": "#!/bin/sh\necho hello\n",
            "etc/hello.conf": "greeting = hello\n",
            "DEBIAN/conffiles": "/etc/hello.conf\n",
            "DEBIAN/postinst": "#!/bin/sh\nexit 3\n",
        },
    ),
}
_TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """`files` is what it serves; `environment` is for programs whose apt is to know it."""

    files: Path
    environment: Mapping[str, str]

    def package(self, name: str, architecture: str = "amd64") -> Path:
        return self.files / "pool" / f"{name}_1-1_{architecture}.deb"


@contextmanager
def debian_mirror(work: Path) -> Iterator[Mirror]:
    """Served for this block. It keeps its files below `work`."""
    files = work / "mirror"
    for architecture in ARCHITECTURES:
        for name, (fields, contents) in _PACKAGES.items():
            _package(files, work, name, architecture, fields, contents)
        _package(files, work, "busybox-static", architecture, {}, {})
    _index(files)
    _sign(files / "dists/stable", work)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(files)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Mirror(files=files, environment=_apt(work, f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _package(
    files: Path, work: Path, name: str, architecture: str, fields: Mapping[str, str], contents: Mapping[str, str]
) -> None:
    tree = work / "packages" / f"{name}-{architecture}"
    words = {"architecture": architecture, "triplet": _TRIPLETS[architecture]}
    control = {"Package": name, "Version": "1-1", "Architecture": architecture, "Maintainer": "Nobody <no@example.org>"}
    control |= {**fields, "Description": "a package"}
    for path, text in {**contents, "DEBIAN/control": "".join(f"{k}: {v}\n" for k, v in control.items())}.items():
        file = tree / path.format(**words)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(**words) if path.startswith("lib/") else text)
        file.chmod(0o755 if text.startswith("#!") else 0o644)
    if name == "busybox-static":
        (tree / "bin").mkdir()
        shutil.copy(shutil.which("busybox") or "busybox", tree / "bin/busybox")
    deb = files / "pool" / f"{name}_1-1_{architecture}.deb"
    deb.parent.mkdir(parents=True, exist_ok=True)
    _run("dpkg-deb", "-Zxz", "-z1", "--root-owner-group", "--build", tree, deb)


def _index(files: Path) -> None:
    """Packages of each architecture, and the Release file."""
    suite, sums = files / "dists/stable", []
    for architecture in ARCHITECTURES:
        paragraphs = []
        for deb in sorted(files.glob(f"pool/*_{architecture}.deb")):
            data = deb.read_bytes()
            place = f"Filename: pool/{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
            paragraphs.append(_run("dpkg-deb", "--field", deb) + place)
        name = f"main/binary-{architecture}/Packages"
        data = "\n".join(paragraphs).encode()
        (suite / name).parent.mkdir(parents=True)
        (suite / name).write_bytes(data)
        sums.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n")
    (suite / "Release").write_text(
        "Suite: stable\nCodename: stable\nComponents: main\nDate: Tue, 14 Nov 2023 22:13:20 UTC\n"
        f"Architectures: {' '.join(ARCHITECTURES)}\nSHA256:\n{''.join(sums)}"
    )


def _sign(suite: Path, work: Path) -> None:
    """InRelease, and the keyring that apt is to verify it with."""
    home = work / "gnupg"
    home.mkdir(mode=0o700)
    gpg = partial(_run, "gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", "")
    try:
        gpg("--quick-generate-key", "mirror@example.org", "ed25519", "sign", "never")
        gpg("--output", work / "keyring.gpg", "--export")
        gpg("--output", suite / "InRelease", "--clear-sign", suite / "Release")
    finally:
        _run("gpgconf", "--homedir", home, "--kill", "all")


def _apt(work: Path, url: str) -> dict[str, str]:
    """Nothing but this archive: no sources of the host, none of its index."""
    sources = work / "apt/mirror.list"
    for name in ("parts", "lists", "preferences"):
        (work / "apt" / name).mkdir(parents=True)
    sources.write_text(f"deb [signed-by={work}/keyring.gpg] {url} stable main\n")
    (work / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "{work}/apt/parts";\n'
        f'Dir::Etc::preferencesparts "{work}/apt/preferences";\nDir::State::lists "{work}/apt/lists";\n'
        'APT::Sandbox::User "root";\n'
    )
    return {"APT_CONFIG": str(work / "apt.conf")}


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
    return done.stdout
