"""How a step for a platform runs: the decision, as a table, and what becomes of it on its way to the kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from buildengine import platform as platforms
from buildengine.errors import HostError
from cache.overlay import TreeMount
from worker.runtime import bundle, failures, request
from worker.runtime.emulation import FORMATS, PLATFORMS, Emulator, Facts, Registration, how
from worker.runtime.spec import ProcessSpec, from_json

AMD64, ARM64 = platforms.parse("linux/amd64"), platforms.parse("linux/arm64")
BARE = Facts(local=AMD64, kernel=(6, 7))
QEMU = replace(BARE, emulator="/usr/bin/qemu")
EMULATOR = Emulator(name="qemu-x", program="/usr/bin/qemu", magic=b"\x7fELF", mask=b"\xff\0\xff\xff")


def entry(architecture: str, flags: str) -> Registration:
    form = FORMATS[architecture]
    return Registration(interpreter="/q", flags=flags, offset=0, magic=form.header(), mask=form.mask())


IN_THE_STEP = "emulated by /usr/bin/qemu in the step"
HOST = entry("arm64", "POCF")


@pytest.mark.parametrize(
    ("wanted", "facts", "expected"),
    [
        ("linux/amd64", BARE, "native"),
        ("linux/amd64/v3", BARE, "native"),
        ("linux/arm64", QEMU, IN_THE_STEP),
        ("linux/arm64", replace(BARE, registrations=(HOST,)), "registered on the host"),
        ("linux/arm64", replace(QEMU, registrations=(HOST,)), "registered on the host"),
        ("linux/arm64", replace(QEMU, registrations=(entry("arm64", "OCF"),)), IN_THE_STEP),
        ("linux/arm64", replace(QEMU, registrations=(entry("arm64", "P"),)), IN_THE_STEP),
        # nobody can see which of two the kernel would take
        ("linux/arm64", replace(QEMU, registrations=(HOST, entry("arm64", "P"))), IN_THE_STEP),
        ("linux/riscv64", replace(QEMU, registrations=(HOST,)), IN_THE_STEP),
        ("linux/386", replace(QEMU, compatible=True), "native"),
        ("linux/386", QEMU, IN_THE_STEP),
        ("linux/arm/v6", replace(QEMU, local=ARM64, compatible=True), "native"),
        ("linux/arm/v7", replace(QEMU, local=ARM64), IN_THE_STEP),
        ("linux/amd64", replace(QEMU, local=ARM64), IN_THE_STEP),
    ],
)  # fmt: skip
def test_how_a_platform_runs(wanted: str, facts: Facts, expected: str) -> None:
    assert str(how(platforms.parse(wanted), facts)) == expected


@pytest.mark.parametrize(
    ("wanted", "facts", "message", "hint"),
    [
        ("linux/arm64", BARE, "no static qemu-aarch64", "package qemu-user-static"),
        ("linux/arm64", replace(QEMU, kernel=(6, 6)), r"need Linux 6\.7 .* this is 6\.6", "register qemu on the host"),
        ("windows/amd64", QEMU, "windows/amd64 cannot run on linux/amd64", None),
        ("linux/wasm", QEMU, "no emulator", None),
    ],
)
def test_what_cannot_run_says_why(wanted: str, facts: Facts, message: str, hint: str | None) -> None:
    with pytest.raises(HostError, match=message) as raised:
        how(platforms.parse(wanted), facts)
    assert raised.value.hint is None if hint is None else hint in (raised.value.hint or "")


def test_each_format_takes_its_own_programs_only() -> None:
    headers = {name: form.header() for name, form in FORMATS.items()}
    for name in FORMATS:
        assert [other for other, header in headers.items() if entry(name, "").takes(header)] == [name]


def test_a_format_takes_what_linkers_make() -> None:
    """ET_DYN for a position-independent program, and whatever ABI of the operating system it names."""
    header = bytearray(FORMATS["s390x"].header())
    assert header[4:6] == b"\x02\x02"  # 64 bits, big-endian
    header[7] = 3  # ELFOSABI_GNU
    header[16:18] = b"\x00\x03"  # ET_DYN
    assert entry("s390x", "").takes(bytes(header))
    header[16:18] = b"\x00\x01"  # ET_REL: no program
    assert not entry("s390x", "").takes(bytes(header))


def test_a_registration_compares_from_its_offset_and_without_a_mask() -> None:
    form = FORMATS["arm64"]
    machine = Registration(interpreter="/q", flags="", offset=18, magic=form.header()[18:], mask=b"")
    assert machine.takes(form.header())
    assert not machine.takes(FORMATS["riscv64"].header())
    assert not replace(machine, offset=19).takes(form.header())  # beyond the end of what is known


def test_every_platform_that_is_told_about_has_a_format() -> None:
    assert {platform.architecture for platform in PLATFORMS} == set(FORMATS)


def step() -> ProcessSpec:
    return ProcessSpec(id="x", argv=("true",), root=TreeMount(lowers=("/l",)), emulator=EMULATOR)


def test_a_spec_with_an_emulator_can_be_written_and_read_back() -> None:
    assert from_json(step().to_json()) == step()


@pytest.mark.parametrize("network", ["host", "none"])
def test_the_request_says_what_to_register(network: str) -> None:
    built = request.build(replace(step(), network=network), {}, group="g")
    expected = {"name": "qemu-x", "program": "/usr/bin/qemu", "magic": b"\x7fELF", "mask": b"\xff\0\xff\xff"}
    assert built["emulation"] == {**expected, "network": network == "none"}
    assert request.build(replace(step(), emulator=None), {}, group="g")["emulation"] is None


def test_an_oci_runtime_runs_no_step_that_registers_its_emulator() -> None:
    program = bundle.Program(name="runc", path="/usr/sbin/runc")
    with pytest.raises(HostError, match="runc does not register /usr/bin/qemu for a step") as raised:
        request.build(step(), {}, oci=program, group="g")
    assert "built-in runtime" in (raised.value.hint or "")


def test_a_kernel_that_refuses_is_the_hosts_fault() -> None:
    error = failures.error({"fault": "emulation", "message": "binfmt_misc: Operation not permitted"})
    assert isinstance(error, HostError)
    assert "binfmt_misc: Operation not permitted" in error.message
    assert "Linux 6.7" in (error.hint or "")
