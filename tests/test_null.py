"""The null audit: where the target is no different from its references, nothing may be confirmed but by chance, rarely."""

import random
import zlib
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scripted import replies_by

from auditdm_lib import paths
from auditdm_lib.answers import same_answer
from auditdm_lib.audit import panel
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import Pictures, load_pictures
from auditdm_lib.models.vlm import OneNumberAToken, answer, load_members
from auditdm_lib.run import params
from auditdm_lib.taxonomy import confirm, fresh

RUNS, SEARCHED, FRESH = 100, 800, 120
COLOURS, COUNTS, YES_NO = ["red", "green", "blue", "black"], ["one", "two", "three", "four"], ["yes", "no"]
QUESTIONS = {f"what colour is the {noun}?": COLOURS for noun in ("star", "cup", "anchor", "flag")} \
    | {f"how many {noun} are there?": COUNTS for noun in ("stars", "cups", "flags")} \
    | {f"is there a {noun}?": YES_NO for noun in ("heart", "dog", "tower", "sign", "clock")}
TEXTS = list(QUESTIONS)


def draw(run, member, picture, question):
    """A member's sampled answer: the distribution depends on picture and question alone, the draw on the member as well."""
    about = random.Random(f"{run}/{picture}/{question}")
    options, doubt = QUESTIONS[question], about.choice([0.05, 0.2, 0.4])
    usual = about.choice(options)
    own = random.Random(f"{run}/{picture}/{question}/{member}")
    return own.choice(options) if own.random() < doubt else usual


def failing(run, member, picture, question):
    """As `draw`, but the target takes blue for red."""
    said = draw(run, member, picture, question)
    return "red" if member == 0 and said == "blue" else said


class Writer:
    """Stands for the auditor: asks whatever comes to its mind, some questions more often."""

    def questions(self, images, seed, begun=None, desc=None):
        rng = random.Random(seed)
        chosen = [[text for text in TEXTS if text.startswith(words)] for words in begun or [""] * len(images)]
        return [rng.choice(texts[:4] + texts) for texts in chosen]


@pytest.fixture
def audit(monkeypatch):
    """A function that searches, groups the failures found, and confirms the types on fresh pictures: confirmation.parquet."""
    def run(number, answer, odd_one=fresh.odd_one):
        monkeypatch.setattr(fresh, "odd_one", odd_one)
        monkeypatch.setattr(fresh, "tqdm", lambda turns, **_: turns)
        monkeypatch.setattr(panel, "replies", replies_by(lambda member, images, questions: [
            answer(number, member.place, *pair) for pair in zip(images, questions, strict=True)]))
        clustered = search(number, answer)
        types = clustered[clustered["category"] >= 0].drop_duplicates("category").sort_values("category")
        types = types.assign(name=types["question"] + types["consensus"] + types["target_answer"], skill="")
        of = {key: rows["category"].iloc[0] for key, rows in types.groupby(["question", "consensus"])}
        members = [SimpleNamespace(name=str(place), place=place) for place in range(3)]
        pictures = Pictures([f"test-{i}" for i in range(FRESH)], [SEARCHED + i for i in range(FRESH)])
        asked = fresh.ask_fresh(Panel(members[0], members[1:]), pictures, clustered, lambda questions, answers: np.array([
            of.get(pair, -1) for pair in zip(questions, answers, strict=True)]), Writer(), number)
        return confirm.confirmation(asked.assign(saw=None), types, {}, 2)
    return run


def search(run, answer):
    """The failures of a search and their types: those on which the target alone differs, by question and answers."""
    rng, found = random.Random(run), []
    for picture in range(SEARCHED):
        question = rng.choice(TEXTS)
        target, first, second = (answer(run, member, picture, question) for member in range(3))
        if same_answer(first, second) and not same_answer(target, first):
            found.append((question, first, target))
    sizes = Counter(found)
    number = {key: i for i, key in enumerate(sorted((key for key in sizes if sizes[key] >= 3), key=lambda k: (-sizes[k], k)))}
    table = pd.DataFrame(found, columns=["question", "consensus", "target_answer"])
    return table.assign(category=[number.get(key, -1) for key in found])


def alarms(audit, runs, answer, **how):
    """In how many of so many runs some type is confirmed, and how many types were tested in all."""
    tables = [audit(number, answer, **how) for number in range(runs)]
    return sum((table["verdict"] == confirm.CONFIRMED).any() for table in tables), sum(map(len, tables))


def test_at_most_five_of_a_hundred_null_runs_confirm_anything(audit):
    raised, tested = alarms(audit, RUNS, draw)
    assert tested > 5 * RUNS  # there was something that could have been confirmed
    assert raised <= 5


def test_a_type_that_sees_the_targets_answer_would_raise_many_alarms(audit):
    def partial(answers, same):
        """The agreed answer where it is the target that differs, and none where it is a reference."""
        agreed, odd = fresh_odd_one(answers, same)
        return (None, [False] * 3) if any(odd[1:]) else (agreed, odd)
    fresh_odd_one = fresh.odd_one
    assert alarms(audit, 20, draw, odd_one=partial)[0] > 10


def test_a_target_that_does_fail_is_found_in_every_run(audit):
    for number in range(5):
        table = audit(number, failing)
        found = table[table["verdict"] == confirm.CONFIRMED]
        assert len(found) >= 2 and found["name"].str.contains("bluered").all()


def test_the_seed_alone_decides(audit):
    assert zlib.crc32(audit(3, draw).to_csv().encode()) == zlib.crc32(audit(3, draw).to_csv().encode())


# Sampled answers

TARGET = "auditdm_lib/testbed/checkpoints/target"


def test_members_with_the_same_weights_sample_independently_and_each_question_the_same_way_again():
    shown, rng = load_pictures("testbed", 40, 0, split="test"), random.Random(0)
    asked = [shown.random_question(i, rng) for i in range(40)]
    one, other = load_members(TARGET, [TARGET], answer_temperature=2.0, seed=5)
    said = answer(one, shown.images, asked)
    assert 4 < sum(a != b for a, b in zip(said, answer(other, shown.images, asked), strict=True)) < 40
    assert answer(one, shown.images[::-1], asked[::-1], batch_size=7) == said[::-1]  # whatever the batch
    again, = load_members(TARGET, [], answer_temperature=2.0, seed=6)
    assert answer(again, shown.images, asked) != said
    greedy, = load_members(TARGET, [])
    assert greedy.sampling is None


def test_tokens_are_drawn_by_their_probabilities_at_the_temperature():
    scores = torch.tensor([[2.0, 1.0, 0.0, -torch.inf]]).repeat(4000, 1)
    numbers = np.random.default_rng(0).random((4000, 1))
    for temperature in (1.0, 0.5, 1e-6):
        drawn = OneNumberAToken(temperature, numbers)(None, scores).argmax(1)
        expected = (scores[0] / temperature).softmax(0).numpy()
        assert np.bincount(drawn, minlength=4) / 4000 == pytest.approx(expected, abs=0.025)  # three standard errors
    assert OneNumberAToken(1.0, np.array([[0.0], [1 - 1e-12]]))(None, scores[:2]).argmax(1).tolist() == [0, 2]


def test_a_target_may_be_its_own_reference_only_where_answers_are_sampled():
    known, profile = params.declared_anywhere(), params.read_profile(paths.PARAMS / "null.yaml")
    assert profile["references"] == [known["target"].default] * 2
    params.check(profile, known, "null")
    with pytest.raises(params.BadParameters, match="is the same model as the target"):
        params.check(profile | {"target": TARGET, "answer_temperature": 0.0}, known, "null")
