"""What the frontend answers about a Dockerfile: descriptions, targets, parameters, findings. Keys are BuildKit's."""

from __future__ import annotations

import base64
import json
from typing import Any

from frontends.testing import ARM64
from tests.fakes.gateway import build, image_config

FILE = """\
ARG base=box
ARG idle=x
# image is what all is made of
ARG image=busy${base}

# tools has the compiler
FROM --platform=$BUILDPLATFORM ${image} AS Tools
ARG LEVEL=3
ARG TARGETARCH
RUN --mount=type=secret,target=/etc/key,required=true --mount=type=ssh x

FROM alpine AS other
ARG UNSEEN
RUN --mount=type=secret,id=unseen x

FROM scratch
ARG idle
# NAME is what it is called
ARG NAME
RUN --mount=type=secret,id=of$NAME x
COPY --from=tools /x /
"""


async def ask(request: str, dockerfile: str = FILE, **options: str) -> dict[str, Any]:
    """The answer, with its JSON read."""
    arguments = {name.replace("__", ":").replace("_", "-"): value for name, value in options.items()}
    built = await build(dockerfile, options={"requestid": request, **arguments})
    assert built.result.results == ()
    answer: dict[str, Any] = {name: value.decode() for name, value in built.result.metadata.items()}
    assert answer.pop("version") == "1.0.0"
    return {**answer, "result.json": json.loads(answer["result.json"])}


def line(number: int) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": number}, "end": {"line": number}}]}


async def test_the_questions_are_listed() -> None:
    answer = await ask("frontend.subrequests.describe")
    assert [(each["name"], each["type"]) for each in answer["result.json"]] == [
        ("frontend.outline", "rpc"),
        ("frontend.targets", "rpc"),
        ("frontend.subrequests.describe", "rpc"),
    ]
    assert answer["result.txt"].splitlines()[:2] == [
        "NAME                 VERSION DESCRIPTION",
        "outline              1.0.0   List all parameters current build target supports",
    ]


async def test_targets_are_told_as_they_are_written() -> None:
    answer = await ask("frontend.targets")
    tools = {"name": "tools", "description": "has the compiler", "base": "${image}", "platform": "$BUILDPLATFORM"}
    assert answer["result.json"] == {
        "targets": [
            {**tools, "location": line(7)},
            {"name": "other", "base": "alpine", "location": line(12)},
            {"default": True, "base": "scratch", "location": line(16)},
        ],
        "sources": [base64.b64encode(FILE.encode()).decode()],
    }
    assert answer["result.txt"] == "TARGET    DESCRIPTION\ntools     has the compiler\nother     \n(default) \n"


async def test_an_outline_has_what_matters_to_its_target() -> None:
    answer = await ask("frontend.outline", build_arg__NAME="seven")
    assert answer["result.json"] == {
        "args": [
            {"name": "base", "value": "box", "location": line(1)},
            {"name": "idle", "value": "x", "location": line(2)},
            {"name": "image", "value": "busybox", "description": "is what all is made of", "location": line(4)},
            {"name": "LEVEL", "value": "3", "location": line(8)},
            {"name": "NAME", "value": "seven", "description": "is what it is called", "location": line(19)},
        ],
        "secrets": [
            {"name": "key", "required": True, "location": line(10)},
            {"name": "ofseven", "location": line(20)},
        ],
        "ssh": [{"name": "default", "location": line(10)}],
        "sources": [base64.b64encode(FILE.encode()).decode()],
    }
    assert answer["result.txt"].splitlines() == [
        "BUILD ARG   VALUE     DESCRIPTION",
        "base        box       ",
        "idle        x         ",
        "image       busybox   is what all is made of",
        "LEVEL       3         ",
        "NAME        seven     is what it is called",
        "",
        "SECRET    REQUIRED",
        "key       true",
        "ofseven   ",
        "",
        "SSH       REQUIRED",
        "default   ",
        "",
    ]


async def test_an_outline_of_a_named_target() -> None:
    answer = await ask("frontend.outline", target="tools")
    assert (answer["result.json"]["name"], answer["result.json"]["description"]) == ("tools", "has the compiler")
    assert [each["name"] for each in answer["result.json"]["args"]] == ["base", "image", "LEVEL"]
    assert answer["result.txt"].startswith("TARGET:      tools\nDESCRIPTION: has the compiler\n\nBUILD ARG")


