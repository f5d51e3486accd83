"""Confirmation of failure types: who is odd, the test, how many probes it takes, the control question, and grading by truth."""

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest
from scripted import replies_by
from statsmodels.stats.multitest import multipletests

from auditdm_lib.answers import same_answer
from auditdm_lib.audit import panel
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.taxonomy import confirm, fresh, grading
from auditdm_lib.taxonomy.confirm import CONFIRMED, NOT_CONFIRMED, UNDERPOWERED

TYPES = pd.DataFrame(dict(category=range(4), name=list("abcd"), skill="colour"))


def asked(category, target=0, other=0, none=0, saw=True, truth="red"):
    """Fresh probes of a type: so many with the target odd, with a reference odd, and with none."""
    rows = [("blue", ["red", "red"], True, [False, False])] * target + [("red", ["red", "blue"], False, [False, True])] * other \
        + [("red", ["red", "red"], False, [False, False])] * none
    table = pd.DataFrame(rows, columns=["target_answer", "reference_answers", "target_odd", "references_odd"])
    return table.assign(category=category, agreed="red", truth=truth, saw=pd.Series([saw] * len(rows), dtype=object),
                        probe_id=[f"{category}-{saw}-{i}" for i in range(len(rows))], question="?", image="fresh/00000.png")


def confirmed(*parts, searched=None):
    return confirm.confirmation(pd.concat(parts, ignore_index=True), TYPES, searched or {}, 2)


# Who is odd

@pytest.mark.parametrize("answers", list(permutations(["red", "the red", "blue"])))
def test_the_one_that_differs_is_odd_whoever_it_is(answers):
    agreed, odd = fresh.odd_one(answers, same_answer)
    assert same_answer(agreed, "red") and odd == [a == "blue" for a in answers]


@pytest.mark.parametrize(("answers", "agreed", "odd"), [
    (["red", "red", "red"], "red", []), (["red", "blue", "green"], None, []), (["red", "red", None], None, []),
    (["cannot tell", "red", "red"], "red", [0]), (["red", "cannot tell", "cannot tell"], None, []),
    (["a", "a", "b", "b"], None, []), (["a", "b", "b", "b"], "b", [0]), (["a", "a"], None, [])])
def test_all_but_one_have_to_agree(answers, agreed, odd):
    assert fresh.odd_one(answers, same_answer) == (agreed, [i in odd for i in range(len(answers))])


# The test

def test_p_is_the_exact_binomial_and_q_that_of_benjamini_and_hochberg():
    table = confirmed(asked(0, 6, 1, 9), asked(1, 2, 1), asked(2, 3), asked(3, 1, 5))
    exact = [binomtest(k, n, 1 / 3, alternative="greater").pvalue for k, n in [(6, 7), (2, 3), (3, 3), (1, 6)]]
    assert table["p_value"].tolist() == pytest.approx(exact)
    assert table["q_value"].tolist() == pytest.approx(multipletests(exact, method="fdr_bh")[1])
    assert (table["verdict"] == CONFIRMED).tolist() == (table["q_value"] <= 0.05).tolist() == [True, False, False, False]


def test_a_type_says_its_rates_with_an_interval():
    row = confirmed(asked(0, 6, 2, 12)).iloc[0]
    assert (row["probes"], row["target_wrong"], row["rate"], row["reference_rate"]) == (20, 6, 0.3, 0.05)
    assert 0.1 < row["ci_low"] < 0.3 < row["ci_high"] < 0.6


def test_probes_on_pictures_that_the_target_did_not_see_are_set_aside_and_counted():
    row = confirmed(asked(0, 9), asked(0, 5, 1, saw=False), asked(0, 1, saw=None)).iloc[0]
    assert (row["probes"], row["target_wrong"], row["not_seen"]) == (10, 10, 6)


def test_few_probes_are_underpowered_with_the_number_that_it_takes_and_many_without_effect_not_confirmed():
    table = confirmed(asked(0, 1, 0, 1), asked(1, 0, 0, 60), asked(2, 3, 12, 60), searched={0: 0.5, 1: 0.8, 2: 0.5, 3: 0.9})
    assert table["verdict"].tolist() == [UNDERPOWERED, NOT_CONFIRMED, NOT_CONFIRMED, UNDERPOWERED]
    assert table.loc[0, "needed"] > 2 and 0 < table.loc[3, "needed"] < 10 and table["needed"].dtype == "Int64"
    power = confirm.power(table.loc[0, "needed"], 0.5, 0.0, 1 / 3, 0.05 / 4)
    assert power >= confirm.POWER > confirm.power(table.loc[0, "needed"] - 1, 0.5, 0.0, 1 / 3, 0.05 / 4)


