"""Datasets of scenes with questions, and a census: statistics of each skill's questions and answers."""

import io
import os
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import datasets
import pandas as pd
from scipy.stats import entropy
from sklearn.feature_extraction import DictVectorizer
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import BernoulliNB
from sklearn.tree import DecisionTreeClassifier

from auditdm_lib.testbed.language import caption
from auditdm_lib.testbed.questions import draw_question, sample_answerable, sample_question
from auditdm_lib.testbed.render import SIZE, render
from auditdm_lib.testbed.scenes import sample_scenes
from auditdm_lib.testbed.skills import CANNOT_TELL, SKILLS, answer, parse_question

CHUNK = 500  # scenes per task of a worker; each chunk has its own random stream, so the bytes do not depend on `workers`
FEATURES = datasets.Features(dict(
    image=datasets.Image(), caption=datasets.Value("string"), questions=datasets.List(datasets.Value("string")),
    answers=datasets.List(datasets.Value("string")), skills=datasets.List(datasets.Value("string"))))


def scene_dataset(n: int, split: str, seed: int, questions: int = 6, unanswerable: float = 0.2, size: int = SIZE,
                  workers: int | None = None) -> datasets.Dataset:
    """`n` scenes, each with its caption and `questions` questions; the same bytes for the same seed.

    Columns: image (PNG, `size` x `size`), caption, and the lists questions, answers, skills. `workers` is the number of
    processes (None: one per CPU core). `unanswerable` is as in `sample_question`.
    """
    sizes = [min(CHUNK, n - start) for start in range(0, n, CHUNK)]
    draw = partial(_chunk, split=split, seed=seed, questions=questions, unanswerable=unanswerable, size=size)
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        chunks = list(pool.map(draw, range(len(sizes)), sizes))
    return datasets.concatenate_datasets([datasets.Dataset.from_dict(chunk, features=FEATURES) for chunk in chunks])


def _chunk(index: int, n: int, split: str, seed: int, questions: int, unanswerable: float, size: int) -> dict[str, list]:
    rng = random.Random(f"questions/{split}/{seed}/{index}")
    columns = {name: [] for name in FEATURES}
    for scene in sample_scenes(n, split, f"{seed}/{index}"):
        asked = [sample_question(scene, rng, unanswerable) for _ in range(questions)]
        file = io.BytesIO()
        render(scene, size).save(file, "PNG")
        columns["image"].append({"bytes": file.getvalue(), "path": None})
        columns["caption"].append(caption(scene))
        columns["questions"].append(asked)
        columns["answers"].append([answer(scene, text) for text in asked])
        columns["skills"].append([parse_question(text).skill for text in asked])
    return columns


def skill_census(n: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Statistics of each skill over `n` scenes: skill, category, answerable, asked, entropy, best_constant, question_only.

    `answerable` is the share of questions from `draw_question` that have an answer. The other columns describe `asked`
    questions from `sample_answerable`: `entropy` of their answers, in bits; `best_constant`, the accuracy of always giving the
    most frequent answer; `question_only`, the cross-validated accuracy of the better of a decision tree and naive Bayes that
    see the words of the question but not the picture. An answer that repeats a word of the question is labelled by its slot,
    so that these classifiers can learn it.
    """
    rng = random.Random(f"census/{seed}")
    scenes = sample_scenes(n, "train", f"census/{seed}")
    rows = []
    for name, skill in SKILLS.items():
        unfiltered = [answer(scene, draw_question(scene, rng, name)) for scene in scenes]
        asked = [(scene, text) for scene in scenes if (text := sample_answerable(scene, rng, name))]
        right = [answer(scene, text) for scene, text in asked]
        words = [parse_question(text).slots for _, text in asked]
        counts = Counter(right)
        rows.append(dict(
            skill=name, category=skill.category, answerable=1 - unfiltered.count(CANNOT_TELL) / n, asked=len(asked),
            entropy=entropy(list(counts.values()), base=2), best_constant=counts.most_common(1)[0][1] / len(asked),
            question_only=_guess(words, right)))
    return pd.DataFrame(rows)


def _guess(words: list[dict], right: list[str]) -> float:
    """Accuracy of predicting the answers from the words in the slots alone, by five-fold cross-validation."""
    labels = [next((f"the {slot}" for slot, word in slots.items() if word == expected), expected)
              for slots, expected in zip(words, right, strict=True)]
    classifiers = DecisionTreeClassifier(min_samples_leaf=10, random_state=0), BernoulliNB()
    inputs = DictVectorizer(sparse=False).fit_transform([{"": 1, **slots} for slots in words])
    return max(float((cross_val_predict(model, inputs, labels, cv=5) == labels).mean()) for model in classifiers)
