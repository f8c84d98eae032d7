"""Commands and file actions on states: mounts, outputs, inputs and paths as BuildKit's client would have them."""

from __future__ import annotations

import pytest

from buildengine.errors import InvalidDefinition, SourceRange
from buildengine.platform import Platform
from llb import ops
from llb.graph import load
from llb.ops import NO_INPUT, NO_OUTPUT, MountType
from llb.sourcemap import SourceFile
from llb.sources import image, local
from llb.state import Actions, Bind, Cache, Secret, Ssh, Tmpfs, copy, mkdir, mkfile, rm, scratch, symlink
from tests.unit.llb_looking import exec_op, file_op, graph, result
from tests.unit.llb_samples import AMD64

ARM64 = Platform(os="linux", architecture="arm64")


class TestRun:
    def test_text_is_for_the_shell(self) -> None:
        assert exec_op(image("x").run("a && b")).meta.args == ("/bin/sh", "-c", "a && b")
        assert exec_op(image("x").run("a", shell=["/bin/bash", "-ec"])).meta.args == ("/bin/bash", "-ec", "a")

    def test_nothing_to_run_is_refused_where_it_is_written(self) -> None:
        place = SourceFile(filename="build.py").at(SourceRange(start_line=3, end_line=3))
        with pytest.raises(InvalidDefinition, match="no command to run") as caught:
            image("x").run([], place=place)
        assert caught.value.locations == (place.location,)

    def test_what_is_said_for_one_command_ends_with_it(self) -> None:
        state = image("x").with_user("a").with_dir("/d")
        ran = state.run(["true"], env={"A": "1"}, cwd="e", user="", network=ops.NetMode.NONE, platform=ARM64)
        payload = exec_op(ran)
        assert (payload.meta.env, payload.meta.cwd, payload.meta.user) == (("A=1",), "/d/e", "")
        assert payload.network is ops.NetMode.NONE
        assert result(ran).platform == ARM64
        assert (dict(ran.environ), ran.cwd, ran.user, ran.platform) == ({}, "/d", "a", None)

    def test_mounts_are_sorted_inputs_shared_and_outputs_numbered(self) -> None:
        base, other = image("x"), local("other")
        ran = base.run(
            ["make"],
            mounts=[
                Bind(target="/z"),
                Bind(target="/b", source=other, selector="sub"),
                Bind(target="/a", source=base, readonly=True),
                Cache(target="/c", base=other, sharing=ops.CacheSharing.LOCKED, id="c1"),
                Tmpfs(target="/t", size=5),
                Bind(target="/n", source=other, output=False, content_cache=ops.ContentCache.OFF),
            ],
        )
        op = result(ran)
        assert [load(ran.marshal(AMD64)).nodes[edge.digest].name for edge in op.inputs] == [
            "docker-image://docker.io/library/x:latest",
            "local://other",
        ]
        assert exec_op(ran).mounts == (
            ops.Mount(dest="/", input=0, output=0),
            ops.Mount(dest="/a", input=0, output=NO_OUTPUT, readonly=True),
            ops.Mount(dest="/b", input=1, selector="sub", output=1),
            ops.Mount(
                dest="/c",
                input=1,
                output=NO_OUTPUT,
                type=MountType.CACHE,
                cache=ops.CacheOpt(id="c1", sharing=ops.CacheSharing.LOCKED),
            ),
            ops.Mount(dest="/n", input=1, output=NO_OUTPUT, content_cache=ops.ContentCache.OFF),
            ops.Mount(dest="/t", input=NO_INPUT, output=NO_OUTPUT, type=MountType.TMPFS, tmpfs_size=5),
            ops.Mount(dest="/z", input=NO_INPUT, output=2),
        )

    def test_mounts_become_states(self) -> None:
        source_state = local("x").with_dir("/d")
        ran = image("x").run(
            ["make"],
            mounts=[
                Bind(target="/out"),
                Bind(target="/src", source=source_state),
                Bind(target="/ro", source=source_state, readonly=True),
                Bind(target="/lost", output=False),
            ],
        )
        assert graph(ran).root.index == 0
        assert graph(ran.mount("/out")).root.index == 1
        assert graph(ran.mount("/src")).root.index == 2
        assert ran.mount("/src").cwd == "/d"
        assert ran.mount("/ro") == source_state
        assert ran.root.output == ran.output
        for target in ("/lost", "/nowhere"):
            with pytest.raises(InvalidDefinition, match=f"mount {target} has no result"):
                ran.mount(target)

    def test_one_target_twice(self) -> None:
        ran = image("x").run(["x"], mounts=[Bind(target="/a"), Bind(target="/a"), Bind(target="/b")])
        assert [mount.output for mount in exec_op(ran).mounts] == [0, 1, 2, 3]
        assert graph(ran.mount("/b")).root.index == 3

    def test_the_root_cannot_be_mounted_over(self) -> None:
        with pytest.raises(InvalidDefinition, match="mounted over the root"):
            image("x").run(["x"], mounts=[Tmpfs(target="/")])

    def test_a_read_only_root_stays_what_it_is(self) -> None:
        base = image("x")
        ran = base.run(["make"], readonly_root=True, mounts=[Bind(target="/out")])
        assert ran.root.output is base.output
        assert exec_op(ran.mount("/out")).mounts == (
            ops.Mount(dest="/", input=0, output=NO_OUTPUT, readonly=True),
            ops.Mount(dest="/out", output=0),
        )

    def test_secrets(self) -> None:
        payload = exec_op(
            image("x").run(
                ["x"],
                mounts=[
                    Secret(id="b"),
                    Secret(id="a", target="/a", uid=1, gid=2, mode=0o440, optional=True),
                    Secret(id="e", env="E"),
                    Secret(id="both", env="F", target="/f", optional=True),
                ],
            )
        )
        assert [(m.dest, m.output, m.secret) for m in payload.mounts[1:]] == [
            ("/run/secrets/b", 0, ops.SecretOpt(id="b")),
            ("/a", 0, ops.SecretOpt(id="a", uid=1, gid=2, mode=0o440, optional=True)),
            ("/f", 0, ops.SecretOpt(id="both", optional=True)),
        ]
        assert payload.secret_env == (
            ops.SecretEnv(id="e", name="E"),
            ops.SecretEnv(id="both", name="F", optional=True),
        )

    def test_ssh_agents(self) -> None:
        payload = exec_op(image("x").run(["x"], mounts=[Ssh(), Ssh(id="deploy", target="/agent")]))
        assert payload.meta.env == ("SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0",)
        assert [(m.dest, m.ssh) for m in payload.mounts[1:]] == [
            ("/run/buildkit/ssh_agent.0", ops.SSHOpt(id="default")),
            ("/agent", ops.SSHOpt(id="deploy")),
        ]
        kept = exec_op(image("x").with_env("SSH_AUTH_SOCK", "/mine").run(["x"], mounts=[Ssh()]))
        assert kept.meta.env == ("SSH_AUTH_SOCK=/mine",)

    def test_the_rest(self) -> None:
        proxy = ops.ProxyEnv(http_proxy="http://p")
        device = ops.CDIDevice(name="v/c=d")
        payload = exec_op(image("x").run(["x"], proxy=proxy, devices=[device], valid_exit_codes=[0, 2]))
        assert (payload.meta.proxy_env, payload.cdi_devices) == (proxy, (device,))
        assert payload.meta.valid_exit_codes == (0, 2)

    def test_on_scratch(self) -> None:
        assert exec_op(scratch().run(["/x"])).mounts == (ops.Mount(dest="/", input=NO_INPUT, output=0),)


