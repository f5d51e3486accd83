"""The check of drawn pictures: a picture that does not show its text makes an invalid probe, counted by its reason."""

import random
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image
from scripted import replies_by

from auditdm_lib.audit import checking
from auditdm_lib.audit import panel as panels
from auditdm_lib.audit.auditor import empty_proposals
from auditdm_lib.audit.checking import NOT_FOLLOWED, REFUSED, VERIFY_PROMPTS, checked, told, verified
from auditdm_lib.audit.diffusion import Drawing
from auditdm_lib.audit.known import KnownAnswers
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import Pictures, load_pictures
from auditdm_lib.audit.probes import grading, make_probes, search_table
from auditdm_lib.testbed.language import apply_edit, caption, sample_edit
from auditdm_lib.testbed.render import render

PIPELINE = Drawing("diffusion")
PICTURES = load_pictures("testbed", 6, 3, split="probe")
BLANK = Image.new("RGB", (48, 48), "white")


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    """A stand-in for the testbed's scene reader, which takes nothing but the renderer's own picture for right."""
    def differences(images, scenes):
        return [None if image.tobytes() == render(scene).tobytes() else "missing thing"
                for image, scene in zip(images, scenes, strict=True)]
    monkeypatch.setitem(sys.modules, "auditdm_lib.testbed.reader", SimpleNamespace(differences=differences))


def commands(n):
    return [sample_edit(scene, random.Random(i))[0] for i, scene in enumerate(PICTURES.truth.scenes[:n])]


def drawn_well(texts):
    """What a perfect pipeline makes of edit commands; None gives the original."""
    seen = PICTURES.take(range(len(texts)))
    world, _ = seen.truth.told(["edit"] * len(texts), texts)
    return seen, Pictures(seen.names, [old if text is None or scene is None else render(scene) for old, text, scene in
                                       zip(seen.images, texts, world.scenes, strict=True)])


def test_the_truth_follows_a_text_exactly_and_knows_nothing_where_it_cannot():
    scene = PICTURES.truth.scenes[0]
    command, edited = sample_edit(scene, random.Random(0))
    texts = [command, "make it nicer", None, caption(scene), "a red dream of nothing"]
    world, refused = PICTURES.take([0] * 5).truth.told(["edit", "edit", "question", "regeneration", "regeneration"], texts)
    assert refused == [False, True, False, True, True]
    assert [world.knows(i) for i in range(5)] == [True, False, True, False, False]
    assert set(t.kind for t in world.scenes[0].things) == set(t.kind for t in edited.things) and world.scenes[2] == scene
    assert world.right_answer(1, "how many things are there?") is None is not world.right_answer(2, "how many things are there?")
    assert world.all_questions(1) == [] and world.gap(1, "how many things are there?", ()) is None
    assert isinstance(apply_edit(scene, command), type(scene))


def test_a_data_set_knows_nothing_about_what_was_drawn_anew_and_cannot_tell():
    asked, refused = KnownAnswers([[("what?", "a dog")]] * 2).told(["edit", "question"], ["make it red", None])
    assert refused == [False, False] and [asked.knows(i) for i in range(2)] == [False, True]
    assert asked.right_answer(0, "what?") is None and asked.right_answer(1, "what?") == "a dog"
    assert asked.unlike([BLANK, BLANK]) == [None, None]


def test_a_picture_is_checked_against_its_text_by_the_world():
    texts = [*commands(2), "make it nicer", None]
    seen, drawn = drawn_well(texts)
    drawn.images[1], drawn.images[2] = BLANK, BLANK
    check = checked(PIPELINE, seen, drawn, ["edit"] * 4, texts)
    assert check.reasons == [None, "missing thing", NOT_FOLLOWED, None] and check.verdicts == [None] * 4
    assert [check.pictures.truth.knows(i) for i in range(4)] == [True, True, False, True]
    assert check.pictures.truth.scenes[3] == seen.truth.scenes[3]


def test_a_text_whose_picture_never_came_is_not_blamed_on_the_picture():
    texts = [commands(1)[0], "make it nicer"]
    seen = PICTURES.take([0, 1])
    check = checked(PIPELINE, seen, Pictures(seen.names, list(seen.images)), ["edit"] * 2, texts)
    assert check.reasons == [None, None] and check.pictures.truth.scenes == seen.truth.scenes


