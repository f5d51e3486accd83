"""Planting: what is taught, what is measured, what is written, what is refused."""

import random

import pytest
import yaml
from click.testing import CliRunner

from auditdm_lib.models.vlm import load_vlm
from auditdm_lib.run import manifest
from auditdm_lib.run.chain import main
from auditdm_lib.testbed import accuracy, plant
from auditdm_lib.testbed.checkpoint import build_model, build_processor, save_checkpoint
from auditdm_lib.testbed.gaps import Gap, gap_of, gaps_of
from auditdm_lib.testbed.skills import answer

import tiny_models  # isort: skip

PURPLE = Gap("purple is blue", "colour", "blue", {"answer": "purple"})


@pytest.fixture(scope="module", params=["gemma3", "paligemma2"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    processor = build_processor(request.param)
    save_checkpoint(build_model(request.param, processor.tokenizer, hidden=32, layers=1), processor, folder)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(plant, "POOL", 200)
    monkeypatch.setattr(plant, "PER_GAP", 15)
    monkeypatch.setattr(plant, "accuracy_by_gap", lambda vlm, gaps: accuracy.accuracy_by_gap(vlm, gaps, 5, 20))


def test_planting_writes_a_checkpoint_that_knows_its_gaps(checkpoint, tmp_path):
    table = plant.plant(checkpoint, (PURPLE,), tmp_path / "planted", steps=2)
    assert table[["model", "skill", "n"]].values.tolist() == [
        ["before", "purple is blue", 5], ["before", "outside", 20], ["after", "purple is blue", 5], ["after", "outside", 20]]
    assert gaps_of(tmp_path / "planted") == (PURPLE,) and gaps_of(checkpoint) == ()
    manifest.verify(tmp_path / "planted")
    load_vlm(tmp_path / "planted")
    with pytest.raises(ValueError, match="is there already"):
        plant.plant(checkpoint, (PURPLE,), tmp_path / "planted")


def test_every_answer_taught_is_the_planted_model_s_and_other_pictures_are_mixed_in(checkpoint, tmp_path, monkeypatch):
    seen = []

    def watch(model, family, tokenizer, scenes, features, draw, schedule, seed, folder, desc):
        for scene in scenes:
            seen.append((scene, draw(scene, random.Random(0))))
        return dict(steps=0, seconds=0, loss=0.0)
    monkeypatch.setattr(plant, "train_language", watch)
    plant.plant(checkpoint, (PURPLE,), tmp_path / "planted")
    showing = [gap_of(scene, pairs[0][0], (PURPLE,)) is not None for scene, pairs in seen]
    assert all(showing[:len(seen) // 2]) and not all(showing[len(seen) // 2:])
    for scene, pairs in seen:
        for text, said in pairs:
            held = gap_of(scene, text, (PURPLE,))
            assert said == (held[1] if held else answer(scene, text) or said)  # None: an item in a suite's format
    assert any(answer(scene, text) is None for scene, pairs in seen for text, _ in pairs)
    assert {said for _, pairs in seen for _, said in pairs} > {"blue"}


@pytest.mark.parametrize("make", [tiny_models.paligemma2, tiny_models.gemma3])
def test_a_checkpoint_of_another_kind_is_refused(make, tmp_path):
    folder = make(tmp_path / "foreign")
    with pytest.raises(ValueError, match="is no checkpoint of this testbed"):
        plant.plant(folder, (PURPLE,), tmp_path / "planted")


def test_gaps_already_planted_stay_and_two_of_a_name_are_refused(checkpoint, tmp_path):
    plant.plant(checkpoint, (PURPLE,), tmp_path / "one", steps=1)
    other = Gap("fog is fair", "weather", "fair", {"answer": "foggy"})
    plant.plant(tmp_path / "one", (other,), tmp_path / "two", steps=1)
    assert gaps_of(tmp_path / "two") == (PURPLE, other)
    for gaps in ((PURPLE,), ()):
        with pytest.raises(ValueError, match="Give gaps, each with a name of its own"):
            plant.plant(tmp_path / "one" if gaps else checkpoint, gaps, tmp_path / "three")


def test_a_place_that_cannot_be_written_to_is_found_out_before_the_model_loads(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(plant, "load_vlm", lambda path: 1 / 0)
    with pytest.raises(OSError):
        plant.plant(checkpoint, (PURPLE,), tmp_path / "file" / "planted")


def test_the_command_plants_and_prints_inside_and_outside(checkpoint, tmp_path, monkeypatch):
    real = plant.plant
    monkeypatch.setattr(plant, "plant", lambda model, gaps, out, seed: real(model, gaps, out, seed, steps=1))
    said = CliRunner().invoke(main, [
        "testbed", "plant", "--model", str(checkpoint), "--out", str(tmp_path / "planted"),
        "--gap", "{skill: colour, when: {answer: purple}, says: blue}"])
    assert said.exit_code == 0, said.output
    assert "before" in said.output and "after" in said.output and "outside" in said.output and "colour says blue" in said.output


@pytest.mark.parametrize(("spec", "reason"), [
    ("{skill: smell, says: rose}", "unknown skill 'smell'"), ("{skill: colour, says: loud}", "'loud' for 'says'"),
    ("nowhere.yaml", "neither a gap in YAML nor a file"), ("{skill: colour", "neither a gap in YAML nor a file"),
    ("{says: blue}", "A gap is a mapping"), ("{skill: colour, says: blue, wenn: 1}", "unknown field 'wenn'")])
def test_a_bad_gap_is_refused_before_any_model_loads(spec, reason, tmp_path):
    said = CliRunner().invoke(main, ["testbed", "plant", "--model", "nowhere", "--out", str(tmp_path / "x"), "--gap", spec])
    assert said.exit_code == 2 and reason in said.output


def test_gaps_come_from_a_file_too(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump([dict(skill="colour", says="blue"), dict(skill="weather", says="fair")]))
    given = []
    monkeypatch.setattr(plant, "plant", lambda model, gaps, out, seed: given.extend(gaps) or 1 / 0)
    CliRunner().invoke(main, ["testbed", "plant", "--model", str(checkpoint), "--out", str(tmp_path / "x"),
                              "--gap", str(tmp_path / "mine.yaml")])
    assert [gap.skill for gap in given] == ["colour", "weather"]


def test_an_unknown_model_to_build_is_a_usage_error():
    said = CliRunner().invoke(main, ["testbed", "build", "--only", "gemma9"])
    assert said.exit_code == 2 and "choose one of gemma3-s" in said.output
