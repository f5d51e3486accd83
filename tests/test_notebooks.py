"""The real notebooks and profiles keep the house rules."""

import ast
import json
import re

import pytest

from auditdm_lib import paths
from auditdm_lib.run import params

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
PROFILES = sorted(paths.PARAMS.glob("*.yaml"))
CHAIN = [paths.NOTEBOOKS / f"{step.notebook}.ipynb" for step in paths.CHAIN]


def test_the_chain_is_complete():
    assert [path.name for path in CHAIN if not path.exists()] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_stores_no_outputs_and_defines_nothing(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    source = "\n".join("".join(cell["source"]) for cell in code)
    assert not re.search(r"^\s*(def|class|async) |sys\.path|^\s*[!%]\s*pip", source, re.MULTILINE)
    assert cells[0]["cell_type"] == "markdown"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_declares_its_parameters_once_with_a_range_or_help(notebook):
    for parameter in params.declared(notebook).values():
        assert parameter.rule["help"], parameter.name


@pytest.mark.parametrize("notebook", CHAIN, ids=lambda path: path.stem)
def test_a_stage_declares_run_seed_and_threads_and_names_itself(notebook):
    assert params.declared(notebook).keys() >= {"run", "seed", "threads"}
    source = "\n".join(cell["source"] for cell in params.code_cells(notebook))
    assert f'start("{notebook.stem}", globals())' in source and "finish(stage)" in source


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_reads_every_parameter_that_it_declares(notebook):
    source = "\n".join(cell["source"] for cell in params.code_cells(notebook) if "parameters" not in cell["tags"])
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)} | {"run", "seed", "threads"}
    assert params.declared(notebook).keys() - names == set()


def test_a_name_has_one_type_default_and_comment_in_all_notebooks():
    seen, faults = {}, []
    for notebook in NOTEBOOKS:
        for name, parameter in params.declared(notebook).items():
            first = seen.setdefault(name, (notebook.stem, parameter))
            if parameter != first[1]:
                faults.append(f"{name}: {notebook.stem} has {parameter}, {first[0]} has {first[1]}")
    assert not faults, "\n".join(faults)


def test_the_defaults_are_valid():
    known = params.declared_anywhere()
    params.check(params.effective({}, known), known, "the notebooks' defaults")


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_a_profile_sets_only_known_names_in_range_and_writes_its_own_folder(profile):
    known, values = params.declared_anywhere(), params.read_profile(profile)
    local = {name: value for name, value in values.items()  # a hub id cannot be looked up in every test run
             if not (name in known and known[name].rule["kind"] in ("model", "models", "pipeline"))}
    params.check(local, known, profile.name)
    assert values.keys() <= known.keys() and values.get("run") == profile.stem
