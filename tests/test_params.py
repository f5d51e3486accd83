"""Parameters: the cell's grammar, and every fault in one message."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from auditdm_lib import paths
from auditdm_lib.run import hub, inventory, params, pipeline_files
from auditdm_lib.run.params import Parameter

KNOWN = {p.name: p for p in (
    Parameter("run", "str", "testbed", "name of the run"),
    Parameter("rate", "float", 3.0e-4, "[0, 1] step size (paper: lr = 3e-6) # not stated"),
    Parameter("steps", "int", 40, "[1, 100] updates"),
    Parameter("match", "str", "exact", "{exact|llm} the judge D"),
    Parameter("merge", "bool", True, "merge the adapter"),
    Parameter("target", "str", "some/folder", "<model> the audited model"),
    Parameter("references", "list[str]", ["some/folder"], "<models> the ensemble"),
    Parameter("pictures", "str", "testbed", "<pictures> where pictures come from"),
)}


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook whose parameters cell has the given source; returns its path."""
    def write(source, tags=("parameters",)):
        cell = {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}}
        path = tmp_path / "00_toy.ipynb"
        path.write_text(json.dumps({"cells": [cell]}))
        return path
    return write


def faults(**values):
    """The message for these values, "" where there is none."""
    try:
        params.check(values, KNOWN, "x.yaml")
    except params.BadParameters as error:
        return str(error)
    return ""


def test_a_declaration_gives_name_type_default_and_rule(notebook):
    found = params.declared(notebook('rate: float = 3.0e-4  # [0, 1] step, lr = 3e-6 # "x"\n'
                                     'name: str = "a # b"  # {a # b|c} text\n'
                                     'many: list[str] = [\n    "x",\n    "y",\n]  # <models> several\n'))
    assert found["rate"].rule == {"low": "0", "high": "1", "choices": None, "kind": None,
                                  "help": 'step, lr = 3e-6 # "x"'}
    assert (found["name"].default, found["name"].rule["choices"]) == ("a # b", "a # b|c")
    assert (found["many"].default, found["many"].rule["kind"]) == (["x", "y"], "models")


@pytest.mark.parametrize("source", [
    "steps = 4  # no annotation", "steps: int = 4", "steps: dict = {}  # no such type",
    "steps: int = 2 * 2  # not a literal", "import os"])
def test_what_breaks_the_grammar_of_the_cell_is_refused(notebook, source):
    with pytest.raises(ValueError):
        params.declared(notebook(source))


def test_a_notebook_without_its_tag_is_refused(notebook):
    with pytest.raises(ValueError, match="exactly one"):
        params.declared(notebook("steps: int = 4  # updates", tags=()))


def test_four_faults_stand_in_one_message(tmp_path):
    message = faults(step=5, rate="1e-5", steps=101, target=str(tmp_path / "none"))
    assert "x.yaml: 4 faults" in message
    assert "step: unknown parameter; the nearest valid name is `steps`" in message
    assert "rate: '1e-5' is not a number; YAML reads it as a string: write 1.0e-5." in message
    assert "steps: 101 is out of range [1, 100]" in message
    assert f"target: there is no model folder {tmp_path / 'none'}" in message


@pytest.mark.parametrize(("name", "value", "words"), [
    ("match", False, "put it in quotes"), ("match", "fuzzy", "not one of exact, llm"),
    ("merge", "no", "not true or false"), ("steps", True, "whole number"), ("steps", 2.5, "whole number"),
    ("rate", float("nan"), "not a number"), ("rate", "3E7", "write 3.0e+7"),
    ("references", "a", "square brackets"), ("references", [], "empty"), ("references", [1], "list of text"),
    ("target", "", "empty"), ("run", "../up", "cannot name"), ("run", "reference", "reserved"),
    ("run", "a.v2", "cannot name"), ("run", "Con", "reserved"), ("run", "x" * 300, "too long"),
    ("pictures", "no_such_folder", "no picture folder")])
def test_each_fault_says_what_to_write(name, value, words):
    assert words in faults(**{name: value})


@given(steps=st.integers(1, 100), rate=st.floats(0, 1) | st.integers(0, 1), merge=st.booleans(),
       match=st.sampled_from(["exact", "llm"]))
