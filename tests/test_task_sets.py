"""Questions in the formats of suites that are learned beside an audit's: which, with whose answers, and how they join."""

import pytest
from datasets import Dataset

from auditdm_lib.audit.panel import Panel
from auditdm_lib.testbed.skills import parse_question
from auditdm_lib.testbed.suites import training_table
from auditdm_lib.training import task_sets
from auditdm_lib.training.rectify import EXAMPLE

SUITES = ["mme-mini", "ai2d-mini"]


def panel():
    return Panel("target", ["first", "second"])  # never asked but through `answer`


def test_the_training_questions_of_a_suite_have_replies_as_answers_each_once():
    table = training_table("mmbench-mini", 40, 0)
    assert 8 <= len(table) <= 12 and not table.duplicated("question").all()  # of four rotations one
    assert all(parse_question(text) and len(said) > 1 for text, said in zip(table["question"], table["answer"], strict=True))
    assert set(training_table("mme-mini", 20, 0)["answer"]) == {"yes", "no"}
    again = training_table("mmbench-mini", 40, 0)
    assert table.drop(columns="image").equals(again.drop(columns="image"))


def test_labelled_tasks_bring_their_true_answers_and_ask_no_model(monkeypatch):
    monkeypatch.setattr(task_sets, "answer", lambda *_: pytest.fail("a model was asked"))
    table = task_sets.task_examples("testbed", SUITES, 30, 0, panel(), labelled=True)
    assert table["suite"].value_counts().to_dict() == {"mme-mini": 30, "ai2d-mini": 30}
    assert task_sets.task_examples("testbed", [], 30, 0, panel(), labelled=False).empty


def test_without_labels_only_what_target_and_all_references_answer_alike_is_rehearsed(monkeypatch):
    given = {"target": ["yes", "No.", "yes", None, "blue"], "first": ["Yes", "no", "no", None, "blue"],
             "second": ["yes", "no", "yes", None, None]}
    monkeypatch.setattr(task_sets, "answer", lambda member, images, questions: given[member])
    table = task_sets.task_examples("testbed", ["gqa-mini"], 5, 0, panel(), labelled=False)
    assert table["answer"].tolist() == ["yes", "No."]  # in the target's own words
    assert table["question"].tolist() == training_table("gqa-mini", 5, 0)["question"].tolist()[:2]


def test_an_unknown_suite_is_refused():
    with pytest.raises(ValueError, match="Unknown suite 'vqa'"):
        task_sets.task_examples("testbed", ["vqa"], 5, 0, panel(), labelled=True)


def test_suites_stand_behind_the_examples_and_make_none_where_nothing_is_rectified():
    examples = task_sets.task_examples("testbed", ["gqa-mini"], 3, 0, panel(), labelled=True)
    one = Dataset.from_list([dict(image=None, question="what?", answer="this")], features=EXAMPLE)
    both = task_sets.joined(one, examples)
    assert both["question"][:] == ["what?", *examples["question"]] and both[1]["image"].size == (48, 48)
    assert both.features == one.features
    assert len(task_sets.joined(one.select([]), examples)) == 0 and task_sets.joined(one, examples.head(0)) is one
