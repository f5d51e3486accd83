"""Probes: what counts, and how search success is reckoned."""

import random

import numpy as np
import pandas as pd
import pytest
from scripted import replies_by

from auditdm_lib.audit import panel as panels
from auditdm_lib.audit.arms import random_arm
from auditdm_lib.audit.auditor import empty_proposals
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.audit.probes import NOT_ASKED, gap_hits, grading, make_probes, malformed, search_ceiling, search_table
from auditdm_lib.testbed.gaps import Gap, save_gaps


@pytest.fixture
def panel(monkeypatch):
    """A panel whose models are functions (image, question) -> answer."""
    def answer(model, images, questions):
        return [model(image, q) for image, q in zip(images, questions, strict=True)]

    def make(target, first, second):
        for model, name in ((target, "target"), (first, "first"), (second, "second")):
            model.name = name
        return Panel(target, [first, second])

    monkeypatch.setattr(panels, "replies", replies_by(answer))
    return make


def asked(texts, ended=None):
    """A table of proposed questions."""
    table = empty_proposals(["question"] * len(texts))
    table["question"] = texts
    table["invalid_reason"] = [malformed(t, e) for t, e in zip(texts, ended or [True] * len(texts), strict=True)]
    return table


def random_questions(pictures, seed):
    rng = random.Random(seed)
    return pd.Series([pictures.random_question(i, rng) for i in range(len(pictures))])


def made_of(members, pictures, texts, ended=None):
    names = [f"images/{i}.png" for i in range(len(pictures))]
    return make_probes(members, pictures, "odd", asked(texts, ended), 0, names, names)


def test_a_text_that_did_not_end_or_is_empty_is_no_question():
    assert malformed("what is", False) == "unfinished" and malformed(" ", True) == "empty"
    assert malformed("what is it?", True) is None


def world_panel(panel, wrong=lambda q: "colour" in q):
    """References that know the truth; a target that is wrong on questions that `wrong` picks."""
    pictures = load_pictures("testbed", 40, 0, split="probe")
    place = {id(image): i for i, image in enumerate(pictures.images)}

    def true(image, q):
        return pictures.truth.right_answer(place[id(image)], q) or "cannot tell"

    return pictures, panel(lambda im, q: "never" if wrong(q) else true(im, q),
                           lambda im, q: true(im, q), lambda im, q: true(im, q))


def test_a_verified_failure_is_valid_disagrees_and_is_wrong(panel):
    pictures, members = world_panel(panel)
    names = [f"images/{i}.png" for i in range(40)]
    _, made = random_arm(members, pictures, 0, names)
    assert made["valid"].all() and made["probe_id"].is_unique
    assert (made["verified_failure"] == made["question"].str.contains("colour")).all()
    assert made["verified_failure"].any() and not made["verified_failure"].all()


def test_a_question_without_an_answer_is_an_attempt_that_found_nothing(panel):
    pictures, members = world_panel(panel)
    made = made_of(members, pictures, ["is the sky angry?"] * 20 + ["how many things are there?"] * 20,
                   [True] * 30 + [False] * 10)
    assert made["invalid_reason"].value_counts().to_dict() == {"not answerable": 20, "unfinished": 10}
    assert not made["verified_failure"].any()
    search = search_table(made, grading(made, pictures, "org/model"), 0.5, {"odd": 7}).iloc[0]
    assert (search["attempts"], search["success"], search["invalid"], search["training_calls"]) == (40, 0, 30, 7)
    assert search["ci_low"] == 0 and 0 < search["ci_high"] < 0.15


def test_a_question_on_which_the_target_erred_is_an_invalid_probe(panel):
    pictures, members = world_panel(panel)
    first, texts = members.target, random_questions(pictures, 0)
    fails = texts.str.contains("colour").to_numpy()

    def target(image, q):
        if "colour" in q:
            raise ValueError("no colours today")
        return first(image, q)

    broken = panel(target, *members.references)
    with pytest.warns(UserWarning, match="no colours today"):
        made = made_of(broken, pictures, texts.tolist())
    assert (made["invalid_reason"] == "target error").tolist() == fails.tolist() and 0 < fails.sum() < 40
    assert (made["valid"] == ~fails).all() and made["target_answer"].isna().tolist() == fails.tolist()
    assert not made.loc[fails, "verified_failure"].any() and not made.loc[fails, "disagrees"].any()
    assert search_table(made, None, None, {})["invalid"].tolist() == [fails.sum()]
    wrong = Panel(broken.target, [lambda image, q: "mistaken"] * 2)  # so is the consensus, where the target raised an error
    for reference in wrong.references:
        reference.name = "reference"
    with pytest.warns(UserWarning, match="no colours today"):
        made = made_of(wrong, pictures, texts.tolist())
    noise = search_table(made, grading(made, pictures, "org/model"), None, {})["label_noise"].tolist()
    assert noise == [(~fails).sum()]