def test_values_inside_their_rules_pass(steps, rate, merge, match):
    assert faults(steps=steps, rate=rate, merge=merge, match=match) == ""


@given(steps=st.integers().filter(lambda n: not 1 <= n <= 100))
def test_every_value_outside_the_range_is_named(steps):
    assert f"steps: {steps} is out of range" in faults(steps=steps)


def test_a_model_is_a_folder_with_a_configuration(tmp_path):
    (tmp_path / "target").mkdir()
    assert "holds no config.json" in params.model_fault(str(tmp_path / "target"))
    (tmp_path / "target/config.json").write_text("{}")
    assert "lacks model.safetensors" in params.model_fault(str(tmp_path / "target"))
    (tmp_path / "target/model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")  # no tensors
    assert params.model_fault(str(tmp_path / "target")) is None
    assert "did you mean" in params.model_fault(str(tmp_path / "targte"))


def test_a_hub_id_that_nobody_has_is_a_fault_at_once(monkeypatch):
    hub.revision.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "not in the Hugging Face cache" in params.model_fault("nobody/no-such-model")


def test_a_relative_path_is_from_the_repository_wherever_the_user_stands_and_the_message_says_where_it_was_sought(
        tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "revision", lambda name: pytest.fail(f"the hub was asked for {name}"))
    files = {"models/mine/config.json": b"{}", "models/mine/model.safetensors": b"\x02" + bytes(7) + b"{}",
             **{f"photographs/{i}.png": b"x" for i in range(3)}}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    for fault, name in ((params.model_fault, "models/mine"), (pipeline_files.fault, "models/mine"),
                        (params.picture_fault, "photographs")):
        said = fault(name)
        assert f"(looked at {paths.ROOT / name}: a relative path is from the repository" in said
        assert f"not from the folder you are in; give {tmp_path / name})" in said
    declared = params.declared_anywhere()
    mine = dict(target="models/mine", pictures="photographs", regeneration_share=0.0, edit_share=0.0)
    planned = inventory.missing(params.effective(mine, declared), declared, [])
    assert [text for text in planned if text.startswith(("target: ", "pictures: "))] == [
        f"target: {params.model_fault('models/mine')}", f"pictures: {params.picture_fault('photographs')}"]
    assert params.model_fault(str(tmp_path / "models/mine")) is params.picture_fault(str(tmp_path / "photographs")) is None
    elsewhere = params.model_fault("params/none")
    assert f"(looked at {paths.ROOT / 'params/none'}: a relative path is from the repository)" in elsewhere


def test_pictures_are_the_testbed_a_folder_or_a_data_set(tmp_path):
    assert params.picture_fault("testbed") is params.picture_fault("datasets:beans") is None
    assert "holds no image files" in params.picture_fault(str(tmp_path))
    for name, words in (("a.JPG", "holds 1 image file; at least 3"), ("b.png", "holds 2 image files; at least 3")):
        (tmp_path / name).write_bytes(b"x")
        assert words in params.picture_fault(str(tmp_path))
    (tmp_path / "c.webp").write_bytes(b"x")
    assert params.picture_fault(str(tmp_path)) is None


@pytest.mark.parametrize(("text", "words"), [("steps: [1", "not a valid profile"), ("- 1\n- 2", "name: value"),
                                             ("steps: 1\nsteps: 2", "sets steps twice"),
                                             ("a: &x [1, 1]\nb: [*x, *x]", "line 1 has an anchor"),
                                             ("steps: " + "[" * 3000, "nests values"),
                                             ("steps: " + "9" * 5000, "not a valid profile"),
                                             ("steps: !!python/name:os.system", "a tag"),
                                             ("steps: 1" + " " * 200_000, "larger than")])
def test_a_broken_profile_is_refused(tmp_path, text, words):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(params.BadParameters, match=words):
        params.read_profile(tmp_path / "x.yaml")


def test_yaml_still_reads_1e_5_as_text_and_no_as_false():
    # The two readings that the messages explain; a YAML library without them makes the hints wrong.
    assert yaml.safe_load("[1e-5, 1.0e-5, no]") == ["1e-5", 1.0e-5, False]