def test_power_is_how_often_simulated_tests_are_significant():
    rng, n, wrong, other = np.random.default_rng(0), 40, 0.2, 0.1
    counts = rng.multinomial(n, [wrong, other, 1 - wrong - other], 4000)
    hits = [binomtest(int(k), int(k + m), 1 / 3, alternative="greater").pvalue <= 0.05 if k + m else False for k, m, _ in counts]
    assert confirm.power(n, wrong, other, 1 / 3, 0.05) == pytest.approx(np.mean(hits), abs=0.025)  # three standard errors


def test_no_number_of_probes_helps_where_the_target_is_no_worse():
    assert confirm.needed(0.05, 0.2, 1 / 3, 0.05) is None and confirm.needed(0.0, 0.0, 1 / 3, 0.05) is None


def test_nothing_to_confirm_and_one_reference_are_said_in_a_sentence():
    empty = confirm.confirmation(asked(0), TYPES.iloc[:0], {}, 2)
    assert list(empty) == confirm.CONFIRMATION_COLUMNS and confirm.in_words(empty, 2) == "There is no type to confirm."
    table = confirm.confirmation(asked(0), TYPES, {}, 1)
    assert (table["verdict"] == UNDERPOWERED).all() and "add a reference" in confirm.in_words(table, 1)
    assert confirm.confirmation(asked(0), TYPES, {0: 0.9}, 1)["needed"].isna().all()  # no number of probes would help
    assert "1 of 4 types are confirmed" in confirm.in_words(confirmed(asked(0, 9)), 2)


# By the truth

def test_a_rate_is_corrected_by_the_truth_where_all_is_known_and_by_the_consensus_error_where_some_is():
    known = asked(0, 10, 0, 10)
    assert confirm.corrected(known, known).value == 0.5
    wrong = known.assign(truth=["blue"] * 4 + ["red"] * 16)  # of ten disagreements four are errors of the consensus
    assert confirm.corrected(wrong, wrong)[0] == pytest.approx(0.3)
    own = asked(1, 20, 0, 20, truth=None)
    value, low, high = confirm.corrected(own, pd.concat([own, wrong]))
    assert value == pytest.approx(0.5 - 0.2) and low < 0.2 and high > 0.4  # wider than one of 40 probes would be
    assert np.isnan(confirm.corrected(own, own).value)


def test_confirmed_types_are_graded_by_the_truth_and_matched_with_gaps():
    rows = pd.concat([asked(0, 9), asked(1, 8, truth="blue"), asked(2, 7), asked(3, 1, 0, 1)], ignore_index=True)
    graded = pd.DataFrame(dict(probe_id=rows["probe_id"], gap=rows["category"].map({0: "red is blue", 3: "rare"})))
    gaps = pd.DataFrame(dict(gap=["red is blue", "rare"], own_category=[True, False]))
    types, recovered, marks = grading.grade_confirmed(confirm.confirmation(rows, TYPES, {}, 2), rows, graded, gaps,
                                                      ["red is blue", "rare", "never met"])
    assert types["true"].tolist() == [True, False, True, True] and types["natural"].tolist() == [False, False, True, False]
    assert types.loc[1, "target_error"] == 0 and types.loc[1, "references_error"] == 1  # the consensus was wrong
    assert recovered["recovered"].tolist() == [True, False, False]
    row = marks.iloc[0]
    assert (row["confirmed"], row["true_types"], row["recovered"], row["natural_gaps"], row["missed_types"]) == (3, 2, 1, 1, 1)
    assert row["precision_low"] < 2 / 3 < row["precision_high"] and row["recall"] == pytest.approx(1 / 3)


def test_a_type_is_found_with_its_third_failure():
    probes = pd.DataFrame(dict(auditor=["random"] * 5 + ["trained"] * 5, probe_id=range(10), invalid_reason=None))
    found = pd.DataFrame(dict(probe_id=[0, 1, 4, 5, 6, 9], gap=["a", "a", "a", "a", "a", None]))
    table = grading.first_found(probes, found, "gap").set_index("auditor")["probes"]
    assert table["random"] == 5 and table.isna()["trained"]
    probes.loc[2, "invalid_reason"] = "target not judged"  # by a server, so that it is no attempt
    assert grading.first_found(probes, found, "gap").set_index("auditor")["probes"]["random"] == 4


