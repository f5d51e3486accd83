"""The metrics of the benchmarks: the score of a prediction, 0 to 1, given the accepted answers of an item.

Short answers are compared by `answers.same_answer`. It uses the normalisation of the official VQA script (case, punctuation,
articles, number words) without its contractions and its rule that "none" is 0, plus a few spellings ("grey" is "gray").
"""

import math
import re
from collections import Counter

import numpy as np
from anls_star import anls_score

from auditdm_lib.answers import LETTERS, NUMBER_WORDS, abstains, located, same_answer

TOLERANCE = 0.05  # of relaxed accuracy
CIDER_N, CIDER_SIGMA = 4, 6.0  # longest n-gram and width of the length penalty, as in coco-caption


def exact_match(prediction: str, answers: list[str]) -> float:
    """1 if the prediction is one of the accepted answers, else 0 (GQA, RealWorldQA)."""
    return float(any(same_answer(prediction, answer) for answer in answers))


def vqa_accuracy(prediction: str, answers: list[str]) -> float:
    """VQA accuracy: min(1, n / 3) with n agreeing annotators, averaged over leaving each annotator out (Antol et al. 2015).

    With ten annotators, one that agrees gives 0.3, two give 0.6, three 0.9, four or more 1.
    """
    agree = [same_answer(prediction, answer) for answer in answers]
    return sum(min(1.0, (sum(agree) - mine) / 3) for mine in agree) / len(agree)


def anls(prediction: str, answers: list[str]) -> float:
    """Normalised Levenshtein similarity to the nearest answer, 0 if it is below 0.5 (Biten et al. 2019; DocVQA).

    A similarity of exactly 0.5 counts, as in the challenge's script; the formula of Biten et al. gives 0 there.
    """
    return float(anls_score(tuple(answers), prediction))


def number(text: str) -> float | None:
    """The number in a text, in digits ("4", "4.0", "40 %": 40) or as a word ("four"); None if the text is not a number."""
    text = text.strip().lower().rstrip(".%").strip()
    if text in NUMBER_WORDS:
        return float(NUMBER_WORDS.index(text))
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None


def relaxed_accuracy(prediction: str, answers: list[str]) -> float:
    """1 if a number is within 5 % of an answer, or if any other text matches exactly (Methani et al. 2020; ChartQA)."""
    predicted = number(prediction)
    for answer in answers:
        right = number(answer)
        if predicted is None or right is None:
            near = same_answer(prediction, answer)
        else:
            near = abs(predicted - right) <= TOLERANCE * abs(right) + 1e-9  # 1e-9 for floating-point rounding
        if near:
            return 1.0
    return 0.0


def choice(prediction: str, options: list[str]) -> str | None:
    """The letter of the option that a prediction names; None if it names none, or a letter with another option's text.

    With the options red and blue, "B", "b.", "(B)", "B. blue" and "blue" all name B.
    """
    letters = LETTERS[:len(options)]
    if match := re.fullmatch(rf"(\(?)([{letters}])([.:)]*)(?:\s+(.*))?", prediction.strip(), re.IGNORECASE | re.DOTALL):
        opened, letter, marked, rest = match.groups()
        letter = letter.upper()
        if not rest or same_answer(rest, options[letters.index(letter)]):
            return letter
        if opened or marked:  # without punctuation, the "a" of "a star" may be an article
            return None
    named = [letter for letter, option in zip(letters, options, strict=True) if same_answer(prediction, option)]
    return named[0] if len(named) == 1 else None


def yes_no(text: str) -> str:
    """A free answer to a yes/no question reduced to "yes" or "no", as in POPE's script: "no" if its first sentence contains
    the word no or not, else "yes". Unlike there, an answer that abstains ("cannot tell", an empty text) is neither: ""."""
    if abstains(text):
        return ""
    return "no" if {"no", "not"} & set(re.findall(r"\w+", text.lower().split(".")[0])) else "yes"


def polled(prediction: str, answers: list[str]) -> float:
    """1 if a free answer to a yes/no question, read by `yes_no`, equals the item's answer (POPE, MME)."""
    return float(yes_no(prediction) == answers[0])


def iou(prediction: str, answers: list[str]) -> float:
    """Intersection over union of the predicted and the right box, 0 if no box can be read (RefCOCO)."""
    a, b = located(prediction), located(answers[0])
    if a is None or b is None:
        return 0.0
    common = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - common
    return common / union if union else 0.0


def _area(box: tuple[float, float, float, float]) -> float:
    x1, y1, x2, y2 = box
    return max(0.0, x2 - x1) * max(0.0, y2 - y1)


def cider_d(predictions: list[str], references: list[list[str]]) -> np.ndarray:
    """CIDEr-D of each caption against its references, 0 to 10 as in coco-caption; papers print 100 times the mean.

    Vedantam et al. 2015: for n-grams of 1 to 4 words, the clipped cosine of TF-IDF vectors, times a Gaussian penalty
    (sigma 6) on the difference in length, averaged over n and over the references, times 10. Document frequencies are over
    the pictures of `references`, so a single picture scores 0. Words are runs of letters and digits in lower case, whereas
    coco-caption uses the Penn Treebank tokenizer. Raises ValueError if the two lists differ in length.
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
    words = re.findall(r"\w+", text.lower())
    return Counter(tuple(words[i:i + n]) for n in range(1, CIDER_N + 1) for i in range(len(words) - n + 1))


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
