"""du, prune, image and debug: what they ask the builder, and what they print."""

from __future__ import annotations

import json
import time
from pathlib import Path
from textwrap import dedent

import pytest

from buildengine.builder import Damage, ImageInfo, PrunePolicy, UsageInfo
from buildengine.cli.table import align, fill
from buildengine.cli.usage import to_filters
from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.platform import Platform
from llb.sources import image
from tests.fakes.builder import FakeBuilder, FakeImages, Ran, run_cli

HOUR = 3600.0
AMD64 = Platform(os="linux", architecture="amd64")


def text(block: str) -> str:
    return dedent(block).lstrip("\n")


def records() -> list[UsageInfo]:
    now = time.time()
    return [
        UsageInfo(id="abc", size=2_746_000_000, created=86400.0, last_used=now - 2 * HOUR - 10, usage_count=3),
        UsageInfo(
            id="def",
            parents=("abc", "xyz"),
            kind="exec.cachemount",
            description="mount / from exec\x1b[2J make",
            size=8192,
            mutable=True,
            in_use=True,
            shared=True,
        ),
    ]


def test_du_as_buildx_prints_it() -> None:
    builder = FakeBuilder(usage=records())
    assert run_cli(builder, "du") == Ran(
        status=0,
        stdout=text(
            """
            ID        RECLAIMABLE   SIZE       LAST ACCESSED
            abc       true          2.746GB    2 hours ago
            def*      false         8.192kB*
            Shared:       8.192kB
            Private:      2.746GB
            Reclaimable:  2.746GB
            Total:        2.746GB
            """
        ),
        stderr="",
    )
    assert builder.filters == [()]


def test_du_in_full() -> None:
    expected = text(
        """
        ID:           abc
        Created at:   1970-01-02 00:00:00 +0000 UTC
        Mutable:      false
        Reclaimable:  true
        Shared:       false
        Size:         2.746GB
        Usage count:  3
        Last used:    2 hours ago
        Type:         regular

        ID:           def
        Parents:      abc, xyz
        Created at:   1970-01-01 00:00:00 +0000 UTC
        Mutable:      true
        Reclaimable:  false
        Shared:       true
        Size:         8.192kB
        Description:  mount / from exec make
        Usage count:  0
        Type:         exec.cachemount

        """
    )
    for flag in (["--verbose"], ["--format", "pretty"]):
        found = run_cli(FakeBuilder(usage=records()), "du", *flag).stdout
        assert found.startswith(expected)
        assert found.removeprefix(expected).startswith("Shared:")
    assert run_cli(FakeBuilder(usage=records()), "du", "--verbose", "--filter", "shared").stdout == expected


def test_du_for_programs() -> None:
    builder = FakeBuilder(usage=records())
    first, second = map(json.loads, run_cli(builder, "du", "--format", "json").stdout.splitlines())
    assert (first["ID"], first["Size"], first["Reclaimable"]) == ("abc", "2.746GB", True)
    assert (second["ID"], second["Parents"], second["Type"]) == ("def", ["abc", "xyz"], "exec.cachemount")
    assert run_cli(builder, "du", "--format", "{{.ID}}:{{.Type}} {{json .Parents}}").stdout == (
        'abc:regular []\ndef:exec.cachemount ["abc", "xyz"]\n'
    )
    assert run_cli(builder, "du", "--format", r"table {{.ID}}\t{{.Shared}}").stdout == (
        "ID        SHARED\nabc       false\ndef*      true\n"
    )


def test_du_of_an_empty_store_and_with_filters() -> None:
    builder = FakeBuilder()
    expected = "ID        RECLAIMABLE   SIZE      LAST ACCESSED\nReclaimable:  0B\nTotal:        0B\n"
    assert run_cli(builder, "du").stdout == expected
    assert "Total" not in run_cli(builder, "du", "--filter", "type=regular", "--filter", "inuse").stdout
    assert builder.filters[-1] == ("type==regular,inuse",)


@pytest.mark.parametrize(
    ("values", "filters", "until"),
    [
        ([], (), 0.0),
        (["type=source.local"], ("type==source.local",), 0.0),
        (["id=abc"], ("id~=abc",), 0.0),
        (["type!=regular", "description~=make"], ("type!=regular,description~=make",), 0.0),
        (["type==regular"], ("type==regular",), 0.0),
        (["private"], ("private",), 0.0),
        (["until=24h"], (), 86400.0),
        (["unused-for=1h", "mutable"], ("mutable",), 3600.0),
    ],
)
def test_filters_in_dockers_words(values: list[str], filters: tuple[str, ...], until: float) -> None:
    assert to_filters(values) == (filters, until)


