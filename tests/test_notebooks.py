"""The real notebooks and profiles keep the house rules."""

import ast
import json
import re

import papermill
import pytest

from auditdm_lib import paths
from auditdm_lib.run import executor, manifest, params, stage

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
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)} | {"run", "seed", "threads"}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "setup"}
    names |= set(params.SETUP) if "load_panel(setup" in source and "_as(vars(setup)" in source else set()
    assert params.declared(notebook).keys() - names == set()


def test_the_models_and_how_they_are_asked_are_declared_in_the_first_notebook_alone():
    assert set(params.own(CHAIN[0])) > set(params.SETUP)
    assert [name for notebook in CHAIN[1:] for name in params.own(notebook) if name in params.SETUP] == []
    assert all(set(params.declared(notebook)) > set(params.SETUP) for notebook in CHAIN[:6])


def test_a_notebook_takes_the_setup_of_its_run_unless_it_is_given_one(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    for folder, target in (("00_start", "other/one"), ("02_probes", "other/two")):
        made = paths.result("mine", folder)
        made.mkdir(parents=True)
        had = {"parameters": {"target": target, "answer_batch": 7, "seed": 5}, "inputs": {}}
        manifest.write(made, {"stage": folder, "key": had}, {"wall_seconds": 1})
    known = params.declared(CHAIN[3])
    defaults = params.effective({}, known)
    for notebook, run, target in ((1, "mine", "other/one"), (3, "mine", "other/two"), (3, "new", defaults["target"])):
        taken = stage.taken(paths.CHAIN[notebook], params.effective({"run": run}, params.own(CHAIN[notebook])))
        assert taken["target"] == target and taken["seed"] == 0 and taken["references"] == defaults["references"]
        assert taken["answer_batch"] == (7 if run == "mine" else defaults["answer_batch"])
    assert stage.taken(paths.CHAIN[3], defaults | {"run": "mine", "target": "my/own"})["target"] == "my/own"
    found = stage.taken(paths.CHAIN[3], params.effective({"run": "mine"}, params.own(CHAIN[3])))
    two = found | {"answer_batch": 7, "seed": 5}  # the first notebook has had another target since
    assert stage.unlike(paths.CHAIN[3], two) == [
        "00_start_here of this run had target = 'other/one': run it again, or set the same here."]
    assert len(stage.unlike(paths.CHAIN[3], two | {"seed": 6})) == 2 and stage.unlike(paths.CHAIN[0], two) == []
    assert stage.unlike(paths.CHAIN[3], two | {"run": "new"}) == []
    with pytest.raises(KeyError, match="seed"):
        stage.taken(paths.CHAIN[3], {"run": "mine", "threads": 1})


def test_a_run_does_not_warn_of_parameters_that_another_notebook_declares(tmp_path, monkeypatch, caplog):
    real, given = papermill.execute_notebook, []

    def prepared(*words, **how):
        given.append(words[2])
        return real(*words, **how, prepare_only=True)
    monkeypatch.setattr(papermill, "execute_notebook", prepared)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    with pytest.raises(executor.Failed, match="without a call of finish"):
        executor.execute(paths.CHAIN[1], {"run": "mine"})
    assert set(params.SETUP) < set(given[0]) and "unknown parameter" not in caplog.text


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
