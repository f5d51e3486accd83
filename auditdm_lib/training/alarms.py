"""Alarms that stop an auditor's training where going on is a waste: each says what was seen, how often, and a remedy.

They read texts, answers and numbers of the training only, and nothing of any world.
"""

import math
from dataclasses import dataclass, field

import pandas as pd
from transformers import TrainerCallback

from auditdm_lib.answers import ABSTENTIONS, normalise
from auditdm_lib.audit.counterfactuals import UNDRAWN
from auditdm_lib.audit.probes import COUNTED, texts

PATIENCE = 5  # steps in a row before most alarms
NO_SIGNAL = 10  # groups without a difference are common, so this one waits longer
NEARLY_ALL = 0.9
SOLVED = 0.95  # a mean reward from which equal rewards are no fault


class Alarm(RuntimeError):
    """Training went astray."""


@dataclass
class Watch:
    """Counts, for each alarm and kind of probe, in how many steps in a row its sign was seen; raises Alarm at the last that is
    allowed."""

    patience: int = PATIENCE
    seen: dict[tuple[str, str], int] = field(default_factory=dict)

    def answers(self, judged: pd.DataFrame, group_size: int) -> None:
        """A step's judged probes (`auditor.put`, with columns step and reward), consecutive groups of `group_size` a picture.

        Steps of one kind of probe count as in a row though others lie between. Of single texts a picture (group_size 1,
        self-imitation) no learning signal is asked.
        """
        step, rewards = int(judged["step"].iloc[0]), judged["reward"].to_numpy(float)
        kind = judged["kind"].iloc[0] if judged["kind"].nunique() == 1 else "probe"
        if not all(map(math.isfinite, rewards)):
            raise Alarm(f"A reward of step {step} is not finite: check the panel's answers.")
        said = [texts(judged[column]) for column in ("caption", "edit", "question")]
        written = ["\n".join(t or "" for t in row) for row in zip(*said, strict=True)]
        agreed, answers = texts(judged["consensus"]), judged["reference_answers"]
        groups = rewards.reshape(-1, group_size)
        self._count("constant output", len(groups) > 1 and _commonest(written) >= NEARLY_ALL, self.patience, kind, step,
                    "the auditor writes the same text about nearly every picture", "lower the learning rate or raise kl_weight")
        gibberish = [r in (*COUNTED, UNDRAWN) or not _readable(w) or _makes_no_sense(a, c) for r, w, a, c in
                     zip(texts(judged["invalid_reason"]), written, answers, agreed, strict=True)]
        self._count("gibberish", _share(gibberish) >= NEARLY_ALL, self.patience, kind, step,
                    "nearly all of the auditor's texts do not end, are unreadable, cannot be drawn, or make references decline",
                    "lower the learning rate or the temperature, or raise kl_weight; and see that no reference declines always")
        voted = [c is None for c, f, a in zip(agreed, judged["in_full"], answers, strict=True)
                 if f and sum(not _declines(x) for x in a) >= 2]
        self._count("references disagree", _share(voted) >= NEARLY_ALL, self.patience, kind, step,
                    "the references disagree with each other on nearly everything they are asked",
                    "choose stronger references, set consensus_rule to majority, or name a judge_model")
        equal = group_size > 1 and bool((groups == groups[:, :1]).all())
        self._count("no learning signal", equal and rewards.mean() < SOLVED, NO_SIGNAL, kind, step,
                    "all texts about one picture earn the same reward, so there is nothing to learn from",
                    "raise group_size or temperature, or begin with more rounds of self-imitation")

    def _count(self, alarm: str, sign: bool, patience: int, kind: str, step: int, what: str, remedy: str) -> None:
        self.seen[alarm, kind] = self.seen.get((alarm, kind), 0) + 1 if sign else 0
        if self.seen[alarm, kind] >= patience:
            raise Alarm(f"{alarm.capitalize()}: in {patience} steps of the kind {kind} up to step {step} {what}. "
                        f"To go on, {remedy}.")


class Finite(TrainerCallback):
    """Raises the alarm over a loss or a gradient that is not finite."""

    def on_log(self, args, state, control, logs=None, **_):
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise Alarm(f"{name} of step {state.global_step} is {logs[name]}: lower the learning rate.")


def _share(marks: list[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0


def _commonest(written: list[str]) -> float:
    return max(map(written.count, set(written))) / len(written)


def _readable(text: str) -> bool:
    """At least half of what is no space is letters or digits, and nothing is a character that could not be decoded."""
    marks = [c for c in text if not c.isspace()]
    return "\ufffd" not in text and 2 * sum(c.isalnum() for c in marks) >= len(marks)


def _makes_no_sense(answers: list[str | None], agreed: str | None) -> bool:
    """Every reference that was asked declines; or all were asked, some decline, and the others come to no consensus.

    On random letters a small model may blurt out an answer, so that all decline is too much to ask; and where one was not
    asked (None), those that spoke may yet be right.
    """
    asked = [_declines(a) for a in answers if a is not None]
    return bool(asked) and (all(asked) or any(asked) and agreed is None and len(asked) == len(answers))


def _declines(answer: str | None) -> bool:
    """Whether an answer is, or begins as, an abstention ("cannot tell tell tell", "cannot tell from this picture")."""
    return any(f"{normalise(answer or '')} ".startswith(f"{words} ") for words in ABSTENTIONS)
