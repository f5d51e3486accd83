"""Alarms: each degenerate policy fires its own within 20 steps and not before its time; healthy ones fire none."""

import random

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Trainer, TrainingArguments

from auditdm_lib.audit.auditor import empty_proposals, judge_proposed
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.models.vlm import load_vlm
from auditdm_lib.testbed.checkpoint import CHECKPOINTS
from auditdm_lib.training.alarms import NO_SIGNAL, PATIENCE, Alarm, Finite, Watch

WORDS = "what colour is the big star under a round clock near two cups and birds".split()


def step_of(questions, rewards, answers=("red", "red"), consensus="red", invalid=None):
    """A step's judged probes; scalars stand for every probe."""
    n = len(questions)
    def spread(value):
        return value if isinstance(value, list) and len(value) == n else [value] * n
    return dict(kind="question", pairing="Q*,I", caption=None, edit=None, question=questions, invalid_reason=spread(invalid),
                reference_answers=[list(a) for a in spread(answers)], consensus=spread(consensus), in_full=True,
                reward=[float(r) for r in rewards])


def healthy(rng, n=16):
    """A mixed lot: hits, agreement, references that differ or decline, texts that do not end."""
    answers = [rng.choice([["red", "red"]] * 6 + [["red", "blue"], ["cannot tell", "red"], ["cannot tell", "cannot tell"]])
               for _ in range(n)]
    agreed = ["red" if a == b == "red" else None for a, b in answers]
    invalid = [rng.choice([None] * 7 + ["unfinished"]) for _ in range(n)]
    return step_of([" ".join(rng.sample(WORDS, 5)) for _ in range(n)], [rng.random() < 0.3 for _ in range(n)], answers, agreed,
                   invalid)


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
        lambda rng: healthy(rng) | dict(reference_answers=[["cannot tell", None]] * 16, consensus=None),
        PATIENCE, "the temperature"),
    "gibberish (one blurts something out)": (
        lambda rng: healthy(rng) | dict(reference_answers=[["zero", "cannot tell tell"]] * 16, consensus=None),
        PATIENCE, "lower the learning rate"),
    "references disagree": (
        lambda rng: healthy(rng) | dict(reference_answers=[["red", "blue"]] * 16, consensus=None, invalid_reason=None,
                                        reward=alternating()),
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


def fresh(n):
    return [f"is thing {i} red ?" for i in range(n)]


NINE_TENTHS = {  # alarm -> a step of 100 texts, of which n show its sign
    "Constant output": lambda n: step_of(["is it red ?"] * n + fresh(100 - n), alternating(100)),
    "Gibberish, unfinished": lambda n: step_of(fresh(100), alternating(100), invalid=["unfinished"] * n + [None] * (100 - n)),
    "Gibberish, empty": lambda n: step_of(fresh(100), alternating(100), invalid=["empty"] * n + [None] * (100 - n)),
    "Gibberish, unreadable": lambda n: step_of(["|" * (i + 1) for i in range(n)] + fresh(100 - n), alternating(100)),
    "Gibberish, undecodable": lambda n: step_of([f"{q}\ufffd" for q in fresh(n)] + fresh(100 - n), alternating(100)),
    "Gibberish, declined": lambda n: step_of(
        fresh(100), alternating(100), [["cannot tell"] * 2] * n + [["red"] * 2] * (100 - n), [None] * n + ["red"] * (100 - n)),
    "References disagree": lambda n: step_of(
        fresh(100), alternating(100), [["red", "blue"]] * n + [["red"] * 2] * (100 - n), [None] * n + ["red"] * (100 - n)),
}


@pytest.mark.parametrize("name", NINE_TENTHS)
def test_an_alarm_needs_nine_tenths(name):
    assert watched(lambda step: NINE_TENTHS[name](89), 40) == (None, "")
    step, said = watched(lambda step: NINE_TENTHS[name](90))
    assert step == PATIENCE and said.startswith(name.split(",")[0])


def test_equal_rewards_are_a_fault_below_a_mean_of_95_percent():
    def solved(pictures):  # of 20 pictures with 4 texts each
        return step_of(fresh(80), [1] * 4 * pictures + [0] * 4 * (20 - pictures))

    assert watched(lambda step: solved(19), 40) == (None, "")
    step, said = watched(lambda step: solved(18))
    assert step == NO_SIGNAL and said.startswith("No learning signal")
    assert watched(lambda step: solved(18) | dict(reward=[1.0] * 75 + [0.5] + [0.0] * 4), 40) == (None, "")  # one group differs


def test_one_text_a_picture_has_no_groups_to_learn_from():
    assert watched(lambda step: step_of(fresh(16), [0.0] * 16), 40, size=1) == (None, "")


@pytest.mark.parametrize(("answers", "agreed"), [
    (["cannot tell", "red", "red"], "red"),  # two of three know what is asked
    (["cannot tell", "red", None], None),  # the cascade stopped: the target says red too, and that is all we know
    ([None, None, None], None)])  # nobody was asked
def test_a_reference_that_declines_alone_is_no_gibberish(answers, agreed):
    assert watched(lambda step: step_of(fresh(16), alternating(), answers, agreed), 40) == (None, "")


@pytest.mark.parametrize("reference_answers", [["red", None], ["red", "cannot tell"], ["cannot tell", "cannot tell"]])
def test_where_fewer_than_two_vote_the_references_are_not_blamed(reference_answers):
    _, said = watched(lambda step: step_of(fresh(16), alternating(), reference_answers, None), 40)
    assert "eferences disagree" not in said


def test_what_was_not_asked_in_full_does_not_count_against_the_references():
    made = step_of(fresh(16), alternating(), ("red", "blue"), None)
    assert watched(lambda step: made | dict(in_full=False), 40) == (None, "")
    assert watched(lambda step: made | dict(in_full=[True] + [False] * 15))[0] == PATIENCE


def test_a_text_of_half_letters_is_readable():
    assert watched(lambda step: step_of([f"{c}?" for c in "abcdefghijklmnop"], alternating()), 40) == (None, "")


def test_most_alarms_wait_for_five_steps_and_the_one_of_no_signal_for_ten():
    assert (PATIENCE, NO_SIGNAL) == (5, 10)


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


def test_a_real_training_stops_at_the_step_whose_loss_is_no_number(tmp_path):
    class Diverging(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return dict(loss=(self.weight * x.mean()).sum())

    x = torch.tensor([1.0, 2.0, float("nan"), 3.0])
    arguments = TrainingArguments(
        output_dir=tmp_path, max_steps=4, per_device_train_batch_size=1, logging_steps=1, save_strategy="steps", save_steps=1,
        report_to="none", use_cpu=True, disable_tqdm=True, train_sampling_strategy="sequential")
    trainer = Trainer(Diverging(), arguments, train_dataset=[dict(x=v) for v in x], callbacks=[Finite()])
    with pytest.raises(Alarm, match="of step 3 is nan"):  # the Trainer hides such a loss, but not its gradient
        trainer.train()
    assert sorted(f.name for f in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.text(), min_size=20, max_size=20), st.lists(st.text(), min_size=4, max_size=4))
def test_any_text_can_be_watched(questions, answers):  # 500 times 20 are 10,000 texts
    made = step_of(questions, [0, 1, 0, 0] * 5, answers=[[a, b] for a in answers for b in answers + ["red"]], consensus=None)
    step, said = watched(lambda step: made, PATIENCE)
    assert (step, said) == (None, "") or step == PATIENCE and said.startswith(("Constant", "Gibberish", "References"))


@pytest.fixture(scope="module")
def testbed():
    """The testbed's own panel, and four pictures four times each."""
    target, *references = (load_vlm(CHECKPOINTS / name) for name in ("target", "paligemma2-m-flawed", "gemma3-l-flawed"))
    return Panel(target, references), load_pictures("testbed", 4, 0).take([i // 4 for i in range(16)])


def ask_the(testbed, write, **how):
    """What a watch of 20 steps says where probe i of a step asks `write(i, rng)`."""
    panel, pictures = testbed

    def asked(step):
        rng, table = random.Random(step), empty_proposals(["question"] * 16)
        table["question"] = [write(i, rng) for i in range(16)]
        judged = judge_proposed(panel, pictures, table, seed=step, **how)
        return judged.assign(reward=judged["disagrees"].astype(float)).to_dict("list")

    return watched(asked)


def random_letters(i, rng):
    """What a policy gone mad writes."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz   ") for _ in range(20))


def test_random_letters_are_gibberish_to_the_real_panel(testbed):
    step, said = ask_the(testbed, random_letters)
    assert step == PATIENCE and said.startswith("Gibberish")


def test_with_the_cascade_random_letters_are_stopped_too(testbed):
    # a target that blurts out what the first reference did spares the second, so here gibberish can go unrecognised
    step, said = ask_the(testbed, random_letters, cascade=True)
    assert step in (PATIENCE, NO_SIGNAL) and said.startswith(("Gibberish", "No learning signal"))


def test_sensible_questions_to_the_real_panel_fire_no_alarm(testbed):
    assert ask_the(testbed, testbed[1].random_question) == (None, "")


def test_one_question_that_was_asked_in_full_does_not_tell_that_the_references_disagree():
    made = step_of(fresh(16), alternating(), ("red", "blue"), None) | dict(step=1)
    Watch(patience=1).answers(pd.DataFrame(made | dict(in_full=[True] * 2 + [False] * 14)), 4)
    with pytest.raises(Alarm, match="References disagree"):
        Watch(patience=1).answers(pd.DataFrame(made | dict(in_full=[True] * 3 + [False] * 13)), 4)
