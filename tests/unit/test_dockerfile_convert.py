"""Instructions to LLB: operations, mounts, names of steps, history and config, as BuildKit's converter makes them."""

from __future__ import annotations

from typing import Any

import pytest

from frontends.testing import ARM64, Step, steps
from llb.ops import CacheSharing, CDIDevice, MkDir, MkFile, MountType, NetMode, Owner, SecurityMode
from tests.fakes.gateway import build, history, image_config

B = "FROM busybox\n"


async def step(dockerfile: str, options: dict[str, str] | None = None, **more: Any) -> Step:
    """The last operation of a Dockerfile."""
    return (await build(dockerfile, options, **more)).steps[-1]


def mounts(node: Step) -> dict[str, Any]:
    return {mount.dest: mount for mount in node.exec.mounts}


# --- names, history, config -----------------------------------------------------------------------------------


async def test_names_of_steps() -> None:
    built = await build(
        'FROM busybox AS base\nWORKDIR /out\nrun echo "base" > $X $PATH\n'
        "FROM scratch\nCOPY --from=base --chmod=0644 /out /out\n"
    )
    digest = built.steps[0].source.identifier.partition("@")[2]
    assert built.names == [
        f"[base 1/3] FROM docker.io/library/busybox:latest@{digest}",
        "[base 2/3] WORKDIR /out",
        '[base 3/3] RUN echo "base" > $X /usr/bin',
        "[stage-1 1/1] COPY --from=base --chmod=0644 /out /out",
    ]


async def test_a_single_stage_has_no_name_and_numbers_are_aligned() -> None:
    built = await build(B + "RUN a\n" * 9)
    assert built.names[1] == "[ 2/10] RUN a"
    assert built.names[9] == "[10/10] RUN a"


async def test_a_mount_gives_a_single_stage_its_name() -> None:
    """BuildKit takes what is mounted for one more stage."""
    built = await build("FROM busybox\nRUN --mount=type=cache,target=/k x\n")
    assert built.names[-1] == "[stage-0 2/2] RUN --mount=type=cache,target=/k x"
    built = await build("FROM busybox AS named\nRUN --mount=target=/k x\n")
    assert built.names[-1] == "[named 2/2] RUN --mount=target=/k x"


async def test_an_image_to_copy_from_makes_a_single_stage_a_numbered_one() -> None:
    assert (await step(B + "COPY --from=alpine a b\n")).name == "[stage-0 2/2] COPY --from=alpine a b"


async def test_several_platforms_are_named() -> None:
    text = "FROM --platform=$BUILDPLATFORM busybox AS x\nARG TARGETARCH\nRUN a\nFROM x\n"
    built = await build(text, None, *[ARM64, ARM64])
    names = [node.name for node in steps(built.result.results[0].definition)]
    assert "[linux/amd64->arm64 x 2/2] RUN a" in names
    assert any(name.startswith("[linux/amd64 x 1/2] FROM docker.io/library/busybox:latest@sha256:") for name in names)


