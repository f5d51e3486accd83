"""The world in bulk: a data set of scenes with questions, and a census of what each skill asks."""

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

CHUNK = 500  # scenes that one worker draws at a time, each chunk from its own stream: the bytes do not depend on the workers
FEATURES = datasets.Features(dict(
    image=datasets.Image(), caption=datasets.Value("string"), questions=datasets.List(datasets.Value("string")),
    answers=datasets.List(datasets.Value("string")), skills=datasets.List(datasets.Value("string"))))


def scene_dataset(n: int, split: str, seed: int, questions: int = 6, unanswerable: float = 0.2, size: int = SIZE,
                  workers: int | None = None) -> datasets.Dataset:
    """`n` scenes, each with its caption and `questions` questions; the same bytes for the same seed.

    Columns: image (PNG, `size` x `size`), caption, and the lists questions, answers, skills. `workers` processes draw (as many
    as there are CPU cores where it is None).
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
    """What each skill asks over `n` scenes: skill, category, answerable, asked, entropy, best_constant, question_only.

    `answerable` is the share of questions drawn without care that have an answer; the rest is about `asked` questions drawn
    as `sample_answerable` does. `entropy` of their answers is in bits; `best_constant` is the accuracy of the commonest
    answer; `question_only` that of the better of a decision tree and naive Bayes, which see the question's words and not the
    picture, on folds that they were not trained on. An answer that repeats a word of the question counts as "that word", so
    that they can learn it.
    """
    rng = random.Random(f"census/{seed}")
    scenes = sample_scenes(n, "train", f"census/{seed}")
    rows = []
    for name, skill in SKILLS.items():
        careless = [answer(scene, draw_question(scene, rng, name)) for scene in scenes]
        asked = [(scene, text) for scene in scenes if (text := sample_answerable(scene, rng, name))]
        right = [answer(scene, text) for scene, text in asked]
        words = [parse_question(text).slots for _, text in asked]
        counts = Counter(right)
        rows.append(dict(
            skill=name, category=skill.category, answerable=1 - careless.count(CANNOT_TELL) / n, asked=len(asked),
            entropy=entropy(list(counts.values()), base=2), best_constant=counts.most_common(1)[0][1] / len(asked),
            question_only=_guess(words, right)))
    return pd.DataFrame(rows)


def _guess(words: list[dict], right: list[str]) -> float:
    """Accuracy of answers guessed from the words in the slots, by five-fold cross-validation."""
    labels = [next((f"the {slot}" for slot, word in slots.items() if word == said), said)
              for slots, said in zip(words, right, strict=True)]
    guessers = DecisionTreeClassifier(min_samples_leaf=10, random_state=0), BernoulliNB()
    seen = DictVectorizer(sparse=False).fit_transform([{"": 1, **slots} for slots in words])
    return max(float((cross_val_predict(guesser, seen, labels, cv=5) == labels).mean()) for guesser in guessers)