def test_a_malformed_text_is_called_that_and_no_error_of_the_target(panel):
    pictures, members = world_panel(panel)
    made = made_of(members, pictures, random_questions(pictures, 0).tolist(), [False] + [True] * 39)
    assert made["invalid_reason"].value_counts().to_dict() == {"unfinished": 1}


def test_a_wrong_consensus_is_label_noise_and_not_a_failure(panel):
    pictures, members = world_panel(panel)
    swapped = Panel(members.references[0], [members.target, members.target])  # now the references are wrong together
    made = made_of(swapped, pictures, random_questions(pictures, 0).tolist())
    search = search_table(made, grading(made, pictures, "org/model"), None, {}).iloc[0]
    assert made["disagrees"].sum() == search["label_noise"] > 0 == search["verified_failures"]
    rejected = search_table(made.assign(picture_reason="colour"), grading(made, pictures, "org/model"), None, {}).iloc[0]
    counts = ["label_noise", "disagreements_known", "consensus_probes", "consensus_answerable"]
    assert (search[counts] > 0).all() and (rejected[counts] == 0).all()  # such a picture says nothing of the consensus


def test_the_ceiling_is_one_where_every_picture_has_a_failing_question_and_zero_where_none_has(panel):
    pictures, always = world_panel(panel, wrong=lambda q: "how many things" in q)
    assert search_ceiling(always, pictures, 10) == 1
    pictures, never = world_panel(panel, wrong=lambda q: False)
    assert search_ceiling(never, pictures, 10) == 0


def test_the_ceiling_with_an_llm_judge_asks_every_member(panel, monkeypatch):
    pictures, members = world_panel(panel, wrong=lambda q: "how many things" in q)
    monkeypatch.setattr(panels, "same_meaning", lambda llm, triples: [False] * len(triples))
    assert search_ceiling(Panel(members.target, members.references, llm="judge"), pictures, 5) == 1
    monkeypatch.setattr(panels, "same_meaning", lambda llm, triples: [True] * len(triples))
    assert search_ceiling(Panel(members.target, members.references, llm="judge"), pictures, 5) == 0


def test_gap_hits_count_verified_failures_only():
    made = pd.DataFrame(dict(probe_id=list("abcd"), auditor="x", source_image=["1", "2", "3", "1"],
                             verified_failure=[True, False, True, True], invalid_reason=None))
    graded = pd.DataFrame(dict(probe_id=list("abcd"), skill="s", gap=["g", "g", None, "g"]))
    pictures = load_pictures("testbed", 40, 0)
    gaps = (Gap("g", "weather", "fair", {"answer": "rainy"}), Gap("h", "weather", "fair", {"answer": "foggy"}))
    names = [str(i) for i in range(40)]
    both = pd.concat([made, pd.DataFrame(dict(probe_id=[f"all {i}" for i in range(40)], auditor="all", source_image=names,
                                              verified_failure=False, invalid_reason=None))])
    found = gap_hits(both, graded, gaps, pictures, names)
    assert found["hits"].tolist() == [2, 0, 0, 0] and found["found_in"].tolist() == [1, 0, 0, 0]
    weather = [pictures.truth.right_answer(i, "what is the weather like?") for i in range(40)]
    of_all = [weather.count("rainy"), weather.count("foggy")]
    assert found["can_show"].tolist() == [weather[1:4].count("rainy"), weather[1:4].count("foggy"), *of_all] and of_all[0]
    both["invalid_reason"] = np.where(both["auditor"] == "all", NOT_ASKED, None)  # pictures that nothing was asked about
    assert gap_hits(both, graded, gaps, pictures, names)["can_show"].tolist() == [*found["can_show"][:2], 0, 0]
    assert list(gap_hits(made, graded, (), pictures, names)) == ["auditor", "gap", "hits", "found_in", "can_show"]


def test_probes_are_graded_by_the_gaps_of_the_target(tmp_path):
    save_gaps((Gap("rain is fair", "weather", "fair", {"answer": "rainy"}),), tmp_path)
    pictures = load_pictures("testbed", 40, 0)
    made = pd.DataFrame(dict(probe_id=[f"{i}" for i in range(40)], question="what is the weather like?"))
    graded = grading(made, pictures, tmp_path)
    rainy = [pictures.truth.right_answer(i, "what is the weather like?") == "rainy" for i in range(40)]
    assert graded["gap"].notna().tolist() == rainy and any(rainy) and set(graded["skill"]) == {"weather"}
    assert grading(made, pictures, "org/model")["gap"].isna().all()
