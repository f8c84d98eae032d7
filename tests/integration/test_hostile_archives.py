"""Archives that are damaged, absurd or climb: for ADD, as a context from standard input, and for `image load`."""

from __future__ import annotations

import gzip
import lzma

import pytest

from tests.fakes.hostile import WANTED, Attack
from tests.fakes.hostile_archives import compact, config, digest, header, layout, pax, tar

pytest_plugins = ["tests.fakes.hostile_fixtures"]

UP = "../" * 12

# name: (archive, what the report says)
REFUSED: dict[str, tuple[bytes, str]] = {
    "a name that climbs": (tar((f"{UP}{WANTED}/made", "file")), "has an entry outside its root"),
    "a name that climbs late": (tar(("a/../../b", "file")), "has an entry outside its root: a/../../b"),
    "the parent directory": (tar(("..", "folder")), "has an entry outside its root"),
    "a hard link to the host": (tar(("h", "hard", f"/{WANTED}/secret")), "which is not a file"),
    "a hard link that climbs": (tar(("h", "hard", f"{UP}{WANTED}/secret")), "has an entry outside its root"),
    "a hard link through a link": (
        tar(("l", "link", f"/{WANTED}"), ("h", "hard", "l/secret")),
        "which is not a file",
    ),
    "a hard link to itself": (tar(("h", "hard", "h")), "the archive links h to h, which is not a file"),
    "a hard link to a directory": (tar(("d", "folder"), ("h", "hard", "d")), "which is not a file"),
    "links in a circle": (tar(("a", "link", "b"), ("b", "link", "a"), ("a/x", "file")), "too many symbolic links"),
    "a whiteout of overlayfs": (tar(("w", "char", 0, 0)), "has a character device 0:0: w"),
    "a file below a file": (tar(("f", "file"), ("f/x", "file")), "which is not a directory"),
    "a size beyond the end": (header(size=b"77777777777\0") + bytes(512), "ends in the middle of x"),
    "a size of exabytes": (header(size=b"\x80\0\0\0" + b"\xff" * 8), "claims an absurd size for x"),
    "a negative size": (header(size=b"\xff" * 12), "claims an absurd size for x"),
    "an owner that cannot exist": (header(uid=b"\x80\0\0" + b"\xff" * 5), "an owner that cannot exist"),
    "an extended header of gigabytes": (header(kind=b"x", size=b"77777777777\0"), "extended header of absurd length"),
    "a thousand extended headers": (pax({"a": "b"}) * 1000 + header(), "extended header of absurd length"),
    "a damaged record": (header(kind=b"x", size=b"00000000010\0") + b"9999 a=b".ljust(512, b"\0"), "malformed"),
    "a size in letters": (pax({"size": "evil"}) + header(), "is not a number"),
    "a size of many digits": (pax({"size": "9" * 5000}) + header(), "is not a number"),
    "a time in letters": (pax({"mtime": "evil"}) + header(), "is not a time"),
    "a NUL in a name": (pax({"path": "a\0b"}) + header(), "a name contains a zero byte"),
    "a sparse file of exabytes": (
        pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 18})
        + header(size=b"%011o\0" % 512)
        + b"1\n0\n0\n".ljust(512, b"\0"),
        "absurd size",
    ),
    "a sparse map out of order": (
        pax({"GNU.sparse.map": "5,1,0,1", "GNU.sparse.size": "9"}) + header(size=b"%011o\0" % 2) + bytes(512),
        "a sparse map is out of order",
    ),
    "an unknown type": (header(kind=b"Z"), "an entry of unknown type"),
    "half a file": (header(size=b"00000001000\0") + b"half", "ends in the middle of x"),
    "half a gzip": (gzip.compress(tar(("a", "file", bytes(100_000))))[:-20], "the gzip stream ends too early"),
    "a gzip with another checksum": (gzip.compress(tar(("a", "file")))[:-8] + bytes(8), "the gzip stream is damaged"),
    "half an xz": (lzma.compress(tar(("a", "file", b"ab" * 100_000)))[:-20], "the xz stream"),
    "a path too long": (tar(("d/" * 2100 + "x", "file")), "has a name that is too long for Linux"),
    "a name too long": (tar(("x" * 256, "file")), "has a name that is too long for Linux"),
}