def test_the_regression_set_holds_the_failures_of_confirmed_types_that_the_target_saw():
    rows = pd.concat([asked(0, 9, 1, 5), asked(0, 2, saw=False), asked(1, 1)], ignore_index=True)
    items = confirm.regression_items(rows, confirm.confirmation(rows, TYPES, {}, 2))
    assert len(items) == 9 and set(items["name"]) == {"a"} and list(items) == ["item", "category", "name", "question", "answer",
                                                                               "image"]


def test_the_regression_set_is_stored_with_its_pictures(tmp_path):
    rows = asked(0, 9, 1, 5).assign(image=[f"fresh/{i:05d}.png" for i in range(15)])
    (tmp_path / "fresh").mkdir()
    for i in range(15):
        Image.new("RGB", (2, 2), (i, 0, 0)).save(tmp_path / f"fresh/{i:05d}.png")
    confirm.save_regression(rows, confirmed(rows), tmp_path)
    items = pd.read_parquet(tmp_path / "regression/items.parquet")
    assert len(items) == len(list((tmp_path / "regression/images").iterdir())) == 9
    for i, image in enumerate(items["image"]):
        assert Image.open(tmp_path / "regression" / image).getpixel((0, 0)) == (i, 0, 0)
    confirm.save_regression(rows.iloc[:0], confirmed(rows.iloc[:0]), tmp_path / "empty")
    assert pd.read_parquet(tmp_path / "empty/regression/items.parquet").empty


def test_the_rate_of_the_search_is_that_of_the_trained_auditors_probes_in_a_type():
    probes = pd.DataFrame(dict(auditor=["trained"] * 4 + ["random"] * 2, question="q?", picture_reason=None,
                               consensus=["red", "red", "two", None, "red", "two"], disagrees=[True, False] * 2 + [False] * 2,
                               invalid_reason=None))
    def within(questions, answers):
        return np.array([0 if a == "red" else 1 for a in answers])
    assert confirm.search_rates(probes, within) == {0: 0.5, 1: 1.0}
    assert confirm.search_rates(probes[probes["auditor"] == "random"], within) == {0: 0.0, 1: 0.0}
    probes.loc[1, "invalid_reason"] = "target not asked"
    assert confirm.search_rates(probes, within) == {0: 1.0, 1: 1.0}


# Asking

CLUSTERED = pd.DataFrame([(0, f"what colour is the {noun}?", "red", "blue") for noun in ("cup", "star", "flag", "anchor")]
                         + [(1, "how many things are there?", "two", "one")] * 3 + [(-1, "is it day?", "yes", "no")],
                         columns=["category", "question", "consensus", "target_answer"])


class Writer:
    begun = None

    def questions(self, images, seed, begun=None, desc=None):
        self.begun = begun or self.begun
        return [f"{words} heart?" for words in begun] if begun else ["is it day?"] * len(images)


@pytest.fixture
def members(monkeypatch):
    """A panel whose members say `answer(place, image, question)`, and what each was asked."""
    def build(answer, references=2):
        said = [[] for _ in range(1 + references)]
        def reply(member, images, questions):
            said[member.place] += zip(images, questions, strict=True)
            return [answer(member.place, *pair) for pair in zip(images, questions, strict=True)]
        monkeypatch.setattr(panel, "replies", replies_by(reply))
        made = [SimpleNamespace(name=str(place), place=place) for place in range(1 + references)]
        return Panel(made[0], made[1:]), said
    return build


def pictures(n, truth=None):
    return Pictures([f"test-{i}" for i in range(n)], list(range(n)), truth)


def belongs(questions, answers):
    return np.array([0 if q.startswith("what colour") and a == "red" else 1 if q.startswith("how many") and a == "two" else -1
                     for q, a in zip(questions, answers, strict=True)])


def colour_blind(place, image, question):
    right = ("red" if image % 3 else "green") if "colour" in question else "two" if "many" in question else "yes"
    return "blue" if place == 0 and right == "red" else right


def test_templates_fill_the_types_that_the_auditor_did_not_ask_about(members):
    asked_panel, said = members(colour_blind)
    writer = Writer()
    probes = fresh.ask_fresh(asked_panel, pictures(90), CLUSTERED, belongs, writer, seed=0)
    counts = probes["category"].value_counts()
    assert counts[0] >= fresh.WANTED and counts[1] >= fresh.WANTED and set(writer.begun) == {"what colour is the"}
    odd = probes.groupby("category")["target_odd"]
    assert odd.all()[0] and not odd.any()[1]
    assert set(probes.loc[probes["category"] >= 0, "made_by"]) == {"template"}
    assert not probes[probes["category"] >= 0].duplicated(["picture", "category"]).any()
    assert len(said[2]) < 0.9 * (90 * (1 + fresh.TRIES))  # pairs that one member had no fitting answer to went no further


