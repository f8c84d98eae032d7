"""What the client offers to a build, one call at a time: blobs of a layout, and the archive on standard input."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path

import pytest

from buildengine.api import content_pb2 as pb
from buildengine.api.filesync_pb2 import BytesMessage as FileBytes
from buildengine.api.rpc import Code, RpcError
from buildengine.builder import BuildRequest, Export
from buildengine.client.filesync import FILE_SEND, FileSend
from buildengine.client.layout import LayoutTarget
from buildengine.client.session import offer
from buildengine.client.upload import Upload
from buildengine.digest import Digest
from buildengine.errors import SourceError
from tests.fakes.server_call import ServedCall, serve

CONTENT = "/containerd.services.content.v1.Content"
LAYER, CONFIG = b"a layer", b"{}"


def descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}+json", "digest": Digest.sha256(data), "size": len(data)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1", CONFIG),
        "layers": [{**descriptor("x", LAYER), "mediaType": "application/vnd.oci.image.layer.v1.tar"}],
    }
).encode()


def put(layout: LayoutTarget, data: bytes, *parts: bytes, digest: str = "", commit: bool = True) -> ServedCall:
    digest = digest or Digest.sha256(data)
    requests = [pb.WriteContentRequest(action=pb.STAT, ref="r", expected=digest, total=len(data))]
    offset = 0
    for part in parts or (data,):
        requests.append(pb.WriteContentRequest(action=pb.WRITE, offset=offset, data=part))
        offset += len(part)
    if commit:
        requests.append(pb.WriteContentRequest(action=pb.COMMIT, offset=offset, total=len(data), expected=digest))
    call = ServedCall(*requests)
    asyncio.run(serve(layout.services, f"{CONTENT}/Write", call))
    return call


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def blob(data: bytes) -> str:
    return f"blobs/sha256/{Digest.sha256(data).hex}"


def test_blobs_become_a_layout(tmp_path: Path) -> None:
    layout = LayoutTarget(tmp_path / "out", ("app:1",))
    put(layout, CONFIG)
    said = put(layout, LAYER, LAYER[:3], LAYER[3:]).sent
    assert [answer.offset for answer in said] == [0, 3, 7, 7]
    assert said[-1].digest == Digest.sha256(LAYER)
    put(layout, MANIFEST)
    layout.finish({})
    assert files(tmp_path / "out") == sorted([blob(CONFIG), blob(LAYER), blob(MANIFEST), "index.json", "oci-layout"])
    (entry,) = json.loads((tmp_path / "out/index.json").read_bytes())["manifests"]
    assert (entry["digest"], entry["annotations"]["io.containerd.image.name"]) == (
        Digest.sha256(MANIFEST),
        "docker.io/library/app:1",
    )


def test_a_blob_that_is_there_is_not_taken_again(tmp_path: Path) -> None:
    layout = LayoutTarget(tmp_path, ())
    put(layout, MANIFEST)
    with pytest.raises(RpcError, match="already exists") as caught:
        put(layout, MANIFEST)
    assert caught.value.code is Code.ALREADY_EXISTS
    call = ServedCall(pb.InfoRequest(digest=Digest.sha256(MANIFEST)))
    asyncio.run(serve(layout.services, f"{CONTENT}/Info", call))
    assert call.sent[0].info.size == len(MANIFEST)
    told = {**descriptor("manifest.v1", MANIFEST), "annotations": {"a": "b"}}
    layout.finish({"containerimage.descriptor": base64.b64encode(json.dumps(told).encode()).decode()})
    (entry,) = json.loads((tmp_path / "index.json").read_bytes())["manifests"]
    assert entry["annotations"] == {"a": "b"}


@pytest.mark.parametrize(
    ("parts", "options", "code"),
    [
        ((b"a lay", b"er!"), {}, Code.FAILED_PRECONDITION),  # one byte more
        ((b"A LAYER",), {}, Code.FAILED_PRECONDITION),  # others
        ((LAYER,), {"commit": False}, Code.CANCELLED),  # it breaks off
        ((LAYER,), {"digest": "sha256:../../etc/passwd"}, Code.INVALID_ARGUMENT),
        ((LAYER,), {"digest": "sha512:" + "0" * 128}, Code.INVALID_ARGUMENT),
    ],
)
def test_what_is_no_blob_leaves_nothing(
    tmp_path: Path, parts: tuple[bytes, ...], options: dict[str, object], code: Code
) -> None:
    layout = LayoutTarget(tmp_path, ())
    with pytest.raises(RpcError) as caught:
        put(layout, LAYER, *parts, **options)
    assert caught.value.code is code
    assert files(tmp_path) == []
    with pytest.raises(RpcError, match="the blob is at 0"):
        asyncio.run(
            serve(
                layout.services,
                f"{CONTENT}/Write",
                ServedCall(pb.WriteContentRequest(expected=Digest.sha256(LAYER), offset=5, data=b"x")),
            )
        )
    assert files(tmp_path) == []


@pytest.mark.parametrize(("given", "names"), [(("*",), ["a:1", "b:2"]), (("own:3",), ["own:3"]), ((), [])])
def test_the_names_of_a_layout(tmp_path: Path, given: tuple[str, ...], names: list[str]) -> None:
    """Its own, but for `*`: what the frontend says."""
    layout = LayoutTarget(tmp_path, given)
    put(layout, MANIFEST)
    layout.finish({"image.name": "docker.io/library/a:1,docker.io/library/b:2"})
    entries = json.loads((tmp_path / "index.json").read_bytes())["manifests"]
    found = [entry.get("annotations", {}).get("io.containerd.image.name", "") for entry in entries]
    assert [name.removeprefix("docker.io/library/") for name in found if name] == names


def test_a_layout_without_an_image(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="sent no image for the layout"):
        LayoutTarget(tmp_path, ()).finish({})


def test_an_upload_is_read_once(tmp_path: Path) -> None:
    services = Upload("/ref", io.BytesIO(b"x" * (3 << 20)).read).services
    call = ServedCall(metadata=(("urlpath", "/ref"),))
    asyncio.run(serve(services, "/moby.upload.v1.Upload/Pull", call))
    assert [len(message.data) for message in call.sent] == [1 << 20] * 3
    for path in ("/ref", "/other"):
        with pytest.raises(RpcError, match="nothing is uploaded at"):
            asyncio.run(serve(services, "/moby.upload.v1.Upload/Pull", ServedCall(metadata=(("urlpath", path),))))


def test_exports_by_their_numbers(tmp_path: Path) -> None:
    exports = (
        Export(type="image"),
        Export(type="tar", dest=str(tmp_path / "a.tar")),
        Export(type="oci", dest=str(tmp_path / "layout"), attrs={"tar": "false"}),
    )
    sends = FileSend(exports, 1)
    assert sends.takes_any
    for number in ("0", "2", "3", "-1", "x"):
        with pytest.raises(RpcError, match="has no destination here"):
            sends.method((("buildkit-attachable-exporter-id", number),))
    method = sends.method((("buildkit-attachable-exporter-id", "1"),))
    asyncio.run(method.handler(ServedCall(FileBytes(data=b"one"), FileBytes(data=b"two"))))
    assert (tmp_path / "a.tar").read_bytes() == b"onetwo"


def test_only_what_is_asked_for_is_offered() -> None:
    def paths(request: BuildRequest) -> set[str]:
        offered = offer(request, {}, logins=None, environment={}, stdout=1)
        return {path.rpartition("/")[0].removeprefix("/") for path in offered.paths}

    usual = {
        "moby.filesync.v1.FileSync", "moby.buildkit.secrets.v1.Secrets", "moby.sshforward.v1.SSH",
        "grpc.health.v1.Health",
    }  # fmt: skip
    assert paths(BuildRequest(ref="r")) == usual
    archive = BuildRequest(ref="r", context_archive=io.BytesIO().read)
    assert paths(archive) == usual | {"moby.upload.v1.Upload"}
    assert FILE_SEND.split("/")[1] in paths(BuildRequest(ref="r", exports=(Export(type="tar", dest="-"),)))
