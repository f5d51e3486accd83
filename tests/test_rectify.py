"""The training sets are fair, labelled by consensus alone, and fine-tuning on them mends what was wrong."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file

from auditdm_lib.boxes import location
from auditdm_lib.models import vlm as models
from auditdm_lib.training import examples, rectify

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
QUESTION = "what colour is the sun ?"


def probes(failures, agreements, others, without_consensus=3):
    """Probes of a trained and a random auditor (others), some without consensus."""
    rows = [("trained", True)] * failures + [("trained", False)] * agreements
    rows += [("random", i % 5 == 0) for i in range(others)]
    table = pd.DataFrame(rows, columns=["auditor", "disagrees"])
    table["image"] = [f"images/{i}.png" for i in range(len(table))]
    table["question"], table["consensus"], table["target_answer"], table["picture_reason"] = QUESTION, "blue", "red", None
    none = table.head(without_consensus).assign(consensus=None, disagrees=False, question="no consensus ?")
    return pd.concat([table, none], ignore_index=True)


def test_a_picture_that_failed_its_check_teaches_nothing():
    table = probes(40, 40, 40)
    table.loc[table.index % 2 == 0, "picture_reason"] = "colour"
    rejected = set(table.loc[table["picture_reason"].notna(), "image"])
    audited, control = rectify.training_sets(table, 0.5, ["random"], seed=0)
    assert len(audited) == len(control) == 20 and not (set(audited["image"]) | set(control["image"])) & rejected


@pytest.mark.parametrize("failures, agreements, others", [(40, 100, 100), (100, 9, 60), (30, 30, 11)])
def test_audited_and_control_sets_are_equally_large(failures, agreements, others):
    audited, control = rectify.training_sets(probes(failures, agreements, others), 0.5, ["random"], seed=0)
    assert len(audited) == len(control) > 10
    assert abs(audited["failure"].mean() - 0.5) <= 0.5 / len(audited)
    assert not any(rows.duplicated(["image", "question"]).any() for rows in (audited, control))


def test_control_holds_only_what_no_audit_chose():
    table = probes(40, 100, 60)
    _, control = rectify.training_sets(table, 0.5, ["random"], seed=0)
    assert set(control["image"]) <= set(table[table["auditor"] == "random"]["image"])
    # a fifth of the random questions fail, as many as chance finds: the control is not filtered by the target
    assert 0.1 < control["failure"].mean() < 0.3


def test_labels_are_the_consensus_whatever_truth_and_target_say():
    table = probes(40, 100, 60).assign(truth="green", verified_failure=False)
    sets = rectify.training_sets(table, 0.5, ["random"], seed=0)
    assert all(set(rows["answer"]) == {"blue"} for rows in sets)
    blind = table.drop(columns=["truth", "verified_failure"])
    without = rectify.training_sets(blind, 0.5, ["random"], seed=0)
    assert all(a.equals(b) for a, b in zip(sets, without, strict=True))


def test_pair_asked_twice_enters_once():
    table = probes(40, 100, 60)
    again = pd.concat([table, table.assign(auditor="prompt_only")], ignore_index=True)
    audited, _ = rectify.training_sets(again, 0.5, ["random"], seed=0)
    assert not audited.duplicated(["image", "question"]).any()


def test_failures_may_be_those_of_some_auditors_and_the_sets_no_larger_than_asked():
    table = probes(40, 100, 100)
    audited, control = rectify.training_sets(table, 0.5, ["random"], 0, ["trained"], most=30)
    mine = set(table.loc[table["auditor"] == "trained", "image"])
    assert len(audited) == len(control) == 30 and audited["failure"].sum() == 15
    assert set(audited.loc[audited["failure"], "image"]) <= mine < set(table["image"])
    assert not set(audited.loc[~audited["failure"], "image"]) <= mine  # rehearsal is of all auditors
    assert [len(rows) for rows in rectify.training_sets(table, 0.5, ["random"], 0, ["prompt_only"])] == [0, 0]


def box(left, top):
    return location((left, top, left + 0.2, top + 0.2))


NEARLY, AWAY = box(0.12, 0.1), box(0.5, 0.5)  # overlaps of 0.82 and 0 with box(0.1, 0.1)


@pytest.mark.parametrize(("kind", "after", "before", "left_out"), [
    ("edit", box(0.1, 0.1), NEARLY, False), ("edit", box(0.1, 0.1), AWAY, True), ("edit", box(0.1, 0.1), None, True),
    ("edit", box(0.1, 0.1), "red", True), ("regeneration", box(0.1, 0.1), box(0.1, 0.1), True), ("edit", "red", "blue", False),
    ("regeneration", None, None, False), ("edit", float("nan"), AWAY, False)])
def test_a_located_answer_about_a_drawn_picture_is_used_only_after_an_edit_in_which_nothing_moved(kind, after, before, left_out):
    table = pd.DataFrame(dict(probe_id=["p", "q"], kind=[kind, "question"], source_image="a.png", image=["b.png", "a.png"],
                              consensus=[after, box(0.1, 0.1)]), index=[7, 3])
    versions = pd.DataFrame(dict(probe_id=["p", "p"], version=["original", "drawn"], consensus=[before, after]))
    found = rectify.moved(table, versions)
    assert found.to_dict() == {7: left_out, 3: False} and found.dtype == bool
    assert rectify.moved(table, None)[7] == (isinstance(after, str) and "loc" in after)  # nothing is known about the originals
    assert rectify.moved(table.head(0), None).empty


@pytest.mark.parametrize("table, missing", [
    (probes(0, 100, 0), "failures"), (probes(10, 0, 0, 0), "agreements"),
    (probes(40, 100, 0), "un-audited questions")])
def test_an_empty_pool_is_named_and_nothing_is_rectified(table, missing, tmp_path, capsys):
    sets = rectify.training_sets(table, 0.5, ["random"], seed=0)
    assert f"no {missing} with a consensus" in capsys.readouterr().out and [len(rows) for rows in sets] == [0, 0]
    data = rectify.to_dataset(sets[0], tmp_path)
    data.save_to_disk(tmp_path / "data")
    history = rectify.finetune("no/model", data, tmp_path / "model", 3, 8, 1e-3, 4, 0)
    assert history.empty and not (tmp_path / "model").exists()


@pytest.fixture(scope="module", params=sorted(tiny_models.BUILDERS))
def vlm(request, tmp_path_factory):
    return models.load_vlm(tiny_models.BUILDERS[request.param](tmp_path_factory.mktemp(request.param)))


def test_only_the_answer_and_its_end_are_labelled(vlm):
    rows = [{"image": Image.new("RGB", (30, 24), "red"), "question": q, "answer": a}
            for q, a in [(QUESTION, "red"), ("is the red cat left of the blue dog ?", "cannot tell")]]
    batch = examples.collate(vlm, rows, asked=models.put)
    tokenizer = vlm.processor.tokenizer
    labelled = [tokenizer.decode(ids[ids != -100]).removesuffix(tokenizer.eos_token).strip() for ids in batch["labels"]]
    assert labelled == ["red", "cannot tell"]
    last = batch["input_ids"].shape[1] - 1 - (batch["labels"] != -100).flip(1).int().argmax(1)
    assert (batch["labels"].gather(1, last[:, None]) == tokenizer.eos_token_id).all()
    assert torch.equal(batch["input_ids"][batch["labels"] != -100], batch["labels"][batch["labels"] != -100])


def test_training_sees_the_prompt_that_answering_sees(vlm):
    # the loss of the first answer token, teacher-forced in a padded batch, is generation's own log-
    # probability
    image, word = Image.new("RGB", (30, 24), "red"), "red"
    questions = [QUESTION, "is the red cat left of the blue dog ?"]
    rows = [{"image": image, "question": question, "answer": word} for question in questions]
    batch = examples.collate(vlm, rows, asked=models.put)
    labels = batch.pop("labels")
    first = (labels[0] != -100).nonzero()[0, 0]
    with torch.no_grad():
        forced = vlm.model(**batch).logits[0, first - 1]
        prompt = models.encode(vlm, [image], [models.put(vlm, QUESTION)], "left")
        prompt.pop("labels", None)
        asked = vlm.model(**prompt).logits[0, -1]
    torch.testing.assert_close(forced, asked, atol=1e-4, rtol=1e-4)  # fp32, sums in another order


def test_lora_reaches_every_linear_layer_of_the_language_model_and_no_other(vlm):
    names = examples.language_layers(vlm.model)
    assert len(names) == 7  # one layer: q, k, v, o, gate, up, down
    assert not any("vision" in name or "lm_head" in name for name in names)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve noisy pictures of each colour."""
    folder, rows = tmp_path_factory.mktemp("pictures"), []
    rng = np.random.default_rng(0)
    for name, rgb in COLOURS.items():
        for i in range(12):
            pixels = np.clip(np.array(rgb) + rng.integers(-25, 26, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}{i}.png")
            rows.append((f"{name}{i}.png", QUESTION, name))
    return folder, pd.DataFrame(rows, columns=["image", "question", "answer"])


def train(start, rows, pictures, out, steps=60):
    return rectify.finetune(start, rectify.to_dataset(rows, pictures), out, steps=steps, batch_size=12,
                            learning_rate=1e-2, rank=8, seed=0)


@pytest.fixture(scope="module", params=["paligemma2", "gemma3"])
def target(request, pictures, tmp_path_factory):
    """A target that knows red and blue, and calls green things blue."""
    base = tmp_path_factory.mktemp("base")
    start = tiny_models.BUILDERS[request.param](base / "start", hidden=32)
    wrong = pictures[1].replace({"answer": {"green": "blue"}})
    train(start, wrong, pictures[0], base / "target")
    return base / "target"


def right(folder, pictures):
    """Share of right answers by colour."""
    vlm, (folder, rows) = models.load_vlm(folder), pictures
    images = [Image.open(folder / name) for name in rows["image"]]
    given = models.answer(vlm, images, rows["question"].tolist())
    return (rows["answer"] == given).groupby(rows["answer"]).mean().to_dict()


def test_rectified_model_is_right_where_it_failed_and_still_right_elsewhere(target, pictures, tmp_path):
    assert right(target, pictures) == {"red": 1.0, "blue": 1.0, "green": 0.0}
    seen = pictures[1][pictures[1].groupby("answer").cumcount() < 6]  # half of each; the others are unseen
    history = train(target, seen, pictures[0], tmp_path / "model")
    assert right(tmp_path / "model", pictures) == {"red": 1.0, "blue": 1.0, "green": 1.0}
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert list(history.columns) == ["step", "loss"] and history["step"].iloc[-1] == 60


def test_fine_tuning_moves_the_language_model_and_leaves_the_vision_tower(target, pictures, tmp_path):
    train(target, pictures[1], pictures[0], tmp_path / "model", steps=3)
    before, after = (load_file(f / "model.safetensors") for f in (target, tmp_path / "model"))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {name for name in before if "language_model" in name and name.endswith("_proj.weight")}
    assert moved == linear and len(linear) == 7


def test_same_seed_gives_the_same_bytes(target, pictures, tmp_path):
    digests = []
    for i in range(2):
        train(target, pictures[1], pictures[0], tmp_path / f"{i}", steps=3)
        files = sorted((tmp_path / f"{i}").iterdir())
        digests.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    assert digests[0] == digests[1]


def test_training_data_on_disk_carries_the_pictures_and_no_paths(pictures, tmp_path):
    rectify.to_dataset(pictures[1], pictures[0]).save_to_disk(tmp_path / "data")
    stored = b"".join(file.read_bytes() for file in (tmp_path / "data").iterdir())
    assert str(pictures[0]).encode() not in stored and b"PNG" in stored