def test_prune_asks_prunes_and_sums_up() -> None:
    builder = FakeBuilder(usage=records())
    expected = (
        "ID                                       RECLAIMABLE  SIZE       LAST ACCESSED\n"
        "abc                                      true         2.746GB    2 hours ago\n"
        "def*                                     false        8.192kB*\n"
        "Total:  2.746GB\n"
    )
    assert run_cli(builder, "prune", "--force") == Ran(status=0, stdout=expected, stderr="")
    question = "WARNING! This will remove all dangling build cache.\nAre you sure you want to continue? [y/N] "
    assert run_cli(builder, "prune", stdin=b"y\n").stdout == question + expected
    assert run_cli(builder, "prune", stdin=b"n\n") == Ran(status=0, stdout=question, stderr="")
    assert run_cli(builder, "prune", "-a", stdin=b"\n").stdout.startswith("WARNING! This will remove all build cache.")
    nobody = run_cli(builder, "prune")
    assert (nobody.status, "nobody to ask" in nobody.stderr, "hint: --force" in nobody.stderr) == (2, True, True)
    assert len(builder.policies) == 2
    assert "Type:         exec.cachemount\n\nTotal:  2.746GB\n" in run_cli(builder, "prune", "-f", "--verbose").stdout


@pytest.mark.parametrize(
    ("args", "policy"),
    [
        ([], PrunePolicy()),
        (["--all"], PrunePolicy(all=True)),
        (["--filter", "until=48h", "--filter", "type=regular"],
         PrunePolicy(keep_duration=172800.0, filters=("type==regular",))),
        (["--reserved-space", "1GB"], PrunePolicy(reserved_space=1 << 30)),
        (["--keep-storage", "1GB"], PrunePolicy(reserved_space=1 << 30)),
        (["--max-used-space=10g", "--min-free-space=1m"],
         PrunePolicy(max_used_space=10 << 30, min_free_space=1 << 20)),
    ],
)  # fmt: skip
def test_each_flag_of_prune_in_the_policy(args: list[str], policy: PrunePolicy) -> None:
    builder = FakeBuilder()
    assert run_cli(builder, "prune", "-f", *args).status == 0
    assert builder.policies == [policy]


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["du", "--verbose", "--format", "json"], 2, "error: --verbose and --format exclude each other"),
        (["du", "--filter", "=x"], 1, "the filter has no key"),
        (["du", "--format", "{{.Nope}}"], 1, "error: there is no field 'Nope'\nhint: the fields are ID, Parents"),
        (["du", "--format", "{{range .}}"], 1, "is not understood\nhint: it may hold {{.Field}}"),
        (["prune", "-f", "--filter", "until=soon"], 1, "error: invalid duration 'soon'"),
        (["prune", "-f", "--max-used-space", "x"], 2, "error: --max-used-space: invalid size 'x'"),
        (["image", "ls", "--filter", "label=x"], 1, "error: --filter label=x is not understood"),
        (["image", "ls", "--filter", "dangling=maybe"], 1, "dangling is true or false"),
        (["image", "tag", "a", "B"], 2, "error: NAME[:TAG]: invalid image reference 'B'"),
        (["image", "tag", "a"], 2, "error: missing argument"),
        (["image", "rm"], 2, "error: missing argument 'IMAGE...'"),
        (["image", "history", "absent"], 1, "error: there is no image 'absent'"),
        (["image", "load", "-i", "/absent.tar"], 1, "error: cannot read /absent.tar: No such file or directory"),
        (["image", "save", "-o", "/absent/x", "a"], 1, "error: cannot write /absent/x: No such file or directory"),
        (["image", "lss"], 2, "error: there is no command 'lss'\nhint: did you mean ls?\nSee 'pybuild image --help'."),
        (["debug", "dump-llb", "/absent"], 1, "error: cannot read /absent: No such file or directory"),
    ],
)
def test_mistakes(args: list[str], status: int, message: str) -> None:
    ran = run_cli(FakeBuilder(usage=records()), *args)
    assert message in ran.stderr
    assert ran.status == status
    assert "Traceback" not in ran.stderr


def digest(name: str) -> Digest:
    return Digest.sha256(name.encode())


@pytest.fixture
def images() -> FakeImages:
    now = time.time()

    def info(name: str, of: str, age: float, size: int) -> ImageInfo:
        return ImageInfo(
            name=name,
            digest=digest(of),
            config_digest=digest(f"{of} config"),
            created=now - age,
            size=size,
            platforms=(AMD64,),
        )

    return FakeImages(
        infos=[
            info("docker.io/library/app:latest", "app", 3 * HOUR, 123_456_789),
            info("docker.io/library/app:1.0", "app", 3 * HOUR, 123_456_789),
            info("", "old", 49 * HOUR, 999_600),
            ImageInfo(name="localhost:5000/team/app:x", digest=digest("index"), created=0.0, size=5),
        ]
    )