async def test_history() -> None:
    built = await build(
        'ARG G=1\nFROM busybox\nARG G\nARG x=2 y\nENV a=$x b="c d"\nLABEL l=m n=\nRUN echo $a\n'
        "WORKDIR /w\nWORKDIR sub\n"
        "WORKDIR /\nCOPY --chown=1 a b ./\nCOPY --parents --chmod=755 --link=false a .\nADD https://e.x/f /f\n"
        "COPY <<E <<F /h/\n1\nE\n2\nF\n"
        'USER u\nEXPOSE 80 53/UDP\nVOLUME /v $a\nSTOPSIGNAL SIGTERM\nSHELL ["/bin/bash", "-c"]\nCMD echo \'hi\'\n'
        'ENTRYPOINT ["a", "b\\n"]\nHEALTHCHECK --interval=1m --retries=39 CMD ["t"]\nHEALTHCHECK NONE\n'
        "MAINTAINER me\nONBUILD RUN x\n"
    )
    assert history(built) == [
        "ARG G=1",
        "ARG x=2 y",
        "ENV a=2 b=c d",
        "LABEL l=m n=",
        "RUN |3 G=1 x=2 y= /bin/sh -c echo $a # buildkit",
        "WORKDIR /w",
        "WORKDIR /w/sub",
        "WORKDIR /",
        "COPY --chown=1 a b ./ # buildkit",
        "COPY --parents --chmod=755 a . # buildkit",
        "ADD https://e.x/f /f # buildkit",
        "COPY <<E <<F /h/ # buildkit",
        "USER u",
        "EXPOSE [53/udp 80/tcp]",
        "VOLUME [/v 2]",
        "STOPSIGNAL SIGTERM",
        "SHELL [/bin/bash -c]",
        'CMD ["/bin/bash" "-c" "echo \'hi\'"]',
        'ENTRYPOINT ["a" "b\\n"]',
        'HEALTHCHECK &{["CMD" "t"] "1m0s" "0s" "0s" "0s" \'\\\'\'}',
        'HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" \'\\x00\'}',
        "MAINTAINER me",
    ]
    entries = built.image.document["history"]
    assert {entry["comment"] for entry in entries} == {"buildkit.dockerfile.v0"}
    layers = [entry["created_by"].split()[0] for entry in entries if not entry.get("empty_layer")]
    assert layers == ["RUN", "WORKDIR", "WORKDIR", "COPY", "COPY", "ADD", "COPY"]
    assert built.image.document["author"] == "me"


async def test_config() -> None:
    built = await build(
        B + 'ENV a=1 PATH=/p\nENV a=2\nLABEL b=c\nWORKDIR /w\nUSER u:g\nEXPOSE 8000-8002/udp 80\nVOLUME ["/v"]\n'
        'STOPSIGNAL 9\nENTRYPOINT e\nCMD ["c"]\nHEALTHCHECK --timeout=1s CMD t\nONBUILD RUN x\nSHELL ["s"]\n'
    )
    assert built.config == {
        "User": "u:g",
        "ExposedPorts": {"80/tcp": {}, "8000/udp": {}, "8001/udp": {}, "8002/udp": {}},
        "Env": ["PATH=/p", "a=2"],
        "Entrypoint": ["/bin/sh", "-c", "e"],
        "Cmd": ["c"],
        "Volumes": {"/v": {}},
        "WorkingDir": "/w",
        "Labels": {"b": "c"},
        "StopSignal": "9",
        "ArgsEscaped": True,
        "Healthcheck": {"Test": ["CMD-SHELL", "t"], "Timeout": 10**9},
        "OnBuild": ["RUN x"],
        "Shell": ["s"],
    }


async def test_config_is_written_as_go_writes_it() -> None:
    built = await build('FROM scratch\nLABEL b="<&>" a=é\nUSER 1\n')
    assert b'"config":{"User":"1","Env":["PATH=/usr/local/sbin' in built.image.result.config
    assert '"Labels":{"a":"é","b":"\\u003c\\u0026\\u003e"}' in built.image.result.config.decode()
    begin = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":null},"history":[{"created_by":'
    assert built.image.result.config.startswith(begin)


async def test_the_base_config_is_inherited() -> None:
    base = image_config(
        Entrypoint=["e"],
        Cmd=["c"],
        Labels={"x": "y"},
        User="u",
        WorkingDir="/b",
        ExposedPorts={"1/tcp": {}},
        Healthcheck={"Test": ["CMD", "h"], "Interval": 5},
        Memory=4,
        history=[{"created_by": "base", "created": "2020-01-01T00:00:00Z"}],
    )
    built = await build("FROM b\nLABEL z=1\nRUN x\n", images={"docker.io/library/b:latest": base})
    assert built.config["Labels"] == {"x": "y", "z": "1"}
    assert (built.config["Entrypoint"], built.config["Cmd"], built.config["WorkingDir"]) == (["e"], ["c"], "/b")
    assert built.config["Healthcheck"] == {"Test": ["CMD", "h"], "Interval": 5}
    assert "Memory" not in built.config
    assert built.image.document["history"][0] == {"created_by": "base", "created": "2020-01-01T00:00:00Z"}
    assert (built.steps[-1].exec.meta.cwd, built.steps[-1].exec.meta.user) == ("/b", "u")
    assert built.image.result.base_config == base


