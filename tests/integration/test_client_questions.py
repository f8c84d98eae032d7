"""`pybuild build --call`: with a daemon and without one the frontend says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.builds import FIXTURES, Store, write
from tests.fakes.remote_command import Remote
from tests.integration.test_client_builds import here, there, twins

pytest_plugins = [FIXTURES]
__all__ = ["here", "there", "twins"]  # fixtures


def test_a_question_is_answered_as_without_a_daemon(there: Remote, here: Store, tmp_path: Path) -> None:
    """`--call`: by the frontend, with the base image looked at; and no build is left in the history."""
    context = write(tmp_path / "context", {"Dockerfile": "from base AS Made\n# WORD is said\nARG WORD=x\nCMD $WORD\n"})
    known = there.run("history", "ls", "--format=json").stdout
    for call, status, said in (
        ("check", 1, "Check complete, 4 warnings have been found!"),
        ("check,format=json,ignorestatus=true", 0, "{"),
        ("outline", 0, "TARGET: made"),
        ("targets", 0, "TARGET         DESCRIPTION"),
        ("nonsense", 1, ""),
    ):
        ours, theirs = (run("build", f"--call={call}", context, status=status) for run in (here.command, there.run))
        assert _said(ours.stdout) == _said(theirs.stdout)
        assert ours.stdout.startswith(said)
        assert ours.error == theirs.error
        assert bool(ours.error) == (call == "nonsense")
    assert there.run("history", "ls", "--format=json").stdout == known


def _said(text: str) -> Any:
    """Without the definition that a Dockerfile was read with: it names the session."""
    if not text.startswith("{"):
        return text
    document = json.loads(text)
    for source in document["sources"]:
        del source["definition"]
    return document
