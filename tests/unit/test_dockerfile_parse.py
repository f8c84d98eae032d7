"""One logical line to one instruction: forms, flags, words, heredocs; and the time it takes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from buildengine.errors import ParseError
from frontends.dockerfile import instructions as ins
from frontends.dockerfile import parse
from frontends.dockerfile.instructions import KeyValue, RawMount
from frontends.dockerfile.lines import Heredoc, SourceFile, split

CACHE = RawMount(fields=("type=cache", "target=/x"))


def one(text: str) -> ins.Instruction:
    (line,) = split(SourceFile(filename="Dockerfile", data=text.encode())).lines
    return parse.instruction(line)


def fields(instruction: ins.Instruction) -> dict[str, Any]:
    names = [name for kind in type(instruction).__mro__ for name in getattr(kind, "__slots__", ())]
    return {name: getattr(instruction, name) for name in names if name != "line"}


CASES: list[tuple[str, type[ins.Instruction], dict[str, Any]]] = [
    # FROM
    ("FROM busybox", ins.From, {"image": "busybox", "stage_name": ""}),
    ("from busybox as X", ins.From, {"image": "busybox", "stage_name": "X", "as_keyword": "as", "keyword": "from"}),
    ("FROM as as as", ins.From, {"image": "as", "stage_name": "as"}),
    ("FROM --platform=$BUILDPLATFORM a AS b-1.c_d", ins.From, {"platform": "$BUILDPLATFORM", "stage_name": "b-1.c_d"}),
    # commands
    ("RUN ls /", ins.Run, {"argv": ("ls /",), "shell": True}),
    ("RUN", ins.Run, {"argv": (), "shell": True}),
    ('RUN ["ls", "/"]', ins.Run, {"argv": ("ls", "/"), "shell": False}),
    ('RUN  [ "a\\n\\"\\u00e9" ,"b" ]  ', ins.Run, {"argv": ('a\n"é', "b"), "shell": False}),
    ('RUN ["\\ud83d\\ude00 \\ud800"]', ins.Run, {"argv": ("😀 \ufffd",), "shell": False}),
    ("RUN ['ls']", ins.Run, {"argv": ("['ls']",), "shell": True}),
    ('RUN ["ls"', ins.Run, {"argv": ('["ls"',), "shell": True}),
    ('RUN ["ls"] && b', ins.Run, {"argv": ('["ls"] && b',), "shell": True}),
    ('RUN ["a\tb"]', ins.Run, {"argv": ('["a\tb"]',), "shell": True}),
    ("RUN [ -f x ] && echo [y]", ins.Run, {"argv": ("[ -f x ] && echo [y]",), "shell": True}),
    ("RUN [NaN]", ins.Run, {"argv": ("[NaN]",), "shell": True}),
    ('RUN ["a",]', ins.Run, {"argv": ('["a",]',), "shell": True}),
    ("CMD []", ins.Cmd, {"argv": (), "shell": False}),
    ("CMD", ins.Cmd, {"argv": (), "shell": True}),
    ("cmd  echo  hi ", ins.Cmd, {"argv": ("echo  hi",), "shell": True, "keyword": "cmd"}),
    ('ENTRYPOINT ["x"]', ins.Entrypoint, {"argv": ("x",), "shell": False}),
    ('SHELL ["/bin/bash", "-c"]', ins.Shell, {"arguments": ("/bin/bash", "-c")}),
    # flags of RUN
    ("RUN --mount=type=cache,target=/x a --mount=y", ins.Run, {"mounts": (CACHE,), "argv": ("a --mount=y",)}),
    ('RUN --mount="type=cache,target=/x" a', ins.Run, {"mounts": (CACHE,)}),
    ("RUN --mount=type=ca'che,target'=/x a", ins.Run, {"mounts": (CACHE,)}),
    ('RUN --mo"un"t=type=cache,target=/x --mount"="type=cache,target=/x a', ins.Run, {"mounts": (CACHE, CACHE)}),
    ('RUN --mount=type=cache,"target=/x" a', ins.Run, {"mounts": (CACHE,)}),
    ("RUN --mount='\"type=cache\",target=/x' a", ins.Run, {"mounts": (CACHE,)}),
    ("RUN --mount=a\\ b c", ins.Run, {"mounts": (RawMount(fields=("a b",)),), "argv": ("c",)}),
    ("RUN --network=none --security=insecure x", ins.Run, {"network": "none", "security": "insecure"}),
    ("RUN -- --mount=x", ins.Run, {"mounts": (), "argv": ("--mount=x",)}),
    ("RUN --   --mount=x", ins.Run, {"mounts": (), "argv": ("--mount=x",)}),
    ("RUN --network=host -- --x", ins.Run, {"network": "host", "argv": ("--x",)}),
    ('RUN --network=host ["a"]', ins.Run, {"network": "host", "argv": ("a",), "shell": False}),
    (
        "RUN --device=vendor.com/a=b,required --device=c x",
        ins.Run,
        {"devices": (ins.Device(name="vendor.com/a=b", required=True), ins.Device(name="c"))},
    ),
    # COPY and ADD
    ("COPY a b c/", ins.Copy, {"sources": ("a", "b"), "destination": "c/"}),
    ("COPY\ta\v b", ins.Copy, {"sources": ("a",), "destination": "b"}),
    ("COPY a\xa0b c", ins.Copy, {"sources": ("a\xa0b",), "destination": "c"}),
    ('COPY ["a b", "c"]', ins.Copy, {"sources": ("a b",), "destination": "c"}),
    ("COPY [a] b", ins.Copy, {"sources": ("[a]",), "destination": "b"}),
    ('COPY "a b" c', ins.Copy, {"sources": ('"a', 'b"'), "destination": "c"}),
    (
        "COPY --from=x --chown=1:2 --chmod=u+x --link --parents=true --exclude=a --exclude=b c d",
        ins.Copy,
        {"source_stage": "x", "chown": "1:2", "chmod": "u+x", "link": True, "parents": True, "exclude": ("a", "b")},
    ),
    ("COPY --link=false a b", ins.Copy, {"link": False}),
    ("COPY --link=TRUE a b", ins.Copy, {"link": True}),
    ("COPY <<E /x\n1\nE", ins.Copy, {"sources": (), "inline": (Heredoc(name="E", body="1\n"),), "destination": "/x"}),
    (
        "COPY <<A b <<'C' /x\n1\nA\n2\nC",
        ins.Copy,
        {"sources": ("b",), "inline": (Heredoc(name="A", body="1\n"), Heredoc(name="C", body="2\n", expand=False))},
    ),
    (
        "ADD --checksum=sha256:x --keep-git-dir --unpack=false https://a/b c",
        ins.Add,
        {"checksum": "sha256:x", "keep_git_dir": True, "unpack": False},
    ),
    ("ADD a b", ins.Add, {"keep_git_dir": None, "unpack": None}),
    # pairs
    ("ENV a=b", ins.Env, {"pairs": (KeyValue(key="a", value="b"),)}),
    (
        "ENV a=\"b c\" d='e f' g=h\\ i j=",
        ins.Env,
        {
            "pairs": (
                KeyValue(key="a", value='"b c"'),
                KeyValue(key="d", value="'e f'"),
                KeyValue(key="g", value="h\\ i"),
                KeyValue(key="j", value=""),
            )
        },
    ),
    ("ENV a b  c=d ", ins.Env, {"pairs": (KeyValue(key="a", value="b  c=d", legacy=True),)}),
    ("ENV a=b\\\\\\", ins.Env, {"pairs": (KeyValue(key="a", value="b\\\\"),)}),
    ("ENV a=b\u2003c=d", ins.Env, {"pairs": (KeyValue(key="a", value="b"), KeyValue(key="c", value="d"))}),
    (
        'LABEL föo=bàr "âbc"=xÿz',
        ins.Label,
        {"pairs": (KeyValue(key="föo", value="bàr"), KeyValue(key='"âbc"', value="xÿz"))},
    ),
    (
        "ARG a b=c d=",
        ins.Arg,
        {"pairs": (KeyValue(key="a", value=None), KeyValue(key="b", value="c"), KeyValue(key="d", value=""))},
    ),
    # texts and lists
    ("WORKDIR  /a b ", ins.Workdir, {"argument": "/a b"}),
    ("USER $x:$y", ins.User, {"argument": "$x:$y"}),
    ("STOPSIGNAL 9", ins.StopSignal, {"argument": "9"}),
    ("MAINTAINER Jo <jo@x>", ins.Maintainer, {"argument": "Jo <jo@x>"}),
    ("EXPOSE 9/tcp 80 443", ins.Expose, {"arguments": ("443", "80", "9/tcp")}),
    ("VOLUME /a /b", ins.Volume, {"arguments": ("/a", "/b")}),
    ('VOLUME ["/a", " /b "]', ins.Volume, {"arguments": ("/a", "/b")}),
    ("ONBUILD run a", ins.OnBuild, {"argument": "run a"}),
    ("ONBUILD COPY <<E /x\n1\nE", ins.OnBuild, {"argument": "COPY <<E /x\n1\nE"}),
    ("HEALTHCHECK none", ins.Healthcheck, {"disabled": True}),
    ("HEALTHCHECK CMD curl x", ins.Healthcheck, {"argv": ("curl x",), "shell": True, "disabled": False}),
    (
        'HEALTHCHECK --interval=1m30s --timeout=.5s --start-period=2h --start-interval=3ms --retries=3 CMD ["a"]',
        ins.Healthcheck,
        {
            "argv": ("a",),
            "shell": False,
            "interval": 90 * 10**9,
            "timeout": 5 * 10**8,
            "start_period": 7200 * 10**9,
            "start_interval": 3 * 10**6,
            "retries": 3,
        },
    ),
]


@pytest.mark.parametrize(("text", "kind", "expected"), CASES, ids=[text for text, _, _ in CASES])
def test_instructions(text: str, kind: type[ins.Instruction], expected: dict[str, Any]) -> None:
    found = one(text)
    assert type(found) is kind
    assert {name: fields(found)[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["run", "Run", "RUN", "rUn"])
def test_keywords_have_any_case_and_keep_it(name: str) -> None:
    found = one(f"  {name} x")
    assert isinstance(found, ins.Run)
    assert (found.keyword, found.text) == (name, f"{name} x")


def test_the_escape_character_of_the_file_is_that_of_flags_and_words() -> None:
    data = b"# escape=`\nENV a=b` c d=\\ e=f\nCOPY --chown=a`'b c d\nRUN --mount=x\\y z\n"
    env, copy, run = parse.instructions(split(SourceFile(filename="", data=data)))
    assert isinstance(env, ins.Env)
    assert isinstance(copy, ins.Copy)
    assert isinstance(run, ins.Run)
    assert [(p.key, p.value) for p in env.pairs] == [("a", "b` c"), ("d", "\\"), ("e", "f")]
    assert copy.chown == "a'b"
    assert run.mounts == (RawMount(fields=("x\\y",)),)


def test_descriptions_come_from_the_comments_above() -> None:
    text = "# foo sets foo\nARG foo=bar\n\n# base the first\nFROM a AS base\n# bar b\n# baz c\nARG bar baz=1\n"
    foo, base, bar = parse.instructions(split(SourceFile(filename="", data=text.encode())))
    assert ins.description(foo.line, "foo") == "sets foo"
    assert ins.description(base.line, "base") == "the first"
    assert [ins.description(bar.line, name) for name in ("bar", "baz", "x", "")] == ["b", "c", "", ""]


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\n" + "RUN b\n" * parse.MOST,
        "FROM a\nENV" + " a=b" * 5_000 + "\nLABEL" + " a=b" * 5_000,
        "FROM a\nCOPY" + " a" * 20_000 + " /b/",
        "FROM a\nRUN" + " --mount=type=cache,target=/c \\\n" * 20_000 + "true",
    ],
    ids=["instructions", "values", "sources", "mounts"],
)
def test_a_file_has_so_many_parts_and_no_more(text: str) -> None:
    with pytest.raises(ParseError, match=f"more than {parse.MOST} instructions, sources, mounts and values") as caught:
        list(parse.instructions(split(SourceFile(filename="", data=text.encode()))))
    assert caught.value.locations[0].ranges[-1].end_line == text.rstrip("\n").count("\n") + 1


def test_parsing_is_linear_in_lines_and_in_words() -> None:
    def seconds(data: bytes) -> float:
        begin = time.process_time()
        list(parse.instructions(split(SourceFile(filename="", data=data))))
        return time.process_time() - begin

    seconds(b"FROM a\n")
    assert seconds(b"".join(b"RUN echo %d\n" % n for n in range(9_900))) < 3
    many = b" \\\n".join(b"k%d=v" % n for n in range(9_900))
    assert seconds(b"ENV " + many) < 3
    assert seconds(b"COPY " + many.replace(b"=", b"") + b" /") < 3
