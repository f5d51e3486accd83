"""The report's answers in sentences: each number is the run's, and what is not known is not said."""

import numpy as np
import pandas as pd
import pytest
import synthetic

from auditdm_lib.results import report_text
from auditdm_lib.results.report_text import Strong

PARAMETERS = dict(auditor="org/asks", target="/home/me/models/mine", references=["org/model-a", "~/b"], drawer="diffusion",
                  regeneration_share=0.1, image_model="org/draws", edit_share=0.0, edit_model="org/edits")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic.make_run(tmp_path_factory.mktemp("run") / "02_probes", n=300)


def test_a_skill_of_few_items_all_right_is_strong_and_one_of_many_items_often_wrong_is_not(run):
    rows = [("text", i, True) for i in range(30)] + [("side", i, i % 10 > 0) for i in range(2000)]
    rows += [("rare", i, True) for i in range(5)]
    items = pd.DataFrame([dict(model="target", suite="s", metric="exact_match", item=f"{skill}{i}", skill=skill,
                               correct=right)
                          for skill, i, right in rows])
    assert report_text.strong(run.altered(items=items)) == [Strong("text", 30, 30)]
    assert report_text.strong(synthetic.unverified(run)) == []  # nobody knows what is right


def test_what_is_wrong_is_said_in_at_most_three_sentences_with_the_runs_numbers(run):
    said = report_text.wrong(run.artefacts)
    n = int(run.artefacts.confirmation["verdict"].eq("confirmed").sum())
    assert 2 <= len(said) <= 3 and f"on {n} kinds of question" in said[0]
    assert "Of random questions it answers wrongly 19.0 %" in said[1]
    search = run.artefacts.search
    other = search.assign(success=search["success"].where(search["auditor"] != "random", 0.42))
    assert "42.0 %" in report_text.wrong(run.altered(search=other))[1]


def test_types_are_ordered_by_confirmation_then_by_how_often_chance_meets_them(run):
    made = run.artefacts
    auditors = np.where(made.failures["category"].eq(3), "random", "trained")
    table = report_text.types(run.altered(failures=made.failures.assign(auditor=auditors)))
    assert table["category"].iloc[0] == 3 and table["met"].iloc[0] == made.failures["category"].eq(3).sum()
    assert not table["sure"].iloc[-1] and table["sure"].iloc[:-1].all()
    without = report_text.types(run.altered(confirmation=None))
    assert not without["sure"].any() and len(without) == len(table)


def test_the_cost_of_knowing_more_comes_from_what_was_met_once(run):
    table = pd.DataFrame([dict(auditor=name, probes=1000, failures=200, kinds=12, singletons=4, doubletons=2, unseen_share=share,
                               share_low=0, share_high=0.1, unseen_kinds=7.0, kinds_low=2.0, kinds_high=30.0)
                          for name, share in (("random", 0.004), ("trained", 0.0))])
    said = " ".join(report_text.more(run.altered(unseen=table)))
    assert "By random questions about one probe in 250" in said
    assert "at least 7 more are estimated to exist (2 to 30)" in said
    assert "By the trained auditor about one probe" not in said and "about 9 suitable ones would do" in said


@pytest.mark.parametrize("better, said", [("control", "worse than"), ("rectified", "better than"),
                                          (None, "neither clearly better nor clearly worse than")])
def test_what_to_train_on_says_whether_unselected_questions_did_better(run, better, said):
    items = run.artefacts.items
    rng = np.random.default_rng(0)
    even = pd.Series(rng.random(len(items)) < 0.5, items.index)
    marks = {"control": even, "rectified": even} | ({better: True} if better else {})
    for model, right in marks.items():
        mine = items["model"].eq(model)
        items = items.assign(correct=items["correct"].where(~mine, right), score=items["score"].where(~mine, right))
    if better is None:  # the same marks for both
        shown = items[items["model"].eq("control")]
        items = pd.concat([items[~items["model"].eq("rectified")], shown.assign(model="rectified")])
    intro = report_text.training(run.altered(items=items))[0]
    assert f"does {said} after as many questions that no audit selected" in intro
    assert ("train on those alone" in intro) == (better == "control")
    alone = items[items["model"].ne("control")]
    assert "no audit selected" not in report_text.training(run.altered(items=alone))[0]


def test_what_to_train_on_counts_only_confirmed_types(run):
    made = run.artefacts
    intro, lines = report_text.training(made)
    sure = made.confirmation.loc[made.confirmation["verdict"] == "confirmed", "category"]
    assert f"On the {made.failures['category'].isin(sure).sum():,} failures of the confirmed types" in intro
    assert lines and len(lines) <= report_text.LISTED
    none = made.confirmation.assign(verdict="not confirmed")
    assert report_text.training(run.altered(confirmation=none))[1] == []


def test_a_missed_gap_comes_first_and_a_target_without_gaps_has_none(run):
    gaps = run.artefacts.gaps.assign(own_category=lambda t: t["gap"] != t["gap"].iloc[2])
    table = report_text.missed(run.altered(gaps=gaps))
    assert table["gap"].iloc[0] == gaps["gap"].iloc[2] and table["found"].tolist()[:2] == [False, True]
    assert report_text.missed(run.altered(gaps=None, hits=None)) is None


def test_shares_are_never_rounded_to_none_or_all():
    assert [report_text.percent(k, 511) for k in (0, 1, 510, 511)] == ["0\u00a0%", "0.2\u00a0%", "99.8\u00a0%", "100\u00a0%"]


def test_figure_1_says_strong_weak_and_what_to_train_on(run):
    brief = report_text.in_brief(run.artefacts)
    assert list(brief) == ["Strong at", "Weak at", "To train on"] and "18 of 20 fresh probes" in brief["Weak at"][0]
    assert brief["To train on"][0].endswith("so that little else is lost.")  # one sentence: what was compared is in the report
    assert list(report_text.in_brief(synthetic.unverified(run))) == ["Differs from the references on", "To train on"]


def test_figure_3_names_the_runs_models_without_folders():
    models = report_text.models_of(PARAMETERS)
    assert models == dict(auditor="asks", target="mine", references="model-a\nb", draws="draws", edits="not in this run")
    assert report_text.models_of(PARAMETERS | dict(drawer="renderer"))["draws"] == "the renderer"
