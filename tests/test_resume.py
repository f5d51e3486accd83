"""A training of the auditor that was killed ends in the weights of an undisturbed one, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trainings
from safetensors.torch import load_file

from auditdm_lib import paths
from auditdm_lib.audit import auditor
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.models import placement
from auditdm_lib.models.asking import Sampling
from auditdm_lib.run import manifest, reach
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training import grpo, imitation
from auditdm_lib.training.trainings import SEAL, Changed, claim, last_checkpoint, load_table, whole


def weights(folder):
    return load_file(folder / "model.safetensors")


# In a step: at the fourth call of the collator in imitation, of the panel in GRPO; the last checkpoint is then of step 2.
@pytest.mark.parametrize(("name", "moment"), [
    *((name, "step") for name in trainings.TRAININGS),
    *((name, moment) for name in ("imitation", "grpo") for moment in ("before the seal", "half a table"))])
def test_a_killed_training_ends_in_the_same_weights_history_and_probes(name, moment, tmp_path, monkeypatch):
    environment = os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
    child = subprocess.run([sys.executable, Path(trainings.__file__), name, tmp_path / "killed", moment], env=environment,
                           capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        straight, *_, history, asked = trainings.TRAININGS[name](tmp_path / "straight")
        resumed, *_, again, asked_again = trainings.TRAININGS[name](tmp_path / "killed")
    finally:
        torch.set_num_threads(threads)
    old, new = weights(straight), weights(resumed)
    assert old.keys() == new.keys() and all(torch.equal(old[k], new[k]) for k in old)
    start = weights(trainings.START)
    assert any(not torch.equal(old[k].float(), start[k].float()) for k in old), "nothing was trained"
    assert history.equals(again) and asked.equals(asked_again)


def test_a_finished_training_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    folder, history, asked = trainings.reinforce(tmp_path, steps=2)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(auditor, "judge", lambda *args, **kwargs: 1 / 0)
    again, history_again, asked_again = trainings.reinforce(tmp_path, steps=2)
    assert again == folder and history.equals(history_again) and asked.equals(asked_again)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_only_a_whole_checkpoint_counts(tmp_path):
    for step in (2, 4, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text(str(step))
        (folder / SEAL).write_text(json.dumps({"weights": manifest.hash_file(folder / "weights")}))
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    (tmp_path / "checkpoint-10/weights").write_text("half")
    assert last_checkpoint(tmp_path).name == "checkpoint-4" and not (tmp_path / "checkpoint-10").exists()
    (tmp_path / "checkpoint-4" / SEAL).unlink()
    (tmp_path / "checkpoint-2" / SEAL).write_text("{")
    assert last_checkpoint(tmp_path) is None and last_checkpoint(tmp_path / "none") is None


def test_a_training_with_other_parameters_is_named_and_kept_until_begun_anew_on_demand(tmp_path, monkeypatch):
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    work = tmp_path / "grpo"
    first, _, _ = trainings.reinforce(work, steps=3)
    with pytest.raises(Changed, match=r"The training grpo was stopped and has changed since \(settings\).*--fresh"):
        trainings.reinforce(work, steps=2, learning_rate=5e-4)
    with monkeypatch.context() as sampled, pytest.raises(Changed, match=r"changed since \(asked\)"):
        sampled.setattr(trainings.TARGET, "sampling", Sampling(0.7, "0/0"))
        trainings.reinforce(work, steps=3)
    assert first.exists()
    monkeypatch.setenv("AUDITDM_FRESH", "1")
    again, _, _ = trainings.reinforce(work, steps=2, learning_rate=5e-4)
    assert again.name == "step_000002" and not first.exists() and not (tmp_path / ".grpo.deleted").exists()


def test_a_training_that_ran_out_of_memory_goes_on_with_what_saves_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    tried = []

    def full(*given):
        tried.append(given)
        raise torch.OutOfMemoryError("CUDA out of memory.")
    monkeypatch.setattr(imitation, "imitate", full)
    monkeypatch.setattr(grpo, "_train", full)
    ways = (trainings.imitate, dict(batch=1, pictures=16), dict(checkpointing=True)), (
        trainings.reinforce, dict(accumulation=8), dict(accumulation=8, checkpointing=True))
    for train, how, saving in ways:
        for given in (how, how | saving):
            for member in (trainings.TARGET, *trainings.REFERENCES):
                monkeypatch.setattr(member, "asking", replace(member.asking, batch_size=1 + len(tried)))
            with pytest.raises(Stop, match="1 examples at a time, which cannot be halved: set gradient_checkpointing to true"):
                train(tmp_path / train.__name__, steps=1, **given)
    assert len(tried) == 4


def test_the_numbers_of_the_placement_belong_to_a_training_and_where_its_models_lie_does_not(tmp_path):
    try:
        for given in ({}, dict(device_map="auto")):
            placement.place(**given)
            claim(tmp_path / "work", "auditdm_lib.training.rectify", [], {})
        placement.place(dtype="bfloat16", attention="eager")
        with pytest.raises(Changed, match=r"changed since \(attention, dtype\)"):
            claim(tmp_path / "work", "auditdm_lib.training.rectify", [], {})
    finally:
        placement.place()


def test_a_changed_module_and_a_changed_model_are_named(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    claim(tmp_path / "work", "auditdm_lib.training.imitation", [tmp_path / "model"], dict(rounds=2))
    claim(tmp_path / "work", "auditdm_lib.training.imitation", [tmp_path / "model"], dict(rounds=2))
    (tmp_path / "model/config.json").write_text('{"other": 1}')
    sources = reach.module_sources
    monkeypatch.setattr(reach, "module_sources", lambda module: sources(module) | {"audit/consensus.py": "changed"})
    with pytest.raises(Changed, match="audit/consensus.py, model 1, rounds"):
        claim(tmp_path / "work", "auditdm_lib.training.imitation", [tmp_path / "model"], dict(rounds=3))


def test_what_lies_in_the_work_folder_is_checked_when_it_is_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    _, _, _, asked = trainings.imitate(tmp_path / "imitation")
    table = tmp_path / "imitation/round_1/asked.parquet"
    model = tmp_path / "imitation/round_2/auditor/model.safetensors"
    for file in (table, model):
        flipped = bytearray(file.read_bytes())
        flipped[len(flipped) // 2] ^= 1
        file.write_bytes(flipped)
    assert load_table(table) is None and not whole(model.parent)
    *_, again = trainings.imitate(tmp_path / "imitation")
    assert again.equals(asked) and whole(model.parent)
    trainings.reinforce(tmp_path / "grpo", steps=2)
    (tmp_path / "grpo/asked/000001.parquet").write_bytes(b"half")
    with pytest.raises(Stop, match="the probes of step 1 are missing or damaged"):
        trainings.reinforce(tmp_path / "grpo", steps=2)


def test_an_auditor_given_by_a_relative_path_is_found_from_anywhere(tmp_path, monkeypatch):
    """As a notebook does, whose working directory is its own; TRL reads the start again for the KL divergence."""
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    monkeypatch.chdir(tmp_path)
    start = trainings.START.relative_to(paths.ROOT)
    pictures, search = load_pictures("testbed", 4, 0), trainings.search_of()
    same, found, history, _ = imitation.self_imitation(str(start), trainings.PANEL, pictures, search,
                                                       imitation.ImitationSettings(0, 1, 1e-3, 0, False, 2), 0, tmp_path / "none")
    assert same == start and history.empty and found == []
    folder, _, _ = trainings.reinforce(tmp_path / "grpo", beta=0.3, steps=1, start=same)
    assert folder.exists()


def test_fewer_pictures_than_rounds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1 pictures do not make 2 rounds: raise imitation_pictures"):
        trainings.imitate(tmp_path, pictures=1)