def test_the_exact_drawer_is_not_doubted():
    seen, drawn = drawn_well(commands(2))
    drawn.images[0] = BLANK
    assert checked(Drawing("renderer"), seen, drawn, ["edit"] * 2, commands(2)).reasons == [None, None]


def test_a_verifier_rejects_by_no_and_anything_else_is_unsure(monkeypatch):
    said = ["Yes.", "no", "It is a dog.", None]
    asked = []
    monkeypatch.setattr(checking, "replies", lambda vlm, images, texts, desc=None, partly=False: asked.extend(texts) or
                        pd.DataFrame(dict(reply=said, ended=[text is not None for text in said])))
    photographs = Pictures(list("abcde"), [BLANK.copy() for _ in range(5)])
    drawn = Pictures(photographs.names, [BLANK.copy() for _ in range(4)] + photographs.images[4:])
    kinds, texts = ["edit", "regeneration", "edit", "edit", "question"], ["make {text} red", "a dog", "x", "y", None]
    check = checked(PIPELINE, photographs, drawn, kinds, texts, verifier="a model")
    assert check.verdicts == ["yes", "no", "unsure", "unsure", None]
    assert check.reasons == [None, REFUSED, None, None, None]
    assert asked[0] == VERIFY_PROMPTS["edit"].format(text="make {text} red") and "a dog" in asked[1]
    assert checked(PIPELINE, photographs, drawn, kinds, texts).reasons == [None] * 5
    assert verified("a model", [BLANK] * 4, ["edit"] * 4, ["x"] * 4) == ["yes", "no", "unsure", "unsure"]


def panel(monkeypatch, target, reference):
    says = {"target": target, "one": reference, "two": reference}
    monkeypatch.setattr(panels, "replies", replies_by(lambda member, images, asked: [says[member.name]] * len(asked)))
    member = {name: SimpleNamespace(name=name) for name in says}
    return Panel(member["target"], [member["one"], member["two"]])


def test_a_rejected_picture_makes_an_invalid_probe_whose_answers_stay(monkeypatch):
    texts = [*commands(2), "make it nicer", *commands(4)[3:]]
    seen, drawn = drawn_well(texts)
    drawn.images[1], drawn.images[2] = BLANK, BLANK
    check = checked(PIPELINE, seen, drawn, ["edit"] * 4, texts)
    table = empty_proposals(["edit"] * 4)
    table["edit"], table["question"] = texts, "how many things are there?"
    right = [check.pictures.truth.right_answer(i, "how many things are there?") for i in range(4)]
    members = panel(monkeypatch, "never", right[0])
    files = [f"images/{i}.png" for i in range(4)]
    made = make_probes(members, check.pictures, "trained", table, 0, files, [f"images/new{i}.png" for i in range(4)],
                       check.reasons, check.verdicts)
    assert made["invalid_reason"].tolist() == [None, "picture: missing thing", f"picture: {NOT_FOLLOWED}", None]
    assert made["disagrees"].all() and made["target_answer"].eq("never").all()
    assert made["verified_failure"].tolist() == [True, False, False, True]
    row = search_table(made, grading(made, check.pictures, "a/b"), None, {}).iloc[0]
    assert (row["attempts"], row["drawn"], row["picture_rejected"], row["rejected_disagrees"]) == (4, 4, 2, 2)
    assert (row["accepted_consensus_known"], row["accepted_consensus_right"]) == (2, 1 + (right[3] == right[0]))


def test_on_an_unknown_picture_of_a_known_data_set_a_disagreement_stays_a_suspicion(monkeypatch):
    class Complete(KnownAnswers):
        complete = True
    seen = Pictures(["a", "b"], [BLANK, BLANK], Complete([[("what?", "cat")]] * 2))
    drawn, _ = told(seen, Pictures(["a", "b"], [BLANK.copy(), BLANK]), ["edit", "question"], ["make it red", None])
    table = empty_proposals(["edit", "question"])
    table["question"] = "what?"
    made = make_probes(panel(monkeypatch, "dog", "cat"), drawn, "trained", table, 0, ["a", "b"], ["c", "b"])
    assert made["verified_failure"].tolist() == [None, True] and made["valid"].all()
    assert pd.isna(made["truth"][0]) and made["truth"][1] == "cat"