async def test_entrypoint_drops_an_inherited_cmd_only() -> None:
    assert "Cmd" not in (await build(B + 'ENTRYPOINT ["a"]\n')).config
    assert (await build(B + 'CMD ["c"]\nENTRYPOINT ["a"]\n')).config["Cmd"] == ["c"]


async def test_scratch_has_a_path_and_windows_has_none() -> None:
    built = await build("FROM scratch\nLABEL a=b\n")
    assert built.image.result.definition is None
    assert built.config["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert built.config["WorkingDir"] == "/"


async def test_a_base_without_path_gets_one() -> None:
    images = {"docker.io/library/b:latest": image_config(Env=["A=1"])}
    node = await step("FROM b\nRUN x\n", images=images)
    assert node.exec.meta.env == ("A=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


async def test_a_base_without_layers_is_scratch() -> None:
    images = {"docker.io/library/b:latest": image_config(layers=0, Env=["A=1"])}
    built = await build("FROM b\nCOPY x /\n", images=images)
    assert built.names == ["[internal] load build context", "[1/2] COPY x /"]
    assert built.config["Env"][0] == "A=1"


async def test_labels_and_epoch_of_the_command() -> None:
    built = await build(B + "LABEL a=1 b=2\nWORKDIR /x\n", {"label:a": "3", "build-arg:SOURCE_DATE_EPOCH": "1"})
    assert built.config["Labels"] == {"a": "3", "b": "2"}
    assert [entry["created"] for entry in built.image.document["history"]] == ["1970-01-01T00:00:01Z"] * 2
    (action,) = built.steps[-1].file.actions
    assert isinstance(action.action, MkDir)
    assert action.action.timestamp == 10**9


# --- variables ------------------------------------------------------------------------------------------------


async def test_scopes_of_arguments() -> None:
    built = await build(
        "ARG A=1\nARG B=${A}2 C\nFROM busybox:${B} AS x\nRUN a\nARG A\nARG B=own D=$A-$B E\nRUN b\nFROM x\nRUN c\n",
        {"build-arg:C": "given", "build-arg:E": "e"},
        images={"docker.io/library/busybox:12": image_config()},
    )
    env = {node.exec.meta.args[-1]: node.exec.meta.env for node in built.steps if "RUN" in node.name}
    assert env == {
        "a": ("PATH=/usr/bin",),
        "b": ("PATH=/usr/bin", "A=1", "B=own", "D=1-own", "E=e"),
        "c": ("A=1", "B=own", "D=1-own", "E=e", "PATH=/usr/bin"),  # what the config says is set again, and so last
    }


async def test_a_build_argument_wins_over_defaults_but_not_over_env() -> None:
    node = await step(B + "ARG a=1\nENV a=2\nARG a=3\nRUN x\n", {"build-arg:a": "4"})
    assert node.exec.meta.env[1:] == ("a=4",)
    node = await step(B + "ARG a=1\nENV a=$a-2\nRUN x\n", {"build-arg:a": "4"})
    assert node.exec.meta.env[1:] == ("a=4-2",)


async def test_one_env_sees_the_environment_before_it() -> None:
    assert (await build(B + "ENV a=1\nENV a=2 b=$a\n")).config["Env"][1:] == ["a=2", "b=1"]


async def test_platform_arguments() -> None:
    text = "FROM busybox\nARG TARGETPLATFORM TARGETARCH BUILDARCH TARGETSTAGE BUILDPLATFORM\nRUN x\n"
    node = await step(text)
    assert node.exec.meta.env[1:] == (
        "TARGETPLATFORM=linux/amd64",
        "TARGETARCH=amd64",
        "BUILDARCH=amd64",
        "TARGETSTAGE=default",
        "BUILDPLATFORM=linux/amd64",
    )
    assert (await step(B + "ARG TARGETARCH\nRUN x\n", {"build-arg:TARGETARCH": "z"})).exec.meta.env[1:] == (
        "TARGETARCH=z",
    )
    assert (await step(B + "RUN x\n")).exec.meta.env[1:] == ()


async def test_proxy_arguments_are_neither_environment_nor_history() -> None:
    built = await build(B + "RUN x\n", {"build-arg:HTTP_PROXY": "h", "build-arg:no_proxy": "n"})
    proxy = built.steps[-1].exec.meta.proxy_env
    assert proxy is not None
    assert (proxy.http_proxy, proxy.no_proxy) == ("h", "n")
    assert built.steps[-1].exec.meta.env == ("PATH=/usr/bin",)
    assert history(built) == ["RUN /bin/sh -c x # buildkit"]


async def test_sbom_arguments_are_no_environment() -> None:
    node = await step(B + "ARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x\n")
    assert node.exec.meta.env == ("PATH=/usr/bin",)


# --- RUN ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("RUN a b", ("/bin/sh", "-c", "a b")),
        ('RUN ["a", "b"]', ("a", "b")),
        ('SHELL ["s", "-x"]\nRUN a', ("s", "-x", "a")),
        ("RUN <<E\na\nb\nE", ("/bin/sh", "-c", "a\nb\n")),
        ("RUN <<-E\n\ta\n\tE", ("/bin/sh", "-c", "a\n")),
        ("RUN cat <<E > x\na\nE", ("/bin/sh", "-c", "cat <<E > x\na\nE")),
        ("RUN cat <<A <<'B'\n1\nA\n2\nB", ("/bin/sh", "-c", "cat <<A <<'B'\n1\nA\n2\nB")),
        ("RUN <<E\n#!/bin/python\nprint()\nE", ("/bin/sh", "-c", "/dev/pipes/E")),
        ("RUN", ("/bin/sh", "-c", "")),
    ],
)
async def test_forms_of_run(text: str, argv: tuple[str, ...]) -> None:
    assert (await step(B + text + "\n")).exec.meta.args == argv


