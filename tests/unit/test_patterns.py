"""Path patterns: the documented cases, agreement with a plain translation, walking, pruning, speed on hostile ones."""

from __future__ import annotations

import re
import time
from itertools import count, groupby, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildengine.errors import UserError
from llb.paths import clean
from llb.patterns import MATCHED, PatternMatcher

WHEEL = "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl"

MATCHES = [
    ("**", "file", True),
    ("**", "file/", True),
    ("**/", "file", True),
    ("**", "/", True),
    ("**", "dir/file", True),
    ("**/**", "dir/file", True),
    ("dir/**", "dir/file", True),
    ("dir/**", "dir/dir2/file", True),
    ("**/dir", "dir", True),
    ("**/dir", "dir/file", True),
    ("**/dir2/*", "dir/dir2/file", True),
    ("**/dir2/*", "dir/dir2/dir2/file", True),
    ("**file", "file", True),
    ("**file", "dir/file", True),
    ("**/file", "dir/file", True),
    ("**file", "dir/dir/file", True),
    ("**/file*", "dir/dir/file.txt", True),
    ("**/file*txt", "dir/dir/file.txt", True),
    ("**/file*.txt*", "dir/dir/file.txt", True),
    ("**/**/*.txt", "dir/dir/file.txt", True),
    ("**/**/*.txt2", "dir/dir/file.txt", False),
    ("**/*.txt", "file.txt", True),
    ("**/**/*.txt", "file.txt", True),
    ("a**/*.txt", "a/file.txt", True),
    ("a**/*.txt", "a/dir/file.txt", True),
    ("a/*.txt", "a/dir/file.txt", False),
    ("a/*.txt", "a/file.txt", True),
    ("a[b-d]e", "ae", False),
    ("a[b-d]e", "ace", True),
    ("a[b-d]e", "aae", False),
    ("a[^b-d]e", "aze", True),
    (".*", ".foo", True),
    (".*", "foo", False),
    ("abc.def", "abcdef", False),
    ("abc.def", "abc.def", True),
    ("abc?def", "abc/def", False),
    ("abc?def", "abcZdef", True),
    (r"a\*b", "a*b", True),
    (r"a\*b", "axb", False),
    (r"a\\", "a\\", True),
    ("a(b)c/def", "a(b)c/def", True),
    ("a(b)c/def", "a(b)c/xyz", False),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
    (WHEEL, WHEEL, True),
    ("dist/*.whl", WHEEL, True),
    ("docs", "docs/README.md", True),
    ("docs/", "docs/README.md", True),
    ("./docs", "docs", True),
    ("a/../docs", "docs/x", True),
    ("  docs  ", "docs", True),
    ("doc", "docs", False),
    ("/docs", "docs", False),
    ("[a/b]x", "/x", False),
]

LISTS = [
    (["docs", "!docs/README.md"], "docs/README.md", False),
    (["docs", "!docs/README.md"], "docs/other.md", True),
    (["!docs/README.md", "docs"], "docs/README.md", True),
    (["*", "!src"], "src/a/b.c", False),
    (["*", "!src", "src/secret*"], "src/secret.txt", True),
    (["**", "!util/docker/web"], "util/docker/web/foo", False),
    (["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", True),
    (["**", f"!{WHEEL}"], WHEEL, False),
    (["**", "!dist/*.whl"], WHEEL, False),
    (["", "  ", "a"], "a", True),
    ([], "a", False),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), MATCHES)
def test_one_pattern(pattern: str, path: str, expected: bool) -> None:
    assert PatternMatcher([pattern]).matches(path) is expected


@pytest.mark.parametrize(("patterns", "path", "expected"), LISTS)
def test_the_last_match_decides(patterns: list[str], path: str, expected: bool) -> None:
    matcher = PatternMatcher(patterns)
    assert matcher.matches(path) is expected
    assert bool(walk(matcher, path) & MATCHED) is expected


@pytest.mark.parametrize("pattern", ["[", "a[", "[]a]", "[a", "[a-]", "[-a]", "[z-a]", "x\\", "!"])
def test_bad_syntax_is_a_user_error(pattern: str) -> None:
    with pytest.raises(UserError) as caught:
        PatternMatcher([pattern])
    assert caught.value.hint


def test_a_walk_does_not_reconsider_a_pattern_it_skipped_for_a_parent() -> None:
    matcher = PatternMatcher(["a", "!a/b", "a*"])
    assert matcher.matches("a/b")
    assert not walk(matcher, "a/b") & MATCHED


