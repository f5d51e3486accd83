"""Words of questions: how a question is split, stems, and the word features by which questions are told apart."""

import re
from functools import lru_cache
from itertools import groupby

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

LONGEST = 40  # words that are read of a question
WEIGHTS = {"word": 1.0, "pair": 0.6, "first": 0.7, "opening": 1.0, "last": 0.5, "frame": 0.5}  # of the kinds of word features
MOST_KEPT = 200_000  # words and questions whose stems are kept in memory
MOST_RUNS = 3  # runs of content words that are left out one by one
SPELLING = {
    "color": "colour", "colors": "colours", "colored": "coloured", "gray": "grey", "center": "centre", "tv": "television",
    "what's": "what is", "where's": "where is", "who's": "who is", "licence": "license"}


def split_words(question: str) -> tuple[str, ...]:
    """The words of a question in lower case, without punctuation."""
    return tuple(re.findall(r"[\w'-]+", question.lower()))


@lru_cache(MOST_KEPT)
def stem(word: str) -> str:
    """A word without its endings -s, -ies, -ing, -ed and -e: "racing", "races" and "race" are one."""
    word = word.removesuffix("'s").strip("'")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending, least in (("ing", 6), ("ed", 5)):
        if len(word) >= least and word.endswith(ending):
            word = word.removesuffix(ending)
            word = word[:-1] if word[-1] == word[-2] else word
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


@lru_cache(MOST_KEPT)
def stems(question: str) -> tuple[str, ...]:
    """The first LONGEST words of a question, in one spelling, without endings."""
    words = split_words(question)[:LONGEST]
    return tuple(stem(word) for raw in words for word in (SPELLING[raw].split() if raw in SPELLING else (raw,)))


FUNCTION_WORDS = frozenset(map(stem, ENGLISH_STOP_WORDS)) | {"does", "doe", "left", "right"}


def features(text: str) -> list[str]:
    """The word features of a question: words, pairs, first and last word, opening and frames, each with its kind before it."""
    words = stems(text)
    found = [f"word:{word}" for word in words] + [f"pair:{a} {b}" for a, b in zip(words, words[1:], strict=False)]
    if not words:
        return found
    found += [f"first:{words[0]}", f"opening:{' '.join(words[:2])}", f"last:{words[-1]}"]
    return found + [f"frame:{frame}" for frame in sorted(_frames(words))]


def _frames(words: tuple[str, ...]) -> set[str]:
    """The question with one run of content words left out, and with all: "is the _ above the _" whatever the two things are."""
    runs = [(plain, list(run)) for plain, run in groupby(words, key=FUNCTION_WORDS.__contains__)]
    content = [i for i, (plain, _) in enumerate(runs) if not plain]
    hidden = [{i} for i in content[:MOST_RUNS]] + [set(content)]
    return {" ".join("_" if i in some else " ".join(run) for i, (_, run) in enumerate(runs)) for some in hidden}


def scales(words: TfidfVectorizer) -> np.ndarray:
    """The weight of each word feature that a vectorizer has (V,)."""
    return np.array([WEIGHTS[name.split(":", 1)[0]] for name in words.get_feature_names_out()])


def word_rows(words: TfidfVectorizer, scale: np.ndarray, texts: list[str]) -> sparse.csr_matrix:
    """The word features of texts (texts, V), each row of length 1, or 0 where no word is known."""
    return unit(words.transform(texts) @ sparse.diags(scale))


def unit(rows):
    """The rows of a matrix, dense or sparse, at length 1; a row of zeros stays so."""
    if sparse.issparse(rows):
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel())
        return sparse.diags(1 / np.maximum(lengths, 1e-12)) @ rows
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
