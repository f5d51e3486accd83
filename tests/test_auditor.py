"""The auditor learns what is rewarded, and its reward sees texts only."""

import ast
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import trainings

from auditdm_lib import paths
from auditdm_lib.audit import auditor
from auditdm_lib.audit.auditor import (
    BOTH,
    EXISTING_QUESTION,
    KINDS,
    OWN_QUESTION,
    TEXT_COLUMN,
    ask_existing,
    complete,
    empty_proposals,
    existing_questions,
    judge_proposed,
    propose,
    written,
)
from auditdm_lib.audit.counterfactuals import UNDRAWN
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.audit.probes import COUNTED, malformed
from auditdm_lib.models.vlm import load_vlm, sample
from auditdm_lib.run import reach
from auditdm_lib.testbed.checkpoint import CHECKPOINTS, PROMPTS
from auditdm_lib.testbed.language import sample_edit
from auditdm_lib.training import rewards
from auditdm_lib.training.examples import collate
from auditdm_lib.training.grpo import GRPOSettings
from auditdm_lib.training.history import HISTORY, summary
from auditdm_lib.training.imitation import WINDOW, by_length, hits

PROMPT = PROMPTS[0]


@pytest.fixture
def about_colour(monkeypatch):
    """A stand-in for the panel: the target fails on questions about colour only."""
    monkeypatch.setattr(auditor, "judge", trainings.judge)


def share_of_colour(folder, seed=9):
    texts = sample(load_vlm(folder), load_pictures("testbed", 200, 5).images, PROMPT, 1.0, seed, 16, desc=None)["text"]
    return texts.str.contains("colour").mean()


def test_asking_repeats_with_its_seed_and_varies_without():
    asker, pictures = load_vlm(CHECKPOINTS / "auditor"), load_pictures("testbed", 40, 0)
    first, again, other = (sample(asker, pictures.images, PROMPT, 1.0, seed, 16, desc=None) for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)
    assert first["ended"].mean() > 0.9 and first["text"].nunique() > 20


def test_a_question_cut_off_by_the_length_did_not_end():
    asked = sample(load_vlm(CHECKPOINTS / "auditor"), load_pictures("testbed", 8, 0).images, PROMPT, 1.0, 0, 2, desc=None)
    assert not asked["ended"].any()


def test_shares_of_kinds_are_kept_to_the_nearest_probe_in_random_order():
    search = trainings.search_of(regeneration=0.25, edit=0.25)
    kinds = search.kinds(10, 0)
    assert sorted(kinds.count(kind) for kind in KINDS) == [2, 3, 5] and kinds.count("question") == 5
    assert kinds != sorted(kinds) and kinds == search.kinds(10, 0) != search.kinds(10, 1) and search.kinds(0, 0) == []
    assert set(trainings.search_of().kinds(7, 0)) == {"question"}


def test_a_probe_of_each_kind_says_what_its_prompt_asks_for_and_asks_about_the_drawing():
    pictures, search = load_pictures("testbed", 30, 0), trainings.search_of(regeneration=0.3, edit=0.4)
    kinds = search.kinds(30, 0)
    table, drawn = propose(load_vlm(CHECKPOINTS / "auditor"), pictures, kinds, search, 0)
    assert table["kind"].tolist() == kinds
    for i, row in table.iterrows():
        assert [pd.notna(row[column]) for column in TEXT_COLUMN.values()] == [row["kind"] == kind for kind in TEXT_COLUMN]
        new = drawn.images[i] is not pictures.images[i]
        assert new == (row["kind"] != "question" and row["invalid_reason"] not in (UNDRAWN, *COUNTED))
        assert pd.isna(row["question"]) == (row["kind"] != "question" and not new)
    again, _ = propose(load_vlm(CHECKPOINTS / "auditor"), pictures, kinds, search, 0)
    assert table.equals(again) and (table["invalid_reason"].isna()).mean() > 0.6


