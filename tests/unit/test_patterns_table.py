"""moby/patternmatcher's tables: what each pattern matches, and what it does not. Also what an ignore file is read as.

One row a pattern: the paths that it matches, by itself or one of their parents, and those that it does not.
"""

from __future__ import annotations

import pytest

from buildengine.errors import UserError
from frontends.dockerfile import ignore
from frontends.dockerfile.lines import SourceFile
from llb.patterns import MATCHED, PatternMatcher

TABLE = [
    ("**", "file file/ / dir/file dir/file/", ""),
    ("**/", "file file/ / dir/file dir/file/", ""),
    ("**/**", "dir/file dir/file/", ""),
    ("dir/**", "dir/file dir/file/ dir/dir2/file dir/dir2/file/", ""),
    ("**/dir", "dir dir/file", ""),
    ("**/dir2/*", "dir/dir2/file dir/dir2/file/", ""),
    ("**/dir2/**", "dir/dir2/dir3/file dir/dir2/dir3/file/", ""),
    ("**file", "file dir/file dir/dir/file", ""),
    ("**/file", "dir/file dir/dir/file", ""),
    ("**/file*", "dir/dir/file dir/dir/file.txt", ""),
    ("**/file*txt", "dir/dir/file.txt", ""),
    ("**/file*.txt", "dir/dir/file.txt", ""),
    ("**/file*.txt*", "dir/dir/file.txt", ""),
    ("**/**/*.txt", "dir/dir/file.txt file.txt", ""),
    ("**/**/*.txt2", "", "dir/dir/file.txt"),
    ("**/*.txt", "file.txt", ""),
    ("a**/*.txt", "a/file.txt a/dir/file.txt a/dir/dir/file.txt", ""),
    ("a/*.txt", "a/file.txt", "a/dir/file.txt"),
    ("a/*.txt**", "a/file.txt", ""),
    ("a[b-d]e", "ace", "ae aae"),
    ("a[^b-d]e", "aze", ""),
    (".*", ".foo", "foo"),
    ("abc.def", "abc.def", "abcdef abcZdef"),
    ("abc?def", "abcZdef", "abcdef"),
    ("a\\\\", "a\\", ""),
    ("**/foo/bar", "foo/bar dir/foo/bar dir/dir2/foo/bar", ""),
    ("abc/**", "abc/def abc/def/ghi", "abc"),
    ("**/.foo", ".foo", "bar.foo"),
    ("a(b)c/def", "a(b)c/def", "a(b)c/xyz"),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", ""),
    (
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        "",
    ),
    ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", ""),
    ("a\\*b", "a*b a*b", "ab"),
    ("abc", "abc", ""),
    ("*", "abc", ""),
    ("*c", "abc", ""),
    ("a*", "a abc ab/c", ""),
    ("a*/b", "abc/b", "a/c/b"),
    ("a*b*c*d*e*/f", "axbxcxdxe/f axbxcxdxexxx/f", "axbxcxdxe/xxx/f axbxcxdxexxx/fff"),
    ("a*b?c*x", "abxbbxdbxebxczzx", "abxbbxdbxebxczzy"),
    ("ab[c]", "abc", ""),
    ("ab[b-d]", "abc", ""),
    ("ab[e-g]", "", "abc"),
    ("ab[^c]", "", "abc"),
    ("ab[^b-d]", "", "abc"),
    ("ab[^e-g]", "abc", ""),
    ("a?b", "a☺b", "a/b"),
    ("a[^a]b", "a☺b", ""),
    ("a???b", "", "a☺b"),
    ("a[^a][^a][^a]b", "", "a☺b"),
    ("[a-ζ]*", "α", ""),
    ("*[a-ζ]", "", "A"),
    ("a*b", "", "a/b"),
    ("[\\]a]", "]", ""),
    ("[\\-]", "-", ""),
    ("[x\\-]", "x -", "z"),
    ("[\\-x]", "x -", "a"),
    ("*x", "xxx", ""),
]

LISTS = [
    (["!fileutils.go", "*.go"], "fileutils.go", True),
    (["*.go", "!fileutils.go"], "fileutils.go", False),
    (["docs", "!docs/README.md"], "docs/README.md", False),
    (["docs/", "!docs/README.md"], "docs/README.md", False),
    (["docs/*", "!docs/README.md"], "docs/README.md", False),
    (["  docs", " !docs/README.md  "], "docs/README.md", False),
    (["docs", "config", ""], "other", False),
    (["*.go"], ".", False),
    ([], "/any/path/there", False),
    (["**", "!util/docker/web"], "util/docker/web/foo", False),
    (["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", True),
    (["**", "!dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl"],
     "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", False),
    (["**", "!dist/*.whl"], "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", False),
]  # fmt: skip

BAD = ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "!", "[Local-Only]/"]

IGNORE_FILES = [
    (b"", ()),
    (b"test1\n/test2\n/a/file/here\n\nlastfile\n# this is a comment\n! /inverted/abs/path\n",
     ("test1", "test2", "a/file/here", "lastfile", "!inverted/abs/path")),
    (b"\xef\xbb\xbfa\r\n  b  \n\t\n#c\n #d\n./e/../f/\n/\n", ("a", "b", "#d", "f", "/")),
]  # fmt: skip

CASES = [(pattern, path, found) for pattern, *both in TABLE for found, paths in zip((True, False), both, strict=True)
         for path in paths.split()]  # fmt: skip


@pytest.mark.parametrize(("pattern", "path", "expected"), CASES)
def test_a_pattern_and_a_path(pattern: str, path: str, expected: bool) -> None:
    _agree([pattern], path, expected)


@pytest.mark.parametrize(("patterns", "path", "expected"), LISTS)
def test_patterns_and_a_path(patterns: list[str], path: str, expected: bool) -> None:
    _agree(patterns, path, expected)


def _agree(patterns: list[str], path: str, expected: bool) -> None:
    """Whether the path is asked for at once, or below its parents as they are walked."""
    matcher = PatternMatcher(patterns)
    assert matcher.matches(path) is expected
    state, parts = 0, path.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        state = matcher.step("/".join(parts[:depth]), state)
    assert bool(state & MATCHED) is expected


@pytest.mark.parametrize("pattern", BAD)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(UserError):
        PatternMatcher([pattern])


@pytest.mark.parametrize(("data", "expected"), IGNORE_FILES)
def test_ignore_files(data: bytes, expected: tuple[str, ...]) -> None:
    assert ignore.read(SourceFile(filename=".dockerignore", data=data)) == expected


@pytest.mark.parametrize("line", [b"!", b"! "])
def test_a_mark_alone_is_a_mistake_in_an_ignore_file(line: bytes) -> None:
    with pytest.raises(UserError):
        ignore.read(SourceFile(filename=".dockerignore", data=line))
