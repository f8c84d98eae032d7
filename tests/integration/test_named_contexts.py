"""--build-context: directories, and images of OCI layouts, in the command's own engine and before a daemon."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Built, Store, write
from tests.fakes.daemon import daemon
from tests.fakes.remote_command import remote

pytest_plugins = [FIXTURES]
Build = Callable[..., Built]


@pytest.fixture(scope="module")
def layout(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with the image `one`: the base, and a layer of its own."""
    place = tmp_path_factory.mktemp("layout")
    store = store_with_base.copy(place / "store")
    context = write(place / "context", {"Dockerfile": "FROM base\nENV FROM_LAYOUT=yes\nCOPY a /laid\n", "a": "laid"})
    store.command("build", context, "-o", f"type=oci,tar=false,dest={place}/out,name=example.com/one:1")
    return place / "out"


@pytest.fixture(params=["here", "there"])
def builder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Build]]:
    """An empty store, and what builds into it."""
    home = tmp_path / "home"
    home.mkdir()
    store = Store(tmp_path / "root", home)
    if request.param == "here":
        yield store, store.command
        return
    with daemon(store.root, tmp_path / "d") as running:
        yield store, remote(running, store).run


def layers(layout: Path) -> list[str]:
    """The digests of the layers of the layout's image."""
    blobs = layout / "blobs" / "sha256"
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_bytes())
    return [layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]]


def test_an_image_of_a_layout(builder: tuple[Store, Build], layout: Path, tmp_path: Path) -> None:
    """Its layers are fetched when something needs their files, not before."""
    store, build = builder
    dockerfile = "FROM laid AS lazy\nENV x=y\nFROM laid AS run\nRUN env > /out\n"
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    flags = ("--build-context", f"laid=oci-layout://{layout}:1")
    build("build", context, *flags, "-o", "type=cacheonly", "--target", "lazy")
    assert not [layer for layer in layers(layout) if list(store.root.rglob(layer))]
    built = build("build", context, *flags, "-o", tmp_path / "out")
    assert built.ran == ["RUN env > /out"]
    assert "FROM_LAYOUT=yes\n" in (tmp_path / "out/out").read_text()
    assert (tmp_path / "out/laid").read_text() == "laid"


def test_what_is_wrong_with_a_layout(builder: tuple[Store, Build], layout: Path, tmp_path: Path) -> None:
    _, build = builder
    context = write(tmp_path / "context", {"Dockerfile": "FROM laid\nRUN true\n"})
    damaged = write(tmp_path / "damaged", {})
    for file in layout.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            is_layer = file.name in layers(layout)
            write(damaged, {str(file.relative_to(layout)): data[:-1] + b"?" if is_layer else data})
    broken = build("build", context, "--build-context", f"laid=oci-layout://{damaged}", status=1)
    assert "of an OCI layout holds other bytes" in broken.error
    missing = "sha256:" + "0" * 64
    absent = build("build", context, "--build-context", f"laid=oci-layout://{layout}@{missing}", status=1)
    assert missing in absent.error


def test_a_directory_for_a_stage_and_for_an_image(builder: tuple[Store, Build], tmp_path: Path) -> None:
    _, build = builder
    context = write(tmp_path / "context", {"Dockerfile": "FROM other AS stage\nFROM scratch\nCOPY --from=stage f /\n"})
    for name in ("one", "two"):
        write(tmp_path / name, {"f": name})
        build("build", context, "--build-context", f"stage={tmp_path}/{name}", "-o", tmp_path / "out")
        assert (tmp_path / "out/f").read_text() == name
    write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY --from=example.com/x:latest f /g\n"})
    build("build", context, "--build-context", f"example.com/x={tmp_path}/one", "-o", tmp_path / "out")
    assert (tmp_path / "out/g").read_text() == "one"
