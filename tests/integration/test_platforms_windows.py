"""Images for Windows on a host without it: on a base whose layers are laid out as Windows has them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.builds import FIXTURES, Store, write

pytest_plugins = [FIXTURES]

URL = "https://example.invalid/layer"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
WINDOWS = ("--platform", "windows/amd64")
DOCKERFILE = """\
# escape=`
FROM nano AS one
COPY files C:\\app\\
FROM scratch AS two
COPY --from=one C:\\Windows /win
COPY --from=one License.txt /
FROM nano
WORKDIR C:\\app
COPY --from=two --chown=ContainerUser / C:\\app\\
COPY --from=one \\app \\app2
"""


class Archive:
    """An OCI layout that is being written as a tar archive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self._files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    def document(self, document: dict[str, Any], media_type: str, **more: Any) -> dict[str, Any]:
        return self.blob(json.dumps(document).encode(), media_type, **more)

    def finish(self, index: dict[str, Any]) -> None:
        self._files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [index]}).encode()
        with tarfile.open(self._path, "w") as tar:
            for name, data in self._files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def windows_layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in (
            ("Hives", None),
            ("Files", None),
            ("Hives/System_Delta", b"a hive"),
            ("Files/Windows", None),
            ("Files/Windows/a.txt", b"a"),
            ("Files/License.txt", b"l"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode = (tarfile.REGTYPE, 0o644) if data is not None else (tarfile.DIRTYPE, 0o755)
            member.mtime, member.size = 1_600_000_000, len(data or b"")
            member.pax_headers = {"MSWINDOWS.fileattr": "16" if data is None else "32"}
            tar.addfile(member, io.BytesIO(data or b""))
    return buffer.getvalue()


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """An archive of `nano`, whose layer is a foreign one."""
    archive = Archive(tmp_path / "nano.tar")
    said = {"os": "windows", "architecture": "amd64", "os.version": "10.0.17763.9999", "os.features": ["win32k"]}
    layer = archive.blob(windows_layer(), FOREIGN, urls=[URL])
    config = {
        **said,
        "config": {"User": "ContainerUser"},
        "history": [{"created": "2030-01-01T00:00:00Z", "created_by": "Apply image"}],
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    described = archive.document(config, "application/vnd.docker.container.image.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    manifest |= {"config": described, "layers": [layer]}
    entry = archive.document(manifest, str(manifest["mediaType"]), platform=said)
    index = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json"}
    index["manifests"] = [entry]
    name = {"io.containerd.image.name": "docker.io/library/nano:latest"}
    archive.finish(archive.document(index, str(index["mediaType"]), annotations=name))
    return tmp_path / "nano.tar"


@pytest.fixture
def windows(empty_store: Store, nano: Path) -> Store:
    empty_store.command("image", "load", "-i", nano)
    return empty_store


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "files/a": "1", "files/d/b": "2"})


def exported(store: Store, context: Path, out: Path, *flags: str, attrs: str = "") -> tuple[dict[str, Any], Any, Any]:
    """The entry of index.json, the manifest and the config; layers are not compressed."""
    output = f"type=oci,tar=false,compression=uncompressed,dest={out}{attrs}"
    store.command("build", context, *WINDOWS, *flags, "-o", output, environment={"SOURCE_DATE_EPOCH": "1700000000"})
    (entry,) = json.loads((out / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(out, entry))
    return entry, manifest, json.loads(blob(out, manifest["config"]))


def blob(out: Path, descriptor: dict[str, str]) -> bytes:
    return (out / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()


def names(out: Path, descriptor: dict[str, Any]) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(blob(out, descriptor))) as tar:
        return tar.getnames()


def test_on_a_windows_base(windows: Store, context: Path, tmp_path: Path) -> None:
    entry, manifest, config = exported(windows, context, tmp_path / "out")
    version = {"os.version": "10.0.17763.9999", "os.features": ["win32k"]}
    assert entry["platform"] == {"architecture": "amd64", "os": "windows", **version}
    assert {key: config[key] for key in version} == version
    assert config["config"] == {"User": "ContainerUser", "WorkingDir": "\\app"}
    base, *own = manifest["layers"]
    assert blob(tmp_path / "out", base) == windows_layer()
    assert [names(tmp_path / "out", layer) for layer in own] == [
        ["Hives", "Files", "Files/app"],
        ["Hives", "Files", "Files/app", "Files/app/License.txt", "Files/app/win", "Files/app/win/a.txt"],
        ["Hives", "Files", "Files/app2", "Files/app2/a", "Files/app2/d", "Files/app2/d/b"],
    ]
    times = [step["created"] for step in config["history"]]
    assert times == ["2030-01-01T00:00:00Z", *["2023-11-14T22:13:20Z"] * 3]


def test_the_time_of_an_export_is_not_that_of_one_before(windows: Store, context: Path, tmp_path: Path) -> None:
    found = []
    for epoch, rewrite in ((1000, "false"), (2000, "false"), (3000, "true")):
        attrs = f",source-date-epoch={epoch},rewrite-timestamp={rewrite}"
        _, manifest, _ = exported(windows, context, tmp_path / str(epoch), attrs=attrs)
        with tarfile.open(fileobj=io.BytesIO(blob(tmp_path / str(epoch), manifest["layers"][-1]))) as tar:
            found.append(tar.getmember("Hives").mtime)
    assert found == [0, 0, 3000]


def test_taken_from_a_windows_base(windows: Store, context: Path, tmp_path: Path) -> None:
    """What begins with scratch is plain, as BuildKit's."""
    entry, manifest, config = exported(windows, context, tmp_path / "out", "--target", "two")
    assert entry["platform"] == {"architecture": "amd64", "os": "windows"}
    assert [names(tmp_path / "out", layer) for layer in manifest["layers"]] == [["win", "win/a.txt"], ["License.txt"]]
    assert config["config"] == {"WorkingDir": "\\"}


def test_a_child_of_what_was_built(windows: Store, context: Path, tmp_path: Path) -> None:
    windows.command("build", context, *WINDOWS, "-t", "app")
    windows.command("image", "save", "app", "-o", tmp_path / "app.tar")
    other = Store(tmp_path / "other", tmp_path / "home")
    other.command("image", "load", "-i", tmp_path / "app.tar")
    child = write(tmp_path / "child", {"Dockerfile": "FROM app AS a\nFROM scratch\nCOPY --from=a / /\n"})
    for store in (windows, other):
        store.command("build", child, *WINDOWS, "-o", f"type=local,dest={tmp_path / store.root.name}-files")
        files = tmp_path / f"{store.root.name}-files"
        found = sorted(str(path.relative_to(files)) for path in files.rglob("*") if path.is_file())
        assert found == ["License.txt", "Windows/a.txt", "app/License.txt", "app/win/a.txt", "app2/a", "app2/d/b"]


@pytest.mark.parametrize(
    ("attrs", "media_type", "urls"),
    [
        ("", "application/vnd.oci.image.layer.v1.tar", None),
        (",oci-mediatypes=false", "application/vnd.docker.image.rootfs.diff.tar", None),
        (",prefer-nondist-layers=true", "application/vnd.oci.image.layer.nondistributable.v1.tar", [URL]),
        (",prefer-nondist-layers=true,oci-mediatypes=false", FOREIGN, [URL]),
    ],
)
def test_a_foreign_layer(
    attrs: str, media_type: str, urls: list[str] | None, windows: Store, context: Path, tmp_path: Path
) -> None:
    _, manifest, _ = exported(windows, context, tmp_path / "out", attrs=attrs)
    assert (manifest["layers"][0]["mediaType"], manifest["layers"][0].get("urls")) == (media_type, urls)
    assert all("urls" not in layer for layer in manifest["layers"][1:])


def test_no_step_runs(windows: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM nano\nRUN dir\n"})
    built = windows.command("build", context, *WINDOWS, status=3)
    assert "steps for windows/amd64 cannot run" in built.error
    assert "Dockerfile:2" in built.error
