"""CIDEr-D of captions, on words as coco-caption splits them (github.com/tylin/coco-caption)."""

import math
import re
from collections import Counter

import numpy as np

CIDER_N, CIDER_SIGMA = 4, 6.0  # longest n-gram and width of the length penalty, as in coco-caption
_DROPPED = {"''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"}  # coco-caption's list
_CHARACTERS = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "--", "\u2014": "--",
                             "\u2026": "...", "\u20ac": "$", "\u00a3": "#", "\u00a2": " cents "})
_TOKEN = re.compile(r"""
    (?:[a-z]\.){2,}(?:[a-z]\b)? | [a-z]\.[a-z]\b\.? | (?-i:[A-Z]+(?:[&+][A-Z]+)+)                        # "U.S.", "AT&T"
    | \b(?:mr|mrs|ms|dr|prof|st|ave|blvd|rd|jr|sr|vs|etc|inc|co|corp|jan|feb|aug|sept|oct|nov|dec)\. | \bno\.(?=\ \d)
    | \d+:\d\d(?=[ap]m\b) | (?:(?<!\S)[+-])?(?:\d+(?:[.,:/-]\d+)*|\.\d+)(?:-?[^\W\d_][\w-]*\b)? | '\d\ds?\b  # "3.5", "5th"
    | \w+?(?=n't\b) | n't\b | '(?:s|m|d|re|ve|ll)\b | '(?:t(?=is|was)|n') | y'(?=all\b) | [dlo]'[^\W\d_]+  # "do" "n't"
    | [^\W\d_]\w*(?:\.[^\W\d_]\w*)+ | @?\w+(?:-\w+)*(?:/\w+(?:-\w+)*){0,2}                            # "t-shirt", "and/or"
    | \.\.\. | [!?]+ | \#+ | @+ | ''|`` | \S""", re.VERBOSE | re.IGNORECASE)
_SPLIT = {"cannot": ["can", "not"], "gonna": ["gon", "na"], "gotta": ["got", "ta"], "wanna": ["wan", "na"]}


def words(caption: str) -> list[str]:
    """The words of a caption as coco-caption counts them: Penn Treebank tokens in lower case, without plain punctuation.

    "It's a (very) old U.S. t-shirt, 100% red." -> it 's a ( very ) old u.s. t-shirt 100 % red. Brackets, "%", "$" and "&"
    are words, as there; British spellings stay. Unlike there, a lone letter before a point ("vitamin c.") is no initial, and
    emoticons, emoji, mark-up and addresses are not recognised.
    """
    tokens = [token.lower() for token in _TOKEN.findall(caption.translate(_CHARACTERS))]
    return [word for token in tokens if token not in _DROPPED for word in _SPLIT.get(token, [token])]


def cider_d(predictions: list[str], references: list[list[str]]) -> np.ndarray:
    """CIDEr-D of each caption against its references, 0 to 10 as in coco-caption; papers print 100 times the mean.

    Vedantam et al. 2015: for n-grams of 1 to 4 `words`, the clipped cosine of TF-IDF vectors, times a Gaussian penalty
    (sigma 6) on the difference in length, averaged over n and over the references, times 10. Document frequencies are over
    the pictures of `references`, so a single picture scores 0. Raises ValueError if the two lists differ in length.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} captions but {len(references)} lists of references: give one for each.")
    counted = [[_ngrams(text) for text in texts] for texts in references]
    frequency = Counter(gram for texts in counted for gram in set().union(*texts))
    weight = {gram: math.log(len(references) / pictures) for gram, pictures in frequency.items()}
    unseen = math.log(max(1, len(references)))  # an n-gram without a reference counts as if one picture had it
    scores = []
    for prediction, texts in zip(predictions, counted, strict=True):
        mine = _vectors(_ngrams(prediction), weight, unseen)
        scores.append(10 * np.mean([_similarity(mine, _vectors(text, weight, unseen)) for text in texts]))
    return np.array(scores)


def _ngrams(text: str) -> Counter:
    split = words(text)
    return Counter(tuple(split[i:i + n]) for n in range(1, CIDER_N + 1) for i in range(len(split) - n + 1))


def _vectors(counts: Counter, weight: dict, unseen: float) -> tuple[list[dict], list[float], int]:
    """TF-IDF vectors by n, their norms, and the length of the text, counted in bigrams as in coco-caption."""
    vectors = [{} for _ in range(CIDER_N)]
    for gram, count in counts.items():
        vectors[len(gram) - 1][gram] = count * weight.get(gram, unseen)
    norms = [math.sqrt(sum(v * v for v in vector.values())) for vector in vectors]
    return vectors, norms, sum(count for gram, count in counts.items() if len(gram) == 2)


def _similarity(mine: tuple, reference: tuple) -> float:
    """The mean over n of the clipped cosine, times the length penalty."""
    cosines = []
    for a, b, norm_a, norm_b in zip(mine[0], reference[0], mine[1], reference[1], strict=True):
        shared = sum(min(value, b[gram]) * b[gram] for gram, value in a.items() if gram in b)
        cosines.append(shared / (norm_a * norm_b) if norm_a and norm_b else 0.0)
    return sum(cosines) / CIDER_N * math.exp(-(mine[2] - reference[2]) ** 2 / (2 * CIDER_SIGMA**2))
