"""The state builder says what BuildKit's client would say, and what is said twice is one operation."""

from __future__ import annotations

import pytest

from buildengine import platform as platforms
from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition, SourceRange, UserError
from buildengine.events import ProgressGroup
from buildengine.platform import Platform
from llb import ops
from llb.definition import Definition
from llb.graph import load
from llb.ops import ExecOp, MergeOp, OpMetadata, SourceOp
from llb.sourcemap import SourceFile
from llb.sources import git, http, image, local, oci_layout
from llb.state import Bind, ExecState, State, copy, diff, merge, mkdir, scratch
from tests.unit.llb_looking import exec_op, graph, result, source
from tests.unit.llb_samples import AMD64

ARM64 = Platform(os="linux", architecture="arm64")


class TestSources:
    def test_image(self) -> None:
        op = result(image("busybox"))
        assert op.payload == SourceOp(identifier="docker-image://docker.io/library/busybox:latest")
        assert op.platform == AMD64

    def test_image_options(self) -> None:
        checksum = Digest.sha256(b"")
        state = image(
            "x", platform=ARM64, resolve_mode="pull", layer_limit=0, checksum=checksum, record_type="internal"
        )
        assert state.platform == ARM64
        assert result(state).platform == ARM64
        assert source(state).attrs == {
            "image.resolvemode": "pull",
            "image.layerlimit": "0",
            "image.checksum": checksum,
            "image.recordtype": "internal",
        }

    def test_image_of_a_wrong_name_or_mode(self) -> None:
        with pytest.raises(UserError, match="invalid image reference 'A B'"):
            image("A B")
        with pytest.raises(UserError, match="unknown resolve mode 'never'"):
            image("x", resolve_mode="never")

    def test_local(self) -> None:
        state = local(
            "context",
            include=["src", 'a"<b'],
            exclude=["*.o"],
            follow_paths=["über"],
            shared_key_hint="context",
            session="s1",
            differ="none",
            metadata_only=["go.mod"],
        )
        assert source(state, unique="u1") == SourceOp(
            identifier="local://context",
            attrs={
                "local.includepattern": r'["src","a\"\u003cb"]',
                "local.excludepatterns": '["*.o"]',
                "local.followpaths": '["über"]',
                "local.sharedkeyhint": "context",
                "local.session": "s1",
                "local.differ": "none",
                "local.metadatatransfer": "true",
                "local.metadatatransferexclude": '["go.mod"]',
            },
        )
        assert result(state).platform is None

    def test_local_directories_of_two_clients_are_kept_apart(self) -> None:
        assert source(local("context"), unique="u1").attrs == {"local.unique": "u1"}
        assert source(local("context")).attrs == {}

    def test_http(self) -> None:
        checksum = Digest.sha256(b"")
        state = http(
            "https://host/a.tar",
            checksum=checksum,
            filename="a",
            mode=0o600,
            uid=1,
            gid=2,
            auth_header_secret="token",
            headers={"Accept": "text/plain"},
        )
        assert source(state) == SourceOp(
            identifier="https://host/a.tar",
            attrs={
                "http.checksum": checksum,
                "http.filename": "a",
                "http.perm": "0600",
                "http.uid": "1",
                "http.gid": "2",
                "http.authheadersecret": "token",
                "http.header.accept": "text/plain",
            },
        )

    def test_http_of_something_else(self) -> None:
        with pytest.raises(UserError, match="invalid address 'file:///etc/passwd'"):
            http("file:///etc/passwd")
        with pytest.raises(UserError, match="header 'cookie' cannot be set"):
            http("http://x", headers={"Cookie": "1"})

    @pytest.mark.parametrize(
        ("remote", "ref", "identifier", "url"),
        [
            ("https://github.com/a/b.git", "v1", "git://github.com/a/b.git#v1", "https://github.com/a/b.git"),
            ("github.com/a/b", "", "git://github.com/a/b", "https://github.com/a/b"),
            ("https://h/a#dev:docs", "", "git://h/a#dev:docs", "https://h/a"),
            ("https://h/a#dev", "v2", "git://h/a#v2", "https://h/a"),
            ("git@h:a/b.git", "", "git://h/a/b.git", "git@h:a/b.git"),
        ],
    )
    def test_git(self, remote: str, ref: str, identifier: str, url: str) -> None:
        payload = source(git(remote, ref))
        assert payload.identifier == identifier
        assert payload.attrs["git.fullurl"] == url
        assert payload.attrs["git.authtokensecret"] == "GIT_AUTH_TOKEN"
        assert payload.attrs["git.authheadersecret"] == "GIT_AUTH_HEADER"
        assert payload.attrs.get("git.mountsshsock") == ("default" if "@" in url else None)

    def test_git_options(self) -> None:
        state = git(
            "ssh://git@h/a",
            subdir="../docs/",
            keep_git_dir=True,
            checksum="abc",
            skip_submodules=True,
            auth_token_secret="",
            auth_header_secret="",
            known_ssh_hosts="h ssh-ed25519 AAAA\n",
        )
        assert source(state) == SourceOp(
            identifier="git://h/a#:docs",
            attrs={
                "git.fullurl": "ssh://git@h/a",
                "git.keepgitdir": "true",
                "git.checksum": "abc",
                "git.skipsubmodules": "true",
                "git.knownsshhosts": "h ssh-ed25519 AAAA\n",
                "git.mountsshsock": "default",
            },
        )

    def test_oci_layout(self) -> None:
        state = oci_layout("x@sha256:1", session="s", store="oci:x", layer_limit=1)
        assert source(state) == SourceOp(
            identifier="oci-layout://x@sha256:1",
            attrs={"oci.session": "s", "oci.store": "oci:x", "oci.layerlimit": "1"},
        )
        assert result(state).platform == AMD64


