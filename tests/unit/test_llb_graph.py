"""What passes `load` holds together; what does not is refused with its name, digest and place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition, SourceRange
from llb import codec, graph, ops
from llb.definition import Definition
from llb.graph import load
from llb.ops import NO_INPUT, NO_OUTPUT, Input, Mount, MountType, Op, OpMetadata
from llb.order import Cycle, postorder
from llb.outputs import exec_outputs, output_count
from llb.sourcemap import SourceFile, SourceMap
from tests.unit.llb_samples import A

BASE = Op(payload=ops.SourceOp(identifier="docker-image://x"))
ROOT = Mount(dest="/", input=0, output=0)


def digest(op: Op) -> Digest:
    return Digest.sha256(codec.encode(op))


def needs(*needed: Op, index: int = 0) -> tuple[Input, ...]:
    return tuple(Input(digest=digest(op), index=index) for op in needed)


def run(*mounts: Mount, base: Op = BASE, args: tuple[str, ...] = ("make",)) -> Op:
    return Op(inputs=needs(base), payload=ops.ExecOp(meta=ops.Meta(args=args), mounts=mounts))


def file(*actions: ops.FileAction, base: Op = BASE) -> Op:
    return Op(inputs=needs(base), payload=ops.FileOp(actions=actions))


def define(*operations: Op, index: int = 0, metadata: Mapping[Digest, OpMetadata] | None = None) -> Definition:
    """The operations, with the last of them as the result."""
    terminal = Op(inputs=needs(operations[-1], index=index))
    return Definition(ops=tuple(codec.encode(op) for op in (*operations, terminal)), metadata=metadata or {})


def mkdir(owner: ops.Owner | None = None) -> ops.MkDir:
    return ops.MkDir(path="/a", mode=0o755, owner=owner)


def refusal(definition: Definition) -> InvalidDefinition:
    with pytest.raises(InvalidDefinition) as caught:
        load(definition)
    return caught.value


class TestWhatLoads:
    def test_inputs_come_before_users_whatever_order_they_were_sent_in(self) -> None:
        step = run(ROOT)
        top = Op(inputs=needs(BASE, step), payload=ops.MergeOp(inputs=(0, 1)))
        sent = define(step, BASE, top)
        loaded = load(sent)
        assert loaded.order == (digest(BASE), digest(step), digest(top))
        assert loaded.root == Input(digest=digest(top))
        assert loaded.nodes[digest(step)].op == step

    def test_only_what_the_result_needs(self) -> None:
        unused = Op(payload=ops.SourceOp(identifier="local://unused"))
        assert load(define(unused, BASE)).order == (digest(BASE),)

    def test_an_operation_sent_twice_is_one(self) -> None:
        assert load(define(BASE, BASE)).order == (digest(BASE),)

    def test_names_and_metadata(self) -> None:
        step = run(ROOT)
        known = OpMetadata(description={"llb.customname": "[1/2] make"}, ignore_cache=True)
        top = Op(inputs=needs(BASE, step), payload=ops.DiffOp(lower=0, upper=1))
        nodes = load(define(BASE, step, top, metadata={digest(step): known})).nodes
        assert nodes[digest(step)].metadata == known
        assert [node.name for node in nodes.values()] == [
            "docker-image://x",
            "[1/2] make",
            "diff (docker-image://x) -> ([1/2] make)",
        ]

    def test_ten_thousand_steps_on_top_of_each_other(self) -> None:
        steps = [BASE]
        for number in range(9_999):
            steps.append(Op(inputs=needs(steps[-1]), payload=ops.DiffOp(lower=0 if number % 2 else NO_INPUT, upper=0)))
        loaded = load(define(*steps))
        assert loaded.order == tuple(digest(step) for step in steps)
        assert max(len(node.name) for node in loaded.nodes.values()) < 300

    @pytest.mark.parametrize("index", [0, 1])
    def test_each_output_can_be_the_result(self, index: int) -> None:
        step = run(ROOT, Mount(dest="/out", output=1))
        assert load(define(BASE, step, index=index)).root.index == index


class TestWhatIsRefused:
    @pytest.mark.parametrize("count", [0, 1])
    def test_too_few_operations(self, count: int) -> None:
        assert f"has {count} operations" in refusal(Definition(ops=(codec.encode(BASE),) * count)).message

    @pytest.mark.parametrize("terminal", [BASE, Op(), Op(inputs=needs(BASE, BASE)), run(ROOT)])
    def test_a_last_operation_that_names_no_result(self, terminal: Op) -> None:
        sent = Definition(ops=(codec.encode(BASE), codec.encode(terminal)))
        assert "the last operation must name one result" in refusal(sent).message

    def test_bytes_that_are_no_operation(self) -> None:
        garbage = b"\xff\xff"
        sent = Definition(ops=(garbage, *define(BASE).ops))
        error = refusal(sent)
        assert error.message == f"operation ({Digest.sha256(garbage).short}): operation is not an LLB message"
        assert error.vertex == Digest.sha256(garbage)

    def test_an_input_that_is_not_there(self) -> None:
        error = refusal(Definition(ops=define(BASE, run(ROOT)).ops[1:]))
        assert error.message == (
            f"make ({digest(run(ROOT)).short}): input sha256:{digest(BASE).short} is not in the definition"
        )

    def test_a_result_that_is_not_there(self) -> None:
        sent = Definition(ops=(codec.encode(BASE), codec.encode(Op(inputs=(Input(digest=A),)))))
        assert "is not in the definition" in refusal(sent).message

    @pytest.mark.parametrize("index", [-1, 1])
    def test_an_output_that_is_not_there(self, index: int) -> None:
        step = replace(run(ROOT), inputs=needs(BASE, index=index))
        error = refusal(define(BASE, step))
        assert f"input docker-image://x ({digest(BASE).short}) has 1 outputs: there is no output {index}" in str(error)
        assert "there is no output 3" in str(refusal(define(BASE, run(ROOT), index=3)))

    def test_nothing_to_do_in_the_middle(self) -> None:
        middle = Op(inputs=needs(BASE))
        assert "only the last operation" in refusal(define(BASE, middle)).message

    def test_a_capability_that_is_not_known(self) -> None:
        known = OpMetadata(caps=frozenset(["source.image", "source.telepathy"]))
        error = refusal(define(BASE, metadata={digest(BASE): known}))
        assert "capability 'source.telepathy' is not supported" in error.message
        assert error.hint == "it needs a newer engine than this one"
        assert load(define(BASE, metadata={digest(BASE): known}), known_caps=known.caps)

    def test_the_error_says_where(self) -> None:
        step = run(ROOT, args=())
        dockerfile = SourceFile(filename="Dockerfile", data=b"RUN\n")
        place = dockerfile.at(SourceRange(start_line=1, end_line=1))
        source = SourceMap(files=(dockerfile,), places={digest(step): (place,)})
        named = {digest(step): OpMetadata(description={"llb.customname": "[2/2] RUN"})}
        error = refusal(replace(define(BASE, step, metadata=named), source=source))
        assert error.message == f"[2/2] RUN ({digest(step).short}): there is no command to run"
        assert error.locations == (place.location,)

    def test_a_cycle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """sha256 allows none; the order must still not hang on one."""

        def loop(root: Digest, inputs: object) -> list[Digest]:
            return postorder(root, lambda _: [root])

        monkeypatch.setattr(graph, "postorder", loop)
        assert "depends on itself" in refusal(define(BASE)).message


@pytest.mark.parametrize(
    ("op", "problem"),
    [
        (Op(payload=ops.SourceOp(identifier="busybox")), "source 'busybox' has no scheme"),
        (run(), "no mount is the root file system"),
        (run(Mount(dest="/x", input=0)), "no mount is the root file system"),
        (run(Mount(dest="/", type=MountType.TMPFS)), "a tmpfs mount cannot be the root file system"),
        (run(ROOT, Mount(dest="/x", input=1)), "mount /x: there is no input 1, only 1"),
        (run(ROOT, Mount(dest="/x", input=-2)), "mount /x: there is no input -2"),
        (run(replace(ROOT, output=-2)), "mount /: there is no output -2"),
        (file(), "there is no file action"),
        (file(ops.FileAction(action=mkdir(), input=1, output=0)), "file action 0: there is no input 1"),
        (file(ops.FileAction(action=mkdir(), secondary_input=1, output=0)), "source of file action 0: there is no"),
        (file(ops.FileAction(action=mkdir(), input=0)), "outputs []: they must count from 0"),
        (file(ops.FileAction(action=mkdir(), output=1)), "outputs [1]: they must count from 0"),
        (
            file(ops.FileAction(action=mkdir(ops.Owner(user=ops.NamedUser(name="bob"))), output=0)),
            "owner 'bob' is a name, and there is no tree to look it up in",
        ),
        (
            file(ops.FileAction(action=mkdir(ops.Owner(group=ops.NamedUser(name="wheel", input=1))), output=0)),
            "owner 'wheel': there is no input 1",
        ),
        (Op(inputs=needs(BASE), payload=ops.MergeOp(inputs=(0, 1))), "merged tree: there is no input 1"),
        (Op(inputs=needs(BASE), payload=ops.MergeOp(inputs=(0, -1))), "merged tree: there is no input -1"),
        (Op(inputs=needs(BASE), payload=ops.DiffOp(lower=1)), "lower tree: there is no input 1"),
        (Op(inputs=needs(BASE), payload=ops.DiffOp(upper=-2)), "upper tree: there is no input -2"),
        (Op(inputs=needs(BASE), payload=ops.BuildOp(builder=0)), "only LLB can be built"),
        (Op(inputs=needs(BASE), payload=ops.BuildOp(builder=-1)), "without an input 'buildkit.llb.definition'"),
        (
            Op(inputs=needs(BASE), payload=ops.BuildOp(builder=-1, inputs={"buildkit.llb.definition": 1})),
            "input 'buildkit.llb.definition' of the nested build: there is no input 1",
        ),
    ],
)
def test_an_operation_that_makes_no_sense(op: Op, problem: str) -> None:
    assert problem in refusal(define(BASE, op)).message


def test_file_actions_may_use_earlier_ones_only() -> None:
    chain = [
        ops.FileAction(action=mkdir(), input=0),
        ops.FileAction(action=mkdir(), input=1),
        ops.FileAction(action=mkdir(), input=1, secondary_input=2, output=0),
    ]
    assert load(define(BASE, file(*chain)))
    assert "file action 1: there is no input 2" in str(
        refusal(define(BASE, file(chain[0], replace(chain[1], input=2))))
    )


class TestOutputs:
    def test_of_an_exec_are_its_writable_trees_in_mount_order(self) -> None:
        out, cached = Mount(dest="/out", output=7), Mount(dest="/c", input=0, output=1, type=MountType.CACHE)
        payload = ops.ExecOp(
            meta=ops.Meta(args=("x",)),
            mounts=(
                ROOT,
                Mount(dest="/ro", input=0, output=NO_OUTPUT, readonly=True),
                Mount(dest="/secret", output=0, type=MountType.SECRET),
                replace(cached, input=NO_INPUT),
                cached,
                out,
            ),
        )
        assert [payload.mounts[position] for position in exec_outputs(payload)] == [ROOT, cached, out]
        assert output_count(Op(payload=payload)) == 3

    def test_of_a_file_operation(self) -> None:
        actions = [ops.FileAction(action=mkdir(), output=number) for number in (NO_OUTPUT, 1, 0)]
        assert output_count(file(*actions)) == 2

    def test_of_everything_else(self) -> None:
        assert output_count(BASE) == 1


class TestOrder:
    def test_a_cycle_is_named(self) -> None:
        with pytest.raises(Cycle) as caught:
            postorder("a", {"a": "b", "b": "c", "c": "b"}.__getitem__)
        assert caught.value.node == "b"

    def test_shared_inputs_come_once(self) -> None:
        assert postorder(4, {4: [2, 3], 3: [1, 2], 2: [1], 1: []}.__getitem__) == [1, 2, 3, 4]

    def test_depth_is_no_limit(self) -> None:
        assert postorder(50_000, lambda n: [n - 1] if n else [])[:2] == [0, 1]
