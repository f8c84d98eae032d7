"""Dockerfiles that are wrong, absurd or meant to harm: each is an error with its place, or harmless."""

from __future__ import annotations

import pytest

from tests.fakes.hostile import Attack

pytest_plugins = ["tests.fakes.hostile_fixtures"]

DOUBLING = "".join(f"{{}} V{n}=$V{n - 1}$V{n - 1}\n" for n in range(1, 40))

# name: (Dockerfile, what the report says, the line it points at)
WRONG: dict[str, tuple[str | bytes, tuple[str, ...], int | None]] = {
    "empty": ("", ("the Dockerfile cannot be empty", "hint: a Dockerfile begins with FROM"), None),
    "only a comment": ("\n# nothing\n", ("file with no instructions",), 1),
    "no stage": ("RUN true\n", ("no build stage in current context", "hint: FROM must come first"), 1),
    "FROM nothing": ("FROM\n", ("FROM requires either one or three arguments", "hint: write FROM image"), 1),
    "FROM ..": ("FROM ../../etc\n", ("'..' is not a registry host",), 1),
    "FROM an option": ("FROM -x\n", ("is not a repository name",), 1),
    "FROM no digest": ("FROM base@sha256:xyz\n", ("invalid digest 'sha256:xyz'",), 1),
    "FROM an empty variable": ("FROM base:${TAG}\n", ("'' is not a tag",), 1),
    "a platform of four parts": ("FROM --platform=a/b/c/d base\n", ("invalid platform 'a/b/c/d'",), 1),
    "an unknown flag": ("FROM --foo base\n", ("unknown flag: --foo", "hint: FROM takes --platform"), 1),
    "an unknown instruction": ("FROM base\nRUNN x\n", ("unknown instruction: RUNN (did you mean RUN?)",), 2),
    "a stage from itself": (
        "FROM a.invalid/a AS a\nFROM scratch AS b\nCOPY --from=b / /\n",
        ("circular dependency detected on stage: b",),
        3,
    ),
    "stages in a circle": (
        "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nCOPY --from=a / /\n",
        ("circular dependency detected on stage: a", "Dockerfile:4"),
        2,
    ),
    "a mount of itself": (
        "FROM base AS a\nRUN --mount=from=a,target=/x true\n",
        ("circular dependency detected on stage: a",),
        2,
    ),
    "an unknown mount": ("FROM base\nRUN --mount=type=evil true\n", ('unsupported mount type "evil"', "hint: one"), 2),
    "a mount at the root": ("FROM base\nRUN --mount=type=tmpfs,target=/ true\n", ('invalid mount target "/"',), 2),
    "a mount at /proc": ("FROM base\nRUN --mount=type=tmpfs,target=/proc/x true\n", ("cannot mount anything at",), 2),
    "a mount at /sys": ("FROM base\nRUN --mount=type=tmpfs,target=/../sys true\n", ("cannot mount anything at",), 2),
    "a tmpfs of exabytes": (
        "FROM base\nRUN --mount=type=tmpfs,target=/x,size=99999999999999999999 true\n",
        ("invalid value for size",),
        2,
    ),
    "a mode of a cache mount": (
        "FROM base\nRUN --mount=type=cache,target=/x,mode=99999 true\n",
        ("invalid value 99999 for mode", "hint: a mode is octal"),
        2,
    ),
    "a secret nobody gave": (
        "FROM base\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n",
        ("secret s: not found", "hint: pass it with --secret id=s,src=FILE"),
        2,
    ),
    "the host's network": ("FROM base\nRUN --network=host true\n", ("network.host is not allowed", "--allow"), 2),
    "all privileges": ("FROM base\nRUN --security=insecure true\n", ("security.insecure is not allowed",), 2),
    "an unknown network": ("FROM base\nRUN --network=evil true\n", ('invalid network mode "evil"',), 2),
    "no destination": ("FROM base\nCOPY x\n", ("COPY requires at least two arguments",), 2),
    "a missing source": ("FROM base\nCOPY nothing /\n", ("'/nothing': not found", "hint: in the context there is"), 2),
    "a checksum of a local file": ("FROM base\nADD --checksum=sha256:0 x /\n", ("requires HTTP(S) or Git",), 2),
    "a port too high": ("FROM base\nEXPOSE 99999999\n", ("invalid containerPort: 99999999",), 2),
    "a variable without a name": ("FROM base\nENV =x\n", ("ENV names can not be blank",), 2),
    "an unknown user": ("FROM base\nUSER who\nRUN id\n", ("unable to find user who", "hint: create it"), 3),
    "a user of thousands of digits": (f"FROM base\nUSER {'9' * 5000}\nRUN id\n", ("is out of range",), 3),
    "an owner of thousands of digits": (f"FROM base\nUSER {'0' * 5000}1\nWORKDIR /x\n", ("is out of range",), 3),
    "a negative user": ("FROM base\nUSER -1\nRUN id\n", ("user id -1 is out of range",), 3),
    "an owner out of range": ("FROM base\nCOPY --chown=4294967295 Dockerfile /\n", ("4294967295 is no id",), 2),
    "an unknown owner": ("FROM base\nCOPY --chown=who Dockerfile /\n", ("unable to find user who",), 2),
    "an odd mode": ("FROM base\nCOPY --chmod=999 Dockerfile /\n", ("invalid chmod parameter: '999'",), 2),
    "a bad duration": ("FROM base\nHEALTHCHECK --interval=x CMD true\n", ('invalid duration "x"',), 2),
    "an odd signal": ("FROM base\nSTOPSIGNAL BOGUS\n", ("invalid signal: BOGUS (did you mean SIGBUS?)",), 2),
    "no shell": ("FROM base\nSHELL []\nRUN true\n", ("SHELL requires at least one argument",), 2),
    "an empty shell": ('FROM base\nSHELL [""]\nRUN true\n', ("there is no command to run",), 3),
    "an empty command": ('FROM base\nRUN [""]\n', ("there is no command to run", "hint: write RUN"), 2),
    "a scratch without a shell": ("FROM scratch\nRUN true\n", ('exec: "/bin/sh"', "hint: the image has no shell"), 2),
    "a trigger for a trigger": ("FROM base\nONBUILD ONBUILD RUN x\n", ("Chaining ONBUILD",), 2),
    "an open heredoc": ("FROM base\nRUN <<EOF\ntrue\n", ("unterminated heredoc", "hint: no line after line 2"), 2),
    "an open heredoc of 100,000 lines": (
        "FROM base\nRUN <<EOF\n" + "x\n" * 100_000,
        ("unterminated heredoc", "lines more"),
        2,
    ),
    "another frontend": (
        "# syntax=127.0.0.1:1/evil/frontend:1\nFROM base\n",
        ("cannot reach http://127.0.0.1:1/v2/evil/frontend",),
        1,
    ),
    "another escape": ("# escape=x\nFROM base\n", ("invalid escape token 'x'",), 1),
    "not UTF-8": (b"FROM base\nRUN echo \xff\xfe\n", ("the byte 0xff, which is not UTF-8", "hint: save the"), 2),
    "UTF-16": (b"\xff\xfeF\0R\0O\0M\0 \0x\0\n\0", ("the byte 0xff, which is not UTF-8",), 1),
    "a NUL byte": (b"FROM base\nRUN echo a\0b\n", ("the instruction holds a NUL byte",), 2),
    "a heredoc that is not UTF-8": (b"FROM base\nRUN <<E\n\xff\nE\n", ("heredoc E is not UTF-8 text",), 2),
    "a line of 1 MB": (f"FROM base\nRUN {'x' * 1_000_000}\n", ("greater than max allowed size of 65535",), 2),
    "a command of 1 MB": (
        "FROM base\nRUN echo " + "\\\n".join(["x" * 60_000] * 17) + "\n",
        ("the arguments and the environment are too long",),
        2,
    ),
    "an ENV bomb": ("FROM base\nENV V0=xxxxxxxxxx\n" + DOUBLING.replace("{}", "ENV"), ("longer than 1 MiB",), 19),
    "an ARG bomb": ("ARG V0=xxxxxxxxxx\n" + DOUBLING.replace("{}", "ARG") + "FROM base\n", ("longer than 1 MiB",), 18),
    "a wide ENV bomb": (
        f"FROM base\nENV A={'a' * 60_000}\n" + "".join(f"ENV B{n}=$A$A$A$A$A$A$A$A$A$A\n" for n in range(200)),
        ("longer than 64 MiB",),
        None,
    ),
    "a bomb of replacements": (
        f"FROM base\nARG A={'a' * 60_000}\nARG B=${{A//a/{'b' * 5000}}}\nRUN true\n",
        ("a replacement makes more than",),
        3,
    ),
    "a nest of variables": ("FROM base\nENV A=" + "${A:-" * 3000 + "}" * 3000 + "\n", ("nested more than 100",), 2),
    "a nest of brackets": ("FROM base\nRUN " + "[" * 5000 + "]" * 5000 + "\n", ("comprised of strings only",), 2),
    "an unset variable that must be set": ("FROM base\nENV A=${B:?no}\n", ("B: no", "hint: set it: --build-arg"), 2),
    "escape sequences in a command": ("FROM base\nRUN \x1b]0;owned\x07\x1b[31mfalse\n", ("did not complete",), 2),
    "escape sequences in a name": ("FROM base\nCOPY evil\x1b\x07name /\n", ("not found",), 2),
    "reversed text in a name": ("FROM base\nCOPY evil\u202ename /\n", ("not found",), 2),
    "a command that poses as a hint": ('FROM base\nRUN ["/no\\nhint: evil"]\n', ("\n    hint: evil",), 2),
    "a command that does not exist": ('FROM base\nRUN ["nope"]\n', ('exec: "nope": executable file not found',), 2),
    "a pattern that is none": ("FROM base\nCOPY a[ /\n", ("syntax error in pattern 'a['",), 2),
    "a directory over a program": ("FROM base\nCOPY Dockerfile /bin/sh/x\n", ("/bin/busybox is not a directory",), 2),
    "a path too long": (f"FROM base\nCOPY Dockerfile {'/d' * 2500}/\n", ("File name too long",), 2),
    "a name too long": (f"FROM base\nWORKDIR /{'d' * 300}\n", ("File name too long",), 2),
    "a source with a name too long": (f"FROM base\nCOPY --from=base /{'d' * 300} /x\n", ("too long",), 2),
    "a working directory that is a file": ("FROM base\nWORKDIR /etc/passwd\n", ("/etc/passwd is not a directory",), 2),
    "a git ref that is an option": (
        "FROM base\nADD https://x.invalid/a.git#--upload-pack=x /\n",
        ("invalid git ref",),
        2,
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_is_refused(attack: Attack, name: str) -> None:
    dockerfile, fragments, line = WRONG[name]
    outcome = attack.build(dockerfile).refused(*fragments, line=line)
    assert len(outcome.ended.report) < 12_000, "nobody reads this"


HARMLESS: dict[str, str | bytes] = {
    "a thousand stages": "FROM base\n" + "".join(f"FROM scratch AS s{n}\n" for n in range(1000)),
    "nine thousand labels": "FROM base\n" + "LABEL a=b\n" * 9_000,
    "an odd inline file": b"FROM base\nCOPY <<E /x\n\xff\0\nE\n",
    "an unreachable monster": "FROM ../../x AS evil\nFROM base\n",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_is_harmless(attack: Attack, name: str) -> None:
    attack.build(HARMLESS[name]).harmless()
