"""Fine-tuning mends what was wrong, stops early, goes on after a kill, and leaves no half-written model."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file

from auditdm_lib.models import vlm as models
from auditdm_lib.models.asking import Asking
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training import cards, examples, rectify
from auditdm_lib.training.trainings import Changed

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
QUESTION = "what colour is the sun ?"


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


def train(start, rows, pictures, out, steps=60, rank=8, learning_rate=1e-2, **how):
    return rectify.finetune(start, rectify.to_dataset(rows, pictures), out, steps, 12, learning_rate, rank, 0, **how)


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
    assert list(history.columns) == rectify.HISTORY and history["step"].iloc[-1] == 60
    assert history["validation_loss"].isna().all()


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


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_without_adapters_all_weights_of_the_language_model_are_trained_and_no_others(target, pictures, tmp_path):
    train(target, pictures[1], pictures[0], tmp_path / "model", steps=3, rank=0)
    before, after = (load_file(f / "model.safetensors") for f in (target, tmp_path / "model"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert moved == {name for name in before if "language_model" in name or "lm_head" in name} and len(moved) > 7
    assert models.load_vlm(tmp_path / "model").asking == models.load_vlm(target).asking


def test_it_is_asked_as_it_was_trained(target, pictures, tmp_path):
    train(target, pictures[1], pictures[0], tmp_path / "model", steps=2, rank=0, asked={"max_new_tokens": 3})
    asking = models.load_vlm(tmp_path / "model").asking
    assert isinstance(asking, Asking) and asking.max_new_tokens == 3


# Early stopping

def test_no_picture_is_both_trained_on_and_validated_with(pictures):
    twice = pd.concat([pictures[1], pictures[1].assign(question="is the sun red ?", answer="yes")])
    data = rectify.to_dataset(twice, pictures[0])
    rows, kept = rectify.split_by_picture(data, 0)
    names = twice["image"].tolist()
    assert sorted(rows + kept) == list(range(len(twice))) and len(kept) == 8
    assert not {names[i] for i in rows} & {names[i] for i in kept}
    assert rectify.split_by_picture(data, 1)[1] != kept
    with pytest.raises(Stop, match="single picture.*set rectify_patience to 0"):
        rectify.split_by_picture(rectify.to_dataset(twice[twice["image"] == "red0.png"], pictures[0]), 0)


def test_it_stops_once_the_validation_no_longer_improves_and_keeps_the_best_model(target, pictures, tmp_path):
    rows = pictures[1].assign(answer=np.random.default_rng(0).permutation(pictures[1]["answer"]))  # nothing to be learned
    history = train(target, rows, pictures[0], tmp_path / "model", patience=2, work=tmp_path / "work")
    validated = history.dropna(subset="validation_loss")
    best = validated["validation_loss"].argmin()
    assert history["step"].iloc[-1] == validated["step"].iloc[best + 2] < 60  # two validations without a lower loss
    step = validated["step"].iloc[best]
    assert f"| saved | step {step} of 60, the lowest" in (tmp_path / "model/README.md").read_text(encoding="utf-8")
    fewer = train(target, rows, pictures[0], tmp_path / "straight", work=tmp_path / "straight work", patience=2)
    assert digests(tmp_path / "model") == digests(tmp_path / "straight") and fewer.equals(history)


# A kill, and what must not go on

@pytest.mark.parametrize(("rank", "saves"), [(4, 2), (0, 3)])
def test_a_killed_fine_tuning_ends_in_the_same_bytes(rank, saves, pictures, tmp_path):
    start = tiny_models.BUILDERS["gemma3"](tmp_path / "start")
    pictures[1].to_parquet(tmp_path / "rows.parquet")
    child = subprocess.run(
        [sys.executable, Path(__file__).with_name("tunings.py"), start, pictures[0], tmp_path, str(rank), str(saves)],
        env=os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path)), capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    assert [file.name for file in (tmp_path / "work").glob("checkpoint-*")] and not (tmp_path / "killed").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        how = dict(steps=8, rank=rank, learning_rate=1e-3, patience=3)
        again = train(start, pictures[1], pictures[0], tmp_path / "killed", work=tmp_path / "work", **how)
        straight = train(start, pictures[1], pictures[0], tmp_path / "straight", **how)
    finally:
        torch.set_num_threads(threads)
    assert digests(tmp_path / "killed") == digests(tmp_path / "straight") and again.equals(straight)
    with pytest.raises(Changed, match="was stopped and has changed since.*rank"):
        train(start, pictures[1], pictures[0], tmp_path / "killed", work=tmp_path / "work", **how | dict(rank=2))


@pytest.mark.parametrize("work", [False, True])
def test_a_loss_that_is_not_finite_stops_it_and_no_model_is_written(work, pictures, tmp_path):
    start = tiny_models.BUILDERS["gemma3"](tmp_path / "start")
    how = dict(work=tmp_path / "work") if work else {}
    with pytest.raises(Stop, match="The fine-tuning of model was stopped, and no model was saved: .* lower the learning rate"):
        train(start, pictures[1], pictures[0], tmp_path / "model", rank=0, learning_rate=1e6, **how)
    assert not list(tmp_path.glob("*model*")) and not list(tmp_path.glob("work/*"))
    assert len(train(start, pictures[1], pictures[0], tmp_path / "model", steps=2, **how))  # with another rate it begins anew


@pytest.mark.parametrize("answer", [None, "", "  ", 3, float("nan"), ["red"]])
def test_an_answer_that_is_no_text_is_refused(answer, pictures):
    rows = pictures[1].head(2).astype({"answer": object})
    rows.at[0, "answer"] = answer
    with pytest.raises(Stop, match=r"1 of 2 examples have an answer that is no text, the first .*: give each example"):
        rectify.to_dataset(rows, pictures[0])


def test_without_examples_no_model_is_loaded_and_nothing_is_written(pictures, tmp_path):
    data = rectify.to_dataset(pictures[1].head(0), pictures[0])
    data.save_to_disk(tmp_path / "data")
    history = rectify.finetune("no/model", data, tmp_path / "model", 3, 8, 1e-3, 4, 0)
    assert history.empty and list(history.columns) == rectify.HISTORY and not (tmp_path / "model").exists()


# Cards

def test_the_model_card_says_what_was_done_and_names_no_folder_of_this_machine(target, pictures, tmp_path):
    train(target, pictures[1], pictures[0], tmp_path / "model", steps=2, data="of an <audit>")
    card = (tmp_path / "model/README.md").read_text(encoding="utf-8")
    assert "fine-tuned on 36 examples, of an &lt;audit&gt;, with" in card and "| trained | LoRA of rank 8" in card
    assert "base_model: \"target\"" in card and str(tmp_path) not in card and str(target) not in card
    files = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "model").glob("*.json"))
    assert str(tmp_path) not in files and str(target) not in files
    assert "| trained | all weights of the language model |" in cards.model_card(
        "org/model", 5, "", steps=2, batch_size=1, learning_rate=1e-3, rank=0, seed=0, patience=0, saved=2)


def test_the_data_card_counts_the_kinds_of_examples():
    card = cards.data_card("What was learned", "From an audit.", {"failure": 1200, "rehearsal": 3000})
    assert re.search(r"^4,200 examples", card, re.MULTILINE) and "| failure | 1,200 |" in card
