"""The world in bulk: the same bytes for the same seed, and skills that cannot be guessed."""

import hashlib

import pandas as pd
import pytest

from auditdm_lib.results import reference
from auditdm_lib.testbed.dataset import CHUNK, scene_dataset, skill_census
from auditdm_lib.testbed.language import Refusal, parse_caption
from auditdm_lib.testbed.skills import SKILLS, answer


def _bytes(data) -> str:
    return hashlib.sha256(repr(data.with_format("arrow")[:].to_pylist()).encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers_and_another_seed_others():
    n = CHUNK + 20
    alone, shared = scene_dataset(n, "train", 3, workers=1), scene_dataset(n, "train", 3, workers=2)
    assert len(alone) == n and _bytes(alone) == _bytes(shared) != _bytes(scene_dataset(n, "train", 4, workers=1))


def test_a_row_holds_a_picture_its_caption_and_questions_with_right_answers():
    row = scene_dataset(3, "test", 0, questions=4, size=64, workers=1)[2]
    scene = parse_caption(row["caption"])
    assert not isinstance(scene, Refusal) and row["image"].size == (64, 64) and len(row["questions"]) == 4
    assert row["answers"] == [answer(scene, text) for text in row["questions"]] and set(row["skills"]) <= set(SKILLS)


def test_the_census_sees_that_a_skill_can_be_guessed():
    census = skill_census(300).set_index("skill")
    assert list(census.index) == list(SKILLS) and (census["asked"] > 10).all()
    assert census.loc["weather", "answerable"] == 1 > census.loc["clock", "answerable"] > 0
    assert census["entropy"].between(0.9, 6).all() and census["best_constant"].between(0, 0.65).all()


@pytest.mark.parametrize("column", ["best_constant", "question_only"])
def test_no_skill_of_the_reference_is_answered_three_times_in_five_without_the_picture(column):
    census = pd.read_csv(reference.REFERENCE / "world_skills.csv").set_index("skill")
    assert list(census.index) == list(SKILLS)
    assert census[column].max() <= 0.6, census[column].idxmax()