def ids(*names: str) -> list[str]:
    return [digest(name).short for name in names]


def test_image_ls(images: FakeImages) -> None:
    builder = FakeBuilder(images=images)
    app, old, index = ids("app config", "old config", "index")
    assert run_cli(builder, "image", "ls").stdout == text(
        f"""
        REPOSITORY                TAG       IMAGE ID       CREATED       SIZE
        app                       1.0       {app}   3 hours ago   123MB
        app                       latest    {app}   3 hours ago   123MB
        <none>                    <none>    {old}   2 days ago    1MB
        localhost:5000/team/app   x         {index}   N/A           5B
        """
    )
    with_digests = run_cli(builder, "image", "ls", "--digests", "--no-trunc", "app:1.0").stdout.splitlines()
    assert with_digests[0].split() == ["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID", "CREATED", "SIZE"]
    assert with_digests[1].split()[:4] == ["app", "1.0", digest("app"), digest("app config")]


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["--filter", "dangling=true"], ["old config"]),
        (["-f", "dangling=false"], ["app config", "app config", "index"]),
        (["app"], ["app config", "app config"]),
        (["app:latest"], ["app config"]),
        (["a*:l*"], ["app config"]),
        (["*"], ["app config", "app config"]),
        (["localhost:5000/*/ap?"], ["index"]),
        (["--filter", "reference=app:1.0", "--filter", "reference=localhost:5000/team/app"], ["app config", "index"]),
        (["nothing"], []),
    ],
)
def test_image_ls_selects(images: FakeImages, args: list[str], found: list[str]) -> None:
    assert run_cli(FakeBuilder(images=images), "image", "ls", "-q", *args).stdout.split() == ids(*found)


def test_image_ls_for_programs(images: FakeImages) -> None:
    builder = FakeBuilder(images=images)
    first = json.loads(run_cli(builder, "image", "ls", "--format", "json").stdout.splitlines()[0])
    assert first == {
        "Repository": "app",
        "Tag": "1.0",
        "Digest": digest("app"),
        "ID": digest("app config").short,
        "CreatedSince": "3 hours ago",
        "CreatedAt": first["CreatedAt"],
        "Size": "123MB",
        "Platforms": "linux/amd64",
    }
    assert run_cli(builder, "image", "ls", "--format", "{{.Repository}}:{{ .Tag }}", "app").stdout == (
        "app:1.0\napp:latest\n"
    )


def test_image_inspect(images: FakeImages) -> None:
    document = {
        "Id": digest("c"),
        "Config": {"Env": ["A=b"], "User": ""},
        "RootFS": {"Type": "layers", "Layers": [digest("diff")]},
        "Layers": [{"DiffID": digest("diff"), "Digest": digest("blob"), "Size": 3}],
    }
    images.documents["app"] = document
    builder = FakeBuilder(images=images)
    assert json.loads(run_cli(builder, "image", "inspect", "app").stdout) == [document]
    half = run_cli(builder, "image", "inspect", "absent", "app", "gone")
    assert (half.status, json.loads(half.stdout)) == (1, [document])
    assert half.stderr == "error: there is no image 'absent'\nalso:\n  - there is no image 'gone'\n"
    line = run_cli(builder, "image", "inspect", "-f", "{{.Id}} {{json .Config.Env}} {{.Config}}", "app").stdout
    assert line == f'{digest("c")} ["A=b"] {{"Env": ["A=b"], "User": ""}}\n'
    wrong = run_cli(builder, "image", "inspect", "-f", "{{.Config.Envs}}", "app")
    assert wrong.stderr == "error: there is no field 'Config.Envs': no 'Envs'\nhint: the fields there are Env, User\n"


def test_image_history(images: FakeImages) -> None:
    now = time.time()
    images.histories["app"] = [
        {"Id": digest("c"), "Created": now - 120, "CreatedBy": "RUN\t" + "x" * 60, "Size": 1536, "Comment": "pybuild"},
        {"Id": "<missing>", "Created": 0, "CreatedBy": "FROM", "Size": 0, "Comment": ""},
    ]
    builder = FakeBuilder(images=images)
    short = digest("c").short
    assert run_cli(builder, "image", "history", "app").stdout == text(
        f"""
        IMAGE          CREATED         CREATED BY                                      SIZE      COMMENT
        {short}   2 minutes ago   RUN {"x" * 40}…   1.54kB    pybuild
        <missing>      N/A             FROM                                            0B
        """
    )
    plain = run_cli(builder, "image", "history", "--human=false", "--no-trunc", "app").stdout.splitlines()
    assert plain[1].split()[0] == digest("c")
    assert plain[1].split()[3:] == ["x" * 60, "1536", "pybuild"]
    assert plain[2].split() == ["<missing>", "1970-01-01T00:00:00Z", "FROM", "0"]
    assert run_cli(builder, "image", "history", "-q", "app").stdout == f"{short}\n<missing>\n"