class TestSurroundings:
    def test_of_a_new_state(self) -> None:
        state = scratch()
        assert (dict(state.environ), state.cwd, state.user, state.platform) == ({}, "/", "", None)

    def test_a_variable_set_again_moves_to_the_end(self) -> None:
        state = image("x").with_env("A", "1").with_env("B", "2").with_env("A", "3")
        assert exec_op(state.run(["true"])).meta.env == ("B=2", "A=3")

    def test_directories_are_relative_to_the_one_before(self) -> None:
        assert scratch().with_dir("/a/./b/").with_dir("../c").cwd == "/a/c"
        assert scratch().with_dir("/a/./b/").cwd == "/a/./b/"
        assert scratch().with_dir("..").with_dir("").cwd == "/"

    def test_everything_reaches_the_command(self) -> None:
        state = (
            image("x")
            .with_dir("/src")
            .with_user("app")
            .with_hostname("h")
            .with_network(ops.NetMode.HOST)
            .with_security(ops.SecurityMode.INSECURE)
            .with_extra_host("db", "10.0.0.1")
            .with_ulimit("nofile", 1, 2)
            .with_cgroup_parent("/c")
            .with_platform(ARM64)
        )
        op = result(state.run(["true"]))
        assert op.platform == ARM64
        assert op.payload == ExecOp(
            meta=ops.Meta(
                args=("true",),
                cwd="/src",
                user="app",
                hostname="h",
                extra_hosts=(ops.HostIP(host="db", ip="10.0.0.1"),),
                ulimits=(ops.Ulimit(name="nofile", soft=1, hard=2),),
                cgroup_parent="/c",
                remove_mount_stubs_recursive=True,
            ),
            mounts=(ops.Mount(dest="/", input=0, output=0),),
            network=ops.NetMode.HOST,
            security=ops.SecurityMode.INSECURE,
        )

    def test_of_an_image_config(self) -> None:
        config = b"""{"os": "linux", "architecture": "aarch64",
            "config": {"Env": ["PATH=/bin", "X=a=b", "EMPTY"], "WorkingDir": "/w", "User": "app"}}"""
        state = image("x").with_image_config(config)
        assert dict(state.environ) == {"PATH": "/bin", "X": "a=b", "EMPTY": ""}
        assert (state.cwd, state.user, state.platform) == ("/w", "", ARM64)
        assert image("x").with_dir("/d").with_image_config(b'{"config": null}').cwd == "/d"

    @pytest.mark.parametrize("config", [b"", b"[]", b'{"config": {"Env": [1]}}', b'{"config": [1]}', b"\xff"])
    def test_of_a_config_that_is_none(self, config: bytes) -> None:
        with pytest.raises(UserError, match="invalid image config"):
            image("x").with_image_config(config)

    def test_of_another_state(self) -> None:
        state = scratch().with_surroundings_of(image("x").with_dir("/d"))
        assert (state.output, state.cwd) == (None, "/d")


class TestMergeAndDiff:
    def test_merge(self) -> None:
        base, layer = image("x").with_dir("/d"), scratch().file(mkdir("/a"))
        merged = merge([scratch(), base, layer, layer])
        assert merged.cwd == "/d"
        assert result(merged).payload == MergeOp(inputs=(0, 1, 2))
        assert len(result(merged).inputs) == 3
        assert result(merged).platform is None

    def test_merge_of_one_or_none(self) -> None:
        base = image("x")
        assert merge([scratch(), base]) is base
        assert merge([]).output is None

    def test_diff(self) -> None:
        base = image("x").with_dir("/d")
        changed = base.run(["x"])
        assert diff(base, changed).cwd == "/d"
        assert result(diff(base, changed)).payload == ops.DiffOp(lower=0, upper=1)
        assert result(diff(base, scratch())).payload == ops.DiffOp(lower=0)
        assert diff(scratch(), changed) is changed


