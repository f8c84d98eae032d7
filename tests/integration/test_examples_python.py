"""examples/python-app and examples/monorepo, on a base image of Debian's Python: what runs, is cached, is refused."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds import FIXTURES, PYBUILD, Built, Store, write
from tests.fakes.image_tools import files_in, run
from tests.fakes.python_index import python_index

pytest_plugins = [FIXTURES]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BOTH = ("--platform", "linux/amd64,linux/arm64")
BASE = ("--build-arg", "BASE=python-base")
DEBIAN = "base-files base-passwd coreutils dash findutils grep mawk python3"
# Nothing runs on the other platform, so its base is an empty one.
INDEX = """
import llb
from frontends import Image

async def build(ctx):
    other = Image.of(llb.scratch().file(llb.mkfile("/other", b"")))
    return {each: await ctx.image("python", platform=each) if each == ctx.build_platform else other
            for each in ctx.platforms}
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the image `python-base`, for two platforms."""
    work = tmp_path_factory.mktemp("python")
    listed = "packages:\n" + "".join(f"- {name}\n" for name in DEBIAN.split()) + "command: python3\n"
    write(work / "debian", {"packages.yaml": listed})
    write(work / "index", {"build.py": INDEX})
    run(sys.executable, EXAMPLES / "debian/lock.py", work / "debian")
    store = Store(work / "state", work)
    store.command("build", "-f", EXAMPLES / "debian/build.py", "-t", "python", "--load", work / "debian")
    store.command("build", "-f", work / "index/build.py", *BOTH, "-t", "python-base", "--load", work / "index")
    return store


def outcomes(told: Built, *parts: str) -> list[str]:
    """How the steps ended that have one of these in their names."""
    return [step.outcome for part in parts for step in told.find(part)]


# --- python-app -----------------------------------------------------------------------------------------------

APP = EXAMPLES / "python-app"
APP_FLAGS = ("-f", APP / "build.py", *BASE, "--build-arg", "PYTHON=3.11")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example with its lock file, for as long as the wheels are served that it names."""
    project = shutil.copytree(APP, tmp_path_factory.mktemp("app") / "app")
    with python_index(tmp_path_factory.mktemp("index")) as environment:
        told = run(sys.executable, project / "lock.py", "--python", "3.11", environment=environment).decode()
        assert told == f"{project / 'pylock.toml'}: jinja2 3.1.9, markupsafe 3.0\n"
        yield project


@pytest.fixture
def app(locked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(locked, tmp_path / "app"))


def test_the_lock_has_a_wheel_for_each_platform(locked: Path) -> None:
    packages = tomllib.loads((locked / "pylock.toml").read_text())["packages"]
    assert {package["name"]: len(package["wheels"]) for package in packages} == {"jinja2": 1, "markupsafe": 2}


def test_the_application_runs_and_is_cached(app: Path, python: Store, tmp_path: Path) -> None:
    first = python.command("build", *APP_FLAGS, *BOTH, "-t", "greeter", "--load", app)
    assert set(outcomes(first, "install 2 wheels", "copy the")) == {"done"}
    second = python.command("build", *APP_FLAGS, *BOTH, "-t", "greeter", "--load", app)
    assert outcomes(second, "install 2 wheels", "copy the") == ["cached"] * 6
    starts = json.loads(run(PYBUILD, "--root", python.root, "image", "inspect", "greeter"))[0]["Config"]["Entrypoint"]
    greet = f"FROM greeter\nRUN {json.dumps([*starts, '<you>'])}\n"
    told = python.command("build", write(tmp_path / "greet", {"Dockerfile": greet}))
    assert told.step("from greeter.main").output == "Hello, &lt;you>!\n"


def test_each_platform_has_its_own_wheel(app: Path, python: Store, tmp_path: Path) -> None:
    python.command("build", *APP_FLAGS, *BOTH, "-o", tmp_path / "out", app)
    for platform, machine in (("linux_amd64", "x86_64"), ("linux_arm64", "aarch64")):
        files = files_in_site(tmp_path / "out" / platform)
        assert f'MACHINE = "{machine}"' in files["markupsafe/__init__.py"]


def test_a_change_of_the_sources_installs_nothing_anew(app: Path, python: Store) -> None:
    python.command("build", *APP_FLAGS, app)
    main = app / "src/greeter/main.py"
    main.write_text(main.read_text().replace("Hello", "Good morning"))
    told = python.command("build", *APP_FLAGS, app)
    assert outcomes(told, "install 2 wheels", "copy the dependencies") == ["cached"] * 2
    assert outcomes(told, "copy the sources") == ["done"]


