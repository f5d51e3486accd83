"""The training sets are fair, drawn from the confirmed failure types, and labelled by consensus alone."""

import numpy as np
import pandas as pd
import pytest

from auditdm_lib.boxes import location
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training import rectify_sets

QUESTION = "what colour is the sun ?"


def probes(failures, agreements, others, without_consensus=3):
    """Probes of a trained and a random auditor (others), some without consensus."""
    rows = [("trained", True)] * failures + [("trained", False)] * agreements
    rows += [("random", i % 5 == 0) for i in range(others)]
    table = pd.DataFrame(rows, columns=["auditor", "disagrees"])
    table["image"] = table["source_image"] = [f"images/{i}.png" for i in range(len(table))]
    table["question"], table["consensus"], table["target_answer"], table["picture_reason"] = QUESTION, "blue", "red", None
    none = table.head(without_consensus).assign(consensus=None, disagrees=False, question="no consensus ?")
    table = pd.concat([table, none], ignore_index=True)
    return table.assign(probe_id=[f"{auditor}-{i:04d}" for i, auditor in enumerate(table["auditor"])])


def sets(table, failure_auditors=("trained",), share=0.5, **how):
    return rectify_sets.training_sets(table, share, ["random"], 0, failure_auditors, **how)


def test_a_picture_that_failed_its_check_teaches_nothing():
    table = probes(40, 40, 40)
    table.loc[table.index % 2 == 0, "picture_reason"] = "colour"
    rejected = set(table.loc[table["picture_reason"].notna(), "image"])
    audited, control = sets(table)
    assert len(audited) == len(control) == 20 and not (set(audited["image"]) | set(control["image"])) & rejected


@pytest.mark.parametrize("failures, agreements, others", [(40, 100, 100), (100, 9, 60), (30, 30, 11)])
def test_audited_and_control_sets_are_equally_large(failures, agreements, others):
    audited, control = sets(probes(failures, agreements, others))
    assert len(audited) == len(control) > 10
    assert abs(audited["failure"].mean() - 0.5) <= 0.5 / len(audited)
    assert not any(rows.duplicated(["image", "question"]).any() for rows in (audited, control))


def test_control_holds_only_what_no_audit_chose_and_the_audited_set_no_failure_of_random_questions():
    table = probes(40, 100, 60)
    audited, control = sets(table)
    random = set(table[table["auditor"] == "random"]["image"])
    assert set(control["image"]) <= random and not set(audited.loc[audited["failure"], "image"]) & random
    # a fifth of the random questions fail, as many as chance finds: the control is not filtered by the target
    assert 0.1 < control["failure"].mean() < 0.3


def test_labels_are_the_consensus_whatever_truth_and_target_say():
    table = probes(40, 100, 60).assign(truth="green", verified_failure=False)
    found = sets(table)
    assert all(set(rows["answer"]) == {"blue"} for rows in found)
    without = sets(table.drop(columns=["truth", "verified_failure"]))
    assert all(a.equals(b) for a, b in zip(found, without, strict=True))


def test_pair_asked_twice_enters_once():
    table = probes(40, 100, 60)
    again = pd.concat([table, table.assign(auditor="prompt_only")], ignore_index=True)
    audited, _ = sets(again, ())
    assert not audited.duplicated(["image", "question"]).any()


def test_failures_may_be_those_of_some_auditors_and_the_sets_no_larger_than_asked():
    table = probes(40, 100, 100)
    audited, control = sets(table, most=30)
    mine = set(table.loc[table["auditor"] == "trained", "image"])
    assert len(audited) == len(control) == 30 and audited["failure"].sum() == 15
    assert set(audited.loc[audited["failure"], "image"]) <= mine < set(table["image"])
    assert not set(audited.loc[~audited["failure"], "image"]) <= mine  # rehearsal is of all auditors
    assert [len(rows) for rows in sets(table, ["prompt_only"])] == [0, 0]


def test_the_order_of_the_probes_does_not_matter():
    table = probes(40, 100, 60)
    types = pd.DataFrame(dict(probe_id=table["probe_id"].head(40), category=np.arange(40) % 3))
    shuffled = table.sample(frac=1, random_state=1)
    how = dict(types=types, weights={0: 1.0, 1: 2.0})
    for one, other in zip(sets(table, **how), sets(shuffled, **how), strict=True):
        assert one.equals(other) and len(one)


# Failure types

FAILURES = pd.DataFrame(dict(probe_id=[f"trained-{i:04d}" for i in range(40)], category=[0] * 25 + [1] * 10 + [2] * 4 + [-1]))
VERDICTS = pd.DataFrame(dict(category=[0, 1, 2], verdict=["confirmed", "confirmed", "not confirmed"], rate=[0.9, 0.3, 0.1]))


