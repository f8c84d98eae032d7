"""Instructions that are made up, written down and read: what is read is what was written, however lines are broken."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from frontends.dockerfile import instructions as ins
from frontends.dockerfile import parse
from frontends.dockerfile.instructions import KeyValue, RawMount
from frontends.dockerfile.lines import SourceFile, split
from tests.unit.test_dockerfile_parse import fields

Parts = list[str]  # of one instruction: between any two of them a line may end
Written = tuple[Parts, type[ins.Instruction], dict[str, Any]]

names = st.text("abcXYZ09_", min_size=1, max_size=5)
plain = st.text("ab/.$*?é:@~", min_size=1, max_size=6).filter(lambda word: not word.startswith(("-", "#")))
texts = st.text(st.characters(codec="utf-8"), max_size=6)
several = st.lists(plain, min_size=1, max_size=4)
pairs = st.lists(st.tuples(names, plain), min_size=1, max_size=3)


def _flags(given: dict[str, Any]) -> Parts:
    found: Parts = []
    for name, value in given.items():
        spelled = name.replace("_", "-").replace("source-stage", "from")
        for each in value if isinstance(value, tuple) else (value,):
            found.append(f"--{spelled}" if each is True else f"--{spelled}={each}")
    return found


@st.composite
def commands(draw: st.DrawFn) -> Written:
    """RUN, CMD, ENTRYPOINT, in either form."""
    kind = draw(st.sampled_from((ins.Run, ins.Cmd, ins.Entrypoint)))
    given: dict[str, Any] = {}
    flags: Parts = []
    if kind is ins.Run:
        mounts = draw(st.lists(st.lists(st.tuples(names, names).map("=".join), min_size=1, max_size=3), max_size=2))
        given["mounts"] = tuple(RawMount(fields=tuple(each)) for each in mounts)
        flags = [f"--mount={','.join(each)}" for each in mounts]
        given["network"] = draw(st.sampled_from(("none", "host", "default")))
        flags.append(f"--network={given['network']}")
    if draw(st.booleans()):
        argv = tuple(draw(st.lists(texts, min_size=1, max_size=3)))
        body, given["shell"] = [json.dumps(argv, ensure_ascii=draw(st.booleans()))], False
    else:
        words = draw(several)
        argv, body, given["shell"] = (" ".join(words),), words, True
    return [kind.__name__.upper(), *flags, *body], kind, {**given, "argv": argv}


@st.composite
def transfers(draw: st.DrawFn) -> Written:
    kind: type[ins.Copy | ins.Add] = draw(st.sampled_from((ins.Copy, ins.Add)))
    given: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "chown": names,
                "chmod": st.sampled_from(("755", "u=rwX,go-w")),
                "link": st.just(True),
                "exclude": st.lists(names, min_size=1, max_size=2).map(tuple),
                **({"source_stage": names, "parents": st.just(True)} if kind is ins.Copy else {"checksum": names}),
            },
        )
    )
    words = draw(st.lists(plain, min_size=2, max_size=4))
    if draw(st.booleans()):
        words = draw(st.lists(texts, min_size=2, max_size=3))
        body = [json.dumps(words)]
    else:
        body = words
    expected = {**given, "sources": tuple(words[:-1]), "destination": words[-1]}
    return [kind.__name__.upper(), *_flags(given), *body], kind, expected


@st.composite
def settings_of_images(draw: st.DrawFn) -> Written:
    found = draw(pairs)
    written = tuple(KeyValue(key=key, value=value) for key, value in found)
    listed = draw(several)
    word = draw(plain)
    made: Sequence[Callable[[], Written]] = (
        lambda: (["ENV", *map("=".join, found)], ins.Env, {"pairs": written}),
        lambda: (["LABEL", *map("=".join, found)], ins.Label, {"pairs": written}),
        lambda: (["ARG", *map("=".join, found)], ins.Arg, {"pairs": written}),
        lambda: (["VOLUME", *listed], ins.Volume, {"arguments": tuple(listed)}),
        lambda: (["EXPOSE", *listed], ins.Expose, {"arguments": tuple(sorted(listed))}),
        lambda: (["WORKDIR", word], ins.Workdir, {"argument": word}),
        lambda: (["USER", word], ins.User, {"argument": word}),
        lambda: (["STOPSIGNAL", word], ins.StopSignal, {"argument": word}),
        lambda: (["SHELL", json.dumps(listed)], ins.Shell, {"arguments": tuple(listed)}),
        lambda: (["FROM", word, "AS", "s" + found[0][0]], ins.From, {"image": word, "stage_name": "s" + found[0][0]}),
        lambda: (
            ["HEALTHCHECK", "--interval=90s", "--retries=3", "CMD", *listed],
            ins.Healthcheck,
            {"interval": 90 * 10**9, "retries": 3, "argv": (" ".join(listed),)},
        ),
    )
    return draw(st.sampled_from(made))()


breaks = st.sampled_from((" ", "  ", "\t", " \\\n", "\\\n ", " \\\r\n\t ", " \\\n# a comment \\\n ", " \\\n\n "))


@settings(max_examples=400)
@given(st.lists(st.one_of(commands(), transfers(), settings_of_images()), min_size=1, max_size=5), st.data())
def test_what_is_written_is_read(written: list[Written], data: st.DataObject) -> None:
    lines = []
    for (keyword, *parts), _, expected in written:
        is_text = "argv" in expected and expected.get("shell", True)  # its spaces are part of it
        gaps = [" " if is_text else data.draw(breaks) for _ in parts]
        name = data.draw(st.sampled_from((keyword, keyword.lower(), keyword.title())))
        lines.append(name + "".join(gap + part for gap, part in zip(gaps, parts, strict=True)) + "\n")
    file = SourceFile(filename="Dockerfile", data="".join(lines).encode())
    found = list(parse.instructions(split(file)))
    assert [type(each) for each in found] == [kind for _, kind, _ in written]
    for instruction, (_, _, expected) in zip(found, written, strict=True):
        assert {name: fields(instruction)[name] for name in expected} == expected