class TestFile:
    def test_a_chain_is_one_operation(self) -> None:
        context, other = local("context"), image("other").with_dir("/opt")
        chain = (
            mkdir("sub", parents=True)
            .copy(context, ".", "sub/", contents=True)
            .copy(other, "a/../bin", ".")
            .mkfile("/f", b"x", mode=0o755)
            .symlink("f", "l")
            .rm("*.tmp", missing_ok=True, wildcard=True)
        )
        state = image("x").with_dir("/src").file(chain)
        op = result(state)
        assert [graph(state).nodes[edge.digest].name for edge in op.inputs] == [
            "docker-image://docker.io/library/x:latest",
            "local://context",
            "docker-image://docker.io/library/other:latest",
        ]
        assert op.platform is None
        actions = file_op(state).actions
        assert [(a.input, a.secondary_input, a.output) for a in actions] == [
            (0, -1, -1),
            (3, 1, -1),
            (4, 2, -1),
            (5, -1, -1),
            (6, -1, -1),
            (7, -1, 0),
        ]
        assert [a.action for a in actions] == [
            ops.MkDir(path="/src/sub", mode=0o755, make_parents=True),
            ops.CopyAction(src="/", dest="/src/sub/", dir_copy_contents=True),
            ops.CopyAction(src="/opt/bin", dest="/src"),
            ops.MkFile(path="/f", mode=0o755, data=b"x"),
            ops.Symlink(oldpath="f", newpath="/src/l"),
            ops.Remove(path="/src/*.tmp", allow_not_found=True, allow_wildcard=True),
        ]

    def test_inputs_come_once(self) -> None:
        base = image("x")
        state = base.file(copy(image("x"), "/a", "/b").copy(base, "/c", "/d"))
        assert len(result(state).inputs) == 1
        assert [a.secondary_input for a in file_op(state).actions] == [0, 0]

    def test_on_and_from_scratch(self) -> None:
        actions = file_op(scratch().file(copy(scratch(), "/a", "/b").mkdir("/c"))).actions
        assert [(a.input, a.secondary_input) for a in actions] == [(-1, -1), (0, -1)]

    def test_every_option_of_copy(self) -> None:
        state = image("x").file(
            copy(
                local("c"),
                "*",
                "/d/.",
                owner="app",
                mode="u=rwX",
                follow_symlink=True,
                unpack=True,
                parents=True,
                wildcard=True,
                allow_empty_wildcard=True,
                include=["a"],
                exclude=["b"],
                required=["a"],
                replace_existing=True,
                timestamp=0,
            )
        )
        assert file_op(state).actions[0].action == ops.CopyAction(
            src="/*",
            dest="/d/.",
            owner=ops.Owner(user=ops.NamedUser(name="app", input=0)),
            mode=0,
            mode_str="u=rwX",
            follow_symlink=True,
            attempt_unpack=True,
            create_dest_path=True,
            allow_wildcard=True,
            allow_empty_wildcard=True,
            include_patterns=("a",),
            exclude_patterns=("b",),
            always_replace_existing_dest_paths=True,
            required_paths=("a",),
            timestamp=0,
        )
        numeric = image("x").file(copy(local("c"), "a", "b", mode=0o4755))
        action = file_op(numeric).actions[0].action
        assert isinstance(action, ops.CopyAction)
        assert (action.mode, action.mode_str) == (0o4755, "")

    @pytest.mark.parametrize(
        ("owner", "expected"),
        [
            (None, None),
            ("1000", ops.Owner(user=1000)),
            ("1000:50", ops.Owner(user=1000, group=50)),
            ("root:wheel", ops.Owner(user=0, group=ops.NamedUser(name="wheel", input=0))),
            (ops.Owner(group=7), ops.Owner(group=7)),
        ],
    )
    def test_owners(self, owner: str | ops.Owner | None, expected: ops.Owner | None) -> None:
        for chain in (mkdir("/a", owner=owner), mkfile("/a", b"", owner=owner), symlink("a", "/b", owner=owner)):
            action = file_op(image("x").file(chain)).actions[0].action
            assert not isinstance(action, ops.Remove)
            assert action.owner == expected

    def test_scratch_has_no_users(self) -> None:
        place = SourceFile(filename="Dockerfile").at(SourceRange(start_line=1, end_line=1))
        with pytest.raises(InvalidDefinition, match="owner 'app' is a name") as caught:
            scratch().file(mkdir("/a", owner="app"), place=place)
        assert caught.value.locations == (place.location,)
        assert scratch().file(mkdir("/a", owner="5")).output

    def test_nothing_is_no_operation(self) -> None:
        with pytest.raises(InvalidDefinition, match="there is no file action"):
            scratch().file(Actions())

    def test_chains_are_values(self) -> None:
        start = rm("/a")
        assert (len(start.rm("/b").steps), len(start.rm("/c").steps), len(start.steps)) == (2, 2, 1)