@pytest.mark.parametrize(("how", "weights"), [
    ("evenly", {0: 1, 1: 1}), ("by_size", {0: 25, 1: 10}), ("by_failure_rate", {0: 0.9, 1: 0.3})])
def test_only_confirmed_types_are_learned_with_the_weights_that_were_asked_for(how, weights):
    assert rectify_sets.types_to_learn(FAILURES, VERDICTS, how) == weights


def test_where_none_is_confirmed_all_types_are_learned_and_it_is_said(capsys):
    none = VERDICTS.assign(verdict="underpowered")
    assert set(rectify_sets.types_to_learn(FAILURES, none, "evenly")) == {0, 1, 2}
    assert "confirmed no failure type" in capsys.readouterr().out
    assert set(rectify_sets.types_to_learn(FAILURES, None, "by_size")) == {0, 1, 2}
    assert "fresh_probes is 0" in capsys.readouterr().out
    with pytest.raises(Stop, match="failure rates of the types are not known.*set fresh_probes above 0"):
        rectify_sets.types_to_learn(FAILURES, None, "by_failure_rate")


def test_failures_come_evenly_from_the_types_as_far_as_each_goes():
    audited, _ = sets(probes(40, 100, 100), most=30, types=FAILURES, weights={0: 1.0, 1: 1.0, 2: 1.0})
    assert audited["category"].value_counts().to_dict() == {-1: 15, 0: 6, 1: 5, 2: 4}
    assert audited["failure"].equals(audited["category"] >= 0)
    audited, _ = sets(probes(40, 100, 100), most=30, types=FAILURES, weights={1: 1.0})  # ten failures, so twenty examples
    assert audited["category"].value_counts().to_dict() == {-1: 10, 1: 10}


@pytest.mark.parametrize(("weights", "there", "n", "given"), [
    ({0: 1, 1: 1, 2: 1}, {0: 100, 1: 100, 2: 100}, 30, {0: 10, 1: 10, 2: 10}),
    ({0: 1, 1: 1, 2: 1}, {0: 100, 1: 2, 2: 5}, 30, {0: 23, 1: 2, 2: 5}),
    ({0: 3, 1: 1}, {0: 100, 1: 100}, 8, {0: 6, 1: 2}), ({0: 1, 1: 1}, {0: 3, 1: 3}, 100, {0: 3, 1: 3}),
    ({0: 0, 1: 1}, {0: 9, 1: 1}, 5, {0: 0, 1: 1}), ({4: 1, 2: 1}, {4: 9, 2: 9}, 1, {2: 1, 4: 0}), ({}, {}, 5, {})])
def test_what_a_small_type_leaves_goes_to_the_others(weights, there, n, given):
    assert rectify_sets.allotted(weights, there, n) == given


def test_a_failure_that_stage_03_typed_under_another_auditor_s_name_keeps_its_type():
    table = probes(10, 40, 40)
    twin = table.head(1).assign(auditor="prompt_only", probe_id="prompt_only-0")
    types = pd.DataFrame(dict(probe_id=["prompt_only-0"], category=[3]))  # select_failures keeps one of equal pairs
    audited, _ = sets(pd.concat([twin, table], ignore_index=True), types=types, weights={3: 1.0})
    assert audited.loc[audited["failure"], "image"].tolist() == ["images/0.png"]


@pytest.mark.parametrize(("how", "words"), [
    (("labelled", 2, "evenly", 1), "Only bootstrapping goes in rounds"),
    (("bootstrap", 2, "by_failure_rate", 1), "know no failure rates"),
    (("bootstrap", 2, "evenly", 0), "set imitation_rounds above 0")])
def test_choices_that_do_not_go_together_are_refused(how, words):
    with pytest.raises(Stop, match=words):
        rectify_sets.check_strategy(*how)
    rectify_sets.check_strategy("bootstrap", 1, "by_failure_rate", 0)


# With true answers

def labelled_probes():
    """Of twenty pictures one random question with its truth, and the questions of two auditors, the trained one's often none."""
    rows = []
    for i in range(20):
        for auditor in ("random", "prompt_only", "trained"):
            agreed = auditor != "trained" or i % 4 > 0
            rows.append(dict(probe_id=f"{auditor}-{i:02d}", auditor=auditor, image=f"images/{i}.png",
                             source_image=f"images/{i}.png", question=f"{auditor} {i}",
                             truth="green", target_answer="red" if i % 2 else "green",
                             consensus="blue" if agreed else None, disagrees=agreed, picture_reason=None))
    return pd.DataFrame(rows)


