"""A broken model is not a finding: members that say nothing, or the same to everything, stop the run with their names.

A model whose weights are damaged, or that is asked in a format it does not know, disagrees with everybody. Without this check its
answers would look like a high search success (a broken target) or like a model without failures (a broken reference).
"""

import pandas as pd

from auditdm_lib.answers import abstains, normalise
from auditdm_lib.run.manifest import Stop

ENOUGH = 20  # answers from which a member can be called broken
QUESTIONS = 10  # different questions among them
VARIED = 3  # different answers of the other members to the same questions
NEARLY_ALL = 0.9


class Broken(Stop):
    """A member of the panel gives no answers that could be compared."""


def check_answers(questions: list[str], answers: dict[str, list[str | None]], unfinished: dict[str, list[bool]],
                  declining: bool = False) -> None:
    """Raise Broken if a member says nothing, the same to everything, or never comes to an end.

    `answers` and `unfinished` map each member's name to its answer to question i (None: not asked, unfinished or an error) and
    whether its reply did not end. The first name is the target's. A constant answer counts only where the peers vary: for the
    target the references, for a reference the other references (or the target if there is no other). With `declining`, a
    constant refusal counts, too; it must not where an auditor may write questions that make no sense.
    """
    names = list(answers)
    for name in names:
        cut, given = unfinished[name], [i for i, a in enumerate(answers[name]) if a is not None]
        asked = len(given) + sum(cut)
        if asked >= ENOUGH and sum(cut) >= NEARLY_ALL * asked:
            raise Broken(f"{sum(cut)} of {asked} replies of the {name} did not end within their limit, so they are no answers: "
                         "raise answer_tokens, or ask for short answers with answer_prompts.")
        if len(given) < ENOUGH:
            continue
        said = {normalise(answers[name][i]) for i in given}
        if not any(answers[name][i].strip() for i in given):
            raise Broken(f"The {name} said nothing to each of {len(given)} questions: it is broken or does not understand how it "
                         "is asked, so ask it one question by hand, then use another checkpoint or set answer_prompts.")
        peers = [other for other in names[1:] if other != name] or [other for other in names if other != name]
        varied = max((len({normalise(answers[p][i]) for i in given if answers[p][i] is not None}) for p in peers), default=0)
        constant = len(said) == 1 and (declining or not abstains(answers[name][given[0]]))
        if constant and varied >= VARIED and len({questions[i] for i in given}) >= QUESTIONS:
            raise Broken(f"The {name} said {answers[name][given[0]]!r} to each of {len(given)} questions, to which others gave "
                         f"{varied} different answers: it is broken or does not see the pictures; use another checkpoint.")


def answering(answers: dict[str, list[str | None]], unfinished: dict[str, list[bool]]) -> pd.DataFrame:
    """One row per member: answers, different (answers), declined, unfinished, and the most frequent answer with its share."""
    rows = []
    for name, given in answers.items():
        said = pd.Series([normalise(a) for a in given if a is not None], dtype=object)
        counts = said.value_counts()
        declined = sum(a is not None and abstains(a) for a in given)
        rows.append(dict(member=name, answers=len(said), different=len(counts), declined=declined,
                         unfinished=sum(unfinished[name]), most_frequent=counts.index[0] if len(counts) else None,
                         share=round(counts.iloc[0] / len(said), 3) if len(counts) else None))
    return pd.DataFrame(rows)