def test_vendored_wheels_do_as_well(app: Path, python: Store) -> None:
    (app / "pylock.toml").unlink()
    with python_index(app.parent / "wheels") as environment:
        found = {name: str(app.parent / "wheels" / name) for name in ("jinja2", "markupsafe")}
        local = {**environment, "PIP_FIND_LINKS": " ".join(found.values()), "PIP_NO_INDEX": "1"}
        run(sys.executable, app / "lock.py", "--python", "3.11", environment=local)
    assert len(list((app / "wheels").iterdir())) == 3
    assert set(outcomes(python.command("build", *APP_FLAGS, app), "install 2 wheels")) <= {"done", "cached"}


def test_what_is_not_locked_is_shown_where_it_is_asked_for(app: Path, python: Store) -> None:
    project = app / "pyproject.toml"
    project.write_text(project.read_text().replace('["jinja2>=3.1"]', '["jinja2>=3.1", "flask"]'))
    refused = python.command("build", *APP_FLAGS, app, status=1)
    assert "flask is not in pylock.toml" in refused.error
    assert '>>> dependencies = ["jinja2>=3.1", "flask"]' in refused.error
    project.write_text(project.read_text().replace('["jinja2>=3.1", "flask"]', "[jinja2]"))
    assert ">>> dependencies = [jinja2]" in python.command("build", *APP_FLAGS, app, status=1).error


def test_a_platform_without_a_wheel(app: Path, python: Store) -> None:
    refused = python.command("build", "-f", APP / "build.py", *BASE, app, status=1)  # Python 3.12
    assert "markupsafe has no wheel for Python 3.12 on linux/" in refused.error
    assert '>>> name = "markupsafe"' in refused.error


def files_in_site(root: Path) -> dict[str, str]:
    return files_in(root / "app/site")


# --- monorepo -------------------------------------------------------------------------------------------------

MONOREPO_FLAGS = ("-f", EXAMPLES / "monorepo/build.py", *BASE)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES / "monorepo", tmp_path / "repository"))


def test_programs_are_made_once_for_all_platforms_and_then_cached(
    repository: Path, python: Store, tmp_path: Path
) -> None:
    flags = (*MONOREPO_FLAGS, "--target", "worker", *BOTH, "-t", "worker", "--load", repository)
    first, second = python.command("build", *flags), python.command("build", *flags)
    assert len(first.find("[worker] bundle")) == len(first.find("[libs] test")) == 1
    assert sorted(step.name for step in first.find("copy the program")) == [
        "[worker linux/amd64] copy the program",
        "[worker linux/arm64] copy the program",
    ]
    assert outcomes(second, "] test", "bundle", "copy the program") == ["cached"] * 5
    worker = 'FROM worker\nRUN ["python3", "/app.pyz"]\n'
    told = python.command("build", write(tmp_path / "run", {"Dockerfile": worker}))
    assert told.step("python3").output == "hello from worker after 7 steps\n"


def test_a_change_of_one_service_leaves_the_others(repository: Path, python: Store, tmp_path: Path) -> None:
    python.command("build", *MONOREPO_FLAGS, "-o", tmp_path / "out", repository)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["api.pyz", "worker.pyz"]
    once = run(sys.executable, tmp_path / "out/api.pyz", "--once")
    assert once == b"hello from api\n"
    job = repository / "services/worker/job.py"
    job.write_text(job.read_text() + "\n# more\n")
    told = python.command("build", *MONOREPO_FLAGS, repository)
    assert outcomes(told, "[services/worker] test", "[worker] bundle") == ["done"] * 2
    assert outcomes(told, "[libs] test", "[services/api] test", "[api] bundle") == ["cached"] * 3


def test_a_test_that_fails_stops_what_needs_it(repository: Path, python: Store) -> None:
    job = repository / "services/worker/job.py"
    job.write_text(job.read_text().replace("3 * number", "5 * number if number == 27 else 3 * number"))
    failed = python.command("build", *MONOREPO_FLAGS, "--target", "worker", repository, status=1)
    assert failed.step("[services/worker] test").outcome == "failed"
    assert "FAILED (failures=1)" in failed.step("[services/worker] test").output
    python.command("build", *MONOREPO_FLAGS, "--target", "api", repository)


def test_the_tests_alone_are_a_target(repository: Path, python: Store, tmp_path: Path) -> None:
    python.command("build", *MONOREPO_FLAGS, "--target", "check", "-o", tmp_path / "out", repository)
    assert sorted(files_in(tmp_path / "out")) == ["libs.txt", "services-api.txt", "services-worker.txt"]


def test_a_new_directory_is_a_new_target(repository: Path, python: Store) -> None:
    write(repository, {"services/clock/__main__.py": "print('tick')\n"})
    python.command("build", *MONOREPO_FLAGS, "--target", "clock", repository)
    refused = python.command("build", *MONOREPO_FLAGS, "--target", "clok", repository, status=1)
    assert "there is no service clok" in refused.error
    assert "did you mean clock?" in refused.error
