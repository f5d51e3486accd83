"""The exercises of the notebooks: each has an answer whose code holds on a finished run."""

import json
import re

import pytest

from auditdm_lib import paths
from auditdm_lib.run import params

SOLUTIONS = sorted((paths.NOTEBOOKS / "solutions").glob("*.ipynb"))
HEADING = "## Three exercises"
TAUGHT = [step.notebook for step in paths.CHAIN] + ["explore_failures"]


def cells(notebook, kind):
    return ["".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == kind]


def exercises(text):
    """The numbered exercises below the heading of that name."""
    below = text.partition(HEADING)[2].partition("\n\nNext:")[0]
    return re.findall(r"^\d\. (.+)$", below, re.MULTILINE)


def test_there_are_solutions_for_each_notebook():
    assert [notebook.stem for notebook in SOLUTIONS] == sorted(TAUGHT)


@pytest.mark.parametrize("notebook", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_has_three_questions_each_with_code_that_checks_the_answer(notebook):
    asked = [text for text in cells(notebook, "markdown") if re.match(r"## \d", text)]
    code = params.code_cells(notebook)
    checks = [cell["source"] for cell in code if "assert " in cell["source"]]
    assert len(asked) == 3 and len(checks) == 3 and set(params.declared(notebook)) == {"run"}
    stored = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in stored)


ASKING = [notebook for notebook in SOLUTIONS if HEADING in (paths.NOTEBOOKS / notebook.name).read_text(encoding="utf-8")]


def test_the_first_notebook_and_the_explorer_have_exercises():
    assert {"00_start_here", "explore_failures"} <= {notebook.stem for notebook in ASKING}


@pytest.mark.parametrize("notebook", ASKING, ids=lambda path: path.stem)
def test_the_exercises_of_a_notebook_are_those_that_are_solved(notebook):
    asked = exercises("\n\n".join(cells(paths.NOTEBOOKS / notebook.name, "markdown")))
    solved = [text.split("\n\n", 1)[1] for text in cells(notebook, "markdown") if re.match(r"## \d", text)]
    assert asked == solved


@pytest.mark.parametrize("notebook", SOLUTIONS, ids=lambda path: path.stem)
def test_the_answers_hold_on_a_finished_run(notebook, smoke, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", smoke / "runs")
    monkeypatch.setattr(paths, "FIGURES", smoke / "figures")
    monkeypatch.setattr(paths, "HOME", smoke)
    names = {"display": lambda *shown: None}
    for cell in params.code_cells(notebook):
        exec(cell["source"], names)
        if "parameters" in cell["tags"]:
            names["run"] = "smoke"