async def test_a_script_with_a_shebang_is_a_file() -> None:
    built = await build(B + "RUN <<E\n#!/bin/python\nprint()\nE\n")
    script = built.step("preparing inline document")
    (action,) = script.file.actions
    assert isinstance(action.action, MkFile)
    assert (action.action.path, action.action.data, action.action.mode) == ("/E", b"#!/bin/python\nprint()\n", 0o755)
    mount = mounts(built.steps[-1])["/dev/pipes/"]
    assert (mount.readonly, built.steps[-1].inputs[mount.input].name) == (True, script.name)
    assert built.steps[-1].name == "[2/2] RUN <<E (#!/bin/python...)"


async def test_network_security_and_devices() -> None:
    node = await step(B + "RUN --network=none --security=insecure --device=x,required --device=y a\n")
    assert (node.exec.network, node.exec.security) == (NetMode.NONE, SecurityMode.INSECURE)
    assert node.exec.cdi_devices == (CDIDevice(name="x"), CDIDevice(name="y", optional=True))
    assert (await step(B + "RUN a\n", {"force-network-mode": "host"})).exec.network is NetMode.HOST
    assert (await step(B + "RUN --network=none a\n", {"force-network-mode": "host"})).exec.network is NetMode.NONE


async def test_options_of_the_command_reach_every_run() -> None:
    options = {
        "add-hosts": "a=1.2.3.4,b=::1",
        "ulimit": "nofile=1:2",
        "shm-size": "64",
        "cgroup-parent": "/c",
        "hostname": "h",
    }
    built = await build("FROM busybox AS a\nRUN x\nRUN y\nFROM a\nRUN z\n", options)
    for node in built.steps[1:]:
        meta = node.exec.meta
        assert [(h.host, h.ip) for h in meta.extra_hosts] == [("a", "1.2.3.4"), ("b", "::1")]
        assert [(u.name, u.soft, u.hard) for u in meta.ulimits] == [("nofile", 1, 2)]
        assert (meta.cgroup_parent, meta.hostname) == ("/c", "h")
        assert mounts(node)["/dev/shm"].tmpfs_size == 64


