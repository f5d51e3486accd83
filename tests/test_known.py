"""A data set's own questions and answers: they are asked, they verify, and nothing else is verified."""

import random

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, Features, Image, Sequence, Value
from PIL import Image as Picture
from scripted import replies_by

from auditdm_lib.audit import panel as panels
from auditdm_lib.audit.arms import random_arm
from auditdm_lib.audit.auditor import empty_proposals
from auditdm_lib.audit.known import KnownAnswers, one_answer
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.audit.probes import grading, make_probes, search_table

N = 12


@pytest.fixture
def source(tmp_path):
    """A saved data set in VQAv2's manner: a row for each of two questions about a picture, ten annotators."""
    rng, rows = np.random.default_rng(0), []
    for i in range(N):
        picture = Picture.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
        for question, right in ((f"What colour is thing {i}?", "red"), ("Is it a picture?", "yes")):
            rows.append(dict(image=picture, question=question, answers=[right] * 8 + ["Red", "unsure"]))
    rows.append(dict(image=Picture.new("RGB", (9, 9)), question="What is it?", answers=[]))
    features = Features({"image": Image(), "question": Value("string"), "answers": Sequence(Value("string"))})
    Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    return f"datasets:{tmp_path / 'saved'}"


def test_a_data_sets_questions_come_with_its_pictures(source, capsys):
    loaded = load_pictures(source, 6, 0, "audit")
    assert len(set(loaded.names)) == 6 and not loaded.truth.complete
    assert "without a question and an answer: 1" in capsys.readouterr().out
    for i in range(6):
        questions = loaded.truth.all_questions(i)
        assert len(questions) == 2 and loaded.random_question(i, random.Random(0)) in questions
        assert loaded.truth.right_answer(i, questions[0].upper()) == "red"
        assert loaded.truth.right_answer(i, "is it a picture") == "yes"
        assert loaded.truth.right_answer(i, "How many?") is None
    part = loaded.take([3, 3, 0])
    assert part.truth.all_questions(0) == part.truth.all_questions(1) == loaded.truth.all_questions(3)


@pytest.mark.parametrize(("cell", "answer"), [
    ("red", "red"), (["red", "Red", "blue"], "red"), ([{"answer": "two"}, {"answer": "2"}, {"answer": "three"}], "two"), (3, "3"),
    ([], None), (None, None), ("", None), ([None, ""], None)])
def test_what_most_annotators_say_is_the_answer(cell, answer):
    assert one_answer(cell) == answer


def test_what_the_data_set_does_not_ask_stays_a_suspicion(source, monkeypatch):
    loaded = load_pictures(source, 6, 0, "probe")
    says = {"target": "blue", "first": "red", "second": "red"}
    monkeypatch.setattr(panels, "replies", replies_by(lambda member, images, questions: [says[member.name]] * len(questions)))
    panel = Panel(*[type("Member", (), dict(name=name))() for name in says][:1],
                  [type("Member", (), dict(name=name))() for name in ("first", "second")])
    table = empty_proposals(["question"] * 6)
    table["question"] = [loaded.truth.all_questions(0)[0], *["What is behind it?"] * 5]
    files = [f"{i}.png" for i in range(6)]
    own = make_probes(panel, loaded, "trained", table, 0, files, files)
    assert own["valid"].all() and own["disagrees"].all()
    assert own["verified_failure"].tolist() == [True, None, None, None, None, None]
    _, asked = random_arm(panel, loaded, 0, files)
    assert asked["verified_failure"].notna().all() and asked["truth"].notna().all()
    both = pd.concat([asked, own], ignore_index=True)
    graded = pd.concat([grading(asked, loaded, "a/b"), grading(own, loaded, "a/b")])
    search = search_table(both, graded, None, {}).set_index("auditor")
    assert search.loc["trained", "verifiable"] == 1 and search.loc["trained", "success"] == 1
    assert search.loc["random", "verifiable"] == 6 and search.loc["trained", "disagrees"] == 6


def test_a_world_that_knows_everything_refuses_what_has_no_answer():
    assert load_pictures("testbed", 2, 0).truth.complete and not KnownAnswers([]).complete


def test_a_data_set_can_be_read_as_it_comes(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(8):
        Picture.new("RGB", (10 + i, 10), (30 * i, 0, 0)).save(folder / f"{i}.png")
    pd.DataFrame(dict(file_name=[f"{i}.png" for i in range(8)], question="Is it red?", answer="yes")).to_csv(
        folder / "metadata.csv", index=False)
    loaded = load_pictures(f"datasets:{folder}::train::streaming", 4, 0)
    assert len(set(loaded.names)) == 4 and loaded.images[0].mode == "RGB"
    assert loaded.truth.right_answer(0, "is it red?") == "yes"
    with pytest.raises(ValueError, match="ends in 'stream', not in streaming"):
        load_pictures(f"datasets:{folder}::train::stream", 4, 0)
