"""Alarms that stop an auditor's training once it has degenerated. Each reports what was observed, how often, and a remedy.

They use only the texts, answers and numbers of the training, and no ground truth.
"""

import math
from dataclasses import dataclass, field

import pandas as pd
from transformers import TrainerCallback

from auditdm_lib.answers import abstains
from auditdm_lib.audit.auditor import written
from auditdm_lib.audit.probes import texts

PATIENCE = 5  # consecutive steps before most alarms are raised
NO_SIGNAL = 10  # the same for equal rewards within every group, which are common by chance
NEARLY_ALL = 0.9
FEWEST = 3  # questions asked in full, over the steps of an alarm, that tell that the references disagree (our choice)
SOLVED = 0.95  # mean reward from which equal rewards are not a failure


class Alarm(RuntimeError):
    """The training has degenerated and should not continue."""


@dataclass
class Watch:
    """Counts, for each alarm and kind of probe, the consecutive steps that show its sign; raises Alarm when the limit is
    reached."""

    patience: int = PATIENCE
    seen: dict[tuple[str, str], int] = field(default_factory=dict)

    def answers(self, judged: pd.DataFrame, group_size: int) -> None:
        """Check a step's judged probes (`auditor.judge_proposed`, plus columns step and reward), `group_size` rows per picture.

        Steps of one kind of probe count as consecutive even if steps of other kinds lie between them. With one text per
        picture (group_size 1, self-imitation) the alarm for a missing learning signal is off.
        """
        step, rewards = int(judged["step"].iloc[0]), judged["reward"].to_numpy(float)
        kind = judged["kind"].iloc[0] if judged["kind"].nunique() == 1 else "probe"
        if not all(map(math.isfinite, rewards)):
            raise Alarm(f"A reward of step {step} is not finite: check the panel's answers.")
        wrote = ["\n".join(parts) for parts in written(judged)]
        agreed, answers = texts(judged["consensus"]), judged["reference_answers"]
        groups = rewards.reshape(-1, group_size)
        self._count("constant output", len(groups) > 1 and _top_share(wrote) >= NEARLY_ALL, self.patience, kind, step,
                    "the auditor writes the same text for nearly every picture", "lower the learning rate or raise kl_weight")
        gibberish = [r is not None or not _readable(w) or _makes_no_sense(a, c) for r, w, a, c in
                     zip(texts(judged["invalid_reason"]), wrote, answers, agreed, strict=True)]
        self._count("gibberish", _share(gibberish) >= NEARLY_ALL, self.patience, kind, step,
                    "nearly all texts are unfinished, unreadable or impossible to draw, or make the references abstain",
                    "lower the learning rate or the temperature, or raise kl_weight; check that no reference always abstains "
                    "and, if nothing is drawn, the drawer")
        voted = [c is None for c, f, a in zip(agreed, judged["in_full"], answers, strict=True)
                 if f and sum(not abstains(x) for x in a) >= 2]
        self._count("references disagree", _share(voted) >= NEARLY_ALL and len(voted) * self.patience >= FEWEST,
                    self.patience, kind, step,
                    "the references disagree with each other on nearly every question",
                    "choose stronger references, set consensus_rule to majority, or set a judge_model")
        equal = group_size > 1 and bool((groups == groups[:, :1]).all())
        self._count("no learning signal", equal and rewards.mean() < SOLVED, NO_SIGNAL, kind, step,
                    "all texts about one picture get the same reward, so all advantages are zero",
                    "raise group_size or temperature, or start with more rounds of self-imitation")

    def _count(self, alarm: str, sign: bool, patience: int, kind: str, step: int, what: str, remedy: str) -> None:
        self.seen[alarm, kind] = self.seen.get((alarm, kind), 0) + 1 if sign else 0
        if self.seen[alarm, kind] >= patience:
            raise Alarm(f"{alarm.capitalize()}: in {patience} consecutive {kind} steps up to step {step}, {what}. "
                        f"Remedy: {remedy}.")


class Finite(TrainerCallback):
    """Raises Alarm if a loss or a gradient norm is not finite."""

    def on_log(self, args, state, control, logs=None, **_):
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise Alarm(f"{name} of step {state.global_step} is {logs[name]}: lower the learning rate.")


def _share(marks: list[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0


def _top_share(wrote: list[str]) -> float:
    """The share of the most frequent text."""
    return max(map(wrote.count, set(wrote))) / len(wrote)


def _readable(text: str) -> bool:
    """At least half of the non-space characters are letters or digits, and no character is an undecodable one (U+FFFD)."""
    marks = [c for c in text if not c.isspace()]
    return "\ufffd" not in text and 2 * sum(c.isalnum() for c in marks) >= len(marks)


def _makes_no_sense(answers: list[str | None], agreed: str | None) -> bool:
    """Every reference that was asked abstains; or all were asked, some abstain, and the others reach no consensus.

    The second case is needed because a small model may answer even a string of random letters. It requires that all were
    asked, since a reference that was not asked (None) might still complete a consensus.
    """
    asked = [abstains(a) for a in answers if a is not None]
    return bool(asked) and (all(asked) or any(asked) and agreed is None and len(asked) == len(answers))
