"""Which of the library's source files a piece of code depends on: what it imports, and what those files import in turn."""

import ast
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from auditdm_lib import paths, protocols
from auditdm_lib.run import manifest

DATA = {".yaml", ".html", ".css", ".txt", ".csv", ".safetensors"}  # files that a module names, by their path from its folder


def sources(code: Iterable[str]) -> dict[str, str]:
    """sha256 of every library file that the given Python sources import, directly or not, by path relative to the library.

    A module that is chosen by a parameter's value (`protocols.SUPPLIERS`) is not among them: `supplied` has its files.
    """
    todo, found = [name for text in code for name in imported(text)], set()
    while todo:
        for file in files_of(todo.pop()):
            if file not in found:
                found.add(file)
                names, data = _read(file, file.stat().st_mtime_ns)
                todo += names
                found.update(data)
    return {file.relative_to(paths.LIBRARY).as_posix(): manifest.hash_file(file) for file in sorted(found)}


def module_sources(module: str) -> dict[str, str]:
    """As `sources`, for a module's dotted name and all that it imports."""
    return sources([f"import {module}"])


def supplied(values: dict[str, object]) -> dict[str, str]:
    """For each parameter whose value names a supplier, a hash of that supplier's sources, by "parameter: value"."""
    found = {}
    for name, modules in protocols.SUPPLIERS.items():
        if (module := modules.get(values.get(name))) is not None:
            found[f"{name}: {values[name]}"] = manifest.digest(module_sources(module))
    return found


def imported(text: str) -> list[str]:
    """The dotted names that a Python source imports from the library, imports within functions included."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "The library imports by full names, so that its sources can be followed."
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == paths.LIBRARY.name]


def files_of(name: str) -> list[Path]:
    """The files that importing a dotted name of the library runs: its packages' __init__.py and the module itself."""
    parts = name.split(".")[1:]
    places = [paths.LIBRARY.joinpath(*parts[:i]) for i in range(len(parts) + 1)]
    files = [place / "__init__.py" for place in places] + [places[-1].with_suffix(".py")]
    return [file for file in files if file.is_file()]


@lru_cache(1000)
def _read(file: Path, changed: int) -> tuple[list[str], list[Path]]:
    """What a module imports, and the data files beside it that it names; `changed` is its time stamp, for the cache only."""
    text = file.read_text(encoding="utf-8")
    named = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    data = [file.parent / name for name in sorted(named) if Path(name).suffix in DATA]
    return imported(text), [path for path in data if path.is_file()]
