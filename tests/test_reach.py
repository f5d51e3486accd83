"""A stage's key holds the sources that its notebook reaches: which stages a changed line repeats."""

import shutil

import pytest

from auditdm_lib import paths
from auditdm_lib.run import params, reach, stage

NOTEBOOKS = [step.notebook for step in paths.CHAIN]
DEFAULTS = params.effective({}, params.declared_anywhere())


def keys():
    """What each stage's key says of the library: its own sources, and those of the suppliers that its parameters name."""
    found = {}
    for step in paths.CHAIN:
        known = params.declared(paths.NOTEBOOKS / f"{step.notebook}.ipynb")
        values = params.effective({}, known)
        found[step.notebook[:2]] = (reach.sources(stage.cells(step.notebook)), reach.supplied(values))
    return found


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library whose sources may be changed, below a folder named checkpoints."""
    copy = tmp_path / "checkpoints" / "clone" / "auditdm_lib"
    shutil.copytree(paths.LIBRARY, copy, ignore=lambda folder, names: {"checkpoints", "__pycache__"} & set(names))
    monkeypatch.setattr(paths, "LIBRARY", copy)
    return copy


@pytest.mark.parametrize(("file", "directly"), [  # the stages below them follow where their results change
    ("results/report.html", ["06"]),
    ("results/claims.py", ["06"]),
    ("audit/consensus.py", ["00", "01", "02", "03", "04", "05", "06"]),
    ("answers.py", ["00", "01", "02", "03", "04", "05", "06"]),
    ("testbed/render.py", ["00", "01", "02", "03", "04", "05", "06"]),  # 06 asks the supplier what it is
    ("testbed/suites.py", ["04", "05"]),
    ("testbed/build.py", []),
    ("training/grpo.py", ["01"]),
    ("training/rectify.py", ["04"]),
    ("taxonomy/names.py", ["03", "04"]),
    ("evaluate/metrics.py", ["03", "05", "06"]),
    ("run/lab.py", []), ("run/chain.py", []), ("run/executor.py", [])])
def test_a_changed_line_repeats_the_stages_that_reach_it(library, file, directly):
    before = keys()
    with open(library / file, "a") as source:
        source.write("\n")
    after = keys()
    assert [number for number in before if before[number] != after[number]] == directly


def test_a_change_in_what_01_reaches_puts_every_later_stage_after_it():
    reads = {step.folder: set(step.reads) for step in paths.CHAIN}
    later, grown = {"01_auditor"}, True
    while grown:
        new = {folder for folder, below in reads.items() if below & later} - later
        grown, later = bool(new), later | new
    assert later == {step.folder for step in paths.CHAIN} - {"00_start"}


def test_pictures_of_one_s_own_do_not_hang_on_the_testbed():
    assert set(reach.supplied(DEFAULTS)) == {"pictures: testbed", "drawer: diffusion", "suite_source: testbed"}
    assert set(reach.supplied({"pictures": "photographs", "seed": 1})) == set()


def test_a_task_in_a_folder_counts_by_what_the_folder_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(stage.manifest, "load", lambda folder: {"outputs_digest": "as before"})
    step, known = paths.step("05_evaluate"), params.declared(paths.NOTEBOOKS / "05_evaluate.ipynb")

    def inputs():
        values = params.effective(DEFAULTS | dict(benchmarks=["vqav2_val_lite", str(tmp_path)]), known)
        key = stage.stage_key(step, values, known)
        return {name: value for name, value in key["inputs"].items() if name.startswith("benchmarks")}
    (tmp_path / "task.yaml").write_text("task: mine")
    before = inputs()
    assert before.keys() == {"benchmarks: vqav2_val_lite", f"benchmarks: {tmp_path}"}
    (tmp_path / "task.yaml").write_text("task: mine, changed")
    after = inputs()
    assert {name for name in after if after[name] != before[name]} == {f"benchmarks: {tmp_path}"}
    assert before["benchmarks: vqav2_val_lite"] is None  # one of lmms-eval is known by its name


def test_a_pipeline_counts_where_it_is_used(tmp_path):
    for name in ("image", "edit"):
        (tmp_path / name / "vae").mkdir(parents=True)
        (tmp_path / name / "vae" / "weights").write_text(name)
    step, known = paths.step("01_train_auditor"), params.declared(paths.NOTEBOOKS / "01_train_auditor.ipynb")
    values = params.effective(dict(image_model=str(tmp_path / "image"), edit_model=str(tmp_path / "edit")), known)

    def inputs(**changed):
        key = stage.stage_key(step, values | changed, known)
        return {name: value for name, value in key["inputs"].items() if "_model:" in name}
    assert inputs(drawer="renderer") == inputs(drawer="diffusion", edit_share=0.0, regeneration_share=0.0) == {}
    assert set(inputs(drawer="diffusion", edit_share=0.0)) == {f"image_model: {tmp_path / 'image'}"}
    before = inputs(drawer="diffusion")
    (tmp_path / "edit" / "vae" / "weights").write_text("others")
    after = inputs(drawer="diffusion")
    assert len(before) == 2 and {name for name in after if after[name] != before[name]} == {f"edit_model: {tmp_path / 'edit'}"}


def test_a_module_and_the_data_file_that_it_names_are_followed_and_others_are_not():
    found = reach.module_sources("auditdm_lib.testbed.gaps")
    assert {"__init__.py", "testbed/gaps.py", "testbed/gaps.yaml", "testbed/scenes.py", "wording.py"} <= set(found)
    assert "results/report.html" not in found and "testbed/build.py" not in found