@pytest.mark.parametrize(
    ("patterns", "directory", "prune"),
    [
        (["node_modules"], "node_modules", True),
        (["docs", "!docs/README.md"], "docs", False),
        (["docs", "!src/README.md"], "docs", True),
        (["*", "!**/*.md"], "docs", False),
        (["*", "!docs/*.md"], "docs/deep", False),
        (["*", "!src*"], "docs", True),
        (["*", "!docs"], "docs", True),
    ],
)
def test_pruning(patterns: list[str], directory: str, prune: bool) -> None:
    assert PatternMatcher(patterns).can_prune(directory) is prune


def test_an_unmatched_directory_is_entered_only_when_something_below_could_match() -> None:
    matcher = PatternMatcher(["src/app/*.py", "!src/x", "README.md"])
    assert matcher.reaches("src")
    assert matcher.reaches("src/app")
    assert not matcher.reaches("docs")
    assert not matcher.reaches("README.md")


def walk(matcher: PatternMatcher, path: str) -> int:
    state, names = 0, path.split("/")
    for depth in range(1, len(names) + 1):
        state = matcher.step("/".join(names[:depth]), state)
    return state


def plain(pattern: str) -> re.Pattern[str]:
    """The translation that moby/patternmatcher makes, as directly as possible (without sets)."""
    if pattern.startswith("**") and not set(pattern[2:]) & set("*?[") and pattern[2:3] not in ("", "/"):
        return re.compile(".*" + re.escape(pattern[2:]) + r"\Z", re.DOTALL)
    out = re.sub(r"\*\*/?\Z|\*\*/?|\*|\?|\[\^a\]|[^*?[]+", lambda m: plain_token(m, pattern), pattern)
    return re.compile(out + r"\Z", re.DOTALL)


def plain_token(match: re.Match[str], pattern: str) -> str:
    token = match[0]
    if token.startswith("**"):
        return ".*" if match.end() == len(pattern) else "(?:.*/)?"
    return {"*": "[^/]*", "?": "[^/]", "[^a]": "[^a/]"}.get(token) or re.escape(token)


names = st.text(alphabet="ab", min_size=1, max_size=3)
pieces = st.one_of(names, st.sampled_from(["*", "**", "?", "a*", "*b", "a*b*", "**a", "b**"]))


@settings(max_examples=400)
@given(st.lists(pieces, min_size=1, max_size=5), st.lists(names, min_size=1, max_size=5))
def test_agrees_with_the_plain_translation(pattern_parts: list[str], path_parts: list[str]) -> None:
    pattern, path = "/".join(pattern_parts), "/".join(path_parts)
    expected = plain(pattern).match(path) is not None
    assert bool(PatternMatcher([pattern]).step(path) & MATCHED) is expected, (pattern, path)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["a", "!a/b", "**/b", "!b", "a/*", "!**/a", "b/**"]), max_size=5), st.text("ab/"))
def test_no_pattern_list_fails(patterns: list[str], path: str) -> None:
    matcher = PatternMatcher(patterns)
    matcher.matches(path)
    matcher.step(path, matcher.step("a"))


@settings(max_examples=400)
@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "**/", "?", "[^a]"]), min_size=1, max_size=9),
    st.lists(names, min_size=1, max_size=5),
)
def test_several_deep_stars_agree_with_the_plain_translation(pattern_parts: list[str], path_parts: list[str]) -> None:
    """Patterns such as `a**b**c`, that no build has and any may have."""
    pattern, path = clean("".join(pattern_parts)), "/".join(path_parts)
    expected = plain(pattern).match(path) is not None
    assert bool(PatternMatcher([pattern]).step(path) & MATCHED) is expected, (pattern, path)
    parents = ["/".join(path_parts[:depth]) for depth in range(1, len(path_parts) + 1)]
    assert PatternMatcher([pattern]).matches(path) is any(plain(pattern).match(parent) for parent in parents)


HOSTILE = [
    "*a" * 60 + "b",
    "*?" * 60 + "b",
    "*[a-b]" * 60 + "c",
    "**/a/" * 30 + "b",
    "**/*a" * 30 + "/b",
    "**a" * 30 + "b",
]


@pytest.mark.parametrize("path", ["a" * 5000, "/".join(["a"] * 200), "/".join(["a" * 60] * 40)], ids=len)
@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_pattern_makes_matching_explode(pattern: str, path: str) -> None:
    matcher = PatternMatcher([pattern])
    begin = time.process_time()
    assert not matcher.matches(path)
    assert not walk(matcher, path) & MATCHED
    matcher.can_prune(path)
    matcher.reaches(path)
    assert time.process_time() - begin < 1