def test_image_changes(images: FakeImages, tmp_path: Path) -> None:
    builder = FakeBuilder(images=images)
    assert run_cli(builder, "image", "tag", "app", "other:1").status == 0
    removed = run_cli(builder, "image", "rm", "-f", "app", "absent", "team")
    assert removed == Ran(
        status=1, stdout="Untagged: app\nUntagged: team\n", stderr="error: there is no image 'absent'\n"
    )
    assert run_cli(builder, "image", "prune", stdin=b"no\n").status == 0
    assert run_cli(builder, "image", "prune", "-f").stdout == f"deleted: {digest('old')}\n1 image removed\n"
    everything = run_cli(builder, "image", "prune", "-a", stdin=b"Y\n").stdout
    assert "remove all images.\n" in everything
    assert everything.endswith("4 images removed\n")
    target = tmp_path / "app.tar"
    target.write_text("old")
    assert run_cli(builder, "image", "save", "-o", str(target), "app", "other").status == 0
    assert target.read_bytes() == b"an archive"
    assert list(tmp_path.iterdir()) == [target]
    assert run_cli(builder, "image", "save", "app").stdout == "an archive"
    assert run_cli(builder, "image", "load", stdin=b"tar").stdout == "Loaded image: docker.io/library/app:latest\n"
    assert run_cli(builder, "image", "load", "-q", "--input", str(target)).stdout == ""
    assert images.calls == [
        ("tag", "app", "other:1"),
        ("remove", "app", True),
        ("remove", "team", True),
        ("prune", False),
        ("prune", True),
        ("save", "app", "other"),
        ("save", "app"),
        ("load", b"tar"),
        ("load", b"an archive"),
    ]


def test_debug_verify_store() -> None:
    sound = run_cli(FakeBuilder(), "debug", "verify-store")
    assert sound == Ran(status=0, stdout="the store at /var/lib/pybuild is sound\n", stderr="")
    damages = [
        Damage(where="blobs/sha256/ab", problem="has other bytes\x1b[2J"),
        Damage(where="layers/x", problem="gone"),
    ]
    damaged = run_cli(FakeBuilder(damages=damages), "debug", "verify-store")
    assert damaged == Ran(
        status=4,
        stdout="blobs/sha256/ab: has other bytes\nlayers/x: gone\n",
        stderr="error: the store at /var/lib/pybuild has 2 damages\n",
    )


def test_debug_dump_llb(tmp_path: Path) -> None:
    definition = image("docker.io/library/busybox:latest").run(["true"]).root.marshal().to_bytes()
    path = tmp_path / "definition"
    path.write_bytes(definition)
    lines = run_cli(FakeBuilder(), "debug", "dump-llb", str(path)).stdout.splitlines()
    assert json.loads(lines[0])["Op"]["Op"]["source"]["identifier"] == "docker-image://docker.io/library/busybox:latest"
    for args in ([], ["-"]):
        assert run_cli(FakeBuilder(), "debug", "dump-llb", *args, stdin=definition).stdout.splitlines() == lines
    assert run_cli(FakeBuilder(), "debug", "dump-llb", "--dot", str(path)).stdout.startswith("digraph")
    wrong = run_cli(FakeBuilder(), "debug", "dump-llb", stdin=b"\xff\xff")
    assert (wrong.status, "Traceback" in wrong.stderr) == (1, False)


def test_tables() -> None:
    assert list(align([])) == []
    assert list(align(["A\tB", "long long long\tx", "y\t"])) == ["A                B", "long long long   x", "y"]
    assert fill(r"{{.a}}-{{ json .a }}-{{.b}}", {("a",): "x\x1b[2J", ("b",): None}.get) == 'x-"x\\u001b[2J"-'
    with pytest.raises(UserError, match="is not understood"):
        fill("{{ if .a }}", str)


def test_a_registry_is_not_taken_for_a_daemon() -> None:
    ran = run_cli(FakeBuilder(), "--addr", "127.0.0.1:5000", "registry", "serve")
    assert ran.status == 2
    assert ran.stderr.startswith(
        "error: no daemon serves a registry\nhint: what to listen on comes last: registry serve"
    )
