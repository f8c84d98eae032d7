"""BuildKit's tables of the parser, the shell and EXPOSE that no other test has: what is read, and what comes of it.

`tests/golden/parsed_lines.json` has each instruction of the parser's Dockerfiles, with the words that it falls into.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from buildengine.errors import ParseError
from frontends.dockerfile import instructions as ins
from frontends.dockerfile import parse
from frontends.dockerfile.directives import find
from frontends.dockerfile.lines import SourceFile, split
from frontends.dockerfile.words import Lexer
from tests.fakes.gateway import build

PARSED: list[tuple[str, list[str]]] = json.loads((Path(__file__).parents[1] / "golden/parsed_lines.json").read_bytes())

ERROR = None

# text, variables, what it becomes, which variables were found, which were not
FOUND: list[tuple[str, Mapping[str, str], str | None, str, str]] = [
    ('x', {'DUMMY': 'dummy'}, 'x', '', ''),
    ('x ${UNUSED}', {'DUMMY': 'dummy'}, 'x ', '', 'UNUSED'),
    ('x ${FOO}', {'FOO': 'y'}, 'x y', 'FOO', ''),
    ('${FOO-aaa} ${BAR-bbb} ${BAZ-ccc}', {'FOO': 'xxx', 'BAR': ''}, 'xxx  ccc', 'BAR FOO', 'BAZ'),
    ('${FOO:-aaa} ${BAR:-bbb} ${BAZ:-ccc}', {'FOO': 'xxx', 'BAR': ''}, 'xxx bbb ccc', 'BAR FOO', 'BAZ'),
    ('${FOO:-}', {'FOO': 'xxx', 'BAR': ''}, 'xxx', 'FOO', ''),
    ('${FOO:-}', {}, '', '', 'FOO'),
    ('${FOO+aaa} ${BAR+bbb} ${BAZ+ccc}', {'FOO': 'xxx', 'BAR': ''}, 'aaa bbb ', 'BAR FOO', 'BAZ'),
    ('${FOO:+aaa} ${BAR:+bbb} ${BAZ:+ccc}', {'FOO': 'xxx', 'BAR': ''}, 'aaa  ', 'BAR FOO', 'BAZ'),
    ('${FOO?aaa}', {'FOO': 'xxx', 'BAR': ''}, 'xxx', 'FOO', ''),
    ('${BAR?bbb}', {'FOO': 'xxx', 'BAR': ''}, '', 'BAR', ''),
    ('${BAZ?ccc}', {'FOO': 'xxx', 'BAR': ''}, None, '', 'BAZ'),
    ('${FOO:?aaa}', {'FOO': 'xxx', 'BAR': ''}, 'xxx', 'FOO', ''),
    ('${BAR:?bbb}', {'FOO': 'xxx', 'BAR': ''}, None, '', ''),
    ('${BAZ:?ccc}', {'FOO': 'xxx', 'BAR': ''}, None, '', 'BAZ'),
    ('${BAZ:?}', {'FOO': 'xxx', 'BAR': ''}, None, '', 'BAZ'),
    ('${FOO=aaa}', {'FOO': 'xxx', 'BAR': ''}, None, '', ''),
    ('${FOO=:aaa}', {'FOO': 'xxx', 'BAR': ''}, None, '', ''),
    ('${FOO=}', {}, None, '', ''),
    ('${FOO#()[]{\\}^$.\\*\\?|\\\\}', {'FOO': '()[]{}^$.*?|\\x'}, 'x', 'FOO', ''),
    ('${FOO%%\\**}', {'FOO': 'xx**'}, 'xx', 'FOO', ''),
    ('${FOO#*x*y}', {'FOO': 'xxyy'}, 'y', 'FOO', ''),
    ('${FOO#*}', {'FOO': 'xxyy'}, 'xxyy', 'FOO', ''),
    ('${FOO#$BAR}', {'FOO': 'xxyy', 'BAR': 'x'}, 'xyy', 'BAR FOO', ''),
    ('${FOO#$BAR}', {'FOO': 'xxyy', 'BAR': ''}, 'xxyy', 'BAR FOO', ''),
    ('${FOO#}', {'FOO': 'xxyy'}, 'xxyy', 'FOO', ''),
    ('${FOO##*x}', {'FOO': 'xxyy'}, 'yy', 'FOO', ''),
    ('${FOO##}', {'FOO': 'xxyy'}, 'xxyy', 'FOO', ''),
    ('${FOO#?\\?}', {'FOO': '???y'}, '?y', 'FOO', ''),
    ('${ABC:-.}${FOO%x}${ABC:-.}', {'FOO': 'xxyy'}, '.xxyy.', 'FOO', 'ABC'),
    ('${FOO%%\\**\\*}', {'FOO': 'a***yy*'}, 'a', 'FOO', ''),
    ('${FOO%}', {'FOO': 'xxyy'}, 'xxyy', 'FOO', ''),
    ('${FOO%%$BAR}', {'FOO': 'xxyy', 'BAR': ''}, 'xxyy', 'BAR FOO', ''),
    ('${FOO:#}', {}, None, '', ''),
    ('${FOO:##}', {}, None, '', ''),
    ('${FOO:%}', {}, None, '', ''),
    ('${FOO:%%}', {}, None, '', ''),
    ('${FOO/$NEEDLE/.} - ${FOO//$NEEDLE/.}', {'FOO': '/foo*/*/*.txt', 'NEEDLE': '\\*/'},
     '/foo.*/*.txt - /foo..*.txt', 'FOO NEEDLE', ''),
    ('${FOO/$NEEDLE/} - ${FOO//$NEEDLE/}', {'FOO': '/tmp/tmp/bar.txt', 'NEEDLE': '/tmp'},
     '/tmp/bar.txt - /bar.txt', 'FOO NEEDLE', ''),
    ('${FOO/$NEEDLE/$REPLACEMENT} - ${FOO//$NEEDLE/$REPLACEMENT}',
     {'FOO': '/a/foo/b/c.txt', 'NEEDLE': '/?/', 'REPLACEMENT': '/'},
     '/foo/b/c.txt - /foo/c.txt', 'FOO NEEDLE REPLACEMENT', ''),
    ('${FOO/$NEEDLE/$REPLACEMENT}', {'FOO': 'http://google.de', 'NEEDLE': 'http://', 'REPLACEMENT': 'https://'},
     'https://google.de', 'FOO NEEDLE REPLACEMENT', ''),
    ('${FOO//\\//\\/}', {'FOO': '/tmp/foo.txt'}, '\\/tmp\\/foo.txt', 'FOO', ''),
    ('${FOO/$BAR/ww}', {'FOO': 'xxyy', 'BAR': ''}, 'wwxxyy', 'BAR FOO', ''),
    ('${FOO//ww}', {'FOO': 'xxyy'}, None, '', ''),
    ('${FOO//}', {'FOO': 'xxyy'}, None, '', ''),
    ('${FOO///}', {'FOO': 'xxyy'}, 'xxyy', 'FOO', ''),
    ('${FOO///}', {}, '', '', 'FOO'),

]  # fmt: skip

RELEASE = "x-${VERSION}.${TARGETOS}-${TARGETARCH}${TARGETVARIANT:+-${TARGETVARIANT}}.tar.gz"
FOUND += [
    (RELEASE, {"VERSION": "v1", "TARGETOS": "linux", "TARGETARCH": "arm", "TARGETVARIANT": "v7"},
     "x-v1.linux-arm-v7.tar.gz", "TARGETARCH TARGETOS TARGETVARIANT VERSION", ""),
    (RELEASE, {"VERSION": "v1", "TARGETOS": "linux", "TARGETARCH": "arm64", "TARGETVARIANT": ""},
     "x-v1.linux-arm64.tar.gz", "TARGETARCH TARGETOS TARGETVARIANT VERSION", ""),
    (RELEASE, {"VERSION": "v1", "TARGETOS": "linux", "TARGETARCH": "arm64"},
     "x-v1.linux-arm64.tar.gz", "TARGETARCH TARGETOS VERSION", "TARGETVARIANT"),
]  # fmt: skip

STRINGS = [
    ("[]", ()), ('[""]', ("",)), ('["a"]', ("a",)), ('["a","b"]', ("a", "b")), ('[ "a", "b" ]', ("a", "b")),
    ('[\t"a",\t"b"\t]', ("a", "b")), ('\t[\t"a",\t"b"\t]\t', ("a", "b")),
    ('["abc 123", "♥", "☃", "\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u0000"]',
     ("abc 123", "♥", "☃", '" \\ / \b \f \n \r \t \0')),
]  # fmt: skip

NO_STRINGS = [
    '["a",42,"b"]', '["a",123.456,"b"]', '["a",{},"b"]', '["a",{"c": "d"},"b"]', '["a",["c"],"b"]',
    '["a",true,"b"]', '["a",false,"b"]', '["a",null,"b"]',
]  # fmt: skip

DEVICES = [
    ("vendor1.com/device=foo", "vendor1.com/device=foo", False),
    ("vendor1.com/device", "vendor1.com/device", False),
    ("vendor1.com/device=foo,required", "vendor1.com/device=foo", True),
    ("vendor1.com/device=foo,required=true", "vendor1.com/device=foo", True),
    ("vendor1.com/device=foo,required=false", "vendor1.com/device=foo", False),
    ("name=vendor1.com/device=foo", "vendor1.com/device=foo", False),
    ("name=vendor1.com/device=foo,required", "vendor1.com/device=foo", True),
]

DIRECTIVES = [
    ("#check = skip=all // opts\nFROM a\n", ("skip=all // opts", 1)),
    ("#!/bin/sh\n# check = skip=all\nFROM a\n", ("skip=all", 2)),
    ("#!/bin/sh\n\n# check = skip=all\n", None),
    ("FROM a\nRUN ls\n", None),
    ("//check=skip=all\n//key=value", None),
    ("# key = FOO bar\n\n# check=skip=all\n", None),
]

PORTS = [
    ("0.0.0.0:1234-1235:3333-3334/tcp", "3333/tcp 3334/tcp"),
    ("[2001:4860:0:2001::68]::333", "333/tcp"),
    ("[::1]:80:80", "80/tcp"),
    ("2001:4860:0:2001::68::333", "333/tcp"),
    ("::1:80:80", "80/tcp"),
    ("::::80", "80/tcp"),
    ("1234/tcp 2345/udp 3456/sctp", "1234/tcp 2345/udp 3456/sctp"),
    ("1234:1234/tcp 2345:2345/udp 3456:3456/sctp", "1234/tcp 2345/udp 3456/sctp"),
    ("0.0.0.0:1234:1234/tcp 0.0.0.0:2345:2345/udp", "1234/tcp 2345/udp"),
    ("1234-1236/tcp 2345-2347/udp", "1234/tcp 1235/tcp 1236/tcp 2345/udp 2346/udp 2347/udp"),
    ("1234-1236:1234-1236/tcp 3456-3457:3456-3457/sctp", "1234/tcp 1235/tcp 1236/tcp 3456/sctp 3457/sctp"),
    ("+80 00081", "80/tcp 81/tcp"),
    ("0.0.0.0:1234-1236:1234-1236/tcp", "1234/tcp 1235/tcp 1236/tcp"),
]

NO_PORTS = [
    ("0.0.0.0:1234-1235:/tcp", "no port specified"),
    ("0.0.0.0:1234-1235:", "no port specified"),
    ("localhost:1234:1234/tcp", "invalid IP address: localhost"),
    ("localhost:1234-1236:1234-1236/tcp", "invalid IP address: localhost"),
]


def one(text: str) -> ins.Instruction:
    (instruction,) = parse.instructions(split(SourceFile(filename="Dockerfile", data=text.encode())))
    return instruction


@pytest.mark.parametrize(("text", "expected"), PARSED, ids=range(len(PARSED)))
def test_an_instruction_has_these_words(text: str, expected: list[str]) -> None:
    instruction = one(text)
    assert [instruction.name.lower(), *_words(instruction)] == expected


def _words(found: ins.Instruction) -> list[str]:
    """As the parser's tree lists them: behind a value comes what was between it and its name."""
    match found:
        case ins.From():
            return [found.image, *([found.as_keyword, found.stage_name] if found.stage_name else [])]
        case ins.Healthcheck():
            return ["CMD", *found.argv]
        case ins.Run() | ins.Cmd() | ins.Entrypoint():
            return list(found.argv)
        case ins.Copy() | ins.Add():
            return [*found.sources, found.destination]
        case ins.Arg():
            return [pair.key if pair.value is None else f"{pair.key}={pair.value}" for pair in found.pairs]
        case ins.Env() | ins.Label():
            return [text for p in found.pairs for text in (p.key, p.value or "", "" if p.legacy else "=")]
        case ins.Expose() | ins.Volume() | ins.Shell():
            return list(found.arguments)
        case ins.Workdir() | ins.User() | ins.Maintainer() | ins.StopSignal():
            return [found.argument]
    raise AssertionError(found)