class TestMarshal:
    def test_scratch(self) -> None:
        assert scratch().marshal().is_scratch

    def test_what_is_said_twice_is_built_once(self) -> None:
        left = image("x").run(["make"], name="left", ignore_cache=True)
        right = image("x").run(["make"], name="right", description={"k": "v"}, export_cache=False)
        definition = merge([left, right.file(mkdir("/a"))]).marshal(AMD64)
        assert len(definition.ops) == 5
        shared = definition.metadata[definition.digests()[1]]
        assert shared.description == {"llb.customname": "right", "k": "v"}
        assert (shared.ignore_cache, shared.export_cache) == (True, False)

    def test_the_same_state_gives_the_same_bytes(self) -> None:
        def build() -> bytes:
            context = local("context", exclude=["b", "a"])
            place = SourceFile(filename="f").at(SourceRange(start_line=1, end_line=1))
            state = image("x").file(copy(context, ".", "."), place=place).run("make", name="make")
            return state.marshal(AMD64).to_bytes()

        assert build() == build()

    def test_annotations_do_not_change_what_is_built(self) -> None:
        plain = image("x").run(["make"]).marshal(AMD64)
        place = SourceFile(filename="f").at()
        group = ProgressGroup(id="g", name="group", weak=True)
        said = image("x").run(
            ["make"],
            name="n",
            description={"a": "b"},
            ignore_cache=True,
            export_cache=True,
            progress_group=group,
            place=[place],
        )
        definition = said.marshal(AMD64)
        assert definition.ops == plain.ops
        digest = definition.digests()[1]
        known = definition.metadata[digest]
        assert known.progress_group == group
        assert known.ignore_cache
        assert known.export_cache
        assert definition.source.locations(digest) == (place.location,)
        assert definition.metadata[definition.digests()[-1]] == OpMetadata(
            caps=frozenset(["constraints", "platform", "meta.ignorecache", "meta.description", "meta.exportcache"])
        )

    def test_places_of_equal_operations_add_up(self) -> None:
        file = SourceFile(filename="f")
        first, second = (file.at(SourceRange(start_line=n, end_line=n)) for n in (1, 2))
        states = [image("x", place=place) for place in (first, second, first)]
        definition = merge(states).marshal(AMD64)
        assert definition.source.files == (file,)
        assert definition.source.places[definition.digests()[0]] == (first, second)

    def test_filters_of_workers_are_part_of_identity(self) -> None:
        state = image("x", require=["b"])
        definition = state.marshal(AMD64, require=["a"])
        assert load(definition).nodes[definition.digests()[0]].op.constraints == ("a", "b")

    def test_without_a_platform_it_is_for_this_host(self) -> None:
        definition = image("x").marshal()
        assert load(definition).nodes[definition.digests()[0]].op.platform == platforms.local()

    def test_a_name_that_is_not_unicode(self) -> None:
        with pytest.raises(InvalidDefinition, match="cannot be encoded"):
            scratch().file(mkdir("/\udcff")).marshal()

    def test_ten_thousand_steps(self) -> None:
        state: State = image("x")
        for number in range(10_000):
            state = state.run(["echo", str(number)])
        definition = state.marshal(AMD64)
        assert len(definition.ops) == 10_002
        assert len(load(Definition.from_bytes(definition.to_bytes())).nodes) == 10_001


class TestDefinitionsOfOthers:
    def made(self) -> Definition:
        place = SourceFile(filename="other", data=b"x").at(SourceRange(start_line=7, end_line=7))
        ran = image("x", platform=ARM64).run(["make"], mounts=[Bind(target="/out")], name="theirs", place=place)
        return ran.mount("/out").marshal(AMD64)

    def test_are_taken_over_as_they_are(self) -> None:
        made = self.made()
        state = State.from_definition(made)
        assert state.platform == ARM64
        definition = image("y").file(copy(state, "/a", "/b")).marshal(AMD64)
        assert set(made.ops[:-1]) <= set(definition.ops)
        theirs = made.digests()[1]
        assert definition.metadata[theirs].description == {"llb.customname": "theirs"}
        assert definition.source.locations(theirs)[0].ranges[0].start_line == 7
        loaded = load(definition)
        assert loaded.nodes[loaded.root.digest].op.inputs[1] == ops.Input(digest=theirs, index=1)

    def test_alone_give_the_same_operations(self) -> None:
        made = self.made()
        assert State.from_definition(made).marshal(AMD64).ops == made.ops

    def test_of_scratch(self) -> None:
        assert State.from_definition(Definition()).output is None

    def test_without_a_result_are_refused(self) -> None:
        with pytest.raises(InvalidDefinition, match="has no result"):
            State.from_definition(Definition(ops=self.made().ops[:1]))


def test_exec_states_are_states() -> None:
    ran = image("x").run(["a"])
    assert isinstance(ran, ExecState)
    assert not isinstance(ran.with_env("A", "1"), ExecState)
    assert len(graph(ran.with_env("A", "1").run(["b"]).file(mkdir("/c"))).nodes) == 4