# What is no archive is a file; what is one, however odd, stays where it was put.
HARMLESS: dict[str, bytes] = {
    "an absolute name": tar((f"/{WANTED}/made", "file")),
    "a link and a file behind it": tar(("l", "link", f"/{WANTED}"), ("l/made", "file")),
    "a link that climbs and a file behind it": tar(("l", "link", f"{UP}{WANTED}"), ("l/made", "file")),
    "a link that is replaced": tar(("l", "link", f"/{WANTED}/secret"), ("l", "file", b"ours")),
    "whiteouts": tar((".wh.bin", "file"), (".wh..wh..opq", "file")),
    "escape sequences": tar(("a\nb\x1b[31m", "file")),
    "the root itself": tar((".", "file"), ("./", "folder")),
    "a time before all times": header(mtime=b"\xff" * 12),
    "half a header": header()[:300],
    "a device": tar(("loop", "block", 7, 0)),
    "a thousand directories": tar(*[("/".join(["d"] * depth), "folder") for depth in range(1, 1000, 50)]),
    "64 MiB of zeros": gzip.compress(bytes(64 << 20)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_add_refuses(attack: Attack, name: str) -> None:
    data, fragment = REFUSED[name]
    outcome = attack.build("FROM base\nADD a.tar /out/\n", files={"a.tar": data})
    outcome.refused("cannot unpack /a.tar: ", fragment, line=2)


@pytest.mark.parametrize("name", HARMLESS)
def test_add_keeps_inside(attack: Attack, name: str) -> None:
    text = f"FROM base\nADD a.tar /out/\nRUN test -d /bin -a -x /bin/sh -a ! -e /{WANTED}\n"
    attack.build(text, files={"a.tar": HARMLESS[name]}).harmless()


@pytest.mark.parametrize("name", ["a name that climbs", "a hard link to the host", "a negative size", "half a file"])
def test_a_context_on_standard_input_refuses(attack: Attack, name: str) -> None:
    data, fragment = REFUSED[name]
    attack.run("build", "-o", "type=cacheonly", "-", stdin=data).refused(fragment)


def test_a_context_on_standard_input_stays_inside(attack: Attack) -> None:
    """A link in it leads nowhere, a device in it cannot be read."""
    data = tar(
        ("Dockerfile", "file", b"FROM base\nCOPY l/shadow /x\n"),
        ("l", "link", "/etc"),
        ("loop", "block", 7, 0),
    )
    attack.run("build", "-o", "type=cacheonly", "-", stdin=data).refused("'/l/shadow': not found", "Dockerfile:2")


def test_a_dockerfile_that_is_a_link(attack: Attack) -> None:
    data = tar(("Dockerfile", "link", "/etc/shadow"))
    outcome = attack.run("build", "-", stdin=data)
    outcome.refused("failed to read dockerfile: open Dockerfile", "hint: it is a symbolic link")


# --- image load -------------------------------------------------------------------------------------------------

GOOD = tar(("bin/x", "file"))

# name: (archive, what the report says)
LOADED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not an image archive"),
    "garbage": (b"garbage" * 1000, "not a tar archive"),
    "no index": (tar(("x", "file")), "it has neither index.json nor manifest.json"),
    "an index that is a link": (tar(("index.json", "link", "/etc/shadow")), "it has neither index.json"),
    "names that climb": (tar((f"{UP}{WANTED}/made", "file"), (f"{UP}index.json", "file", b"{}")), "it has neither"),
    "an index of brackets": (
        tar(("oci-layout", "file", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", "file", b"[" * 100_000)),
        "index.json is nested too deeply",
    ),
    "an index of a thousand digits": (
        tar(("oci-layout", "file", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", "file", b"9" * 5000)),
        "index.json is not valid JSON",
    ),
    "an index that is not UTF-8": (
        tar(("oci-layout", "file", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", "file", b"\xff")),
        "index.json is not valid JSON",
    ),
    "a layout of the future": (
        tar(("oci-layout", "file", b'{"imageLayoutVersion":"9.0.0"}'), ("index.json", "file", b"{}")),
        "9.0.0",
    ),
    "a list of numbers": (tar(("manifest.json", "file", b"[1]")), "entry 0 is not an object"),
    "files that climb": (
        tar(("manifest.json", "file", compact([{"Config": "../../../etc/shadow", "Layers": [], "RepoTags": []}]))),
        "the archive lacks ../../../etc/shadow",
    ),
    "links in a circle": (
        tar(("manifest.json", "file", compact([{"Config": "c", "Layers": [], "RepoTags": []}])), ("c", "link", "c")),
        "the archive has a loop of links at c",
    ),
    "a blob under another name": (tar((f"blobs/sha256/{'0' * 64}", "file")), "holds other bytes"),
    "a name that climbs": (layout([GOOD], name="../../evil"), "'..' is not a registry host"),
    "a name of escape sequences": (layout([GOOD], name="evil\n\x1b[31m"), "is not a repository name"),
    "no diff ids": (layout([GOOD], config_bytes=config([])), "has 1 layers, its config names 0"),
    "a config that is a list": (layout([GOOD], config_bytes=b"[]"), "is not a JSON object"),
    "a history of numbers": (layout([GOOD], config_bytes=config([GOOD], history=[1, None])), "history[0]"),
    "a negative size": (layout([GOOD], descriptor={"size": -1}), "manifests[0].size is not between"),
    "a size that is another": (layout([GOOD], descriptor={"size": 1}), "its descriptor says 1"),
    "a size in letters": (layout([GOOD], descriptor={"size": "evil"}), "manifests[0].size is not a number"),
    "a digest that climbs": (layout([GOOD], descriptor={"digest": "sha256:../../x"}), "is not a digest"),
    "a weak digest": (layout([GOOD], descriptor={"digest": f"md5:{'0' * 32}"}), "is not a digest"),
    "manifest and index in one": (
        layout([GOOD], manifest=compact({"schemaVersion": 2, "layers": [], "manifests": [], "config": {}})),
        "claims to be both an image manifest and an index",
    ),
    "a withdrawn schema": (layout([GOOD], manifest=compact({"schemaVersion": 1})), "schema 1 manifest"),
    "half an archive": (layout([GOOD])[:3000], "the archive is cut off"),
    "a record of a million parts": (
        header(kind=b"x", size=b"%011o\0" % 960_000) + b"6 a=b\n" * 160_000 + b"x" * 512,
        "not a tar archive",
    ),
}


@pytest.mark.parametrize("name", LOADED)
def test_load_refuses(attack: Attack, name: str) -> None:
    data, fragment = LOADED[name]
    outcome = attack.run("image", "load", stdin=data).refused(fragment)
    assert outcome.ended.seconds < 10
    attack.run("image", "inspect", "evil:1").refused("no such image")


# name: (image config fields, Dockerfile, what the report says, or None where it is to go well)
CONFIGS: dict[str, tuple[dict[str, object], str, str | None]] = {
    "an environment of no list": ({"config": {"Env": "x"}}, "", "Env is no list"),
    "labels that are a list": ({"config": {"Labels": [1]}}, "", "Labels is no object"),
    "a health check of infinity": ({"config": {"Healthcheck": {"Interval": 1e300}}}, "", "Interval is no whole number"),
    "a NUL in the environment": ({"config": {"Env": ["A=\0"]}}, "RUN true\n", "the environment of the step has a NUL"),
    "a NUL in a variable of a path": ({"config": {"Env": ["A=\0"]}}, "COPY Dockerfile /$A/\n", "has a NUL byte in it"),
    "a NUL in the directory": ({"config": {"WorkingDir": "/\0"}}, "COPY Dockerfile .\n", "has a NUL byte in it"),
    "a lone surrogate": ({"config": {"Env": ["A=\ud800"]}}, "COPY Dockerfile /$A/\n", None),
    "a user that poses as a hint": (
        {"config": {"User": "x\nhint: y"}},
        "RUN true\n",
        "unable to find user x\n    hint",
    ),
    "a directory that climbs": ({"config": {"WorkingDir": "../../.."}}, "COPY Dockerfile .\n", None),
    "a trigger from nowhere": ({"config": {"OnBuild": ["FROM x"]}}, "", "FROM isn't allowed as an ONBUILD trigger"),
    "a trigger for a trigger": ({"config": {"OnBuild": ["ONBUILD RUN x"]}}, "", "ONBUILD isn't allowed"),
    "a trigger of garbage": ({"config": {"OnBuild": ["evil\x1b[31m"]}}, "", "unknown instruction: evil"),
    "a trigger of two": ({"config": {"OnBuild": ["RUN a\nRUN b"]}}, "", "should be a single expression"),
    "a trigger with a NUL": ({"config": {"OnBuild": ["RUN a\0"]}}, "", "holds a NUL byte"),
    "a trigger that mounts its image": (
        {"config": {"OnBuild": ["COPY --from=evil:1 / /again"]}},
        "COPY Dockerfile /\n",
        None,
    ),
    "dates after all dates": (
        {"created": "9999-99-99", "history": [{"created": "0001-01-01T00:00:00", "created_by": "\x1b[31mred\n"}]},
        "COPY Dockerfile /\n",
        None,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_loaded_image_is_not_believed(attack: Attack, name: str) -> None:
    fields, text, fragment = CONFIGS[name]
    attack.run("image", "load", stdin=layout([GOOD], config_bytes=config([GOOD], **fields))).harmless()
    try:
        for look in ("history", "inspect"):
            attack.run("image", look, "evil:1").harmless()
        attack.run("image", "ls").harmless()
        outcome = attack.build(f"FROM evil:1\n{text}")
        if fragment is None:
            outcome.harmless()
        else:
            outcome.refused(fragment, "Dockerfile:")
    finally:
        attack.run("image", "rm", "evil:1").harmless()


def test_layers_that_are_not_what_the_image_promises(attack: Attack) -> None:
    """Found when the layer is unpacked; nothing of it stays."""
    other = tar(("other", "file"))
    attack.run("image", "load", stdin=layout([GOOD], config_bytes=config([other]))).harmless()
    attack.build("FROM evil:1\nCOPY Dockerfile /\n").refused(
        f"layer {digest(GOOD)} unpacks to", "hint: the image is broken: its publisher must push it again", line=2
    )
    attack.run("image", "rm", "evil:1").harmless()
    attack.run("debug", "verify-store").harmless()
