"""A megabyte of anything is answered within 5 s of CPU time: a whole conversion, or an error that names the limit.

Each kind is made of as many parts as are allowed, where it has parts: more of them are refused sooner.
"""

from __future__ import annotations

import time

import pytest
import trio

from buildengine.errors import BuildError, InternalError
from frontends.dockerfile.ignore import LONGEST
from frontends.dockerfile.parse import MOST
from tests.fakes.gateway import build, image_config

SIZE = 1 << 20
SECONDS = 5 * 3  # a busy host, whose processors two threads share, counts up to three times as much

FEW = MOST - 10


def parts(unit: str, *, each: int = 1, head: str = "FROM busybox AS s0\n", tail: str = "") -> str:
    """As many units as a file may have; `{i}` in one is its number, `{j}` the next one."""
    units = (unit.replace("{i}", str(i)).replace("{j}", str(i + 1)) for i in range(FEW // each))
    return (head + "".join(units))[: SIZE - len(tail)] + tail


def long_lines(start: str, unit: str, end: str = "", *, head: str = "FROM busybox\n") -> str:
    """Lines that are nearly as long as one may be."""
    line = start + unit * ((60_000 - len(start) - len(end)) // len(unit)) + end + "\n"
    return head + line * (SIZE // len(line))


SET = "FROM busybox\nENV x=" + "y" * 60_000 + "\n"
NAMES = [f"E{i}" for i in range(FEW)]

FILES = {
    "ENV": parts("ENV a{i}=b\n"),
    "ENV of before": parts("ENV a=$a$b\n"),
    "ENV in one": "FROM busybox\nENV x=y" + parts(" \\\n a{i}=b", head=""),
    "ENV and RUN": parts("ENV a{i}=b\nRUN x\n", each=2),
    "ARG": parts("ARG a{i}=b\n"),
    "ARG before FROM": parts("ARG a{i}=b\n", head="", tail="FROM busybox\n"),
    "LABEL": parts("LABEL a{i}=b\n"),
    "EXPOSE of many": parts("EXPOSE {i}-65535\n"),
    "EXPOSE of one more": parts("EXPOSE {i}\n", head="FROM busybox\nEXPOSE 20000-65535\n"),
    "VOLUME": parts("VOLUME /{i}\n"),
    "WORKDIR": parts("WORKDIR /{i}\n"),
    "WORKDIR of a variable": parts("WORKDIR $x\n", head="FROM busybox\nENV x=y\n"),
    "USER that nobody set": parts("USER $x{i}\n"),
    "RUN": parts("RUN x{i}\n"),
    "RUN with a heredoc": parts("RUN <<E\nx\nE\n"),
    "RUN in JSON": parts('RUN ["a", "{i}"]\n'),
    "RUN with a mount each": parts("RUN --mount=type=cache,target=/c{i} true\n", each=2),
    "RUN with many mounts": "FROM busybox\nRUN" + parts(" --mount=type=cache,target=/c{i} \\\n", head="") + "true\n",
    "RUN with an open quote": long_lines('RUN "', "a "),
    "RUN with brackets": long_lines("RUN ", "["),
    "RUN of a variable": long_lines("RUN ", "$x ", head=SET),
    "COPY": parts("COPY a{i} b\n"),
    "COPY of many": "FROM busybox\nCOPY" + parts(" a{i} \\\n", head="") + "/b/\n",
    "COPY --from": parts("COPY --from=s0 a{i} b\n", tail="FROM busybox\nCOPY --from=s0 a b\n"),
    "COPY --from an image": parts("COPY --from=busybox a{i} b\n"),
    "COPY --from many images": parts("COPY --from=i{i} a b\n"),
    "COPY --link": parts("COPY --link a{i} b\n"),
    "COPY --chown": parts("COPY --chown=u{i}:g a b\n"),
    "COPY with wildcards": parts("COPY a{i}* [b]? c/\n", each=2),
    "COPY with a heredoc each": parts("COPY <<E b{i}\nE\n"),
    "COPY with many heredocs":
        "FROM busybox\nCOPY" + "".join(f" <<{n} \\\n" for n in NAMES) + "/d/\n" + "".join(f"{n}\n" for n in NAMES),
    "COPY with a long heredoc": "FROM busybox\nCOPY <<E /d\n" + "x $a ${b:-c} 'q'\n" * 60_000 + "E\n",
    "ADD of URLs": parts("ADD http://h/{i} b\n"),
    "ADD of git": parts("ADD https://github.com/a/b.git#{i} b\n"),
    "stages": parts("FROM busybox AS s{j}\n"),
    "stages in a chain": parts("FROM s{i} AS s{j}\n"),
    "stages in a chain with ENV": parts("FROM s{i} AS s{j}\nENV a{i}=b\n", each=2),
    "stages in a chain with one ENV": parts("FROM s{i} AS s{j}\nENV a=$a\n", each=2),
    "stages in a chain with EXPOSE": parts("FROM s{i} AS s{j}\nEXPOSE {j}\n", each=2),
    "stages in a chain with VOLUME": parts("FROM s{i} AS s{j}\nVOLUME /{j}\n", each=2),
    "stages in a chain with ONBUILD": parts("FROM s{i} AS s{j}\nONBUILD RUN x\n", each=2),
    "stages in a chain with RUN": parts("FROM s{i} AS s{j}\nRUN x\n", each=2),
    "stages that copy": parts("FROM busybox AS s{j}\nCOPY --from=s{i} a b\n", each=2),
    "stages in a circle": parts("FROM busybox AS s{i}\nCOPY --from=s{j} a b\n", each=2, head=""),
    "ONBUILD": parts("ONBUILD RUN x\n", tail="FROM s0\n"),
    "ONBUILD of many sources in many stages": "FROM busybox AS x\nONBUILD COPY" + " a" * 5000 + " b/\n" + "".join(
        f"FROM x AS y{i}\n" for i in range(2000)) + "FROM busybox\n" + "".join(
        f"COPY --from=y{i} a b\n" for i in range(2000)),
    "ONBUILD in many stages": "FROM busybox AS x\n" + "ONBUILD RUN x\n" * 3000 + "".join(
        f"FROM x AS y{i}\n" for i in range(3000)) + "FROM busybox\n" + "".join(
        f"COPY --from=y{i} a b\n" for i in range(3000)),
    "comments": "FROM busybox\n" + "# c\n" * (SIZE // 4),
    "comments in RUN": "FROM busybox\nRUN x \\\n" + "# c\n" * (SIZE // 4) + "y\n",
    "continuation lines": "FROM busybox\nRUN x" + " \\\n  && y" * (SIZE // 9),
    "blank lines in RUN": parts("RUN x \\\n\ny\n"),
    "quotes": long_lines("ENV a=", "\"'\"'"),
    "backslashes": long_lines('ENV a="', "\\", '"'),
    "dollars": long_lines("ENV a=", "$"),
    "variables": long_lines("ENV a=", "$x", head="FROM busybox\nENV x=y\n"),
    "nested variables": long_lines("ENV a=", "${x:-" * 99 + "}" * 99),
    "open variables": long_lines("ENV a=", "${x:-"),
    "patterns of stars": long_lines("ENV a=${x#", "*y", "z}", head=SET),
    "wide patterns": long_lines("ENV a=${x/", "?", "b/c}", head=SET),
    "narrow patterns": SET + ("ENV a=${x%%*" + "?" * 300 + "b}\n") * 3000,
    "durations": long_lines("HEALTHCHECK --interval=", "1", " CMD x"),
    "directives": "# escape=x" + " " * (SIZE - 20) + "x\nFROM busybox\n",
    "heredocs": long_lines("RUN <<", "\t", "<x"),
    "flags": long_lines("COPY ", "--link ", "a b"),
    "bytes": b"FROM busybox\n# " + bytes(range(128, 256)) * 400 + b"\nRUN \x80" * 100_000,
}  # fmt: skip

IGNORED = {
    "short": "a\n" * LONGEST,
    "names": "".join(f"a{i}\n" for i in range(LONGEST // 6)),
    "stars": "".join(f"**/a*{i}\n" for i in range(LONGEST // 11)),
    "negated in turn": "a\n!a\n" * (LONGEST // 3),
    "stars negated in turn": "a*\n!a*\n" * (LONGEST // 5),
    "deep in one": "**a" * (LONGEST // 3),
    "negated": "".join(f"a{i}/**\n!a{i}/b\n" for i in range(LONGEST // 18)),
    "one line": "a" * LONGEST,
    "stars in one": ("*a" * 500 + "\n") * (LONGEST // 1002),
    "sets": ("[a-z]" * 200 + "\n") * (LONGEST // 1002),
    "comments": "#\n" * (SIZE // 2),
    "too many": "a\n" * (LONGEST + 1),
}


def seconds(dockerfile: str | bytes, ignored: str | None = None) -> float:
    images = {f"docker.io/library/i{i}:latest": image_config() for i in range(MOST)}
    files = None if ignored is None else {".dockerignore": ignored.encode()}

    async def attempt() -> None:
        try:
            await build(dockerfile, files=files, images=images)
        except InternalError:
            raise
        except BuildError:
            pass

    begin = time.process_time()
    trio.run(attempt)
    return time.process_time() - begin


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_a_megabyte_of_a_dockerfile(kind: str) -> None:
    assert seconds(FILES[kind]) < SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("kind", IGNORED)
def test_a_megabyte_of_an_ignore_file(kind: str) -> None:
    assert seconds("FROM busybox\n" + "COPY a b\nCOPY c* d/\n" * 1000, IGNORED[kind]) < SECONDS


def test_a_conversion_takes_as_long_as_its_file_is() -> None:
    """To 100,000 lines. Eight times as many take eight times as long, and not its square."""

    def lines(number: int) -> str:
        command = "RUN echo \\\n # more\n" + " && a $b 'c' \\\n" * 10 + " && d\n"
        return "FROM busybox\n" + command * (number // 13)

    few, many = lines(12_500), lines(100_000)
    seconds(few)
    assert seconds(many) < 3 * 8 * min(seconds(few), seconds(few))


def test_what_is_too_much_is_refused_with_its_place() -> None:
    async def refused(dockerfile: str, ignored: str = "") -> BuildError:
        with pytest.raises(BuildError) as caught:
            await build(dockerfile, files={".dockerignore": ignored.encode()})
        return caught.value

    for kind in ("ONBUILD in many stages", "ONBUILD of many sources in many stages"):
        triggers = trio.run(refused, FILES[kind])
        assert f"triggers bring more than {MOST} instructions" in triggers.message
    patterns = trio.run(refused, "FROM busybox\n", "abc\n" * (LONGEST // 3 + 1))
    assert patterns.message == f"the patterns of .dockerignore have more than {LONGEST} characters"
    assert [r.start_line for r in patterns.locations[0].ranges] == [LONGEST // 3 + 1]
