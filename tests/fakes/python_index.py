"""A package index on loopback with two packages of its own: `jinja2`, as far as a greeting needs it, and `markupsafe`
with a wheel for each of two machines.

    with python_index(work) as environment:
        run(sys.executable, "-m", "pip", ..., environment=environment)      # this pip knows no other index
"""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_JINJA2 = """
import markupsafe

class Template:
    def __init__(self, text):
        self.text = text

    def render(self, **names):
        for name, value in names.items():
            self.text = self.text.replace("{{ %s }}" % name, markupsafe.escape(value))
        return self.text
"""
_MARKUPSAFE = """
MACHINE = "@MACHINE@"

def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")
"""
_WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
MACHINES = ("x86_64", "aarch64")


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def python_index(work: Path) -> Iterator[Mapping[str, str]]:
    """Served for this block; the variables that make it the only index of pip."""
    _wheel(work, "jinja2", "3.1.9", "py3-none-any", _JINJA2, "Requires-Dist: markupsafe>=2\n")
    for machine in MACHINES:
        text = _MARKUPSAFE.replace("@MACHINE@", machine)
        _wheel(work, "markupsafe", "3.0", f"cp311-cp311-manylinux_2_17_{machine}.manylinux2014_{machine}", text)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(work)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        unset = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")
        yield {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": url,
            **dict.fromkeys(unset, ""),
            "PIP_NO_CACHE_DIR": "1",
        }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _wheel(work: Path, name: str, version: str, tag: str, text: str, requires: str = "") -> None:
    directory = work / name
    directory.mkdir(parents=True, exist_ok=True)
    file = f"{name}-{version}-{tag}.whl"
    information = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / file, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", text)
        wheel.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
        )
        wheel.writestr(f"{information}/WHEEL", _WHEEL.format(tag=tag))
        wheel.writestr(f"{information}/RECORD", "")
    index = directory / "index.html"
    digest = hashlib.sha256((directory / file).read_bytes()).hexdigest()
    link = f'<a href="{file}#sha256={digest}">{file}</a>\n'
    index.write_text((index.read_text() if index.exists() else "") + link)
