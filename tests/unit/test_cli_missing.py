"""What a missing file of the context may be meant to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildengine.cli.missing import advice, advise, excluded, spelling
from buildengine.errors import ContextError, Location, SolveError, SourceRange
from tests.builds import write


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path, {"src/main.go": "", "src/README.md": "", "go.mod": ""})


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/scr/mian.go", "did you mean src/main.go?"),
        ("/src/mian.go", "did you mean src/main.go?"),
        ("/go.sum", "in the context there is go.mod, src"),
        ("/gomod", "did you mean go.mod?"),
        ("/src/other/deep", "in src there is README.md, main.go"),
        ("/go.mod/x", "there is nothing in go.mod"),
        ("/go.mod", ""),
        ("/Go.Mod", "did you mean go.mod?"),
        ("/SRC/readme.md", "did you mean src/README.md?"),
        ("/src/*.rs", ""),
        ("/ab", "in the context there is go.mod, src"),  # two edits away from nothing in particular
        ("/sic", "did you mean src?"),
    ],
)
def test_advice(context: Path, path: str, said: str) -> None:
    assert advice(context, path) == said


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("COPY gomod /", "'/gomod': not found", "did you mean go.mod?"),
        ("COPY gomod /", 'failed to compute cache key: "/gomod": not found', "did you mean go.mod?"),
        ("COPY --from=a gomod /", "'/gomod': not found", "as it was"),
        ("RUN --mount=from=a,source=gomod x", "'/gomod': not found", "as it was"),
        ("COPY gomod /", "something else", "as it was"),
        ("COPY go.mod /d --chown=1", "'/d': not found", "flags come first: COPY --chown=1 ..."),
        ("COPY /a /b --from=stage", "'/a': not found", "flags come first: COPY --from=stage ..."),
    ],
)
def test_only_what_is_missing_from_the_context(context: Path, line: str, message: str, hint: str) -> None:
    place = Location(filename="Dockerfile", text=line.encode(), ranges=(SourceRange(start_line=1, end_line=1),))
    error = SolveError((ContextError(message, hint="as it was", locations=(place,)),))
    advise(error, {"context": context})
    assert error.first.hint == hint
    advise(error, {})
    assert error.first.hint == hint


@pytest.mark.parametrize(
    ("ignored", "path", "why"),
    [
        ("*.mod\n", "/go.mod", "go.mod is there, but .dockerignore leaves it out: *.mod"),
        ("# all\nsrc\n!src/README.md\n", "/src/main.go", "src/main.go is there, but .dockerignore leaves it out: src"),
        ("src\n!src/README.md\n", "/src/README.md", ""),
        ("*.md\n", "/go.mod", ""),
        ("*.mod\n", "/other.mod", ""),
        ("[\n", "/go.mod", ""),
    ],
)
def test_what_an_ignore_file_leaves_out(context: Path, ignored: str, path: str, why: str) -> None:
    write(context, {".dockerignore": ignored})
    assert excluded(context, context / "Dockerfile", path) == why


def test_an_ignore_file_of_the_dockerfile_comes_first(context: Path) -> None:
    write(context, {".dockerignore": "*.mod\n", "deploy/Dockerfile.dockerignore": "go.*\n"})
    why = excluded(context, context / "deploy" / "Dockerfile", "/go.mod")
    assert why == "go.mod is there, but Dockerfile.dockerignore leaves it out: go.*"


def test_the_spelling_of_paths(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spelling(f"{context}/scr/mian.go") == f"did you mean {context}/src/main.go?"
    assert spelling(f"{context}/nothing/like/it") is None
    monkeypatch.chdir(context / "src")
    assert spelling("Main.go") == "did you mean main.go?"
    assert spelling("../go.mdo") == "did you mean ../go.mod?"
