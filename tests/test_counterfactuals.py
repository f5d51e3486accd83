"""Counterfactual pictures change what the text says, and nothing else."""

import random

import numpy as np
import pytest

from auditdm_lib.audit.counterfactuals import UNDRAWN, check_kinds, draw
from auditdm_lib.audit.pictures import Pictures, load_pictures
from auditdm_lib.testbed.language import caption, sample_edit

PICTURES = load_pictures("testbed", 60, 3, split="probe")


def test_an_edit_leaves_every_other_thing_where_it_was_drawn():
    kept = changed = 0
    for i, scene in enumerate(PICTURES.truth.scenes):
        command, _ = sample_edit(scene, random.Random(i))
        drawn, reasons = draw("renderer", PICTURES.take([i]), ["edit"], [command])
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
    drawn, reasons = draw("renderer", few, ["regeneration", "edit", "question", "regeneration"],
                          [caption(scene), "make it nicer", None, caption(added)])
    assert reasons == [UNDRAWN, UNDRAWN, None, None]
    assert [new is old for new, old in zip(drawn.images, few.images, strict=True)] == [True, True, True, False]
    assert set(drawn.truth.scenes[3].things) == set(added.things) and drawn.truth.scenes[0] == scene


def test_the_same_text_draws_the_same_picture():
    command = sample_edit(PICTURES.truth.scenes[1], random.Random(1), "add")[0]
    one, two = (draw("renderer", PICTURES.take([1]), ["edit"], [command])[0].images[0] for _ in range(2))
    assert np.array_equal(one, two) and not np.array_equal(one, PICTURES.images[1])


def test_pictures_without_a_world_cannot_be_drawn_anew():
    photographs = Pictures(PICTURES.names, PICTURES.images)
    assert draw("renderer", photographs, ["question"] * 60, [None] * 60)[0] is photographs
    with pytest.raises(ValueError, match="set regeneration_share and edit_share to 0"):
        draw("renderer", photographs, ["edit"] * 60, ["make the star red"] * 60)


@pytest.mark.parametrize(("source", "edit", "problem"), [("testbed", 1.2, "add up to more than 1"), ("photographs", 0.2, "to 0")])
def test_shares_that_make_no_sense_are_refused(source, edit, problem):
    check_kinds("renderer", "testbed", dict(question=0.8, regeneration=0.0, edit=0.2))
    check_kinds("renderer", "photographs", dict(question=1.0, regeneration=0.0, edit=0.0))
    with pytest.raises(ValueError, match=problem):
        check_kinds("renderer", source, dict(question=1 - edit, regeneration=0.0, edit=edit))
