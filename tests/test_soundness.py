"""A broken member stops the run with its name; a collapsed auditor or a question that nobody can answer does not."""

import pandas as pd
import pytest
from scripted import replies_by

from auditdm_lib.audit import panel as panels
from auditdm_lib.audit.panel import Panel, judge, try_out
from auditdm_lib.audit.probes import try_members
from auditdm_lib.audit.soundness import Broken
from auditdm_lib.testbed.checkpoint import CHECKPOINTS

COLOURS = ["red", "blue", "green", "yellow"]
N = 40
QUESTIONS = [f"what colour is thing {i}?" for i in range(N)]
VARIED = [COLOURS[i % 4] for i in range(N)]


def panel_of(monkeypatch, **said):
    """A panel whose members say a list, or one text to everything."""
    lists = {name: [text] * N if isinstance(text, str) else text for name, text in said.items()}
    monkeypatch.setattr(panels, "replies", replies_by(lambda m, images, questions: [
        lists[m.name][QUESTIONS.index(q)] for q in questions]))
    target, *references = [type("Member", (), dict(name=name))() for name in said]
    return Panel(target, references)


def judged(panel, **how):
    return judge(panel, [None] * N, QUESTIONS, [None] * N, **how)


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("broken", ["target", "reference 1", "reference 2"])
@pytest.mark.parametrize("says", ["", "yes", "red"])
def test_a_member_that_says_nothing_or_always_the_same_is_named(monkeypatch, broken, says, cascade):
    said = {name: says if name == broken else VARIED for name in ("target", "reference 1", "reference 2")}
    if cascade and broken == "reference 2" and says != "":  # asked only where the others differ
        said["target"] = VARIED[1:] + VARIED[:1]
    if cascade and broken == "reference 2" and says == "":
        said["target"] = VARIED[1:] + VARIED[:1]
    with pytest.raises(Broken, match=f"The {broken} said "):
        judged(panel_of(monkeypatch, **said), cascade=cascade)


@pytest.mark.parametrize("broken", ["target", "reference 1"])
def test_with_one_reference_the_other_is_its_peer(monkeypatch, broken):
    said = {name: "red" if name == broken else VARIED for name in ("target", "reference 1")}
    with pytest.raises(Broken, match=f"The {broken} said 'red' to each of 40 questions, to which others gave 4 different"):
        judged(panel_of(monkeypatch, **said))


def test_a_collapsed_auditor_is_no_broken_member(monkeypatch):
    """All references give one answer to all questions: they asked for one thing, and the target errs in many ways."""
    table = judged(panel_of(monkeypatch, target=VARIED, first="purple", second="purple"))
    assert table["disagrees"].all()


def test_questions_that_make_no_sense_break_nobody_in_a_training(monkeypatch):
    panel = panel_of(monkeypatch, target=VARIED, first="cannot tell", second=VARIED)
    assert not judged(panel)["disagrees"].any()
    with pytest.raises(Broken, match="The reference 1 said 'cannot tell' to each of 40 questions"):
        try_out(panel, [None] * N, QUESTIONS)  # questions known to have answers


def test_few_answers_are_no_evidence(monkeypatch):
    panel = panel_of(monkeypatch, target="red", first=VARIED, second=VARIED)
    assert len(judge(panel, [None] * 19, QUESTIONS[:19], [None] * 19)) == 19


def test_replies_that_never_end_stop_the_run(monkeypatch):
    panel = panel_of(monkeypatch, target=VARIED, first=VARIED, second=VARIED)

    def endless(member, images, questions, **_):
        return pd.DataFrame(dict(reply=["I see a"] * len(questions), ended=member.name != "first"))

    monkeypatch.setattr(panels, "replies", endless)
    with pytest.raises(Broken, match="40 of 40 replies of the reference 1 did not end .* raise answer_tokens"):
        judged(panel)


def test_an_unfinished_reply_is_counted_and_never_compared(monkeypatch):
    panel = panel_of(monkeypatch, target=VARIED, first=VARIED, second=VARIED)

    def cut(member, images, questions, **_):
        places = [QUESTIONS.index(q) for q in questions]
        wrong = [{"target": 0, "first": 1}.get(member.name) == i for i in places]
        return pd.DataFrame(dict(reply=["a long story" if w else VARIED[i] for i, w in zip(places, wrong, strict=True)],
                                 ended=[not w for w in wrong]))

    monkeypatch.setattr(panels, "replies", cut)
    table = judged(panel)
    assert table["unfinished"].tolist() == [1, 1] + [0] * 38 and not table["errors"].any() and not table["disagrees"].any()
    assert table["target_answer"][0] is None and table["target_missing"][0] == "unfinished"
    assert table["consensus"].isna().tolist() == [False, True] + [False] * 38


def test_the_members_of_the_testbed_are_tried_out():
    from auditdm_lib.audit.pictures import load_pictures
    from auditdm_lib.models.vlm import load_members

    panel = Panel(*(lambda first, *rest: (first, rest))(*load_members(
        CHECKPOINTS / "target", [CHECKPOINTS / "paligemma2-m-flawed", CHECKPOINTS / "gemma3-l-flawed"])))
    table = try_members(panel, load_pictures("testbed", 48, 0), 0)
    assert table["member"].tolist() == ["target", "reference 1", "reference 2"]
    assert (table["answers"] + table["unfinished"] == 48).all() and (table["different"] > 10).all()