def test_labelled_sets_are_the_task_s_questions_with_true_answers_and_one_sample_for_each():
    audited, control = rectify_sets.labelled_sets(labelled_probes(), ["random", "prompt_only"], 0)
    for rows, auditor in ((audited, "trained"), (control, "prompt_only")):
        task = rows[rows["kind"] == "task's own, true answer"]
        other = rows[rows["kind"] != "task's own, true answer"]
        assert len(task) == len(other) == 15 and set(task["image"]) == set(other["image"])
        assert set(task["answer"]) == {"green"} and set(other["answer"]) == {"blue"}
        assert set(other["question"].str.split().str[0]) == {auditor}
        assert task["failure"].tolist() == [int(image[7:-4]) % 2 == 1 for image in task["image"]]
    assert [len(rows) for rows in rectify_sets.labelled_sets(labelled_probes(), ["prompt_only"], 0, most=10)] == [10, 10]


def test_without_true_answers_nothing_can_be_labelled():
    with pytest.raises(Stop, match="needs questions whose true answers are known.*set strategy to bootstrap"):
        rectify_sets.labelled_sets(labelled_probes().assign(truth=None), ["prompt_only"], 0)


# Located answers

def box(left, top):
    return location((left, top, left + 0.2, top + 0.2))


NEARLY, AWAY = box(0.12, 0.1), box(0.5, 0.5)  # overlaps of 0.82 and 0 with box(0.1, 0.1)


@pytest.mark.parametrize(("kind", "after", "before", "left_out"), [
    ("edit", box(0.1, 0.1), NEARLY, False), ("edit", box(0.1, 0.1), AWAY, True), ("edit", box(0.1, 0.1), None, True),
    ("edit", box(0.1, 0.1), "red", True), ("regeneration", box(0.1, 0.1), box(0.1, 0.1), True), ("edit", "red", "blue", False),
    ("regeneration", None, None, False), ("edit", float("nan"), AWAY, False)])
def test_a_located_answer_about_a_drawn_picture_is_used_only_after_an_edit_in_which_nothing_moved(kind, after, before, left_out):
    table = pd.DataFrame(dict(probe_id=["p", "q"], kind=[kind, "question"], source_image="a.png", image=["b.png", "a.png"],
                              consensus=[after, box(0.1, 0.1)]), index=[7, 3])
    versions = pd.DataFrame(dict(probe_id=["p", "p"], version=["original", "drawn"], consensus=[before, after]))
    found = rectify_sets.moved(table, versions)
    assert found.to_dict() == {7: left_out, 3: False} and found.dtype == bool
    assert rectify_sets.moved(table, None)[7] == (isinstance(after, str) and "loc" in after)  # nothing is known of the originals
    assert rectify_sets.moved(table.head(0), None).empty


# Nothing to learn

@pytest.mark.parametrize("table, missing", [
    (probes(0, 100, 0), "failures and no un-audited questions"), (probes(10, 0, 0, 0), "agreements and no un-audited questions"),
    (probes(40, 100, 0), "un-audited questions"), (probes(40, 40, 40).assign(disagrees=False), "failures"),
    (probes(40, 40, 40).assign(consensus=None, disagrees=False), "failures and no agreements and no un-audited questions")])
def test_an_empty_pool_is_named_and_nothing_is_rectified(table, missing, capsys):
    found = sets(table)
    assert f"no {missing} with a consensus" in capsys.readouterr().out and [len(rows) for rows in found] == [0, 0]
    assert all(list(rows.columns) == rectify_sets.COLUMNS for rows in found)


def test_one_picture_in_ten_is_kept_aside_with_all_that_was_drawn_from_it_whatever_its_name(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(300):
        (tmp_path / f"images/{i}.png").write_bytes(str(i).encode())
    table = pd.DataFrame(dict(source_image=[f"images/{i // 2}.png" for i in range(600)], image="drawn.png"))
    kept = rectify_sets.kept_aside(table, tmp_path, 0)
    assert 0.05 < kept.mean() < 0.15 and (kept.groupby(table["source_image"]).nunique() == 1).all()
    (tmp_path / "again").mkdir()
    for i in range(300):
        (tmp_path / f"again/{i:03d}.png").write_bytes(str(i).encode())
    renamed = table.assign(source_image=[f"again/{i // 2:03d}.png" for i in range(600)])
    assert rectify_sets.kept_aside(renamed, tmp_path, 0).equals(kept)
    assert not rectify_sets.kept_aside(table, tmp_path, 1).equals(kept)
