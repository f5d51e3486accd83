"""The arms of the search experiment have the same pictures and calls."""

import pandas as pd
import pytest
from scripted import replies_by

from auditdm_lib.audit import arms
from auditdm_lib.audit import panel as panels
from auditdm_lib.audit.arms import auditor_arm, best_of_arm, random_arm, training_calls, union
from auditdm_lib.audit.auditor import Search
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures, save_pictures
from auditdm_lib.audit.probes import search_table
from auditdm_lib.testbed.checkpoint import CHECKPOINTS, PROMPTS

KINDS = dict(zip(("question", "regeneration", "edit"), PROMPTS, strict=True))
SEARCH = Search(KINDS, dict(question=24, regeneration=128, edit=32), dict(question=0.5, regeneration=0.2, edit=0.3), 0.7)


@pytest.fixture
def panel(monkeypatch):
    """Members that answer by a rule: the target is wrong wherever a question asks about a colour."""
    said = {"target": lambda q: "never" if "colour" in q else "so", "one": lambda q: "so", "two": lambda q: "so"}
    monkeypatch.setattr(panels, "replies", replies_by(lambda member, images, asked: [said[member.name](q) for q in asked]))
    return Panel(*[type("Member", (), dict(name="target"))()], [type("Member", (), dict(name=n))() for n in ("one", "two")])


def test_random_questions_have_answers_and_repeat_with_the_seed(panel):
    pictures = load_pictures("testbed", 30, 0)
    names = [str(i) for i in range(30)]
    asked, again, other = (random_arm(panel, pictures, seed, names)[1]["question"] for seed in (3, 3, 4))
    assert asked.equals(again) and not asked.equals(other)
    assert all(pictures.truth.right_answer(i, q) for i, q in enumerate(asked))


def test_an_auditor_asks_once_about_each_picture_and_what_it_draws_is_stored(panel, tmp_path):
    pictures = load_pictures("testbed", 40, 0, split="probe")
    names = save_pictures(pictures, tmp_path / "images")
    drawn, made = auditor_arm(CHECKPOINTS / "auditor", "prompt_only", panel, pictures, SEARCH, 0, names, tmp_path / "images")
    assert made["kind"].value_counts().to_dict() == dict(question=20, regeneration=8, edit=12)
    assert (made["source_image"] == names).all() and made["probe_id"].is_unique
    new = made["image"] != made["source_image"]
    assert new.any() and (made.loc[new, "kind"] != "question").all()
    assert all((tmp_path / name).exists() for name in made["image"])
    assert (made.loc[~new & (made["kind"] != "question"), "invalid_reason"].notna()).all()
    assert made.loc[new, "truth"].notna().mean() > 0.7  # the truth is that of the drawn picture
    assert made.loc[made["kind"] == "edit", "edit"].notna().all() and made.loc[made["kind"] != "edit", "edit"].isna().all()


def test_best_of_n_spends_as_many_calls_on_fewer_pictures(panel):
    pictures = load_pictures("testbed", 43, 0, split="probe")
    names = [f"images/{i}.png" for i in range(43)]
    seen, made = best_of_arm(CHECKPOINTS / "auditor", 4, panel, pictures, SEARCH, 0, names)
    assert len(made) == len(seen) == 40 and made["source_image"].nunique() == 10 and set(made["kind"]) == {"question"}
    row = search_table(made, None, None, {}).iloc[0]
    assert row["attempts"] == 10 and row["probing_calls"] == made["target_answer"].notna().sum()
    found = made.groupby("source_image")["disagrees"].any()
    assert row["disagrees"] == found.sum() and 0 < found.sum()


def test_auditors_stand_in_the_order_of_their_probes_each_with_all_kinds_first(panel, tmp_path):
    pictures = load_pictures("testbed", 20, 0, split="probe")
    names = save_pictures(pictures, tmp_path / "images")
    _, asked = random_arm(panel, pictures, 0, names)
    _, made = auditor_arm(CHECKPOINTS / "auditor", "prompt_only", panel, pictures, SEARCH, 0, names, tmp_path / "images")
    table = search_table(pd.concat([asked, made], ignore_index=True), None, None, {})
    assert table["auditor"].tolist() == ["random", *["prompt_only"] * 4]
    assert table["kind"].tolist()[:2] == ["question", "all"] and table.index.tolist() == list(range(5))


def test_a_union_takes_the_auditors_in_turns_and_one_is_none():
    probes = pd.DataFrame(dict(auditor=["a"] * 4 + ["b"] * 4 + ["c"] * 4, question=list("0123" "4567" "89xy")))
    assert union(probes, ["a", "b"])["question"].tolist() == ["0", "5", "2", "7"]
    assert set(union(probes, ["a", "b"])["auditor"]) == {"union"} and union(probes, ["a"]).empty


def test_calls_of_the_training_are_those_before_each_checkpoint():
    history = pd.DataFrame(dict(phase=["imitation"] * 2 + ["grpo"] * 2 + ["plain"], step=[1, 2, 1, 2, 1],
                                target_calls=[10, 20, 5, 9, 7]))
    calls = training_calls(history)
    assert calls == {"imitation": 20, "step_000001": 25, "step_000002": 29, "trained": 29, "union": 29, "plain_000001": 7,
                     "plain_grpo": 7}
    assert arms.training_calls(history[history["phase"] == "grpo"])["trained"] == 9
