"""The report of failure types in plain sentences: from no failure to confirmed types, with texts that try to act as markup."""

import re

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from auditdm_lib.shown import UNKNOWN
from auditdm_lib.taxonomy import report
from auditdm_lib.taxonomy.confirm import CONFIRMATION_COLUMNS
from auditdm_lib.taxonomy.report import written

EMPTY = pd.DataFrame(columns=["skill", "probes", "disagrees"])
ASKED = pd.DataFrame([("colour", 400, 4), ("counting", 200, 60), ("weather", 300, 0), ("clocks", 9, 0)], columns=EMPTY.columns)


def failures(*types, lone=2):
    """Clustered failures: for each type (skill, question, consensus, target_answer, number), and some in no type."""
    rows = [(category, skill, f"{question} {k}?", right, wrong)
            for category, (skill, question, right, wrong, n) in enumerate(types) for k in range(n)]
    rows += [(-1, "", f"what else {k}?", "a", "b") for k in range(lone)]
    table = pd.DataFrame(rows, columns=["category", "skill", "question", "consensus", "target_answer"])
    return table.assign(probe_id=[f"p{i}" for i in range(len(table))])


def named(clustered):
    """As `names.categories` does, as far as the report reads it."""
    rows = []
    for category, own in clustered[clustered["category"] >= 0].groupby("category"):
        first = own.iloc[0]
        rows.append(dict(category=category, name=f"{first.skill}: {first.consensus} said as {first.target_answer}",
                         description="-", skill=first.skill, size=len(own), share=len(own) / len(clustered), by_random=category,
                         example_probe_ids=first.probe_id, example_question=first.question, example_consensus=first.consensus,
                         example_target=first.target_answer))
    columns = ["category", "name", "description", "skill", "size", "share", "by_random", "example_probe_ids", "example_question",
               "example_consensus", "example_target"]
    return pd.DataFrame(rows, columns=columns)


def confirmed(table, *rows):
    """confirmation.parquet: for each type (verdict, probes, target_wrong, needed)."""
    cells = [dict(category=one.category, name=one.name, skill=one.skill, verdict=verdict, probes=probes, target_wrong=wrong,
                  rate=wrong / probes if probes else None, ci_low=report.wilson(wrong, probes)[0], reference_rate=0.01,
                  needed=needed, not_seen=1)
             for one, (verdict, probes, wrong, needed) in zip(table.itertuples(), rows, strict=True)]
    return pd.DataFrame(cells, columns=CONFIRMATION_COLUMNS).astype({"needed": "Int64"})


THREE = failures(("colour", "what colour is thing", "purple", "blue", 12), ("counting", "how many things", "four", "three", 8),
                 ("reading", "what is written", "stop", "shop", 4))
TYPES = named(THREE)
VERDICTS = confirmed(TYPES, ("confirmed", 40, 30, None), ("confirmed", 30, 29, None), ("underpowered", 3, 2, 14))


def section(text, title):
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def test_it_says_what_the_target_is_strong_at_by_rate_and_not_by_count():
    strong = section(written(THREE, TYPES, VERDICTS, ASKED), "Strong at")
    lines = [line for line in strong.splitlines() if line.startswith("- ")]
    assert lines == ["- weather: the target differs from the references in 0 of 300 (0 %, 95 % interval 0 to 1 %)",
                     "- colour: the target differs from the references in 4 of 400 (1 %, 95 % interval 0 to 3 %); but see type 1"]
    assert "909 questions" in strong and "clocks" not in strong and "counting" not in strong  # few probes, many failures


@pytest.mark.parametrize("group", ["size / colour", "mixed: colour / word “cup”", "colour (“cup”)", "size / colour (2)"])
def test_a_strong_skill_refers_to_the_confirmed_types_of_every_group_that_lists_it(group):
    types = TYPES.assign(skill=TYPES["skill"].replace("colour", group))
    strong = section(written(THREE, types, VERDICTS, ASKED), "Strong at")
    assert [line.split("; ")[1:] for line in strong.splitlines() if line.startswith("- ")] == [[], ["but see type 1"]]


