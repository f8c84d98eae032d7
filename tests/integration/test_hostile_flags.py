"""Flags, contexts and configuration files that are wrong: said before anything runs, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.hostile import Attack

pytest_plugins = ["tests.fakes.hostile_fixtures"]

# name: (arguments behind `build CONTEXT`, fragments, status)
FLAGS: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
    "an unknown flag": (("--frob",), ("no such option '--frob'", "See 'pybuild build --help'"), 2),
    "a flag without a value": (("--tag",), ("option '--tag' requires an argument",), 2),
    "a tag in capitals": (("-t", "UPPER"), ("-t/--tag: invalid image reference 'UPPER'", "lowercase", "hint:"), 2),
    "a tag that climbs": (("-t", "../../x"), ("'..' is not a registry host",), 2),
    "a tag with a digest": (("-t", f"a@sha256:{'0' * 64}"), ("has a digest", "hint: an image gets its digest"), 2),
    "a tag of control characters": (("-t", "a\x1b[31m\n"), ("is not a repository name",), 2),
    "a platform of too many parts": (("--platform", "a/b/c/d"), ("invalid platform 'a/b/c/d'",), 2),
    "an empty platform": (("--platform", "linux/amd64,"), ("invalid platform ''", "hint: a platform is"), 2),
    "a build argument without a name": (("--build-arg", "=x"), ("'=x' has no name before the =",), 2),
    "a label without a name": (("--label", "=x"), ("'=x' has no name before the =",), 2),
    "a secret without an id": (("--secret", "src=x"), ("has no id", "hint: e.g. id=key"), 2),
    "a secret that is nowhere": (("--secret", "id=x,src=/nonexistent"), ("there is no file /nonexistent",), 2),
    "a secret with an odd key": (("--secret", "id=x,foo=1"), ("unknown key 'foo'",), 2),
    "an odd output": (("-o", "type=evil"), ("unknown output type 'evil'", "hint: the types are"), 2),
    "an output in no directory": (("-o", "type=oci,dest=/nope/x"), ("there is no directory /nope for x",), 2),
    "an output that is a directory": (("-o", "type=oci,dest=/tmp"), ("the destination /tmp is a directory",), 2),
    "an output that is a file": (("-o", "type=local,dest=/etc/passwd"), ("is a file, not a directory",), 2),
    "an output into /proc": (("-o", "type=local,dest=/proc/nope"), ("cannot write to /proc/nope",), 1),
    "an output without a directory": (("-o", "type=local"), ("the output local needs a directory",), 2),
    "two outputs on one stream": (("-o", "-", "-o", "-"), ("more than one --output goes to standard output",), 2),
    "an output that is no CSV": (("-o", 'type=image,"name'), ("is not valid CSV",), 2),
    "an unknown compression": (("-o", "type=image,compression=lzma"), ("unsupported layer compression type",), 1),
    "an absurd level": (("-o", f"type=image,compression-level={'9' * 30}"), ("not a number",), 1),
    "an unknown attribute": (("-o", "type=image,frob=1"), ("unknown attribute 'frob'", "hint: type=image takes"), 1),
    "an image name that climbs": (("-o", "type=image,name=../../x"), ("'..' is not a registry host",), 1),
    "a limit that is none": (("--ulimit", "nofile=x"), ("'nofile=x' is not NAME=SOFT[:HARD]",), 2),
    "an unknown limit": (("--ulimit", "evil=1"), ("unknown limit 'evil'", "hint:"), 2),
    "limits the wrong way round": (("--ulimit", "nofile=10:5"), ("is above the hard limit",), 2),
    "a negative size": (("--shm-size", "-1"), ("invalid size '-1'", "hint: a size is"), 2),
    "an absurd size": (("--shm-size", "9" * 30), ("invalid size",), 2),
    "a host without an address": (("--add-host", "x:y"), ("'y' in 'x:y' is not an IP address",), 2),
    "a host of two lines": (("--add-host", "a\n6.6.6.6 b:1.2.3.4"), ("is not the name of a host",), 2),
    "an unknown network": (("--network", "evil"), ("unknown network mode 'evil'", "hint: the modes are"), 2),
    "an unknown privilege": (("--allow", "everything"), ("unknown entitlement 'everything'",), 2),
    "a cgroup that climbs": (("--cgroup-parent", "../../../x"), ("'../../../x' leaves its hierarchy",), 2),
    "an unknown stage": (("--target", "nope"), ('target stage "nope" could not be found',), 1),
    "an id file in no directory": (("--iidfile", "/nope/x"), ("there is no directory /nope",), 2),
    "an id file that is a directory": (("--iidfile", "/tmp"), ("cannot write /tmp: it is a directory",), 2),
    "a metadata file in no directory": (("--metadata-file", "/nope/x"), ("there is no directory /nope",), 2),
    "an unknown display": (("--progress", "evil"), ("'evil' is not one of",), 2),
    "an agent that is not there": (("--ssh", "default"), ("no agent is running", "hint: start one"), 2),
    "a time that is none": (
        ("--build-arg", "SOURCE_DATE_EPOCH=x"),
        ("SOURCE_DATE_EPOCH=x: not a number of seconds",),
        1,
    ),
    "a time of forty digits": (("--build-arg", f"SOURCE_DATE_EPOCH={'9' * 40}"), ("not a number of seconds",), 1),
    "a time after all times": (("--build-arg", "SOURCE_DATE_EPOCH=99999999999999"), ("is no time",), 1),
    "two ways to cache": (("--no-cache", "--no-cache-filter", "x"), ("exclude each other",), 2),
    "a Dockerfile that is nowhere": (("-f", "/nope"), ("cannot read the Dockerfile /nope",), 1),
    "a Dockerfile that is a directory": (("-f", "/etc"), ("the Dockerfile /etc is a directory",), 1),
    "a Dockerfile without end": (("-f", "/dev/zero"), ("larger than 16 MiB",), 1),
    "a Dockerfile at an address": (("-f", "http://x.invalid/D"), ("a Dockerfile cannot be a URL", "hint:"), 1),
}


def test_a_platform_that_the_local_image_is_not_for(attack: Attack) -> None:
    """It may be elsewhere; when it is not, the reason is said."""
    attack.run("image", "tag", "base", "base.invalid/base").harmless()
    attack.build("FROM --platform=linux/s390x base.invalid/base\n").refused(
        "hint: the base.invalid/base:latest of the local store is for linux/", line=1
    )
    attack.run("image", "rm", "base.invalid/base").harmless()


@pytest.mark.parametrize("name", FLAGS)
def test_flag(attack: Attack, name: str) -> None:
    arguments, fragments, status = FLAGS[name]
    context = attack.context({"Dockerfile": "FROM base\nRUN true\n"})
    outcome = attack.run("build", context, *arguments)
    outcome.refused(*fragments, status=status)
    if name != "an output into /proc":
        assert "RUN true" not in outcome.ended.text, "said only after something had run"


# name: (arguments, standard input, fragments, status)
OTHERS: dict[str, tuple[tuple[str, ...], bytes, tuple[str, ...], int]] = {
    "no command": ((), b"", ("missing command", "See 'pybuild --help'"), 2),
    "an unknown command": (("bild", "."), b"", ("there is no command 'bild'", "hint: did you mean build?"), 2),
    "no context": (("build",), b"", ("the build context is missing", "hint: e.g. pybuild build ."), 2),
    "an empty context": (("build", ""), b"", ("there is no build context ''", "hint: the context is"), 1),
    "a context that is nowhere": (("build", "/nope"), b"", ("there is no build context '/nope'",), 1),
    "a context that is a file": (("build", "/etc/passwd"), b"", ("is not a directory", "hint: did you mean"), 1),
    "a context that is a device": (("build", "/dev/zero"), b"", ("is not a directory",), 1),
    "nothing on standard input": (("build", "-"), b"", ("standard input is empty", "hint: pipe in"), 1),
    "zeros on standard input": (("build", "-"), b"\0" * 2000, ("holds a NUL byte", "stdin:1"), 1),
    "half a gzip on standard input": (
        ("build", "-"),
        b"\x1f\x8b\x08broken",
        ("could not be unpacked",),
        1,
    ),
    "too much on standard input": (("build", "-"), b"# x\n" * (5 << 20), ("larger than 16 MiB",), 1),
    "context and Dockerfile in one": (("build", "-f", "-", "-"), b"x", ("cannot be both",), 1),
    "a source without a context": (("build", "-"), b"FROM base\nCOPY a /\n", ("'/a': not found", "stdin:2"), 1),
    "an image that is nowhere": (("image", "rm", "nope"), b"", ("no such image: nope", "hint:"), 1),
    "an image that climbs": (("image", "inspect", "../../x"), b"", ("no such image: ../../x",), 1),
    "a name that climbs": (("image", "tag", "base", "../x"), b"", ("invalid image reference '../x'",), 2),
    "a filter that is none": (("image", "ls", "--filter", "evil=1"), b"", ("--filter evil=1", "hint: the filters"), 1),
    "an archive that is nowhere": (("image", "load", "-i", "/nope"), b"", ("cannot read /nope: No such file",), 1),
    "an archive that is a directory": (("image", "load", "-i", "/etc"), b"", ("cannot read /etc: Is a directory",), 1),
    "an archive without end": (("image", "load", "-i", "/dev/zero"), b"", ("not an image archive",), 1),
    "a duration that is none": (("prune", "--keep-storage", "evil"), b"", ("evil", "hint:"), 2),
    "a definition that is none": (("debug", "dump-llb", "/etc/passwd"), b"", ("",), 1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_command(attack: Attack, name: str) -> None:
    arguments, stdin, fragments, status = OTHERS[name]
    ended = attack.run(*arguments, stdin=stdin).ended
    assert ended.status == status, ended.text
    assert all(fragment in ended.text for fragment in fragments), ended.text


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("[worker]\nruntmie = 'runc'\n", ("runtmie", "did you mean", ":2")),
        ("[worker]\nruntime = 'evil'\n", ("evil", ":2")),
        ("[worker]\nstep-pids = -5\n", ("step-pids", ":2")),
        ("x", ("is not TOML",)),
        ("\xff", ("",)),
        ("a = " + "[" * 5000, ("is not TOML",)),
    ],
)
def test_configuration(attack: Attack, text: str, fragments: tuple[str, ...]) -> None:
    file = attack.directory / "pybuild.toml"
    file.write_bytes(text.encode("latin-1"))
    outcome = attack.run("--config", file, "build", attack.context({"Dockerfile": "FROM base\n"}))
    outcome.refused(*fragments)
    assert "pybuild.toml" in outcome.ended.report


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to(path)])
def test_configuration_that_is_no_file(attack: Attack, make: Callable[[Path], object]) -> None:
    file = attack.directory / "pybuild.toml"
    make(file)
    attack.run("--config", file, "du", timeout=10).refused("cannot read the configuration file")


def test_environment(attack: Attack) -> None:
    context = attack.context({"Dockerfile": "FROM base\n"})
    for name, value, fragment in (
        ("BUILDKIT_PROGRESS", "evil", "BUILDKIT_PROGRESS"),
        ("DOCKER_DEFAULT_PLATFORM", "a/b/c/d", "DOCKER_DEFAULT_PLATFORM: invalid platform"),
        ("SOURCE_DATE_EPOCH", "evil", "SOURCE_DATE_EPOCH"),
        ("PYBUILD_RUNTIME", "evil", "evil"),
        ("PYBUILD_STEP_PIDS", "evil", "evil"),
    ):
        outcome = attack.run("build", context, environment={name: value})
        if name.startswith("PYBUILD_") and outcome.ended.status == 0:
            continue  # not a name of ours
        assert outcome.ended.status in (1, 2), outcome.ended.text
        assert fragment in outcome.ended.report
