"""The skill of the catalogue that a question is about, by the question alone.

A question is told by its words, pairs of words, opening words and frames ("is the _ above the _"), and by the sum of the word
vectors with which the packaged MiniLM encoder begins, so that words beyond the catalogue count too. No sentence passes through
the encoder, which would take minutes for 100,000 of them. A ridge regression from the examples to the skills gives each skill's
score: near 1 for its own examples, about 0 for what has nothing to do with it.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.linalg import solve
from sklearn.feature_extraction.text import TfidfVectorizer

from auditdm_lib.taxonomy.catalogue import Skill, catalogue, shipped, word_rates
from auditdm_lib.taxonomy.vectors import embed
from auditdm_lib.taxonomy.words import FUNCTION_WORDS, features, scales, stems, word_rows

NONE = ""  # the skill of a question that fits none
FITS = 0.18  # score below which a question fits no skill
FOREIGN = 0.45  # share of known words below which a question fits no skill: the German "hat" is no hat
RIDGE = 1.0  # penalty; the features of a question have length 1 each, words and vectors
BATCH = 8192  # questions scored at once


@dataclass(frozen=True)
class Scorer:
    """What `points` needs: word features with their weights (V, S), and the weights of the vectors (D, S)."""

    words: TfidfVectorizer
    scale: np.ndarray
    word_weights: np.ndarray
    vector_weights: np.ndarray


def score(questions: list[str], extra: Path | None = None,
          encoder: str | None = None) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The names of the skills, the best skill of each question (its index) and that skill's score, both of (questions,).

    `encoder` is a sentence-transformers folder or hub id, such as a multilingual one; its sentence vectors then take the place
    of the word vectors. Without it a `foreign` question scores 0. Each distinct question is scored once.
    """
    names, distinct = tuple(catalogue(extra)), sorted(set(questions))
    best, top = np.zeros(len(distinct), int), np.zeros(len(distinct))
    for start in range(0, len(distinct), BATCH):
        scores = points(distinct[start:start + BATCH], extra, encoder)
        best[start:start + BATCH], top[start:start + BATCH] = scores.argmax(1), scores.max(1)
    if encoder is None:
        top[foreign(distinct, extra)] = 0
    place = {text: i for i, text in enumerate(distinct)}
    rows = [place[text] for text in questions]
    return names, best[rows], top[rows]


def points(questions: list[str], extra: Path | None = None, encoder: str | None = None) -> np.ndarray:
    """The score of each question for each skill of the catalogue (questions, S)."""
    scorer = _scorer(tuple(catalogue(extra).values()), encoder)
    by_word = word_rows(scorer.words, scorer.scale, questions) @ scorer.word_weights
    return by_word + embed(questions, encoder) @ scorer.vector_weights


def foreign(questions: list[str], extra: Path | None = None) -> np.ndarray:
    """Which questions (a flag each) have hardly a word that the catalogue knows, as in other languages; an empty one is not."""
    known = word_rates(*catalogue(extra).values()).keys() | FUNCTION_WORDS
    words = [stems(question) for question in questions]
    return np.array([len(found) > 0 and sum(word in known for word in found) < FOREIGN * len(found) for found in words], bool)


def assign(questions: list[str], extra: Path | None = None, encoder: str | None = None) -> list[str]:
    """The skill of each question, by the question alone; NONE where it fits none of the catalogue."""
    names, best, top = score(questions, extra, encoder)
    return [names[b] if t >= FITS else NONE for b, t in zip(best, top, strict=True)]


@cache
def _scorer(skills: tuple[Skill, ...], encoder: str | None) -> Scorer:
    texts = [text for skill in skills for text in skill.examples]
    words = TfidfVectorizer(analyzer=features, norm=None, min_df=1, dtype=np.float64).fit(texts)
    scale = scales(words)
    by_word, by_vector = word_rows(words, scale, texts), embed(texts, encoder)
    alike = (by_word @ by_word.T).toarray() + by_vector @ by_vector.T  # (examples, examples)
    dual = solve(alike + RIDGE * np.diag(1 / example_weights(skills)), targets(skills), assume_a="pos")
    return Scorer(words, scale, by_word.T @ dual, by_vector.T @ dual)


def targets(skills: tuple[Skill, ...]) -> np.ndarray:
    """1 where an example (a row) is of a skill (a column), else 0: (examples, skills)."""
    return np.repeat(np.eye(len(skills)), [len(skill.examples) for skill in skills], axis=0)


def example_weights(skills: tuple[Skill, ...]) -> np.ndarray:
    """The weight of each example (examples,): a user's skill counts as much as one with as many examples as is usual."""
    counts = np.array([len(skill.examples) for skill in skills])
    own = np.array([skill == shipped().get(skill.name) for skill in skills])
    return np.repeat(np.where(own, 1, np.maximum(1, counts.mean() / counts)), counts)
