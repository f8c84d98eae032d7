"""The lint rules: each fires where BuildKit's does, and not beside; `# check=` and its override."""

from __future__ import annotations

import pytest

from buildengine.errors import BuildError, UserError
from frontends.dockerfile import lint
from frontends.testing import ARM64
from tests.fakes.gateway import build, findings, image_config

OK = "FROM scratch\n"
IMAGES = {
    "docker.io/library/bash:latest": image_config(Shell=["/bin/bash", "-c"]),
    "docker.io/library/arm:latest": image_config(platform=ARM64),
    "docker.io/library/bare:latest": image_config(Env=[]),
}

CASES: list[tuple[str, list[str]]] = [
    (OK, []),
    ("FROM scratch AS Base\nFROM scratch AS x2\n", ["StageNameCasing: Stage name 'Base' should be lowercase (line 1)"]),
    ("FROM scratch as b\n", ["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"]),
    ("from scratch AS b\n", ["FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)"]),
    ("from scratch as b\n", []),
    (
        "FROM scratch\nCOPY a \\\n\n b\n",
        ["NoEmptyContinuation: Empty continuation line (line 4)"],
    ),
    (
        "FROM scratch\ncopy a b\nLABEL a=b\n",
        [
            "ConsistentInstructionCasing: Command 'copy' should match the case of the command majority (uppercase) "
            "(line 2)"
        ],
    ),
    (
        "from scratch\ncopy a b\nLabel a=b\n",
        [
            "ConsistentInstructionCasing: Command 'Label' should match the case of the command majority (lowercase) "
            "(line 3)"
        ],
    ),
    ("arg a\nFROM scratch\nCOPY a b\n", []),
    (
        "FROM scratch AS b\nFROM scratch AS b\n",
        ['DuplicateStageName: Duplicate stage name "b", stage names should be unique (line 2)'],
    ),
    (
        "FROM scratch AS scratch\n",
        ['ReservedStageName: Stage name should not use the same name as reserved stage "scratch" (line 1)'],
    ),
    (
        "FROM scratch\nCMD a\n",
        [
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS "
            "signals (line 2)"
        ],
    ),
    ('FROM scratch\nCMD ["a"]\nENTRYPOINT ["a"]\n', []),
    ("FROM bash\nENTRYPOINT a\n", []),
    (
        "FROM scratch\nMAINTAINER me\n",
        ["MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"],
    ),
    (
        "ARG VERSION=latest\nFROM busybox:${VERSOIN:-latest}\n",
        ["UndefinedArgInFrom: FROM argument 'VERSOIN' is not declared (did you mean VERSION?) (line 2)"],
    ),
    ("FROM --platform=$BUILDPLATFORM busybox\n", []),
    (
        "FROM busybox\nWORKDIR app\nWORKDIR sub\n",
        ['WorkdirRelativePath: Relative workdir "app" can have unexpected results if the base image changes (line 2)'],
    ),
    ("FROM busybox\nWORKDIR /app\nWORKDIR sub\n", []),
    ("FROM busybox AS a\nWORKDIR /app\nFROM a\nWORKDIR sub\n", []),
    (
        "FROM busybox\nARG DIR_ASSETS=/a\nCOPY $DIR_ASSET .\n",
        ["UndefinedVar: Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?) (line 3)"],
    ),
    ("FROM busybox\nARG unset\nCOPY a $unset/\nLABEL x=${unset:-y}\n", []),
    ("FROM busybox\nENV a=$PATH:/x\n", []),
    ("FROM busybox\nRUN echo $whatever\n", []),
    ("FROM busybox\nCOPY <<'E' /x\n$a\nE\n", []),
    ("FROM busybox\nCOPY <<E /x\n$a\nE\n", ["UndefinedVar: Usage of undefined variable '$a' (line 2)"]),
    (
        'FROM scratch\nCMD a\nCMD ["b"]\n',
        [
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS "
            "signals (line 2)",
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because "
            "only the last one will be used (line 2)",
        ],
    ),
    (
        "FROM scratch\nHEALTHCHECK NONE\nHEALTHCHECK CMD a\n",
        [
            "MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage "
            "because only the last one will be used (line 2)"
        ],
    ),
    ('FROM scratch AS a\nCMD ["a"]\nFROM a\nCMD ["b"]\n', []),
    (
        "FROM scratch\nENV a b\n",
        ['LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 2)'],
    ),
    (
        "FROM scratch\nlabel a b\n",
        [
            "ConsistentInstructionCasing: Command 'label' should match the case of the command majority (uppercase) "
            "(line 2)",
            'LegacyKeyValueFormat: "label key=value" should be used instead of legacy "label key value" format '
            "(line 2)",
        ],
    ),
    (
        "FROM arm\n",
        [
            'InvalidBaseImagePlatform: Base image arm was pulled with platform "linux/arm64", expected "linux/amd64" '
            "for current build (line 1)"
        ],
    ),
    (
        "FROM --platform=$TARGETPLATFORM busybox\n",
        [
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is "
            "the default behavior (line 1)"
        ],
    ),
    (
        "FROM scratch\nARG API_KEY\nENV PASSWORD=x GIT_TOKEN=y\nENV PUBLIC_KEY=z TOKENS=1 author=2\n",
        [
            'SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY") (line 2)',
            'SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "PASSWORD") (line 3)',
            'SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "GIT_TOKEN") (line 3)',
        ],
    ),
    (
        "FROM --platform=linux/amd64 busybox\n",
        ['FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64" (line 1)'],
    ),
    ("FROM --platform=linux/amd64 busybox AS build-amd64\n", []),
    (
        "FROM scratch\nEXPOSE 80/TCP\nEXPOSE 127.0.0.1:80:80\nEXPOSE 80:90\n",
        [
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found "
            "'127.0.0.1:80:80' (line 3)",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found "
            "'80:90' (line 4)",
        ],
    ),
    (
        "# check=experimental=all\n# wrong comment\nARG a\n# base right\nFROM scratch AS base\n",
        ["InvalidDefinitionDescription: Comment for ARG should follow the format: `# a <description>` (line 3)"],
    ),
    (
        "# check=experimental=InvalidDefinitionDescription\n# wrong\nFROM scratch AS b\n# no\nARG a b\n",
        [
            "InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line 3)",
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` "
            "(line 5)",
        ],
    ),
    ("# wrong\nARG a\nFROM scratch\n", []),
    ("# check=skip=all\nFROM scratch as B\nMAINTAINER x\n", []),
    (
        "# check=skip=StageNameCasing, FromAsCasing\nFROM scratch as B\nMAINTAINER x\n",
        ["MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 3)"],
    ),
]


@pytest.mark.parametrize(("dockerfile", "expected"), CASES, ids=[text[:40] for text, _ in CASES])
async def test_rules(dockerfile: str, expected: list[str]) -> None:
    built = await build(dockerfile, images=IMAGES)
    assert findings(built) == expected


async def test_the_default_of_an_argument_must_make_a_valid_image_name() -> None:
    built = await build("ARG TAG\nFROM busybox:$TAG\n", {"build-arg:TAG": "latest"})
    assert findings(built) == [
        "InvalidDefaultArgInFrom: Default value for ARG busybox:$TAG results in empty or invalid base image name "
        "(line 2)"
    ]


async def test_files_that_are_ignored_are_not_to_be_copied() -> None:
    text = "# check=experimental=CopyIgnoredFile\nFROM scratch\nCOPY a.log b /x/\nADD c.log https://a/b.log /x/\n"
    built = await build(text, files={".dockerignore": b"*.log\n"})
    assert findings(built) == [
        'CopyIgnoredFile: Attempting to Copy file "a.log" that is excluded by .dockerignore (line 3)',
        'CopyIgnoredFile: Attempting to Add file "c.log" that is excluded by .dockerignore (line 4)',
    ]


async def test_a_finding_tells_where_and_where_to_read_on() -> None:
    (warned,) = (await build("FROM scratch\nMAINTAINER \\\n  me\n")).gateway.warnings
    assert warned.url == "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/"
    assert warned.detail == ("The MAINTAINER instruction is deprecated, use a label instead to define an image author",)
    assert warned.location is not None
    assert [r.start_line for r in warned.location.ranges] == [2, 3]


async def test_findings_before_an_error_are_told() -> None:
    from frontends.dockerfile.build import DockerfileFrontend
    from tests.fakes.gateway import gateway, request

    fake = gateway("FROM scratch as b\nMAINTAINER me\nBADCMD x\n")
    with pytest.raises(BuildError, match="dockerfile parse error on line 3: unknown instruction: BADCMD"):
        await DockerfileFrontend().build(fake, request())
    assert [warned.message.partition(":")[0] for warned in fake.warnings] == ["FromAsCasing", "MaintainerDeprecated"]


async def test_several_platforms_say_it_once() -> None:
    built = await build("FROM scratch\nCMD a\n", None, *[ARM64, ARM64])
    assert len(findings(built)) == 1


@pytest.mark.parametrize(
    ("directive", "options"),
    [("# check=error=true\n", {}), ("", {"build-arg:BUILDKIT_DOCKERFILE_CHECK": "error=true"})],
)
async def test_findings_can_be_errors(directive: str, options: dict[str, str]) -> None:
    with pytest.raises(UserError, match="lint violation found for rules: FromAsCasing, MaintainerDeprecated"):
        await build(directive + "FROM scratch as b\nMAINTAINER x\nMAINTAINER y\n", options)
    await build(directive + OK, options)


async def test_the_build_argument_overrides_the_directive() -> None:
    built = await build("# check=error=true\nFROM scratch as b\n", {"build-arg:BUILDKIT_DOCKERFILE_CHECK": "skip=all"})
    assert findings(built) == []


def test_settings() -> None:
    found = lint.parse_settings("skip=A, B;experimental=all;error=1")
    assert found.skip == {"A", "B"}
    assert (found.skip_all, found.experimental_all, found.error) == (False, True, True)
    assert lint.parse_settings(" ") == lint.Settings()
    assert lint.parse_settings("skip=all").skip_all


@pytest.mark.parametrize("text", ["skip", "foo=bar", "error=maybe", "skip=all;x"])
def test_bad_settings(text: str) -> None:
    with pytest.raises(UserError, match="invalid check option"):
        lint.parse_settings(text)


def test_there_are_22_rules() -> None:
    assert len(lint.RULES) == 22
    assert lint.EXPERIMENTAL.issubset(lint.RULES)