async def test_bind_mounts() -> None:
    built = await build(
        "FROM busybox AS a\nRUN x\nFROM busybox\nWORKDIR /w\n"
        "RUN --mount=target=sub --mount=from=a,source=/s/,target=/t,rw --mount=from=alpine,target=/i y\n"
    )
    node = built.steps[-1]
    found = mounts(node)
    inputs = node.inputs
    assert inputs[found["/w/sub"].input].name == "[internal] load build context"
    assert (found["/w/sub"].readonly, found["/w/sub"].output) == (True, -1)
    assert inputs[found["/t"].input].name == "[a 2/2] RUN x"
    assert (found["/t"].readonly, found["/t"].output, found["/t"].selector) == (False, -1, "/s")
    assert inputs[found["/i"].input].name.startswith("FROM docker.io/library/alpine")


async def test_cache_mounts() -> None:
    built = await build(
        B + "ARG t=/root/.cache\nRUN --mount=type=cache,target=$t "
        "--mount=type=cache,id=x,target=/b,sharing=locked,uid=1,mode=0700 y\n",
        {"build-arg:BUILDKIT_CACHE_MOUNT_NS": "ns"},
    )
    found = mounts(built.steps[-1])
    first, second = found["/root/.cache"], found["/b"]
    assert (first.type, first.input, first.selector) == (MountType.CACHE, -1, "")
    assert (first.cache.id, first.cache.sharing) == ("ns//root/.cache", CacheSharing.SHARED)
    assert (second.cache.id, second.cache.sharing, second.selector) == ("ns/x", CacheSharing.LOCKED, "/cache")
    (action,) = built.steps[-1].inputs[second.input].file.actions
    assert isinstance(action.action, MkDir)
    assert (action.action.path, action.action.mode, action.action.owner) == ("/cache", 0o700, Owner(user=1, group=0))


async def test_tmpfs_secret_and_ssh_mounts() -> None:
    node = await step(
        B + "RUN --mount=type=tmpfs,target=/t,size=1k --mount=type=secret,id=a/b --mount=type=secret,id=c,env=C "
        "--mount=type=secret,target=/d/e,required,mode=0444 --mount=type=secret,src=f,env=F,target=/f "
        "--mount=type=ssh --mount=type=ssh,id=k,target=/k,required x $C\n"
    )
    found = mounts(node)
    assert found["/t"].tmpfs_size == 1024
    assert (found["/run/secrets/b"].secret.id, found["/run/secrets/b"].secret.optional) == ("a/b", True)
    assert (found["/d/e"].secret.id, found["/d/e"].secret.optional, found["/d/e"].secret.mode) == ("e", False, 0o444)
    assert found["/f"].secret.id == "f"
    assert [(v.id, v.name, v.optional) for v in node.exec.secret_env] == [("c", "C", True), ("f", "F", True)]
    assert (found["/run/buildkit/ssh_agent.0"].ssh.id, found["/k"].ssh.id) == ("", "k")
    assert "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0" in node.exec.meta.env
    assert node.name.endswith("x ****")


async def test_ignoring_the_cache() -> None:
    text = "FROM busybox AS a\nRUN x\nCOPY y z\nFROM busybox AS B\nRUN x\nFROM a\nCOPY --from=b q r\n"
    for option, expected in ((None, []), ("", ["a", "b", "stage-2"]), ("B,c", ["b"])):
        built = await build(text, {} if option is None else {"no-cache": option})
        ignored = {node.name[1:].split()[0] for node in built.steps if node.ignore_cache}
        assert sorted(ignored) == expected
