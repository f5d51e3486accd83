"""Failure types, on made-up failures with gaps that no shipped model has."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import synthetic

from auditdm_lib.taxonomy import cluster, grading, groups, names, report

NOBODY_ASKED = pd.DataFrame(columns=["skill", "probes", "disagrees"])


def rows(*texts: tuple[str, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(texts, columns=["question", "consensus", "target_answer"])
    return table.assign(probe_id=[f"p{i}" for i in range(len(table))], source_image="one.png")


def keyed(texts: list[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(texts, columns=["question", "agreed", "given"])


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
    assert {"colour: orange said as red", "above or below: yes and no swapped", "counting: … said as two",
            "presence of a thing (“yellow”): no said as yes", "presence of a thing (“heart”): yes said as no"} <= {
                re.sub("(three|four|five), .* or (three|four|five)", "…", name) for name in found}
    assert len(set(found)) == len(found)


def test_a_name_is_true_of_four_members_in_five_and_free_of_what_few_of_them_show(graded):
    _, clustered, *_ = graded
    table = names.categories(clustered)
    for row in table.itertuples():
        members = clustered[clustered["category"] == row.category]
        said = row.name.split(": ", 1)[1]
        true = dict(names.statements(members))[said]
        assert true.mean() >= names.TRUE_OF
        shown = " ".join(members["question"]).split() + [*members["consensus"], *members["target_answer"]]
        for noun in synthetic.NOUNS:
            assert noun not in row.name or shown.count(noun) + shown.count(f"{noun}?") >= 0.1 * len(members)
    lies = pd.DataFrame(dict(skill="colour", consensus=["red", "green", "pink"] * 4 + ["grey"] * 8,
                             target_answer="blue"))
    assert names.name_of(lies) == "colour: grey, green, pink or red said as blue"
    assert names.name_of(lies.assign(target_answer=["blue"] * 10 + ["tan"] * 10)) == f"colour: {names.VARIOUS}"


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
    text = report.written(clustered, table, None, NOBODY_ASKED)
    assert len(clustered) == n and table["size"].sum() == (clustered["category"] >= 0).sum() and len(agreement) == 1
    assert list(table.columns) == names.CATEGORY_COLUMNS  # one auditor made all
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


def test_five_wordings_of_one_error_are_one_type():
    wordings = ("What colour is the {}?", "Which color does the {} have?", "Tell me the colour of the {}.",
                "The {} has which colour?", "What is the color of the {}?")
    texts = [(form.format(noun), "purple", "blue") for form in wordings for noun in ("cup", "star", "sun", "flag")]
    clustered = cluster.cluster(rows(*texts, ("is there a cup?", "yes", "no")))
    assert clustered["category"].tolist() == [0] * 20 + [-1]
    assert names.categories(clustered)["name"].tolist() == ["colour: purple said as blue"]


def test_invented_and_missed_things_are_two_types_and_a_mirrored_relation_is_one():
    nouns = ("cup", "star", "sun", "flag")
    seen = [(f"is there a {noun}?", a, b) for noun in nouns for a, b in (("yes", "no"), ("no", "yes"))]
    turned = [(f"is the {noun} left or right of the {other}?", a, b) for noun, other in zip(nouns, nouns[::-1], strict=True)
              for a, b in (("left", "right"), ("right", "left"))]
    clustered = cluster.cluster(rows(*seen, *turned))
    assert clustered["category"].tolist() == [2, 1] * 4 + [0] * 8 or clustered["category"].tolist() == [1, 2] * 4 + [0] * 8
    assert names.categories(clustered)["name"][0] == "left or right: right and left swapped"


def test_open_answers_that_do_not_repeat_are_one_type_of_their_skill():
    times = [("What time is it?", "3:15", "12:00"), ("What time does the watch say?", "7:40", "8:05"),
             ("Which hour is it on the clock?", "ten", "four"), ("What time is shown?", "1:10", "2:10")]
    clustered = cluster.cluster(rows(*times))
    assert set(clustered["skill"]) == {"clock reading"} and clustered["category"].tolist() == [0] * 4
    assert names.categories(clustered)["name"].tolist() == ["clock reading: various wrong answers"]


def test_a_condition_on_which_failures_concentrate_is_named_and_asked_for():
    nouns = ("cup", "star", "sun", "flag", "heart", "moon")
    texts = [(f"is there a yellow {noun}?", "no", "yes") for noun in nouns * 3]
    texts += [(f"is there a {colour} {noun}?", "yes", "no") for noun in nouns for colour in ("red", "green", "blue", "pink")]
    clustered = cluster.cluster(rows(*texts))
    assert clustered["condition"].tolist() == ["yellow"] * 18 + [""] * 24
    yellow, missed = clustered["category"].iloc[0], clustered["category"].iloc[-1]
    asked = ["is there a yellow anchor?", "is there a green anchor?", "is there a green anchor?", "what colour is the sky?"]
    assert cluster.belongs(clustered, asked, ["no", "no", "yes", "blue"]).tolist() == [yellow, -1, missed, -1]


def test_a_failure_belongs_where_clustering_put_it(graded):
    _, clustered, *_ = graded
    found = cluster.belongs(clustered, clustered["question"].tolist(), clustered["consensus"].tolist())
    typed = clustered["category"] >= 0
    assert (found[typed] == clustered["category"][typed]).mean() > 0.9
    assert cluster.belongs(clustered, [], []).tolist() == []
    assert cluster.belongs(clustered.head(0), ["what colour is it?"], ["red"]).tolist() == [-1]


def test_a_question_in_another_form_of_its_skill_does_not_belong_to_a_type():
    colours = ("pink", "red", "green")
    texts = [("which bar is the highest?", "right", "left")] * 3 + [("which column is the chart in?", "right", "centre")] * 3
    texts += [(f"which bar is {colour}?", "right", f"the {i}th") for i, colour in enumerate(colours)]  # in no type
    clustered = cluster.cluster(rows(*texts)).assign(
        skill="chart", category=[0] * 3 + [1] * 3 + [-1] * 3, error=["left"] * 3 + ["centre"] * 3 + [""] * 3,
        form=["which bar is the highest"] * 3 + ["which column is the chart in"] * 3 + ["which bar is …"] * 3)
    chart = cluster._Known(clustered)
    assert [chart.best(text, "right") for text, *_ in texts] == [0] * 3 + [1] * 3 + [-1] * 3
    assert chart.best("where is the highest bar?", "right") == 0  # in no form that is known


def test_a_kind_that_nobody_listed_is_found_and_named():
    asked = [f"{start} the zeppelin {end}?" for start in ("is", "was", "are") for end in
             ("inflated", "moored", "tethered", "deflating", "ascending")]
    clustered = cluster.cluster(rows(*[(text, "yes", "no") for text in asked], ("what colour is the cup?", "red", "blue")))
    assert clustered["skill"].tolist() == ["“zeppelin”"] * 15 + ["colour"]
    assert cluster.belongs(clustered, ["is the zeppelin descending?"], ["yes"]).tolist() == [0]
    assert names.categories(clustered)["name"].tolist() == ["“zeppelin”: yes said as no"]


UNRELATED = ["does the zeppelin leak?", "who stole the mandolin?", "which ferry carries livestock?", "is the yeast proofed?",
             "should the sauna be hotter?", "which verse rhymes?", "has the glacier retreated?", "who audits the guild?",
             "is the saddle cinched?", "which lens is fogged?", "was the treaty ratified?", "is the kiln vented?"]


@pytest.mark.parametrize("times", [3, 6, 20])
def test_a_question_asked_of_many_pictures_is_one_question(times):
    asked = [(text, f"one {i}", f"two {i}") for i, text in enumerate(UNRELATED)]
    once, often = cluster.cluster(rows(*asked)), cluster.cluster(rows(*asked * times))
    assert often["skill"].tolist() == once["skill"].tolist() * times
    assert "" in set(once["skill"]) and not once["skill"].str.startswith("“").any()


def test_a_question_that_fills_a_table_is_a_kind_of_its_own():
    lone = ("杯子是什么颜色的?", "红", "蓝")
    others = [(f"what colour is the {noun}?", "red", "blue") for noun in synthetic.NOUNS]
    assert cluster.cluster(rows(*[lone] * 3, *others))["skill"].tolist()[:3] == ["“杯子是什么颜色的”"] * 3
    assert cluster.cluster(rows(*[lone] * 3, *others * 3))["skill"].tolist()[:3] == [""] * 3


@pytest.mark.parametrize("kind", [object, "string", "str"])
def test_missing_cells_of_every_kind_are_empty_texts(kind):
    asked = [("what colour is it?", "red", "blue")] * 3 + [(pd.NA, "yes", "no"), ("is it wet?", pd.NA, pd.NA)]
    table = rows(*asked).astype(dict.fromkeys(["question", "consensus", "target_answer"], kind))
    clustered = cluster.cluster(table.assign(auditor=pd.Series(["trained"] * 4 + [pd.NA], dtype=kind)))
    assert clustered["category"].tolist() == [0, 0, 0, -1, -1]
    assert names.categories(clustered)["name"].tolist() == ["colour: red said as blue"]


def test_a_list_of_answers_in_a_cell_is_its_text():
    boxes = rows(*[("what colour is it?", np.array(["red", "pink"]), np.array([1, 2]))] * 3)
    assert names.categories(cluster.cluster(boxes))["name"].tolist() == ["colour: ['red' 'pink'] said as [1 2]"]


def test_types_are_counted_from_the_trained_auditor_and_the_others_stand_beside():
    texts = [("what colour is the cup?", "purple", "blue")] * 7 + [("which digit is written?", "eight", "three")] * 4
    table = rows(*texts).assign(auditor=["trained"] * 3 + ["random"] * 4 + ["random"] * 4)
    clustered = cluster.cluster(table)
    assert clustered["category"].tolist() == [0] * 7 + [-1] * 4
    found = names.categories(clustered).iloc[0]
    assert (found["size"], found["by_random"], found["share"]) == (3, 4, 1.0)
    assert cluster.cluster(table.assign(auditor="random"))["category"].nunique() == 2  # where none is trained, all are counted


ODD = ["", "???", None, float("nan"), 7, 2.5, "\ud800 what?", "x" * 2000, "word " * 400, "<script>alert(1)</script>",
       "**a** | [b](c)", "杯子是什么颜色的?", "ما لون الكوب؟", "what colour is it?\nand why?"]


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_any_texts_give_a_table_and_a_report(n):
    texts = [(ODD[i % len(ODD)], ODD[(i * 5) % len(ODD)], ODD[(i * 11 + 3) % len(ODD)]) for i in range(n * len(ODD))]
    clustered = cluster.cluster(rows(*texts))
    table = names.categories(clustered)
    assert len(clustered) == len(texts) and table["name"].is_unique
    assert table["size"].sum() == (clustered["category"] >= 0).sum()
    text = report.written(clustered, table, None, NOBODY_ASKED)
    assert "<script>" not in text and max(map(len, text.splitlines())) < 1000 and table["name"].str.len().max() < 150
    assert cluster.belongs(clustered, [text for text, *_ in texts], [a for _, a, _ in texts]).shape == (len(texts),)


@pytest.mark.parametrize("text", ["杯子是什么颜色的?", "ما لون الكوب؟", "", "q?"])
def test_many_equal_failures_are_one_type_or_none(text):
    clustered = cluster.cluster(rows(*[(text, "红", "蓝")] * 2000))
    assert clustered["category"].nunique() == 1


def test_the_work_grows_no_faster_than_the_failures():
    def steps(n):
        failures, count = synthetic.failures(n, seed=4), 0

        def counting(*_):
            nonlocal count
            count += 1
        sys.setprofile(counting)
        try:
            cluster.cluster(failures)
        finally:
            sys.setprofile(None)
        return count
    steps(100)  # the catalogue is read once
    few, many = steps(1000), steps(8000)
    assert many < few * 8**1.2


def test_spelling_of_an_answer_does_not_split_a_type():
    texts = [("how many things are there?", "four", "3"), ("how many things are there?", "4", "Three."),
             ("how many things are there?", "Four", "three")]
    assert cluster.cluster(rows(*texts))["category"].tolist() == [0, 0, 0]


def test_words_that_vary_are_marked_and_words_that_tell_questions_apart_are_kept():
    texts = [(f"what colour is the {noun}?", "purple", "blue") for noun in ("cup", "star", "sun")]
    texts += [(f"what size is the {noun}?", "large", "small") for noun in ("cup", "star", "sun")]
    texts += [(f"what colour is the thing that {does}?", "red", "grey") for does in ("flies", "cuts paper", "holds a ship")]
    forms = cluster.question_forms(keyed(texts))
    assert set(forms) == {"what colour is the …", "what size is the …", "what colour is the thing that …"}


def test_counting_things_of_a_colour_is_not_counting_things_of_a_kind():
    texts = [(f"how many {colour} things are there?", "four", "two") for colour in ("red", "blue", "pink", "grey")]
    texts += [(f"how many {kind} are there?", "four", "two") for kind in ("cups", "stars", "suns", "flags")]
    assert set(cluster.question_forms(keyed(texts))) == {"how many … things are there", "how many … are there"}


def test_odd_texts_get_a_readable_name():
    texts = [("???", "yes", "")] * 3 + [("who are you", "a long answer " * 20, "None")] * 3
    empty, long = sorted(names.categories(cluster.cluster(rows(*texts)))["name"])
    assert empty == "“???”: yes said as (nothing)"
    assert long.startswith("“who are you”: a long answer") and long.endswith("… said as none") and len(long) < 120


def test_a_failure_asked_twice_of_one_picture_counts_once():
    probes = pd.DataFrame(dict(
        probe_id=["a", "b", "c", "d"], image=["x", "x", "y", "y"], source_image=["x", "x", "y", "y"], auditor="random",
        question=["q?", "q?", "q?", "r?"], consensus="yes", target_answer="no", disagrees=[True, True, True, False],
        picture_reason=None))
    assert cluster.select_failures(probes)["probe_id"].tolist() == ["a", "c"]
    trained = probes.assign(auditor=["random", "trained", "random", "random"])
    assert cluster.select_failures(trained)["probe_id"].tolist() == ["b", "c"]  # the auditor's that is counted


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


def test_a_sample_has_the_types_of_the_whole():
    failures = synthetic.failures(8000, seed=6)
    whole, half = cluster.cluster(failures), cluster.cluster(failures.iloc[::2])
    inside = failures["gap"].iloc[::2].notna()
    assert grading.adjusted_rand_score(whole["category"].iloc[::2][inside], half["category"][inside]) > 0.95


def test_questions_beyond_the_sample_go_where_their_words_say(graded, monkeypatch):
    failures, clustered, *_ = graded
    monkeypatch.setattr(groups, "SAMPLE", 60)
    monkeypatch.setattr(groups, "FEWEST", 1)
    assert failures["question"].nunique() > 100
    found = cluster.cluster(failures.drop(columns=["gap", "skill"]))
    assert grading.adjusted_rand_score(clustered["skill"], found["skill"]) > 0.9


def test_the_report_says_how_other_languages_are_read():
    asked = [("Wie viele Fenster hat das Haus?", "zwei", "drei"), ("what colour is it?", "red", "blue")]
    clustered = cluster.cluster(rows(*asked * 3))
    found = report.written(clustered, names.categories(clustered), None, NOBODY_ASKED)
    assert clustered["skill"].nunique() == 2 and "hardly a word" not in found  # asked often enough to be a kind
    clustered = cluster.cluster(rows(*asked, *asked[1:] * 3))
    found = report.written(clustered, names.categories(clustered), None, NOBODY_ASKED)
    assert "In 1 of the questions hardly a word is known" in found and "the parameter `encoder`" in found
    english = clustered[clustered["skill"] == "colour"]
    assert "encoder" not in report.written(english, names.categories(english), None, NOBODY_ASKED)


def test_where_nothing_was_verified_the_report_speaks_of_suspicions():
    clustered = cluster.cluster(synthetic.failures(60))
    table = names.categories(clustered, verified=False)
    text = report.written(clustered, table, None, NOBODY_ASKED, verified=False)
    assert "# Types of suspicion" in text and "60 suspicions in " in text and "either may be right" in text
    said = text.replace("asked without looking for failures", "") + table["description"].str.cat()
    assert not re.search("(?i)failure|right and wrong", said)
    none = clustered.head(0)
    assert "No suspicion was found" in report.written(none, names.categories(none, False), None, NOBODY_ASKED, False)
