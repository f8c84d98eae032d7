"""Base images for the benchmarks, in a registry of their own on loopback: Debian's busybox and a Debian."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@contextmanager
def registry_with_bases(work: Path) -> Iterator[str]:
    """`host:port` of a registry that has bench/busybox and bench/debian, for this block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = f"127.0.0.1:{port}"
    configuration = work / "registry.yml"
    configuration.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {work}/registry}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    with open(work / "registry.log", "wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", str(configuration)], stdout=log, stderr=log)
        try:
            _wait_for(host)
            _push(host, "bench/busybox", _busybox(work))
            _push(host, "bench/debian", _debian(work))
            yield host
        finally:
            server.terminate()
            server.wait()


def _wait_for(host: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://{host}/v2/").close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("docker-registry did not start")


def _busybox(work: Path) -> bytes:
    root = work / "busybox"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "usr/bin"):
        (root / name).mkdir(parents=True)
    binary = Path(shutil.which("busybox") or "/bin/busybox")
    shutil.copy(binary, root / "bin" / "busybox")
    for applet in subprocess.run([str(binary), "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    return subprocess.run(["tar", "-C", str(root), "-c", "."], capture_output=True, check=True).stdout


def _debian(work: Path) -> bytes:
    archive = work / "debian.tar"
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(archive)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return archive.read_bytes()


def _push(host: str, repository: str, layer: bytes) -> None:
    packed = gzip.compress(layer, 6, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": _put_blob(host, repository, config), "size": len(config)},
        "layers": [{"mediaType": _LAYER, "digest": _put_blob(host, repository, packed), "size": len(packed)}],
    }
    url = f"http://{host}/v2/{repository}/manifests/latest"
    _send("PUT", url, json.dumps(manifest).encode(), {"Content-Type": _MANIFEST})


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _put_blob(host: str, repository: str, data: bytes) -> str:
    location = _send("POST", f"http://{host}/v2/{repository}/blobs/uploads/", b"", {})
    separator = "&" if "?" in location else "?"
    digest = _digest(data)
    _send("PUT", f"{location}{separator}digest={digest}", data, {"Content-Type": "application/octet-stream"})
    return digest


def _send(method: str, url: str, data: bytes, headers: dict[str, str]) -> str:
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    with urllib.request.urlopen(request) as response:
        return str(response.headers.get("Location", ""))
