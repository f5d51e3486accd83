"""Models of the whole world: built in parts, stopped anywhere, loaded back by the library."""

import json
import random

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from auditdm_lib import models
from auditdm_lib.testbed import build_whole
from auditdm_lib.testbed.build import CARD
from auditdm_lib.testbed.scenes import sample_scenes
from auditdm_lib.testbed.skills import answer


@pytest.fixture
def small(monkeypatch):
    """The real build shrunk to seconds: few scenes and steps, a narrow model."""
    for name, value in dict(SCENES=24, TOWER_STEPS=2, STEPS=3, OWN_STEPS=2).items():
        monkeypatch.setattr(build_whole, name, value)
    monkeypatch.setattr(build_whole, "MODELS", {"paligemma2-x": dict(family="paligemma2", hidden=32, layers=1, seed=1)})
    return build_whole.whole_corpus()


def test_a_build_stopped_before_its_last_part_ends_in_the_same_weights_and_is_not_repeated(small, tmp_path, monkeypatch):
    whole = build_whole.build_whole("paligemma2-x", small, tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr(build_whole, "train_pairs", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_whole.build_whole("paligemma2-x", small, tmp_path / "two")
    assert not (tmp_path / "two/paligemma2-x").exists()
    resumed = build_whole.build_whole("paligemma2-x", small, tmp_path / "two")
    one, two = (load_file(path / "model.safetensors") for path in (whole, resumed))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    card = json.loads((whole / CARD).read_text())
    assert card["steps"] == 3 and isinstance(card["seconds"], int) and not list(tmp_path.glob("*/.paligemma2-x*"))
    before = (whole / "model.safetensors").stat().st_mtime_ns
    assert build_whole.build_whole("paligemma2-x", small, tmp_path / "one") == whole
    assert (whole / "model.safetensors").stat().st_mtime_ns == before
    said = models.answer(models.load_vlm(str(whole)), [Image.fromarray(small.pixels[0].numpy())], ["what is the weather like?"])
    assert isinstance(said[0], str)


def test_pairs_are_right_answers_and_suite_items():

    rng, scenes = random.Random(0), sample_scenes(60, "train", 0)
    drawn = [(scene, build_whole.draw_pairs(scene, rng)) for scene in scenes]
    assert all(a == answer(scene, q) for scene, pairs in drawn for q, a in pairs[:build_whole.QUESTIONS])
    formats = [pairs[build_whole.QUESTIONS][0] for _, pairs in drawn if len(pairs) > build_whole.QUESTIONS]
    assert len(formats) > 50
    for mark in (" A. ", "is the answer", "detect the", "Describe this picture."):
        assert any(mark in text for text in formats), mark