def test_a_target_with_nothing_strong_is_told_so():
    weak = written(THREE, TYPES, VERDICTS, ASKED[1:2])
    assert "at most 10 % of its questions may differ (200 questions about 1 skill)." in weak and "It is strong" not in weak


def test_it_says_what_the_target_is_weak_at_the_surest_first_with_rates_and_examples():
    weak = section(written(THREE, TYPES, VERDICTS, ASKED), "Weak at")
    assert weak.index("### 2. counting: four said as three") < weak.index("### 1. colour: purple said as blue")
    assert ("On fresh pictures the target is wrong in 29 of 30 (97 %, 95 % interval 83 to 99 %); a reference differs from the "
            "others in 1 %. The search found 8 failures of this type (by other auditors: random: 1).") in weak
    assert weak.count("- “how many things") == report.EXAMPLES
    assert "“how many things 0?”: right is “four”, the target says “three”" in weak
    assert ("- 3. reading: stop said as shop: 4 failures in the search; 2 of 3 (67 %, 95 % interval 21 to 94 %) of the fresh "
            "probes, too few to tell: about 14 would do") in weak


def test_it_says_how_sure_it_is_and_what_to_train_on():
    text = written(THREE, TYPES, VERDICTS, ASKED)
    sure = section(text, "How sure this is")
    assert "of 3 types 2 are, 0 are not, and of 1 too few probes could be made" in sure and "at most 5 %" in sure
    assert "3 probes do not count" in sure
    advice = [line for line in section(text, "What to train on").splitlines() if re.match(r"\d\.", line)]
    assert [line[:35] for line in advice] == ["1. colour: 1 confirmed type, 50 % o", "2. counting: 1 confirmed type, 33 %"]
    assert "questions such as “what colour is thing 0?” (answer: “purple”)" in advice[0]
    opening = text.split("## ")[0]
    assert "The audit found 26 failures in 3 types; 2 are like too few others" in opening
    assert "2 types are confirmed on fresh pictures, most surely counting: four said as three (97 % of the fresh" in opening
    assert "It is strong at weather and colour." in opening


def test_a_small_part_is_not_called_none():
    rows = failures(("colour", "what colour", "purple", "blue", 700), ("counting", "how many", "four", "three", 3))
    found = confirmed(named(rows), ("confirmed", 30, 30, None), ("confirmed", 30, 30, None))
    assert "2. counting: 1 confirmed type, less than 1 % of the failures in types;" in written(rows, named(rows), found, ASKED)


def test_the_rate_by_the_truth_stands_beside_that_by_the_consensus_where_it_is_known():
    known = VERDICTS.assign(corrected_rate=0.7, corrected_low=0.6, corrected_high=0.8)
    said = "Corrected for errors of the consensus it is wrong in 70 % (95 % interval 60 to 80 %)."
    assert written(THREE, TYPES, known, ASKED).count(said) == 2 and "Corrected" not in written(THREE, TYPES, VERDICTS, ASKED)


def test_examples_show_one_of_each_error_before_a_second_of_the_same():
    rows = failures(("colour", "what colour", "purple", "blue", 9), lone=0)
    rows.loc[8, "consensus"] = "violet"
    shown = re.findall(r"right is “(\w+)”", written(rows, named(rows), confirmed(named(rows), ("confirmed", 9, 9, None)), ASKED))
    assert shown == ["purple", "violet", "purple"]


def test_suspicions_are_not_called_failures():
    text = written(THREE, TYPES, VERDICTS, ASKED, verified=False)
    assert text.startswith("# Types of suspicion\n") and "either may be right" in text and "failure" not in text.replace(
        "looking for failures", "")
    assert "the references say “four”, the target says “three”" in text and "by your own eye" in text
    assert "nobody has said who is right" in text and "is wrong" not in text and "fresh probes different)" in text


def test_without_confirmation_every_type_is_called_a_possible_accident():
    text = written(THREE, TYPES, None, ASKED)
    assert "none was asked again on fresh pictures" in text and "fresh_probes above 0" in text and "Not confirmed" not in text
    assert "- 1. colour: purple said as blue: 12 failures in the search, for instance “what colour is thing 0?”" in text
    assert "Nothing is confirmed, so there is nothing to train on yet: confirm the types first." in text


