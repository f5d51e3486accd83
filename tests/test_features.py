"""A picture's features are computed once for the questions of a batch about it, and the answers stay the same."""

import inspect

import pytest
import tiny_models
import torch
from PIL import Image

from auditdm_lib.models import vlm

ONE_BLOCK = {"paligemma2", "gemma3", "llava", "internvl"}  # families whose pictures are one block of pixels each
PICTURES = [Image.effect_noise((24, 24), 60 + 20 * k).convert("RGB") for k in range(2)]
QUESTIONS = ["how many red ?", "what colour is the cup ?", "is it blue ?", "what ?"]


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(vlm, "LARGE", 0)


def seen_by(model, monkeypatch):
    """How many pictures each call of the vision tower's features was given."""
    seen, own = [], type(model.base_model).get_image_features

    def counted(self, pixel_values, *args, **kwargs):
        seen.append(len(pixel_values))
        return own(self, pixel_values, *args, **kwargs)
    counted.__signature__ = inspect.signature(own)  # `generate` reads which inputs it takes
    monkeypatch.setattr(type(model.base_model), "get_image_features", counted)
    return seen


@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_answers_are_the_same_and_a_picture_is_seen_once(family, tmp_path, monkeypatch):
    asked = vlm.load_vlm(tiny_models.BUILDERS[family](tmp_path / family))
    images, questions = [PICTURES[k % 2] for k in range(8)], [QUESTIONS[k // 2] for k in range(8)]
    seen = seen_by(asked.model, monkeypatch)
    usual = vlm.replies(asked, images, questions, 5)
    assert len(seen) == 1
    monkeypatch.setattr(vlm, "LARGE", 0)
    once = vlm.replies(asked, images, questions, 5)
    assert once.equals(usual) and usual["reply"].nunique() > 1
    assert len(seen) == 2 and seen[1] == (2 if family in ONE_BLOCK else seen[0])


@pytest.mark.parametrize("family", ["paligemma2", "gemma3"])
def test_features_that_are_given_are_those_of_the_pixels(family, tmp_path):
    asked = vlm.load_vlm(tiny_models.BUILDERS[family](tmp_path))
    inputs = vlm.encode(asked, [PICTURES[k] for k in (1, 0, 1)], [vlm.put(asked, text) for text in QUESTIONS[:3]], "left")
    inputs.pop("labels", None)
    with torch.no_grad():
        whole = asked.model(**inputs).logits
        shared = asked.model(**vlm.once_each(asked.model, inputs, [b"1", b"0", b"1"])).logits
        wrong = asked.model(**vlm.once_each(asked.model, inputs, [b"1", b"1", b"0"])).logits
    torch.testing.assert_close(shared, whole, rtol=0, atol=1e-5)  # rounding, of features of a few patches
    assert (wrong - whole).abs().max() > 1e-3
    assert vlm.once_each(asked.model, inputs, [b"1", b"0", b"2"])["pixel_values"] is inputs["pixel_values"]


def test_questions_about_one_picture_share_a_batch_of_a_large_model(tmp_path, monkeypatch, large):
    asked = vlm.load_vlm(tiny_models.paligemma2(tmp_path), {"batch_size": 4})
    seen = seen_by(asked.model, monkeypatch)
    vlm.replies(asked, [PICTURES[k % 2] for k in range(8)], [QUESTIONS[k // 2] for k in range(8)], 2)
    assert seen == [1, 1]
    order = vlm.asking_order([asked])
    pairs = sorted([(b"b", "a longer one"), (b"a", "what ?"), (b"b", "is it ?"), (b"a", "is ?")], key=order)
    assert pairs == [(b"a", "is ?"), (b"a", "what ?"), (b"b", "is it ?"), (b"b", "a longer one")]


def test_a_small_model_is_asked_by_the_length_of_the_questions_alone(tmp_path, monkeypatch):
    asked = vlm.load_vlm(tiny_models.paligemma2(tmp_path), {"batch_size": 4})
    seen = seen_by(asked.model, monkeypatch)
    vlm.replies(asked, [PICTURES[k % 2] for k in range(8)], [QUESTIONS[k // 2] for k in range(8)], 2)
    assert seen == [4, 4] and vlm.asking_order([asked])((b"a", "what ?")) == (6,)


def test_texts_that_are_sampled_about_one_picture_are_the_same(tmp_path, monkeypatch):
    asked = vlm.load_vlm(tiny_models.gemma3(tmp_path))
    images = [PICTURES[k // 3] for k in range(6)]
    usual = vlm.sample(asked, images, "ask", 1.0, 0, 6)
    seen = seen_by(asked.model, monkeypatch)
    monkeypatch.setattr(vlm, "LARGE", 0)
    assert vlm.sample(asked, images, "ask", 1.0, 0, 6).equals(usual) and seen == [2]
