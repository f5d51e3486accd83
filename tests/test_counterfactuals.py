"""Counterfactual pictures change what the text says, and nothing else, or what a pipeline makes of it."""

import random

import numpy as np
import pytest
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.audit import counterfactuals
from auditdm_lib.audit.counterfactuals import UNDRAWN, check_kinds, draw, exact, pipelines
from auditdm_lib.audit.diffusion import Drawing
from auditdm_lib.audit.pictures import Pictures, load_pictures
from auditdm_lib.testbed.language import caption, sample_edit

EXACT = Drawing("renderer")
PICTURES = load_pictures("testbed", 60, 3, split="probe")


def test_an_edit_leaves_every_other_thing_where_it_was_drawn():
    kept = changed = 0
    for i, scene in enumerate(PICTURES.truth.scenes):
        command, _ = sample_edit(scene, random.Random(i))
        drawn, reasons = draw(EXACT, PICTURES.take([i]), ["edit"], [command], 0)
        assert reasons == [None], command
        before, after = scene.things, drawn.truth.scenes[0].things
        for old in before:
            for new in (t for t in after if t == old):
                assert (new.dx, new.dy, new.scan) == (old.dx, old.dy, old.scan), command
                kept += 1
        # what is changed in its place (its colour, its size) stays in its place too
        for old, new in ((o, n) for o in before for n in after if o.cell == n.cell and o.kind == n.kind and o != n):
            if not command.startswith("replace"):
                assert (new.dx, new.dy) == (old.dx, old.dy), command
                changed += 1
    assert kept > 100 and changed > 5


def test_what_says_nothing_new_or_cannot_be_followed_is_not_drawn_and_the_original_stays():
    few, scene = PICTURES.take([0, 0, 0, 0]), PICTURES.truth.scenes[0]
    added = sample_edit(scene, random.Random(0), "add")[1]
    drawn, reasons = draw(EXACT, few, ["regeneration", "edit", "question", "regeneration"],
                          [caption(scene), "make it nicer", None, caption(added)], 0)
    assert reasons == [UNDRAWN, UNDRAWN, None, None]
    assert [new is old for new, old in zip(drawn.images, few.images, strict=True)] == [True, True, True, False]
    assert set(drawn.truth.scenes[3].things) == set(added.things) and drawn.truth.scenes[0] == scene


def test_the_same_text_draws_the_same_picture():
    command = sample_edit(PICTURES.truth.scenes[1], random.Random(1), "add")[0]
    one, two = (draw(EXACT, PICTURES.take([1]), ["edit"], [command], seed)[0].images[0] for seed in range(2))
    assert np.array_equal(one, two) and not np.array_equal(one, PICTURES.images[1])


def test_pictures_without_a_world_cannot_be_drawn_anew():
    photographs = Pictures(PICTURES.names, PICTURES.images)
    assert draw(EXACT, photographs, ["question"] * 60, [None] * 60, 0)[0] is photographs
    with pytest.raises(ValueError, match="set regeneration_share and edit_share to 0"):
        draw(EXACT, photographs, ["edit"] * 60, ["make the star red"] * 60, 0)


@pytest.mark.parametrize(("source", "edit", "problem"), [("testbed", 1.2, "add up to more than 1"), ("photographs", 0.2, "to 0")])
def test_shares_that_make_no_sense_are_refused(source, edit, problem):
    check_kinds("renderer", "testbed", dict(question=0.8, regeneration=0.0, edit=0.2))
    check_kinds("renderer", "photographs", dict(question=1.0, regeneration=0.0, edit=0.0))
    with pytest.raises(ValueError, match=problem):
        check_kinds("renderer", source, dict(question=1 - edit, regeneration=0.0, edit=edit))
    check_kinds("diffusion", "photographs", dict(question=0.0, regeneration=0.5, edit=0.5))


def test_the_renderer_is_exact_about_what_it_supplies_and_nothing_else_is():
    assert exact("testbed") == EXACT and exact("photographs") is exact("easy-vqa") is None


def test_a_search_uses_the_pipelines_of_the_kinds_that_it_draws():
    drawing = Drawing("diffusion", "a/image", "a/edit")
    assert pipelines(drawing, dict(question=0.5, regeneration=0.0, edit=0.5)) == ["a/edit"]
    assert pipelines(drawing, dict(question=0.0, regeneration=0.5, edit=0.5)) == ["a/image", "a/edit"]
    assert pipelines(drawing, dict(question=1.0)) == pipelines(EXACT, dict(regeneration=1.0)) == []


@pytest.fixture
def pipeline(monkeypatch):
    """A stand-in for pipelines: draws a plain picture, or says why not; leaves the picture as it is for the text "nothing"."""
    calls = []

    def draw_pictures(drawing, images, names, kinds, texts, seed, store, desc=None):
        calls.append((names, seed, store))
        new = [None if text in (None, "too long") else image.copy() if text == "nothing" else Image.new("RGB", (64, 64), "red")
               for image, text in zip(images, texts, strict=True)]
        return new, [f"the text {text!r}" if text == "too long" else None for text in texts]
    monkeypatch.setattr(counterfactuals, "draw_pictures", draw_pictures)
    return calls


def test_a_pipeline_draws_any_text_about_any_picture_and_says_why_not(pipeline):
    photographs = Pictures(PICTURES.names[:4], PICTURES.images[:4])
    drawn, reasons = draw(Drawing("diffusion"), photographs, ["edit"] * 4, ["xyzzy", "nothing", None, "too long"], 7)
    assert reasons == [None, UNDRAWN, None, "the text 'too long'"]
    assert [new is old for new, old in zip(drawn.images, photographs.images, strict=True)] == [False, True, True, True]
    assert pipeline == [(photographs.names, 7, paths.DRAWN)] and drawn.names == photographs.names
    assert draw(Drawing("diffusion"), photographs, ["question"] * 4, [None] * 4, 7)[0] is photographs and len(pipeline) == 1


def test_what_a_pipeline_draws_carries_no_truth_along(pipeline):
    assert draw(Drawing("diffusion"), PICTURES.take([0]), ["edit"], ["make it nicer"], 0)[0].truth is None


def test_a_drawer_that_gives_nothing_leaves_every_picture(monkeypatch):
    monkeypatch.setattr(counterfactuals, "draw_pictures", lambda d, images, *_: ([None] * len(images), [None] * len(images)))
    drawn, reasons = draw(Drawing("diffusion"), PICTURES.take([0, 1]), ["edit", "regeneration"], ["a", "b"], 0)
    assert reasons == [UNDRAWN] * 2 and drawn.images == PICTURES.images[:2]
