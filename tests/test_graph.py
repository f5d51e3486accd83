"""The import graph: folders are floors, each uses only those below it, and one module alone names what supplies data."""

import ast
from pathlib import Path

import pytest

from auditdm_lib import paths
from auditdm_lib.run import reach

FLOORS = [  # from the ground up; folders on one floor do not use each other
    ["", "protocols"], ["run"], ["models"], ["testbed", "audit"], ["easyvqa", "training", "taxonomy", "evaluate"], ["results"]]
LARGEST = 400  # lines
NAMES_THE_SUPPLIERS = "protocols.py"  # chooses a supplier by the value of a parameter
SUPPLIERS = {"testbed": {"testbed", "easyvqa"}, "easyvqa": {"easyvqa"}}  # folder -> folders that may import it


def library(folder=paths.LIBRARY):
    """Source text by path relative to the library."""
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))
            if "checkpoints" not in path.relative_to(folder).parts}


def room(file):
    """The folder that a file lies in, "" for the ground floor."""
    return file.split("/")[0] if "/" in file else ""


def arrows(sources):
    """(file, imported file) for every import of one library file by another, imports within functions included."""
    found = set()
    for file, text in sources.items():
        for name in reach.imported(text):
            parts = name.split(".")[1:]
            for target in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
                if target in sources and target != file and not target.endswith("__init__.py"):
                    found.add((file, target))
    return found


def circle(pairs):
    """Nodes of a circle of arrows, or None."""
    after = {}
    for a, b in pairs:
        after.setdefault(a, set()).add(b)
    while after:
        ends = {b for bs in after.values() for b in bs} - after.keys()
        free = [a for a, bs in after.items() if not bs - ends]
        if not free:
            return sorted(after)
        for a in free:
            del after[a]
    return None


def faults(sources):
    """What is wrong with the graph, in words."""
    pairs, floor = arrows(sources), {name: i for i, names in enumerate(FLOORS) for name in names}
    found = [f"a circle of files: {nodes}" for nodes in [circle(pairs)] if nodes]
    rooms = {(room(a), room(b)) for a, b in pairs if room(a) != room(b)}
    found += [f"a circle of folders: {nodes}" for nodes in [circle(rooms)] if nodes]
    for a, b in sorted(pairs):
        up = room(a) != room(b) and floor[room(b)] >= floor[room(a)]
        if up and room(b) not in SUPPLIERS:
            found.append(f"{a} imports {b}, which is not on a floor below")
        if room(a) not in SUPPLIERS.get(room(b), {room(a)}):
            found.append(f"{a} imports {b} of {room(b)}")
    for file, text in sources.items():
        said = " ".join(node.value for node in ast.walk(ast.parse(text))
                        if isinstance(node, ast.Constant) and isinstance(node.value, str))
        found += [f"{file} names a module of {supplier}" for supplier, friends in SUPPLIERS.items()
                  if f"auditdm_lib.{supplier}" in said and file != NAMES_THE_SUPPLIERS and room(file) not in friends]
        if text.count("\n") > LARGEST:
            found.append(f"{file} has {text.count(chr(10))} lines")
    return found


def test_the_library_is_a_house_of_floors():
    sources = library()
    assert len(sources) > 50 and len(arrows(sources)) > 150
    assert {room(file) for file in sources} == {name for names in FLOORS for name in names} - {"protocols"}
    assert faults(sources) == []


@pytest.mark.parametrize(("file", "line", "words"), [
    ("audit/consensus.py", "from auditdm_lib.audit import panel", "a circle of files"),
    ("audit/consensus.py", "from auditdm_lib.results import claims", "a circle of folders"),
    ("models/vlm.py", "from auditdm_lib.training.examples import lora", "which is not on a floor below"),
    ("audit/pictures.py", "from auditdm_lib.testbed.world import World", "of testbed"),
    ("audit/pictures.py", "from auditdm_lib.easyvqa.world import EasyVQA", "of easyvqa"),
    ("testbed/world.py", "from auditdm_lib.easyvqa.world import EasyVQA", "of easyvqa"),
    ("evaluate/scores.py", "from auditdm_lib.taxonomy import names", "which is not on a floor below"),
    ("audit/pictures.py", "importlib.import_module('auditdm_lib.testbed.world')", "names a module of testbed"),
    ("testbed/world.py", "importlib.import_module('auditdm_lib.easyvqa.world')", "names a module of easyvqa"),
    ("stats.py", "x = 1\n" * 400, "lines")])
def test_a_wrong_import_is_noticed(file, line, words):
    sources = library()
    sources[file] += f"\n\ndef later():\n    {line}\n" if "=" not in line else line
    assert any(words in fault for fault in faults(sources))


def test_every_data_file_is_read_by_a_module_beside_it():
    data = {path for path in paths.LIBRARY.rglob("*") if path.suffix in reach.DATA
            and "checkpoints" not in path.relative_to(paths.LIBRARY).parts}
    everything = [f"import auditdm_lib.{file.removesuffix('.py').replace('/', '.')}" for file in library()]
    read = {Path(name) for name in reach.sources(everything) if Path(name).suffix in reach.DATA}
    weights = {path for path in read if "checkpoints" in path.parts}
    assert weights == {Path("testbed/checkpoints/reader/reader.safetensors"), Path("taxonomy/checkpoints/skills.safetensors")}
    read -= weights
    assert len(data) >= 2 and {path.relative_to(paths.LIBRARY) for path in data} == read