def test_an_empty_profile_means_the_defaults(tmp_path):
    (tmp_path / "x.yaml").write_text("# nothing\n")
    assert params.effective(params.read_profile(tmp_path / "x.yaml"), KNOWN)["steps"] == 40


def test_a_missing_profile_names_the_nearest():
    with pytest.raises(params.BadParameters, match="Did you mean params/testbed.yaml"):
        params.read_profile(params.paths.PARAMS / "testbd.yaml")


def test_the_command_line_keeps_text_as_it_is_typed():
    assert params.from_text("match=no", KNOWN) == ("match", "no")
    assert params.from_text("steps=7", KNOWN) == ("steps", 7)
    with pytest.raises(params.BadParameters, match="name=value"):
        params.from_text("steps", KNOWN)


def test_a_profile_in_another_encoding_is_refused_and_a_byte_order_mark_is_not(tmp_path):
    (tmp_path / "x.yaml").write_bytes("run: toy".encode("utf-16"))
    with pytest.raises(params.BadParameters, match="save it as UTF-8"):
        params.read_profile(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes("run: toy".encode("utf-8-sig"))
    assert params.read_profile(tmp_path / "x.yaml") == {"run": "toy"}


def test_a_value_of_the_command_line_is_as_flat_as_a_profile():
    with pytest.raises(params.BadParameters, match="--set steps: line 1 nests values"):
        params.from_text("steps=" + "[" * 3000, {})


MEMBERS = {p.name: p for p in (
    Parameter("target", "str", "a", "the audited model"), Parameter("references", "list[str]", ["b"], "the ensemble"),
    Parameter("answer_prompts", "list[str]", [], "how they are asked"),
    Parameter("answer_tokens", "list[int]", [], "[1, 4096] how long they may answer"),
    Parameter("probes_per_auditor", "int", 5000, "[1, 100000] probes"), Parameter("best_of_n", "int", 8, "[0, 1024] questions"),
    Parameter("imitation_rounds", "int", 2, "rounds"), Parameter("imitation_pictures", "int", 7000, "pictures"),
    Parameter("regeneration_share", "float", 0.1, "[0, 1] share"), Parameter("edit_share", "float", 0.2, "[0, 1] share"),
    Parameter("drawer", "str", "renderer", "what draws"), Parameter("pictures", "str", "testbed", "pictures"),
    Parameter("suite_source", "str", "testbed", "suites of"), Parameter("suites", "list[str]", ["gap-items"], "suites"),
    Parameter("must_test", "str", "none", "claims"))}


@pytest.mark.parametrize(("values", "words"), [
    (dict(references=["b", "a"]), "a is the same model as the target"),
    (dict(references=["b", "b"]), "b is the same model as b, another reference"),
    (dict(answer_prompts=["{question}"] * 2), "answer_prompts: 2 values for 3 models; give none, one for all, or one for each"),
    (dict(answer_tokens=[8, 8, 8, 8]), "answer_tokens: 4 values for 3 models"),
    (dict(answer_tokens=[0]), "out of range"), (dict(answer_prompts=["What is it?"]), "'What is it?' has no {question} in it"),
    (dict(probes_per_auditor=4), "probes_per_auditor: 4 is less than best_of_n = 8"),
    (dict(imitation_pictures=2, imitation_rounds=3), "imitation_pictures: 2 is less than imitation_rounds = 3"),
    (dict(regeneration_share=0.6, edit_share=0.5), "regeneration_share and edit_share: they add up to 1.1, more than 1"),
    (dict(pictures="datasets:cats", edit_share=0.1), "edit_share: the drawer 'renderer' cannot redraw or edit the pictures"),
    (dict(pictures="datasets:cats", edit_share=0.1), "'datasets:cats': set drawer to diffusion, or set regeneration_share"),
    (dict(suites=["easy-vqa"], suite_source="testbed"), "suites: testbed has no suite easy-vqa; it has vqav2-mini,"),
    (dict(pictures="datasets:cats", must_test="smoke"), "set must_test to none")])
def test_parameters_that_do_not_fit_together_are_refused_before_anything_is_run(values, words):
    fine = dict(target="a", references=["b", "c"], answer_prompts=[], answer_tokens=[], probes_per_auditor=8, best_of_n=8,
                regeneration_share=0.0, edit_share=0.0, drawer="renderer", pictures="testbed", suite_source="testbed",
                suites=["gap-items"], must_test="none")
    params.check(fine, MEMBERS, "x.yaml")
    params.check(fine | dict(regeneration_share=0.4, edit_share=0.6, must_test="smoke"), MEMBERS, "x.yaml")
    params.check(fine | dict(answer_prompts=["{question}!"], answer_tokens=[8, 9, 10]), MEMBERS, "x.yaml")
    with pytest.raises(params.BadParameters) as caught:
        params.check(fine | values, MEMBERS, "x.yaml")
    assert words in str(caught.value) and "1 fault, nothing was run" in str(caught.value)


@pytest.fixture
def pipelines(monkeypatch):
    """A stand-in for the check of a pipeline's files: those whose name has "good" in it are sound."""
    def fault(name, kind):
        if name == "drawn":
            return f"{name} is of no use as {kind}."
        return None if "good" in name else f"{name} holds no model_index.json."
    monkeypatch.setattr(params.pipeline_files, "fault", fault)


DRAWN = MEMBERS | {p.name: p for p in (
    Parameter("drawer", "str", "renderer", "{renderer|diffusion} what draws"),
    Parameter("image_model", "str", "ours/image", "<pipeline> draws captions"),
    Parameter("edit_model", "str", "ours/edit", "<pipeline> follows commands"))}


@pytest.mark.parametrize(("values", "words"), [
    (dict(image_model="bad"), "image_model: bad holds no model_index.json."),
    (dict(image_model=""), "image_model: it is empty, but regeneration_share is 0.1: name a pipeline of diffusers, or set"),
    (dict(edit_model=""), "edit_model: it is empty, but edit_share is 0.2"),
    (dict(edit_model="ours/edit"), "edit_model: ours/edit draws the pictures of 'testbed' only: name a pipeline for"),
    (dict(image_model="drawn"), "image_model: drawn is of no use as regeneration."),
    (dict(edit_model="drawn"), "edit_model: drawn is of no use as edit."),
    (dict(pictures="testbed", edit_model="ours/edit"), "edit_model: ours/edit holds no model_index.json.")])
def test_a_pipeline_that_is_used_is_checked_by_its_files_before_anything_is_run(pipelines, values, words):
    fine = dict(regeneration_share=0.1, edit_share=0.2, drawer="diffusion", image_model="good", edit_model="org/good",
                pictures="datasets:cats")
    params.check(fine, DRAWN, "x.yaml")
    with pytest.raises(params.BadParameters) as caught:
        params.check(fine | values, DRAWN, "x.yaml")
    assert words in str(caught.value) and "1 fault, nothing was run" in str(caught.value)


@pytest.mark.parametrize("values", [
    dict(drawer="renderer", pictures="testbed"), dict(regeneration_share=0.0, edit_share=0.0),
    dict(regeneration_share=0.0, edit_model="good"), dict(edit_share=0.0, image_model="good")])
def test_a_pipeline_that_is_not_used_need_not_be_there(pipelines, values):
    params.check(dict(regeneration_share=0.1, edit_share=0.2, drawer="diffusion", image_model="", edit_model="bad",
                      pictures="datasets:cats") | values, DRAWN, "x.yaml")


def test_one_folder_under_two_names_is_one_model(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.replace("b", "a").encode())
    (tmp_path / "link").symlink_to(tmp_path / "c")
    assert params.together(dict(target=str(tmp_path / "a"), references=[str(tmp_path / "c")])) == []
    for again in ("b", "link", "c/../c"):
        assert "is the same model" in params.together(dict(references=[str(tmp_path / name) for name in ("a", "c", again)]))[0]


def test_a_half_written_list_on_the_command_line_is_one_sentence():
    with pytest.raises(params.BadParameters) as caught:
        params.from_text("steps=[1", {})
    assert str(caught.value).startswith("--set steps: '[1' is not a valid value (") and "\n" not in str(caught.value)