def test_the_order_of_the_failures_does_not_matter(members):
    asked_panel, _ = members(colour_blind)
    made = [fresh.ask_fresh(asked_panel, pictures(60), rows, belongs, Writer(), seed=0)
            for rows in (CLUSTERED, CLUSTERED.iloc[::-1])]
    pd.testing.assert_frame_equal(*made)


def test_each_member_is_drawn_by_lot_to_try_a_template(members):
    asked_panel, said = members(lambda place, image, question: "yes" if "day" in question else "nothing that fits")
    fresh.ask_fresh(asked_panel, pictures(120), CLUSTERED, belongs, Writer(), seed=1)
    tried = [sum("day" not in question for _, question in one) for one in said]
    assert sum(tried) >= 200 and min(tried) > 0.25 * sum(tried)


def test_with_one_reference_nobody_is_odd_unless_the_truth_says_so(members):
    truth = SimpleNamespace(right_answer=lambda i, question: colour_blind(1, i, question))
    for knows, found in ((None, False), (truth, True)):
        asked_panel, said = members(colour_blind, references=1)
        probes = fresh.ask_fresh(asked_panel, pictures(90, knows), CLUSTERED, belongs, Writer(), seed=0)
        assert probes["target_odd"].any() == found == probes["category"].ge(0).any() and any(said) == found
        assert probes["references_odd"].map(len).eq(1).all()


def test_questions_begin_with_what_three_of_a_type_share():
    assert fresh.begin(["is there a red cup?", "is there a red star?", "is there a red sun?", "is there a blue sun?"]) == {
        **{f"is there a red {noun}?": "is there a red" for noun in ("cup", "star", "sun")}, "is there a blue sun?": "is there a"}
    assert fresh.begin(["how many are there?"] * 5) == {}


def test_control_questions_are_reliable_varied_and_outside_the_types():
    def rows(question, answers, disagree=0):
        return pd.DataFrame(dict(question=question, consensus=answers, disagrees=[i < disagree for i in range(len(answers))],
                                 in_full=True, picture_reason=None))
    probes = pd.concat([rows("sure?", ["yes", "no"] * 20), rows("less sure?", ["yes", "no"] * 4), rows("rare?", ["yes", "no"]),
                        rows("always yes?", ["yes"] * 50), rows("how many?", ["two", "one"] * 30),
                        rows("doubtful?", ["yes", None, "no"] * 8, disagree=4)])
    assert fresh.control_questions(probes, belongs) == ["sure?", "less sure?", "doubtful?", "how many?"]


def test_the_control_is_the_first_question_with_a_consensus_and_shows_who_does_not_see(members):
    def answer(place, image, question):
        if question == "what is on the sign?":
            return "exit" if image == 0 else "cannot tell"
        return "no" if place == 0 and image == 2 else "yes"
    asked_panel, said = members(answer)
    probes = pd.DataFrame(dict(row=[0, 1, 2, 3], category=[0, 0, 0, -1]))
    found = fresh.add_controls(asked_panel, pictures(4), probes, ["what is on the sign?", "is it day?"])
    assert found["control_question"].tolist() == ["what is on the sign?", "is it day?", "is it day?", None]
    assert found["saw"].tolist() == [True, True, False, None] and found["control_target_answer"].tolist()[2] == "no"
    assert len(said[0]) == 3  # the target is asked only what the references agree on
    assert fresh.add_controls(asked_panel, pictures(4), probes, [])["saw"].isna().all()


def test_pictures_of_probes_in_a_type_are_stored_once(tmp_path):
    seen = Pictures(["a", "b", "c"], [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")])
    probes = pd.DataFrame(dict(row=[0, 2, 2, 1], category=[0, 0, 1, -1])).reindex(
        columns=["row", *(name for name in fresh.FRESH_COLUMNS if name != "category"), "category"])
    kept = fresh.keep_pictures(seen, probes, tmp_path / "fresh")
    assert list(kept) == fresh.FRESH_COLUMNS and kept["image"].tolist()[3] is None
    assert kept["image"][1] == kept["image"][2] and Image.open(tmp_path / kept["image"][1]).getpixel((0, 0)) == (0, 128, 0)
    assert len(list((tmp_path / "fresh").iterdir())) == 2


def test_fresh_pictures_are_of_the_split_that_no_auditor_sees_and_come_once(tmp_path):
    for i in range(20):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i:02d}.png")
    found = fresh.fresh_pictures(str(tmp_path), 50, 0)
    assert len(found) == 4 and len(set(found.names)) == 4  # a fifth of them
