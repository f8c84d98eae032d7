"""What a missing file of the context may be meant to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildengine.cli.missing import advice, advise
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
        ("/src/*.rs", ""),
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
    ],
)
def test_only_what_is_missing_from_the_context(context: Path, line: str, message: str, hint: str) -> None:
    place = Location(filename="Dockerfile", text=line.encode(), ranges=(SourceRange(start_line=1, end_line=1),))
    error = SolveError((ContextError(message, hint="as it was", locations=(place,)),))
    advise(error, {"context": context})
    assert error.first.hint == hint
    advise(error, {})
    assert error.first.hint == hint