def test_self_imitation_learns_what_was_found(about_colour, tmp_path):
    before = share_of_colour(CHECKPOINTS / "auditor")
    folder, found, history, asked = trainings.imitate(tmp_path, pictures=600, steps=15)
    assert share_of_colour(folder) > max(0.5, 2 * before), f"before {before}"
    assert len(asked) == 600 and history["reward"].tolist() == pytest.approx(asked.groupby("step")["disagrees"].mean().tolist())
    assert {row["answer"] for row in found if row["kind"] == "question"} == set(asked.loc[asked["disagrees"], "question"])
    assert set(asked["kind"]) == {"question", "edit"} and history["target_calls"].is_monotonic_increasing
    assert set(history) | {"reward_std", "frac_reward_zero_std", "entropy", "kl"} == set(HISTORY)


def test_a_hit_on_an_edited_picture_teaches_the_command_and_the_question():
    pictures, search = load_pictures("testbed", 2, 0), trainings.search_of(edit=0.5)
    judged = pd.DataFrame(dict(kind=["question", "edit"], pairing=[OWN_QUESTION, BOTH], caption=None,
                               edit=[None, "make the background mint."], question="what colour is the background?",
                               consensus="mint", target_answer="grey", disagrees=[False, True]))
    drawable = edits_of(pictures, 1)
    judged.loc[1, "edit"] = drawable
    question, command = hits(judged, pictures, search)
    assert (question["question"], question["answer"]) == (PROMPTS[0], "what colour is the background?")
    assert (command["question"], command["answer"]) == (PROMPTS[2], drawable)
    assert command["image"] is pictures.images[1] and question["image"] is not pictures.images[1]
    assert (question["kind"], command["kind"]) == ("question", "edit") and question["topics"] == command["topics"]
    [alone] = hits(judged.assign(pairing=[OWN_QUESTION, EXISTING_QUESTION]), pictures, search)
    assert (alone["kind"], alone["answer"]) == ("edit", drawable)  # the question was not the auditor's


def test_existing_questions_are_about_the_original_and_leave_plain_questions_to_the_auditor():
    pictures, search = load_pictures("testbed", 40, 0), trainings.search_of(regeneration=0.25, edit=0.5)
    kinds = search.kinds(40, 0)
    assert existing_questions(pictures, kinds, search, 0) == [None] * 40
    half = replace(search, existing_question_share=0.5)
    given = existing_questions(pictures, kinds, half, 0)
    asked = [i for i, question in enumerate(given) if question]
    assert len(asked) == 15 and all(kinds[i] != "question" for i in asked)
    assert all(pictures.truth.right_answer(i, given[i]) for i in asked)
    assert given == existing_questions(pictures, kinds, half, 0) != existing_questions(pictures, kinds, half, 1)
    every = existing_questions(pictures, kinds, replace(search, existing_question_share=1.0), 0)
    assert [question is not None for question in every] == [kind != "question" for kind in kinds]
    few = [sum(q is not None for q in existing_questions(pictures.take([0] * 2), ["edit"] * 2, replace(
        search, existing_question_share=0.3), seed)) for seed in range(200)]
    assert 0.2 < np.mean(few) / 2 < 0.4  # rounded by chance, so that few pictures get their share too


def test_a_probe_with_an_existing_question_has_the_auditors_picture_and_that_question():
    pictures, search = load_pictures("testbed", 30, 0), replace(trainings.search_of(edit=1.0), existing_question_share=0.5)
    kinds = search.kinds(30, 0)
    given = existing_questions(pictures, kinds, search, 0)
    table, drawn = propose(load_vlm(CHECKPOINTS / "auditor"), pictures, kinds, search, 0)
    existing = table["pairing"] == EXISTING_QUESTION
    assert existing.sum() == 15 and set(table["pairing"]) == {EXISTING_QUESTION, BOTH}
    assert table.loc[existing, "question"].tolist() == [question for question in given if question]
    new = [new is not old for new, old in zip(drawn.images, pictures.images, strict=True)]
    assert table["edit"].notna().all() and sum(new) > 15
    assert all(text == "" for *_, text in np.array(written(table))[existing])  # what it did not write does not make it varied