def test_types_of_which_none_is_confirmed():
    none = confirmed(TYPES, ("not confirmed", 40, 1, None), ("underpowered", 0, 0, None), ("underpowered", 3, 2, 14))
    text = written(THREE, TYPES, none, ASKED)
    assert "No type is confirmed on fresh pictures." in text and "1 of 40 (2 %" in text and "not more than its references" in text
    assert "8 failures in the search; no fresh probe, too few to tell\n" in text and "nothing to train on yet" in text


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize("asked", [EMPTY, ASKED])
def test_no_failure_and_no_type_are_reported_plainly(verified, asked):
    nothing = failures(lone=0)
    text = written(nothing, named(nothing), confirmed(named(nothing)), asked, verified)
    assert f"No {'failure' if verified else 'suspicion'} was found" in text and "## Weak at" not in text
    assert ("weather" in text) == (len(asked) > 0) and ("Nothing can be said about this" in text) == (len(asked) == 0)
    two = failures(lone=2)
    said = written(two, named(two), None, asked, verified)
    assert f"2 {'failures' if verified else 'suspicions'}, too few alike to make a type of at least 3." in said


def test_no_text_of_a_model_acts_as_markup_and_long_ones_are_cut():
    evil = "<script>alert(1)</script> ![x](http://a.b/c.png) # *bold* `code`\n## Strong at"
    long, chinese, arabic = "x" * 2000, "这张图片里的雨伞是什么颜色？" * 20, "ما لون المظلة؟"
    rows = failures((evil, evil, evil, evil, 3), ("skill", long, long, long, 3), (chinese, chinese, chinese, arabic, 3))
    table = named(rows)
    asked = pd.DataFrame([(evil, 500, 0), (chinese, 500, 1)], columns=EMPTY.columns)
    text = written(rows, table, confirmed(table, *[("confirmed", 30, 30, None)] * 3), asked)
    page = MarkdownIt("commonmark").render(text)
    assert set(re.findall(r"<(\w+)", page)) == {"h1", "h2", "h3", "p", "ul", "ol", "li"} and page.count("<h2") == 4
    assert max(map(len, text.splitlines())) < 2500 and "xxx …" in text and "x" * 150 not in text
    assert "这张图片里的雨伞是什么颜色" in text and arabic in text
    odd = rows.assign(consensus=pd.Series(["\ud800"] * len(rows), dtype=object))
    assert UNKNOWN in written(odd, table, VERDICTS, asked).encode().decode()  # a lone surrogate


def test_the_same_rows_in_another_order_give_the_same_report():
    assert written(THREE.iloc[::-1], TYPES, VERDICTS, ASKED) == written(THREE, TYPES, VERDICTS.iloc[::-1], ASKED.iloc[::-1])


def test_rates_by_skill_are_of_probes_that_did_not_look_for_failures():
    probes = pd.DataFrame(
        [("random", "1.png", "a?", "red", False, None), ("prompt_only", "1.png", "a?", "red", False, None),  # the same question
         ("prompt_only", "2.png", "a?", "red", True, None), ("trained", "3.png", "a?", "red", True, None),
         ("random", "4.png", "a?", None, False, None), ("random", "5.png", "a?", "red", True, "not what its text says"),
         ("random", "6.png", "b?", "red", False, None), ("random", "7.png", "c?", "red", False, None),
         ("random", "8.png", "d?", "red", False, None)],
        columns=["auditor", "image", "question", "consensus", "disagrees", "picture_reason"])
    probes["invalid_reason"] = [*[None] * 8, "target not asked"]  # the references agreed before the limit of target calls
    skills = ["colour"] * 6 + ["counting", "", "counting"]
    table = report.asked_by_chance(probes, skills)
    assert table.to_dict("list") == dict(skill=["colour", "counting"], probes=[2, 1], disagrees=[1, 0])
    assert report.asked_by_chance(probes[:0], []).empty
