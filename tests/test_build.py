"""The testbed's models: built in parts, grown, stopped anywhere, loaded back by the library."""

import json
import random

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from auditdm_lib.models import vlm as models
from auditdm_lib.run import manifest
from auditdm_lib.run.chain import main
from auditdm_lib.testbed import build as builder
from auditdm_lib.testbed import plant
from auditdm_lib.testbed.accuracy import accuracy_by_gap, accuracy_by_skill, auditor_quality
from auditdm_lib.testbed.build import Recipe, build, draw_asking, draw_pairs, grow
from auditdm_lib.testbed.cards import CARD
from auditdm_lib.testbed.checkpoint import PROMPTS, build_model, build_tokenizer
from auditdm_lib.testbed.gaps import gaps_of, load_gaps
from auditdm_lib.testbed.language import Refusal, apply_edit, parse_caption
from auditdm_lib.testbed.packing import answer_logits, pack
from auditdm_lib.testbed.scenes import sample_scenes
from auditdm_lib.testbed.skills import CANNOT_TELL, answer, parse_question


@pytest.fixture
def small(monkeypatch):
    """The real build shrunk to seconds: few scenes and steps, narrow models."""
    for name, value in dict(SCENES=24, TOWER_STEPS=2, AUDITOR_STEPS=2, AUDITOR_PARENT="gemma3-a").items():
        monkeypatch.setattr(builder, name, value)
    clean = {"gemma3-a": Recipe("gemma3", 32, 1, seed=1, steps=2),
             "paligemma2-a": Recipe("paligemma2", 32, 1, seed=2, steps=3, polish=2),
             "paligemma2-b": Recipe("paligemma2", 32, 2, seed=3, hard=2, grown="paligemma2-a", new=(1,))}
    monkeypatch.setattr(builder, "CLEAN", clean)
    monkeypatch.setattr(builder, "PLANTED", {"needle": "gemma3-a"})
    monkeypatch.setattr(builder, "MODELS", (*clean, "auditor", "needle"))
    monkeypatch.setattr(builder, "plant", lambda model, gaps, out: plant.plant(model, gaps, out, steps=1))
    monkeypatch.setattr(plant, "accuracy_by_gap", lambda vlm, gaps: accuracy_by_gap(vlm, gaps, 5, 20))
    monkeypatch.setattr(builder, "accuracy_by_skill", lambda path: accuracy_by_skill(path, n=40))
    monkeypatch.setattr(builder, "auditor_quality", lambda path: auditor_quality(path, n=6))
    corpus = builder.training_corpus()
    return lambda: corpus


def same(one, two):
    one, two = (load_file(path / "model.safetensors") for path in (one, two))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_build_stopped_before_its_last_part_ends_in_the_same_weights_and_is_not_repeated(small, tmp_path, monkeypatch):
    whole = build("paligemma2-a", small, tmp_path / "one")
    real = builder.train_language

    def stopped(*args, **kwargs):
        return 1 / 0 if kwargs["desc"].endswith("part 2") else real(*args, **kwargs)
    with monkeypatch.context() as patch:
        patch.setattr(builder, "train_language", stopped)
        with pytest.raises(ZeroDivisionError):
            build("paligemma2-a", small, tmp_path / "two")
    assert not (tmp_path / "two/paligemma2-a").exists()
    assert same(whole, build("paligemma2-a", small, tmp_path / "two"))
    card = json.loads((whole / CARD).read_text())
    assert card["steps"] == 3 and isinstance(card["seconds"], int)
    assert [path.suffix for path in tmp_path.glob("*/.paligemma2-a*")] == [".lock"] * 2  # nothing else is left
    before = (whole / "model.safetensors").stat().st_mtime_ns
    assert build("paligemma2-a", lambda: 1 / 0, tmp_path / "one") == whole  # nothing is rendered for it either
    assert (whole / "model.safetensors").stat().st_mtime_ns == before
    said = models.replies(models.load_vlm(whole), [Image.fromarray(small().pixels[0].numpy())], ["what is the weather like?"])
    assert isinstance(said["reply"][0], str)


def test_a_model_comes_with_its_manifest_and_a_card_that_says_how_right_it_is(small, tmp_path):
    folder = build("gemma3-a", small, tmp_path)
    manifest.verify(folder)
    text = (folder / "README.md").read_text()
    assert "| skill | n | accuracy | ci_low | ci_high |" in text and "| cannot tell: recall |" in text and "| seconds |" in text
    assert {p.dtype for p in load_file(folder / "model.safetensors").values()} == {torch.float16}