def test_a_group_of_grpo_asks_one_existing_question(about_colour, tmp_path):
    search = replace(trainings.search_of(edit=1.0), existing_question_share=1.0)
    _, _, sampled = trainings.reinforce(tmp_path, steps=2, search=search)
    assert set(sampled["pairing"]) == {EXISTING_QUESTION} and sampled["question"].notna().all()
    assert (sampled.groupby(np.arange(len(sampled)) // 4)["question"].nunique() == 1).all()
    assert sampled["question"].nunique() > 1


def test_no_existing_question_leaves_a_table_as_it_is():
    for kinds in ([], ["question"], ["edit", "question"]):
        assert ask_existing(empty_proposals(kinds), [None] * len(kinds)).equals(empty_proposals(kinds))


def test_batches_hold_examples_of_like_length_and_every_draw_once():
    rng, lengths, batch_size = np.random.default_rng(0), [(i * 37) % 100 for i in range(100)], 64
    drawn = rng.integers(0, 100, 20 * batch_size)
    order = by_length(drawn, lengths, batch_size, rng)
    assert sorted(order) == sorted(drawn) and sorted(order[:WINDOW * batch_size]) == sorted(drawn[:WINDOW * batch_size])
    spread = [np.ptp(np.take(lengths, batch)) for batch in order.reshape(-1, batch_size)]
    assert max(spread) <= 30 and np.diff([np.take(lengths, batch).mean() for batch in order.reshape(-1, batch_size)]).min() < 0


def load_panel():
    target, *references = (load_vlm(CHECKPOINTS / name) for name in ("target", "paligemma2-m-flawed", "gemma3-l-flawed"))
    return target, references


def edits_of(pictures, i):
    """A command that changes picture i."""
    return sample_edit(pictures.truth.scenes[i], random.Random(0))[0]


@pytest.mark.parametrize("lora_rank", [0, 8])
def test_grpo_learns_what_is_rewarded(about_colour, tmp_path, lora_rank):
    before = share_of_colour(CHECKPOINTS / "auditor")
    folder, history, sampled = trainings.reinforce(
        tmp_path, steps=9, groups=8, search=trainings.search_of(), lora_rank=lora_rank, learning_rate=6e-3 if lora_rank else 1e-3)
    assert share_of_colour(folder) > max(0.3, 2 * before), f"before {before}"
    assert history["reward"].tail(3).mean() > history["reward"].head(3).mean() and len(sampled) == 9 * 32
    assert history["frac_reward_zero_std"].between(0, 1).all() and history["entropy"].notna().all()
    old, new = (load_vlm(path).model.state_dict() for path in (CHECKPOINTS / "auditor", folder))
    still = {k for k in old if old[k].equal(new[k])}
    tower = {k for k in old if "vision_tower" in k}
    assert tower and tower <= still and (tower < still) == bool(lora_rank)  # adapters leave embeddings and norms too
    assert (tmp_path / "step_000004").is_dir() and load_vlm(tmp_path / "step_000004")


def test_grpo_of_commands_scores_the_question_about_the_drawing(about_colour, tmp_path):
    _, _, sampled = trainings.reinforce(tmp_path, steps=4, search=trainings.search_of(edit=1.0))
    assert set(sampled["kind"]) == {"edit"} and sampled["edit"].notna().all()
    asked = sampled["question"].notna()
    assert (asked == ~sampled["invalid_reason"].isin([UNDRAWN, *COUNTED]) | asked).all() and asked.mean() > 0.4
    hit = sampled["question"].fillna("").str.contains("colour") & sampled["invalid_reason"].isna()
    invalid = sampled["invalid_reason"].notna()
    assert (sampled["reward"] == [1 if h else -0.2 if i else 0 for h, i in zip(hit, invalid, strict=True)]).all()


def test_what_is_replayed_is_not_forgotten(monkeypatch, tmp_path):
    """The panel pays for nothing, so that GRPO alone learns nothing; what was found before becomes likelier all the same."""
    monkeypatch.setattr(auditor, "judge", lambda *args, **kwargs: trainings.judge(*args, **kwargs).assign(disagrees=False))
    told = trainings.found("a text that nobody would say")

    def loss(folder):
        vlm = load_vlm(folder)
        with torch.no_grad():
            return float(vlm.model(**collate(vlm, told)).loss)

    monkeypatch.setattr(trainings, "found", lambda: told)
    without, _, _ = trainings.reinforce(tmp_path / "without", steps=4)
    replayed, _, _ = trainings.reinforce(tmp_path / "replayed", steps=4, replay_weight=1.0)
    assert loss(replayed) < 0.8 * loss(without)


def test_a_schedule_that_spares_references_cannot_reward_a_consensus_that_it_does_not_know():
    with pytest.raises(ValueError, match="no_consensus_reward to 0 and reward to equation_1, or cascade to False"):
        GRPOSettings(1, 2, 1, 1e-3, 0.0, -0.2, 0.0, 0, True, 1)


def test_with_nothing_found_imitation_leaves_the_auditor_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(auditor, "judge", lambda *args, **kwargs: trainings.judge(*args, **kwargs).assign(disagrees=False))
    folder, _, history, _ = trainings.imitate(tmp_path, pictures=20)
    assert folder == trainings.START and history["reward"].tolist() == [0, 0]


def test_the_reward_is_equation_1_and_the_paper_s_is_one_parameter_away():
    probes = rewards.TRIAL  # a hit, agreement, no consensus, an invalid text, and a target whose answer did not end
    assert rewards.load_reward("equation_1", -0.2)(probes).tolist() == [1, 0, -0.2, -0.2, 1]
    assert rewards.load_reward("equation_1")(probes).tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_of_an_auditor_is_counted_and_rewarded_with_nothing(kind, monkeypatch, tmp_path):
    """10,000 random Unicode strings, put to the real target and references."""
    rng, n = random.Random(kind), 3334

    def letter():  # no tokenizer decodes to a lone surrogate (0xd800 to 0xdfff)
        return chr(rng.choice([rng.randrange(*span) for span in ((32, 127), (0x250,), (0xd800,), (0xe000, 0x110000))]))

    said = ["".join(letter() for _ in range(rng.randrange(0, 12))) for _ in range(n)]
    pictures = load_pictures("testbed", 16, 0).take([i % 16 for i in range(n)])
    panel = Panel(*load_panel())
    table = empty_proposals([kind] * n)
    table[TEXT_COLUMN.get(kind, "question")] = pd.Series(said, dtype=object)
    table["invalid_reason"] = pd.Series([malformed(text, True) for text in said], dtype=object)
    monkeypatch.setattr(auditor, "sample", lambda *args, **kwargs: 1 / 0)  # nothing of this can be drawn and asked about
    judged = judge_proposed(panel, *reversed(complete(None, pictures, table, trainings.search_of(), 0)))
    assert len(judged) == n
    if kind != "question":
        assert judged["invalid_reason"].isin([UNDRAWN, "empty"]).all() and judged["target_answer"].isna().all()
    assert not judged["disagrees"].any()
    judged = judged.assign(reward=judged["disagrees"].astype(float), step=1)
    assert summary(judged, set(), [0, 0])["invalid"] >= (kind != "question")
    judged.to_parquet(tmp_path / "asked.parquet")


def test_the_reward_sees_no_truth():
    assert not {"world", "truth", "skill", "gap"} & set(rewards.COLUMNS)
    assert list(rewards.TRIAL) == rewards.COLUMNS and len(rewards.equation_1(rewards.TRIAL)) == len(rewards.TRIAL)


@pytest.mark.parametrize("module", ["imitation", "grpo"])
def test_no_training_reaches_the_check_of_pictures_or_asks_what_they_should_show(module):
    files = reach.module_sources(f"auditdm_lib.training.{module}")
    assert "audit/counterfactuals.py" in files and not {"audit/checking.py", "audit/pairs.py", "audit/arms.py"} & set(files)
    for file in files:
        called = {node.attr for node in ast.walk(ast.parse((paths.LIBRARY / file).read_text(encoding="utf-8")))
                  if isinstance(node, ast.Attribute)}
        assert not called & {"told", "unlike"}, file