def test_no_list_of_patterns_makes_matching_explode() -> None:
    matcher = PatternMatcher(["a", *(f"{sign}{pattern}" for pattern in HOSTILE for sign in ("!", ""))])
    begin = time.process_time()
    assert matcher.matches("a/" * 100 + "a")
    assert time.process_time() - begin < 1


# --- many of them -------------------------------------------------------------------------------------------

FILLER = [f"never{'x' * 200}{i}*" for i in range(100)]  # so many that they are no regular expression


def plain_walk(patterns: list[str], path: str) -> bool:
    """What moby/patternmatcher's walk does, pattern by pattern of one sign after the other."""
    runs = [(sign, list(run)) for sign, run in groupby(patterns, lambda one: one.startswith("!"))]
    names, applied, matched = path.split("/"), [False] * len(runs), False
    for depth in range(1, len(names) + 1):
        here, matched = "/".join(names[:depth]), False
        for at, (negated, run) in enumerate(runs):
            hit = negated == matched and any(plain(one.removeprefix("!")).match(here) for one in run)
            applied[at] = applied[at] or hit
            if applied[at]:
                matched = not negated
    return matched


signed = st.builds(lambda sign, parts: sign + "/".join(parts), st.sampled_from(["", "!"]), st.lists(pieces, min_size=1))


@settings(max_examples=200)
@given(st.lists(signed, max_size=6), st.lists(names, min_size=1, max_size=4), st.sampled_from([[], FILLER]))
def test_a_list_agrees_with_the_plain_walk(patterns: list[str], path_parts: list[str], filler: list[str]) -> None:
    path = "/".join(path_parts)
    matcher = PatternMatcher([*patterns, *filler])
    assert bool(walk(matcher, path) & MATCHED) is plain_walk(patterns, path)
    parents = ["/".join(path_parts[:depth]) for depth in range(1, len(path_parts) + 1)]
    hits = [one for one in patterns if any(plain(one.removeprefix("!")).match(parent) for parent in parents)]
    assert matcher.matches(path) is (bool(hits) and not hits[-1].startswith("!"))


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(["a", "]", "/", "*", "**", "?", "[^a]", "[\\]-a]", "\\*"]), min_size=1),
    st.text("ab*]/", min_size=1),
)
def test_many_patterns_match_what_few_do(pattern_parts: list[str], path: str) -> None:
    pattern = "".join(pattern_parts)
    few, many = PatternMatcher([pattern]), PatternMatcher([*FILLER, pattern])
    assert many.matches(path) is few.matches(path)
    assert many.step(path) == few.step(path)


MEGABYTE = 1 << 20
MANY = {
    "names": (f"a{i}" for i in count()),
    "paths": (f"a{i}/b/c{i}" for i in count()),
    "deep": (f"**/a*{i}" for i in count()),
    "deep twice": (f"**/a{i}/**/b" for i in count()),
    "suffixes": (f"**.x{i}" for i in count()),
    "negated": (f"{'!' if i % 2 else ''}a{i}/*" for i in count()),
    "negated again and again": ("!a*" if i % 2 else "a*" for i in count()),
    "one name": ("a" * MEGABYTE for _ in range(1)),
    "one of stars": ("*a" * (MEGABYTE // 2) for _ in range(1)),
    "one of directories": ("**/" * (MEGABYTE // 3) for _ in range(1)),
    "one of many deep stars": ("**a" * (MEGABYTE // 3) for _ in range(1)),
}


@pytest.mark.parametrize("kind", MANY)
def test_a_megabyte_of_patterns_is_soon_of_use(kind: str) -> None:
    patterns = list(islice(MANY[kind], MEGABYTE // 9))
    begin = time.process_time()
    matcher = PatternMatcher(patterns)
    matcher.matches("a/b.x5")
    for path in ("a", "a7", "a7/c/b"):
        walk(matcher, path)
        matcher.can_prune(path)
        matcher.reaches(path)
    assert time.process_time() - begin < 5  # seconds of CPU; at most 1.5 where nothing else runs


def test_below_many_patterns_some_could_match() -> None:
    matcher = PatternMatcher([f"src/{i}/x" for i in range(1000)] + ["!src/7/x/y*", "!doc"])
    assert matcher.reaches("src/999")
    assert not matcher.reaches("src/99x")
    assert not matcher.can_prune("src/7/x/yes")
    assert matcher.can_prune("src/8")
