"""What is known about a user's pictures: the questions and answers that come with a data set.

They are the random arm's questions, and they verify what an auditor finds where it asks one of them. About any other question
nothing is known, so a disagreement there stays a suspicion.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from auditdm_lib.answers import normalise
from auditdm_lib.folding import plain


@dataclass(frozen=True)
class KnownAnswers:
    """The truth about a list of pictures (`protocols.Truth`) as far as a data set gives it: questions with their answers."""

    asked: list[list[tuple[str, str]]]
    complete: ClassVar[bool] = False

    def take(self, rows: Sequence[int]) -> "KnownAnswers":
        return KnownAnswers([self.asked[i] for i in rows])

    def right_answer(self, i: int, question: str) -> str | None:
        return next((answer for known, answer in self.asked[i] if plain(known) == plain(question)), None)

    def random_question(self, i: int, rng: random.Random) -> str:
        return rng.choice(self.asked[i])[0]

    def all_questions(self, i: int) -> list[str]:
        return [question for question, _ in self.asked[i]]

    def told(self, kinds: Sequence[str], texts: Sequence[str | None]) -> tuple["KnownAnswers", list[bool]]:
        """No answers about pictures drawn anew; it understands no text, so it refuses none."""
        kept = [asked if text is None else [] for asked, text in zip(self.asked, texts, strict=True)]
        return KnownAnswers(kept), [False] * len(texts)

    def knows(self, i: int) -> bool:
        return bool(self.asked[i])

    def unlike(self, images: Sequence[Any]) -> list[str | None]:
        return [None] * len(images)

    def skill(self, question: str) -> None:
        return None

    def gaps_in(self, target: Any) -> tuple:
        return ()

    def gap(self, i: int, question: str, gaps: tuple) -> None:
        return None

    def shows(self, i: int, gap: Any) -> bool:
        return False


def one_answer(answers: Any) -> str | None:
    """The answer in a data set's cell: a text, or what most of several annotators say, in their most frequent wording.

    Annotators may be texts or, as in VQAv2, dictionaries with the key "answer".
    """
    cells = answers if isinstance(answers, list) else [answers]
    said = [cell.get("answer") if isinstance(cell, dict) else cell for cell in cells]
    said = [str(text) for text in said if text is not None and str(text).strip()]
    if not said:
        return None
    form = Counter(map(normalise, said)).most_common(1)[0][0]
    return Counter(text for text in said if normalise(text) == form).most_common(1)[0][0]
