"""The auditor learns what is rewarded, and its reward sees texts only."""

import ast
import inspect

import pandas as pd
import pytest

from auditdm_lib import auditor, paths
from auditdm_lib.auditor import ask, grpo, kind_of, reward, save_auditor, self_imitation
from auditdm_lib.models import load_vlm
from auditdm_lib.pictures import load_pictures
from auditdm_lib.testbed.checkpoint import CHECKPOINTS

PROMPT = "Ask a question about this picture."


@pytest.fixture
def about_background(monkeypatch):
    """A stand-in for the panel: the target fails on questions about the background, and nothing else is judged."""
    def judge(panel, images, questions, invalid, **_):
        hit = [r is None and "background" in q for q, r in zip(questions, invalid, strict=True)]
        return pd.DataFrame(dict(target_answer="white", consensus=["grey" if h else None for h in hit], disagrees=hit))
    monkeypatch.setattr(auditor, "judge", judge)


def share_of_background(asker, seed=9):
    texts = ask(asker, load_pictures("testbed", 200, 5).images, PROMPT, 1.0, seed, 16, desc=None)["text"]
    return texts.str.contains("background").mean()


def test_asking_repeats_with_its_seed_and_varies_without():
    asker, pictures = load_vlm(CHECKPOINTS / "auditor"), load_pictures("testbed", 40, 0)
    first, again, other = (ask(asker, pictures.images, PROMPT, 1.0, seed, 16, desc=None) for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)
    assert first["ended"].mean() > 0.9 and first["text"].nunique() > 20


def test_a_question_cut_off_by_the_length_did_not_end():
    asked = ask(load_vlm(CHECKPOINTS / "auditor"), load_pictures("testbed", 8, 0).images, PROMPT, 1.0, 0, 2, desc=None)
    assert not asked["ended"].any()


def test_self_imitation_learns_what_was_found(about_background):
    asker = load_vlm(CHECKPOINTS / "auditor")
    before = share_of_background(asker)
    asker, history, asked = self_imitation(asker, None, load_pictures("testbed", 300, 0), PROMPT, 1, 15, 1e-3, 1.0, 16, 0)
    assert share_of_background(asker) > max(0.6, 3 * before), f"before {before}"
    assert history["reward"].iloc[0] == pytest.approx(asked["disagrees"].mean()) and len(asked) == 300


def test_grpo_learns_what_is_rewarded_and_moves_every_weight(about_background, tmp_path):
    start = load_vlm(CHECKPOINTS / "auditor")
    before, old = share_of_background(start), {k: v.clone() for k, v in start.model.state_dict().items()}
    folder = save_auditor(start, tmp_path / "start")
    trained, history, sampled = grpo(folder, None, load_pictures("testbed", 64, 0), PROMPT, 12, 8, 4, 1e-3, 0.0, 1.0, 16, -0.2, 0)
    assert share_of_background(trained) > max(0.4, 3 * before), f"before {before}"
    assert history["reward"].iloc[-1] > history["reward"].iloc[0] and len(sampled) == 12 * 32
    moved = [k for k, v in trained.model.named_parameters() if not v.equal(old[k])]
    still = [k for k, v in trained.model.named_parameters() if v.equal(old[k])]
    assert moved and not still, still[:5]


def test_with_nothing_found_imitation_leaves_the_auditor_alone(monkeypatch):
    monkeypatch.setattr(auditor, "judge", lambda panel, images, questions, invalid, **_: pd.DataFrame(
        dict(target_answer="white", consensus=None, disagrees=[False] * len(questions))))
    asker = load_vlm(CHECKPOINTS / "auditor")
    old = {k: v.clone() for k, v in asker.model.state_dict().items()}
    _, history, _ = self_imitation(asker, None, load_pictures("testbed", 20, 0), PROMPT, 2, 5, 1e-3, 1.0, 16, 0)
    assert history["reward"].tolist() == [0, 0] and all(v.equal(old[k]) for k, v in asker.model.state_dict().items())


def test_the_reward_is_equation_1_and_the_paper_s_is_one_parameter_away():
    assert reward(None, True, True, -0.2) == 1 and reward(None, True, False, -0.2) == 0
    assert reward(None, False, False, -0.2) == reward("empty", False, False, -0.2) == -0.2
    assert reward(None, False, False, 0.0) == reward("unfinished", False, False, 0.0) == 0


def test_kinds_come_from_the_words_alone():
    assert kind_of("What colour is the cup?", "The Red") == ("what colour", "red")


def test_only_the_suppliers_of_data_know_the_world():
    knowing = set()
    for file in paths.LIBRARY.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])] \
                if isinstance(node, ast.Import) else []
            names += [f"{node.module}.{a.name}" for a in node.names] if isinstance(node, ast.ImportFrom) else []
            if any(".testbed" in name for name in names):
                knowing.add(file.stem)
    assert knowing == {"pictures", "benchmarks", "run"}  # run: only to offer `auditdm testbed`
    assert not {"world", "truth", "skill", "gap"} & set(inspect.signature(reward).parameters)
