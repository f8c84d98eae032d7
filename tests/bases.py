"""Base images for tests and benchmarks: made on the spot from Debian's packages, pushed to a registry of their own.

    with docker_registry(work) as host:
        push(host, "library/busybox", image(busybox(work)))

Every program that is used here comes from a Debian package; one that is missing is an error, never a skip.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CREATED = "2023-01-01T00:00:00Z"
_ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """An image to push: uncompressed layers, base first, and the inner config. `packed`: push them as gzip."""

    layers: tuple[bytes, ...]
    config: Mapping[str, object] = field(default_factory=dict)
    architecture: str = "amd64"
    packed: bool = True


def image(*layers: bytes, architecture: str = "amd64", **config: object) -> BaseImage:
    return BaseImage(layers=layers, config={"Env": _ENV, "Cmd": ["sh"], **config}, architecture=architecture)


# --- the registry ---------------------------------------------------------------------------------------------


@contextmanager
def docker_registry(work: Path) -> Iterator[str]:
    """`host:port` of a docker-registry on loopback, empty, for this block. It keeps its files below `work`."""
    configuration, log = work / "registry.yml", work / "registry.log"
    configuration.write_text(
        "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {work}/registry}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n"
    )
    with open(log, "wb") as sink:
        server = subprocess.Popen(["docker-registry", "serve", str(configuration)], stdout=sink, stderr=sink)
        try:
            yield _listening(server, log)
        finally:
            server.terminate()
            server.wait()


def _listening(server: subprocess.Popen[bytes], log: Path) -> str:
    found = None
    while found is None and server.poll() is None:
        time.sleep(0.005)
        found = re.search(rb"listening on (127\.0\.0\.1:\d+)", log.read_bytes())
    if found is None:
        raise RuntimeError("docker-registry did not start: " + log.read_text()[-2000:])
    return found[1].decode()


def push(host: str, repository: str, *images: BaseImage, tag: str = "latest") -> None:
    """Push one image as a manifest, several as an index of platforms."""
    manifests = [_manifest(host, repository, image) for image in images]
    if len(images) == 1:
        _put_manifest(host, repository, tag, _MANIFEST, manifests[0])
        return
    entries = []
    for image, raw in zip(images, manifests, strict=True):
        _put_manifest(host, repository, digest(raw), _MANIFEST, raw)
        platform = {"os": "linux", "architecture": image.architecture}
        entries.append({"mediaType": _MANIFEST, "digest": digest(raw), "size": len(raw), "platform": platform})
    index = json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}).encode()
    _put_manifest(host, repository, tag, _INDEX, index)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _manifest(host: str, repository: str, image: BaseImage) -> bytes:
    history: list[dict[str, object]] = [
        {"created": _CREATED, "created_by": f"layer {n}"} for n in range(len(image.layers))
    ]
    history.append({"created": _CREATED, "created_by": 'CMD ["sh"]', "empty_layer": True})
    config = {
        "architecture": image.architecture,
        "os": "linux",
        "created": _CREATED,
        "config": image.config,
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in image.layers]},
    }
    media_type = f"{_LAYER}+gzip" if image.packed else _LAYER
    blobs = [gzip.compress(layer, 1, mtime=0) if image.packed else layer for layer in image.layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _put_blob(host, repository, _CONFIG, json.dumps(config).encode()),
        "layers": [_put_blob(host, repository, media_type, blob) for blob in blobs],
    }
    return json.dumps(manifest).encode()


def _put_manifest(host: str, repository: str, reference: str, media_type: str, raw: bytes) -> None:
    _send("PUT", f"http://{host}/v2/{repository}/manifests/{reference}", raw, media_type)


def _put_blob(host: str, repository: str, media_type: str, data: bytes) -> dict[str, object]:
    location = _send("POST", f"http://{host}/v2/{repository}/blobs/uploads/", b"", "text/plain")
    separator = "&" if "?" in location else "?"
    _send("PUT", f"{location}{separator}digest={digest(data)}", data, "application/octet-stream")
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def _send(method: str, url: str, data: bytes, content_type: str) -> str:
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": content_type})
    with urllib.request.urlopen(request) as response:
        return urllib.parse.urljoin(url, str(response.headers.get("Location", "")))


# --- layers ---------------------------------------------------------------------------------------------------


def busybox(work: Path) -> bytes:
    """The static busybox with all its names, and the directories and files that a small system has."""
    root = work / "busybox"
    for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin", "var/spool/mail"):
        (root / name).mkdir(parents=True)
    (root / "root").chmod(0o700)
    (root / "tmp").chmod(0o1777)
    binary = Path(shutil.which("busybox") or "/bin/busybox")
    shutil.copy(binary, root / "bin" / "busybox")
    for applet in subprocess.run([str(binary), "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nmail:x:8:8:mail:/var/mail:/bin/false\n"
    )
    (root / "etc" / "group").write_text("root:x:0:\ndaemon:x:1:\nmail:x:8:\nwww-data:x:33:\n")
    (root / "etc" / "shadow").write_text("root:*:19000:0:99999:7:::\n")
    return subprocess.run(["tar", "-C", str(root), "--sort=name", "-c", "."], capture_output=True, check=True).stdout


def debian(work: Path) -> tuple[bytes, bytes]:
    """A small Debian with merged /usr and setcap: unpacked packages, and a layer that makes a system of them.

    Nothing is configured, which takes a tenth of the time; the second layer brings the accounts and removes the
    device files and the manual pages: whiteouts and an opaque directory over a real tree.
    """
    archive = work / "debian-packages.tar"
    packages = "base-files,base-passwd,coreutils,dash,findutils,grep,libc-bin,libcap2-bin,sed"
    argv = ["mmdebstrap", "--quiet", "--variant=extract", f"--hook-dir={_MERGED_USR}", f"--include={packages}"]
    done = subprocess.run([*argv, "bookworm", str(archive)], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError("mmdebstrap failed: " + done.stderr.decode()[-2000:])
    with tarfile.open(archive) as packed:
        accounts = {
            f"etc/{name}": _member(packed, f"./usr/share/base-passwd/{name}.master") for name in ("passwd", "group")
        }
        devices = [name.removeprefix("./") for name in packed.getnames() if re.fullmatch(r"\./dev/[^/]+", name)]
    whiteouts = [f"dev/.wh.{name.removeprefix('dev/')}" for name in devices]
    files = {"dev/": b"", **dict.fromkeys(whiteouts, b""), "etc/": b"", **accounts, "usr/": b"", "usr/share/": b""}
    return archive.read_bytes(), layer({**files, "usr/share/man/": b"", "usr/share/man/.wh..wh..opq": b""})


def debian_minbase(work: Path) -> bytes:
    """Debian as debootstrap's minbase has it: everything configured, with apt. Takes half a minute."""
    archive = work / "debian.tar"
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(archive)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return archive.read_bytes()


def layer(files: Mapping[str, bytes]) -> bytes:
    """A layer of regular files and directories (`name/`), root's, with one fixed time."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_600_000_000
            info.type, info.mode = (tarfile.DIRTYPE, 0o755) if name.endswith("/") else (tarfile.REGTYPE, 0o644)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, name
    return file.read()
