"""Modules of a build file's directory, imported over the gateway: what is imported leaves the client, nothing else.

Python's own machinery does the work: a path hook for one directory that is no directory of this process's file system,
a finder for it, and a loader that reads source.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType

DIRECTORY = "/build"  # what the directory is called in tracebacks and in `__file__`

Read = Callable[[tuple[str, ...]], tuple[str, bytes] | None]
"""The first of these files, paths from the build file's directory, that there is, and its contents."""


class Modules:
    """The directory as a place of modules; `sources` are those that were read, by file name."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.sources: dict[str, bytes] = {}

    def install(self, path: str) -> None:
        """The directory of the file `path`, after everything that is there: nothing of ours can be shadowed."""
        sys.path_hooks.append(self._finder)
        sys.path.append(filename(path.rpartition("/")[0]).rstrip("/"))

    def load(self, path: str, source: bytes) -> ModuleType:
        """The build file itself, executed. Raises whatever it raises."""
        self.sources[filename(path)] = source
        name = path.rpartition("/")[2].removesuffix(".py")
        name = name if name.isidentifier() else "buildfile"
        loader = _Loader(self, name, filename(path))
        spec = ModuleSpec(name, loader, origin=filename(path))
        spec.has_location = True
        from importlib.util import module_from_spec

        module = module_from_spec(spec)
        sys.modules.setdefault(spec.name, module)
        loader.exec_module(module)
        return module

    def find(self, path: str) -> str | None:
        """The module or the package `path`, without its suffix, as the name of a file that is read now."""
        found = self._read((f"{path}.py", f"{path}/__init__.py"))
        if found is None:
            return None
        self.sources[filename(found[0])] = found[1]
        return filename(found[0])

    def _finder(self, entry: str) -> _Finder:
        if entry != DIRECTORY and not entry.startswith(DIRECTORY + "/"):
            raise ImportError
        return _Finder(self, entry.removeprefix(DIRECTORY).lstrip("/"))


class _Finder:
    """Of one directory, the build file's own or that of a package in it."""

    def __init__(self, modules: Modules, directory: str) -> None:
        self._modules = modules
        self._directory = directory

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname in sys.stdlib_module_names:  # one that this system has not: many libraries try
            return None
        path = f"{self._directory}/{fullname.rpartition('.')[2]}".lstrip("/")
        found = self._modules.find(path)
        if found is None:
            return None
        spec = ModuleSpec(
            fullname, _Loader(self._modules, fullname, found), origin=found, is_package=found.endswith("/__init__.py")
        )
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations = [f"{DIRECTORY}/{path}"]
        return spec


class _Loader(SourceFileLoader):
    """Of one module, whose source is there already. (The classes of `importlib.abc` cost 10 ms to import.)"""

    def __init__(self, modules: Modules, name: str, file: str) -> None:
        super().__init__(name, file)
        self._modules = modules

    def get_data(self, path: str) -> bytes:
        source = self._modules.sources.get(path)
        if source is None:
            raise FileNotFoundError(path)
        return source

    def path_stats(self, path: str) -> Mapping[str, int]:
        """What bytecode would be compared with: there is none."""
        raise FileNotFoundError(path)


def filename(path: str) -> str:
    """What a file of the directory is called here."""
    return f"{DIRECTORY}/{path.lstrip('/')}"


def is_own(file: str) -> bool:
    return file.startswith(DIRECTORY + "/")
