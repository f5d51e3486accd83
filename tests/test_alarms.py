"""Alarms: each degenerate policy fires its own within 20 steps and not before its time; healthy ones fire none."""

import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditdm_lib.alarms import NO_SIGNAL, PATIENCE, Alarm, Finite, Watch
from auditdm_lib.auditor import blank, put
from auditdm_lib.models import load_vlm
from auditdm_lib.panel import Panel
from auditdm_lib.pictures import load_pictures
from auditdm_lib.testbed.checkpoint import CHECKPOINTS

WORDS = "what colour is the big star under a round clock near two cups and birds".split()


def step_of(questions, rewards, answers=("red", "red"), consensus="red", invalid=None):
    """A step's judged probes; scalars stand for every probe."""
    n = len(questions)
    def spread(value):
        return value if isinstance(value, list) and len(value) == n else [value] * n
    return dict(caption=None, edit=None, question=questions, invalid_reason=spread(invalid),
                reference_answers=[list(a) for a in spread(answers)], consensus=spread(consensus), in_full=True,
                reward=[float(r) for r in rewards])


def healthy(rng, n=16):
    return step_of([" ".join(rng.sample(WORDS, 5)) for _ in range(n)], [rng.random() < 0.3 for _ in range(n)])


def alternating(n=16):
    return [i % 2 for i in range(n)]


def watched(make, steps=20, size=4):
    """The step at which an alarm was raised and what it said; (None, "") where none was."""
    watch = Watch()
    for step in range(1, steps + 1):
        try:
            watch.answers(pd.DataFrame(make(step) | dict(step=step)), size)
        except Alarm as alarm:
            return step, str(alarm)
    return None, ""


DEGENERATE = {
    "constant output": (lambda rng: step_of(["is it red ?"] * 16, alternating()), PATIENCE, "raise kl_weight"),
    "gibberish": (lambda rng: step_of(["".join(rng.choice("?!#.,a") for _ in range(9)) for _ in range(16)], alternating()),
                  PATIENCE, "lower the learning rate"),
    "gibberish (never ending)": (
        lambda rng: healthy(rng) | dict(invalid_reason=["unfinished"] * 15 + [None], reward=alternating()),
        PATIENCE, "lower the learning rate"),
    "gibberish (nobody can tell)": (
        lambda rng: healthy(rng) | dict(reference_answers=[["cannot tell", None]] * 16, consensus=None), PATIENCE, "temperature"),
    "references disagree": (
        lambda rng: healthy(rng) | dict(reference_answers=[["red", "blue"]] * 16, consensus=None, reward=alternating()),
        PATIENCE, "consensus_rule"),
    "no learning signal": (lambda rng: healthy(rng) | dict(reward=[0.0] * 16), NO_SIGNAL, "self-imitation"),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_degenerate_policy_fires_its_alarm_and_not_before_its_time(name):
    make, patience, remedy = DEGENERATE[name]
    step, said = watched(lambda step: make(random.Random(step)))
    assert step == patience <= 20 and said.lower().startswith(name.split(" (")[0]) and remedy in said


@pytest.mark.parametrize("name", DEGENERATE)
def test_one_healthy_step_starts_the_count_anew(name):
    make, patience, _ = DEGENERATE[name]
    assert watched(lambda step: (healthy if step % patience == 0 else make)(random.Random(step)), 40) == (None, "")


def test_a_solved_task_and_one_text_a_picture_are_no_fault():
    assert watched(lambda step: healthy(random.Random(step)) | dict(reward=[1.0] * 16), 40) == (None, "")
    same = [q for i in range(4) for q in [f"is the {WORDS[i]} red ?"] * 4]
    assert watched(lambda step: step_of(same, alternating()), 40) == (None, "")
    assert watched(lambda step: step_of(["is it red ?"] * 4, [0, 1, 0, 1]), 40) == (None, "")  # one picture only


@pytest.mark.parametrize("share", [14, 15])
def test_an_alarm_needs_nine_tenths(share):
    questions = ["is it red ?"] * share + ["a", "b"][:16 - share]
    assert (watched(lambda step: step_of(questions, alternating()))[0] is None) == (share == 14)


def test_random_healthy_policies_fire_none():
    for seed in range(10):
        rng = random.Random(seed)
        assert watched(lambda step: healthy(rng), 200) == (None, "")  # noqa: B023


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_fire_at_once(value):
    with pytest.raises(Alarm, match="reward of step 1 is not finite"):
        Watch().answers(pd.DataFrame(healthy(random.Random(0)) | dict(reward=[value] + [0.0] * 15, step=1)), 4)
    state = type("State", (), dict(global_step=7))
    Finite().on_log(None, state, None, logs=dict(loss=0.1, grad_norm=2.0))
    for name in ("loss", "grad_norm"):
        with pytest.raises(Alarm, match=f"{name} of step 7 is .*lower the learning rate"):
            Finite().on_log(None, state, None, logs={name: value})


@given(st.lists(st.text(), min_size=4, max_size=4), st.lists(st.text(), min_size=4, max_size=4))
def test_any_text_can_be_watched(questions, answers):
    made = step_of(questions, [0, 1, 0, 0], answers=[[a, a] for a in answers], consensus=None)
    step, said = watched(lambda step: made, size=2)
    assert (step is None) == (said == "")


def test_random_letters_make_the_real_references_abstain_or_are_unreadable():
    """What a policy gone mad writes, put to the testbed's own panel."""
    target, *references = (load_vlm(CHECKPOINTS / name) for name in ("target", "paligemma2-m-flawed", "gemma3-l-flawed"))
    panel, pictures = Panel(target, references), load_pictures("testbed", 4, 0).take([i // 4 for i in range(16)])

    def gone_mad(step):
        rng, table = random.Random(step), blank(["question"] * 16)
        table["question"] = ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz   ") for _ in range(20)) for _ in range(16)]
        judged = put(panel, pictures, table)
        return judged.assign(reward=judged["disagrees"].astype(float)).to_dict("list")

    step, said = watched(gone_mad)
    assert step is not None and step <= 20, "no alarm within 20 steps"
    assert said.startswith(("Gibberish", "No learning signal", "References disagree"))