async def test_arguments_that_are_made_of_each_other_end() -> None:
    text = "ARG A=1\nARG B=${A}2\nARG A=${A}3${B}\nFROM scratch\nARG A\n"
    answer = await ask("frontend.outline", text)
    assert [(each["name"], each["value"]) for each in answer["result.json"]["args"]] == [("B", "12"), ("A", "1312")]


async def test_the_linter_looks_at_every_stage() -> None:
    text = "FROM scratch AS a\nMAINTAINER x\nFROM scratch\nCOPY a /\n"
    answer = await ask("frontend.lint", text)
    (found,) = answer["result.json"]["warnings"]
    assert found == {
        "ruleName": "MaintainerDeprecated",
        "description": "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        "url": "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
        "detail": "Maintainer instruction is deprecated in favor of using label",
        "location": line(2),
    }
    (source,) = answer["result.json"]["sources"]
    assert (source["filename"], source["language"]) == ("Dockerfile", "Dockerfile")
    assert base64.b64decode(source["data"]) == text.encode()
    assert source["definition"]["def"]
    assert "buildError" not in answer["result.json"]
    assert answer["result.statuscode"] == "1"
    assert answer["result.txt"] == (
        "\nWARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/\n"
        "Maintainer instruction is deprecated in favor of using label\n"
        "Dockerfile:2\n"
        "--------------------\n"
        "   1 |     FROM scratch AS a\n"
        "   2 | >>> MAINTAINER x\n"
        "   3 |     FROM scratch\n"
        "   4 |     COPY a /\n"
        "--------------------\n"
    )


async def test_the_linter_looks_at_the_target_that_is_named() -> None:
    text = "FROM scratch AS a\nWORKDIR x\nFROM scratch AS b\nWORKDIR y\n"
    assert [w["location"] for w in (await ask("frontend.lint", text))["result.json"]["warnings"]] == [line(2), line(4)]
    named = await ask("frontend.lint", text, target="a")
    assert [w["location"] for w in named["result.json"]["warnings"]] == [line(2)]


async def test_nothing_found_is_status_0() -> None:
    answer = await ask("frontend.lint", "FROM scratch\n")
    assert (answer["result.json"]["warnings"], answer["result.txt"], answer["result.statuscode"]) == (None, "", "0")


async def test_a_mistake_comes_with_what_was_found_before_it() -> None:
    answer = await ask("frontend.lint", "FROM scratch AS A\nBADCMD x\n")
    assert [w["ruleName"] for w in answer["result.json"]["warnings"]] == ["StageNameCasing"]
    assert answer["result.json"]["buildError"]["message"] == (
        "dockerfile parse error on line 2: unknown instruction: BADCMD"
    )
    assert answer["result.json"]["buildError"]["location"]["ranges"][0]["start"]["line"] == 2
    assert answer["result.statuscode"] == "1"


async def test_findings_that_are_to_be_errors_are_one() -> None:
    answer = await ask("frontend.lint", "# check=error=true\nFROM scratch AS A\n")
    assert answer["result.json"]["buildError"] == {
        "message": "lint violation found for rules: StageNameCasing",
        "location": {},
    }


async def test_the_definition_can_be_asked_for() -> None:
    built = await build("FROM busybox\nRUN --network=none x\n", options={"requestid": "frontend.convertllb"})
    assert built.result.metadata["version"] == b"0.1.0"
    document = json.loads(built.result.metadata["result.json"])
    assert document["def"].keys() == document["metadata"].keys()
    (command,) = [op["exec"] for op in document["def"].values() if "exec" in op]
    assert (command["meta"]["args"][-1], command["network"]) == ("x", "NONE")
    names = [known.get("description", {}).get("llb.customname") for known in document["metadata"].values()]
    assert "[2/2] RUN --network=none x" in names
    assert base64.b64decode(document["source"]["infos"][0]["data"]).startswith(b"FROM busybox\n")


async def test_a_question_is_asked_for_the_platform_of_the_builder() -> None:
    images = {"docker.io/library/here:latest": image_config()}
    built = await build("FROM here\n", {"requestid": "frontend.lint"}, ARM64, images=images)
    assert json.loads(built.result.metadata["result.json"])["warnings"] is None