@pytest.mark.parametrize(("text", "env", "expected", "matched", "unmatched"), FOUND)
def test_substitutions_tell_which_variables_they_found(
    text: str, env: Mapping[str, str], expected: str | None, matched: str, unmatched: str
) -> None:
    if expected is ERROR:
        with pytest.raises(ParseError):
            Lexer().process(text, env)
        return
    found = Lexer().process(text, env)
    assert found.text == expected
    assert (found.matched, found.unmatched) == (set(matched.split()), set(unmatched.split()))


@pytest.mark.parametrize(("text", "expected"), STRINGS)
def test_lists_of_strings(text: str, expected: tuple[str, ...]) -> None:
    found = one(f"CMD {text}")
    assert isinstance(found, ins.Cmd)
    assert (found.argv, found.shell) == (expected, False)


@pytest.mark.parametrize("text", NO_STRINGS)
def test_lists_of_other_things(text: str) -> None:
    with pytest.raises(ParseError, match="arrays must be comprised of strings only"):
        one(f"CMD {text}")


@pytest.mark.parametrize(("text", "name", "required"), DEVICES)
def test_devices(text: str, name: str, required: bool) -> None:
    found = one(f"RUN --device={text} x")
    assert isinstance(found, ins.Run)
    assert found.devices == (ins.Device(name=name, required=required),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.com/b=c,name=d.com/e=f", "device name already set to a.com/b=c"),
        ("a.com/b=c,d.com/e=f", "unexpected key 'd.com/e' in 'd.com/e=f'"),
        ("a.com/b=c,d", "invalid field 'd' must be a key=value pair"),
        ("a.com/b=c,required=x", "invalid value for required: x"),
    ],
)
def test_what_is_no_device(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        one(f"RUN --device={text} x")
    assert caught.value.message.endswith(message)


@pytest.mark.parametrize(("text", "expected"), DIRECTIVES)
def test_directives(text: str, expected: tuple[str, int] | None) -> None:
    found = find(text.encode(), "check")
    assert (found and (found.value, found.line)) == expected


@pytest.mark.parametrize(("text", "expected"), PORTS)
async def test_ports(text: str, expected: str) -> None:
    built = await build(f"FROM scratch\nEXPOSE {text}\n")
    assert sorted(built.image.document["config"]["ExposedPorts"]) == sorted(expected.split())


@pytest.mark.parametrize(("text", "message"), NO_PORTS)
async def test_what_is_no_port(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        await build(f"FROM scratch\nEXPOSE {text}\n")