def test_a_grown_model_is_built_after_the_one_it_comes_from(small, tmp_path):
    folder = build("paligemma2-b", small, tmp_path)
    assert (tmp_path / "paligemma2-a" / CARD).exists()
    assert json.loads((folder / CARD).read_text())["grown"] == "paligemma2-a"


def test_the_auditor_is_taught_from_a_clean_model(small, tmp_path):
    folder = build("auditor", small, tmp_path)
    card = json.loads((folder / CARD).read_text())
    assert card["trained_from"] == "gemma3-a" and card["prompts"] == list(PROMPTS)
    assert not same(folder, tmp_path / "gemma3-a")


def test_a_planted_model_is_built_after_its_clean_one_and_the_command_builds_both(small, tmp_path, monkeypatch):
    real = builder.build
    monkeypatch.setattr(builder, "training_corpus", small)
    monkeypatch.setattr(builder, "build", lambda name, corpus, folder=tmp_path: real(name, corpus, folder))
    said = CliRunner().invoke(main, ["testbed", "build", "--only", "needle"])
    assert said.exit_code == 0 and f"needle: {tmp_path / 'needle'}" in said.output
    assert gaps_of(tmp_path / "needle") == load_gaps()["needle"] and (tmp_path / "gemma3-a" / CARD).exists()


def test_a_state_of_another_recipe_is_refused(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(builder, "write_model", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build("gemma3-a", small, tmp_path)
    monkeypatch.setitem(builder.CLEAN, "gemma3-a", Recipe("gemma3", 32, 1, seed=1, steps=4))
    with pytest.raises(ValueError, match="another recipe or from other weights; delete"):
        build("gemma3-a", small, tmp_path)


def test_an_unknown_model_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'gemma9'; choose one of gemma3-s, gemma3-m"):
        build("gemma9", lambda: None, tmp_path)


@pytest.mark.parametrize("family", ["gemma3", "paligemma2"])
@torch.no_grad()
def test_a_grown_model_computes_what_the_small_one_does(family):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    little, large = (build_model(family, tokenizer, hidden=32, layers=layers).eval() for layers in (4, 6))
    grow(little, large, (2, 5))
    rows, features = [[("what is the weather like?", "rainy")]], torch.randn(1, 9, 128)
    inputs = pack(family, tokenizer, rows)
    assert torch.equal(answer_logits(little, inputs, features)[0], answer_logits(large, inputs, features)[0])
    with pytest.raises(AssertionError, match="4 layers do not fill the 5 places"):
        grow(little, large, (2,))


def test_pairs_are_right_answers_with_more_hard_ones_where_asked_and_suite_items():
    rng, scenes = random.Random(0), sample_scenes(60, "train", 0)
    hard_asked, formats, unanswerable = [], [], []
    for hard in (0, 1, 3):
        drawn = [(scene, pair) for scene in scenes for pair in draw_pairs(scene, rng, hard)]
        ours = [(scene, pair) for scene, pair in drawn if parse_question(pair[0])]
        assert len(ours) >= builder.QUESTIONS * len(scenes) and all(a == answer(scene, q) for scene, (q, a) in ours)
        of_hard = [a for _, (q, a) in ours if parse_question(q).skill in builder.HARD]
        hard_asked.append(len(of_hard))
        unanswerable.append(of_hard.count(CANNOT_TELL) / len(of_hard))
        formats += [q for scene, (q, _) in drawn if not parse_question(q)]
    assert hard_asked[0] < hard_asked[1] < hard_asked[2] and unanswerable[0] < unanswerable[2]
    assert len(formats) > 100
    for mark in (" A. ", "is the answer", "detect the", "Describe this picture."):
        assert any(mark in text for text in formats), mark


def test_what_an_auditor_is_taught_has_an_answer_can_be_drawn_and_can_be_done():
    rng, ask, describe, edit = random.Random(0), *PROMPTS
    for scene in sample_scenes(60, "train", 0):
        said = draw_asking(scene, rng)
        assert {prompt for prompt, _ in said} in ({ask, edit}, {ask, edit, describe})
        for prompt, text in said:
            if prompt == ask:
                assert answer(scene, text) not in (None, CANNOT_TELL)
            elif prompt == describe:
                assert not isinstance(new := parse_caption(text), Refusal) and new != scene
            else:
                assert apply_edit(scene, text) not in (scene, None) and not isinstance(apply_edit(scene, text), Refusal)
