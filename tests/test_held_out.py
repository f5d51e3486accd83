"""Held-out questions about pictures that no suite is about: put to unseen pictures, compared with the references, counted."""

from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image
from scripted import replies_by

from auditdm_lib.audit import panel as panels
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import GENERIC_QUESTIONS, Pictures
from auditdm_lib.evaluate import benchmarks, held_out, scores

TARGET, FIRST, SECOND, TUNED = (SimpleNamespace(name=name) for name in ("target", "first", "second", "tuned"))
N = 6
PICTURES = Pictures([f"{i}.png" for i in range(N)], [Image.new("L", (4, 4), i) for i in range(N)])
PROBES = pd.DataFrame([("trained", True, "is it red?"), ("trained", True, "is it red?"), ("trained", False, "is it blue?"),
                       ("random", True, "is it green?")],
                      columns=["auditor", "disagrees", "question"]).assign(picture_reason=None)


def says(member, images, questions):
    """The target errs on failed questions, the tuned model does not; on picture 0 the references differ."""
    shown = [image.getpixel((0, 0)) for image in images]
    if member is TARGET:
        return ["no" if question == "is it red?" else f"thing {i}" for i, question in zip(shown, questions, strict=True)]
    return [f"thing {i}" if i or member is not SECOND else "nothing" for i in shown]


@pytest.fixture
def scored(monkeypatch):
    monkeypatch.setattr(panels, "replies", replies_by(says))
    monkeypatch.setattr(held_out, "load_vlm", lambda path: TUNED)
    panel = Panel(TARGET, [FIRST, SECOND])
    items = held_out.with_consensus(panel, held_out.questions(PICTURES.take([*range(N)] * 3), PROBES, 0))
    return held_out.score(panel, {"rectified": "folder"}, items)


def test_questions_are_random_and_those_that_the_trained_auditor_found_each_about_a_picture_once():
    asked = held_out.questions(PICTURES.take([*range(N)] * 40), PROBES, 0)
    assert not asked.duplicated(["suite", "group", "question"]).any() and asked["item"].is_unique
    failed = asked[asked["suite"] == held_out.FAILED]
    assert set(failed["question"]) == {"is it red?"} and failed["group"].tolist() == PICTURES.names
    assert set(asked.loc[asked["suite"] == held_out.RANDOM, "question"]) == set(GENERIC_QUESTIONS)
    assert asked.equals(held_out.questions(PICTURES.take([*range(N)] * 40), PROBES, 0))
    for none in (PROBES.assign(disagrees=False), PROBES.assign(picture_reason="colour")):
        assert held_out.questions(PICTURES, none, 0)["suite"].tolist() == [held_out.RANDOM] * N


def test_the_consensus_is_the_answer_and_what_has_none_is_counted(scored):
    table, counts = scored
    assert list(table.columns) == benchmarks.COLUMNS and set(table["metric"]) == {scores.AGREEMENT}
    assert "0.png" not in set(table["group"]) and table["expected"].str.startswith("thing").all()
    row = counts.set_index("suite").loc[held_out.FAILED]
    assert row.to_dict() == dict(pictures=N, asked=N, without_consensus=1, unanswered=0, scored=N - 1)
    right = table.groupby(["suite", "model"])["correct"].mean()
    assert right[held_out.FAILED, "target"] == 0 and right[held_out.FAILED, "rectified"] == 1
    assert right[held_out.RANDOM].eq(1).all()


def test_scores_and_comparisons_have_no_average_and_intervals_by_picture(scored):
    table = scored[0]
    whole = scores.summary(table)
    assert set(whole["suite"]) == {held_out.RANDOM, held_out.FAILED} and (whole["n"] == N - 1).all()
    change = scores.comparisons(table).set_index("items")
    assert list(change.index) == [held_out.RANDOM, held_out.FAILED] and change.loc[held_out.FAILED, "difference"] == 1
    twice = pd.concat([table, table.assign(item=table["item"] + " again")], ignore_index=True)
    again = scores.summary(twice).set_index(["model", "suite"])
    for row in whole.itertuples():  # copies of a question make nothing surer
        low, high = again.loc[(row.model, row.suite), ["ci_low", "ci_high"]]
        assert low <= row.ci_low + 1e-9 and high >= row.ci_high - 1e-9


def test_an_item_that_a_model_gives_no_answer_to_is_no_failure_of_it(monkeypatch):
    monkeypatch.setattr(panels, "replies", replies_by(says))
    panel = Panel(TARGET, [FIRST, SECOND])
    items = held_out.with_consensus(panel, held_out.questions(PICTURES, PROBES, 0))

    def fails(member, images, questions):
        if any(image.getpixel((0, 0)) == 3 for image in images):
            raise RuntimeError("too large")
        return says(member, images, questions)
    monkeypatch.setattr(panels, "replies", replies_by(fails))
    monkeypatch.setattr(held_out, "load_vlm", lambda path: TUNED)
    with pytest.warns(UserWarning, match="2 answers of the rectified are missing because it raised an error: .*too large"):
        table, counts = held_out.score(panel, {"rectified": "folder"}, items)
    assert "3.png" not in set(table["group"]) and (counts["unanswered"] == 1).all() and (counts["scored"] == N - 2).all()


def test_references_that_never_agree_leave_empty_tables_and_a_count(monkeypatch):
    monkeypatch.setattr(panels, "replies", replies_by(lambda member, images, questions: [
        f"{member.name} {image.getpixel((0, 0))}" for image in images]))
    panel = Panel(TARGET, [FIRST, SECOND])
    items = held_out.with_consensus(panel, held_out.questions(PICTURES, PROBES, 0))
    table, counts = held_out.score(panel, {}, items)
    assert table.empty and list(table.columns) == benchmarks.COLUMNS and (counts["without_consensus"] == counts["asked"]).all()
    assert scores.held_out(table) and scores.summary(table).empty and scores.comparisons(table).empty
