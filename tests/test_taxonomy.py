"""Failure types, on made-up failures with gaps that no shipped model has."""

import re

import pandas as pd
import pytest
import synthetic

from auditdm_lib.taxonomy import cluster, grading, names


def rows(*texts: tuple[str, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(texts, columns=["question", "consensus", "target_answer"])
    return table.assign(probe_id=[f"p{i}" for i in range(len(table))], source_image="one.png")


@pytest.fixture(scope="module")
def graded():
    failures = synthetic.failures(700, seed=1)
    clustered = cluster.cluster(failures.drop(columns=["gap", "skill"]))
    return failures, clustered, *grading.grade(clustered, failures[["probe_id", "gap"]])


def test_the_types_match_the_gaps_far_better_than_shuffled_labels(graded):
    *_, agreement = graded
    row = agreement.iloc[0]
    assert row["ari"] > 0.9 and row["ari_low"] > row["shuffled_high"] + 0.5
    assert row["ari_low"] <= row["ari"] <= row["ari_high"] and row["shuffled_low"] < 0 < row["shuffled_high"] < 0.1


def test_three_quarters_of_the_frequent_gaps_have_a_type_of_their_own(graded):
    *_, gaps, _ = graded
    frequent = gaps[gaps["failures"] >= 20]
    assert len(frequent) >= 7 and frequent["own_category"].mean() >= 0.75


def test_names_say_what_is_asked_and_what_goes_wrong(graded):
    found = names.categories(graded[1])["name"].tolist()
    assert "“what colour is the …?” orange said as red" in found
    assert "“is the … above the …?” yes and no swapped" in found
    assert "“is there a yellow …?” no said as yes" in found
    assert len(set(found)) == len(found)


def test_clustering_reads_the_texts_alone(graded):
    failures, clustered, *_ = graded
    lied = failures.assign(gap="same", skill="same", truth="nothing")
    assert cluster.cluster(lied)["category"].tolist() == clustered["category"].tolist()


def test_order_of_the_failures_does_not_matter(graded):
    failures, clustered, *_ = graded
    turned = cluster.cluster(failures.iloc[::-1].reset_index(drop=True)).set_index("probe_id")["category"]
    assert grading.adjusted_rand_score(turned.loc[clustered["probe_id"]], clustered["category"]) > 0.999


@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_failures_are_clustered_graded_and_reported_plainly(n):
    failures = synthetic.failures(n, seed=2)
    clustered = cluster.cluster(failures)
    table = names.categories(clustered)
    gaps, agreement = grading.grade(clustered, failures[["probe_id", "gap"]])
    text = names.report(clustered, table)
    assert len(clustered) == n and table["size"].sum() == (clustered["category"] >= 0).sum() and len(agreement) == 1
    assert list(table.columns) == names.CATEGORY_COLUMNS
    assert ("No failure was found" in text) == (n == 0)
    assert n != 1 or ("1 failure, too few alike" in text and clustered["category"].tolist() == [-1])


def test_alike_failures_are_one_type_and_an_odd_one_is_in_none():
    alike = [(f"what colour is the {noun}?", "purple", "blue") for noun in ("cup", "star", "sun", "flag")]
    clustered = cluster.cluster(rows(*alike, ("which animal gives milk?", "cow", "cat")))
    assert clustered["category"].tolist() == [0, 0, 0, 0, -1]


def test_another_wrong_answer_to_the_same_question_is_another_type():
    nouns = ("cup", "star", "sun", "flag")
    first = [(f"what colour is the {noun}?", "purple", "blue") for noun in nouns]
    second = [(f"what colour is the {noun}?", "green", "brown") for noun in nouns]
    assert cluster.cluster(rows(*first, *second))["category"].nunique() == 2


def test_spelling_of_an_answer_does_not_split_a_type():
    texts = [("how many things are there?", "four", "3"), ("how many things are there?", "4", "Three."),
             ("how many things are there?", "Four", "three")]
    assert cluster.cluster(rows(*texts))["category"].tolist() == [0, 0, 0]


def test_words_that_vary_are_marked_and_words_that_tell_questions_apart_are_kept():
    texts = [(f"what colour is the {noun}?", "purple", "blue") for noun in ("cup", "star", "sun")]
    texts += [(f"what size is the {noun}?", "large", "small") for noun in ("cup", "star", "sun")]
    texts += [(f"what colour is the thing that {does}?", "red", "grey") for does in ("flies", "cuts paper", "holds a ship")]
    forms = cluster.question_forms(rows(*texts))
    assert set(forms) == {"what colour is the …", "what size is the …", "what colour is the thing that …"}


def test_counting_things_of_a_colour_is_not_counting_things_of_a_kind():
    texts = [(f"how many {colour} things are there?", "four", "two") for colour in ("red", "blue", "pink", "grey")]
    texts += [(f"how many {kind} are there?", "four", "two") for kind in ("cups", "stars", "suns", "flags")]
    assert set(cluster.question_forms(rows(*texts))) == {"how many … things are there", "how many … are there"}


def test_odd_texts_get_a_readable_name():
    texts = [("???", "yes", "")] * 3 + [("who are you", "a long answer " * 20, "None")] * 3
    empty, long = sorted(names.categories(cluster.cluster(rows(*texts)))["name"])
    assert empty == "“???” yes said as (nothing)"
    assert long.startswith("“who are you?” a long answer") and long.endswith("… said as none") and len(long) < 120


def test_a_failure_asked_twice_of_one_picture_counts_once():
    probes = pd.DataFrame(dict(
        probe_id=["a", "b", "c", "d"], image=["x", "x", "y", "y"], source_image=["x", "x", "y", "y"], auditor="random",
        question=["q?", "q?", "q?", "r?"], consensus="yes", target_answer="no", disagrees=[True, True, True, False],
        picture_reason=None))
    assert cluster.select_failures(probes)["probe_id"].tolist() == ["a", "c"]


def test_a_picture_that_failed_its_check_shows_no_failure():
    probes = pd.DataFrame(dict(
        probe_id=["a", "b"], image=["x", "y"], source_image=["x", "x"], auditor="trained", question="q?", consensus="yes",
        target_answer="no", disagrees=True, picture_reason=[None, "colour"]))
    assert cluster.select_failures(probes)["probe_id"].tolist() == ["a"]


def test_failures_outside_any_gap_count_against_precision():
    clustered = rows(*[("q?", "yes", "no")] * 10).assign(category=0)
    planted = pd.DataFrame(dict(probe_id=clustered["probe_id"], gap=["one"] * 6 + [None] * 4))
    gaps, _ = grading.grade(clustered, planted)
    row = gaps.iloc[0]
    assert (row["precision"], row["recall"], row["own_category"]) == (0.6, 1.0, False)


def test_many_groups_go_through_centres(monkeypatch):
    monkeypatch.setattr(cluster, "MOST_GROUPS", 30)
    failures = synthetic.failures(300, seed=3, noise=0.6)
    once, again = (cluster.cluster(failures, seed=5)["category"].tolist() for _ in range(2))
    assert once == again and len(set(once)) > 3


def test_where_nothing_was_verified_the_report_speaks_of_suspicions():
    clustered = cluster.cluster(synthetic.failures(60))
    table = names.categories(clustered, verified=False)
    text = names.report(clustered, table, verified=False)
    assert "# Types of suspicion" in text and "60 suspicions, " in text and "either may be right" in text
    assert not re.search("(?i)failure|right and wrong", text + table["description"].str.cat())
    none = clustered.head(0)
    assert "No suspicion was found" in names.report(none, names.categories(none, False), False)
