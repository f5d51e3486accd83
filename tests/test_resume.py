"""A training of the auditor that was killed ends in the weights of an undisturbed one, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trainings
from safetensors.torch import load_file

from auditdm_lib import paths
from auditdm_lib.audit import auditor
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.run import manifest
from auditdm_lib.training import imitation
from auditdm_lib.training.trainings import SEAL, last_checkpoint


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


def test_work_of_other_parameters_is_not_taken_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    work = tmp_path / "grpo"
    first, _, asked = trainings.reinforce(work, steps=3)
    again, _, _ = trainings.reinforce(work, steps=2, learning_rate=5e-4)
    assert again.name == "step_000002" and not first.exists()
    assert "grpo was begun with other parameters or code and begins anew" in capsys.readouterr().out


def test_an_auditor_given_by_a_relative_path_is_found_from_anywhere(tmp_path, monkeypatch):
    """As a notebook does, whose working directory is its own; TRL reads the start again for the KL divergence."""
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    monkeypatch.chdir(tmp_path)
    start = trainings.START.relative_to(paths.ROOT)
    pictures, search = load_pictures("testbed", 4, 0), trainings.search_of()
    same, found, history, _ = imitation.self_imitation(str(start), trainings.PANEL, pictures, search, 0, 1, 1e-3, 0, False, 2, 0,
                                                tmp_path / "none")
    assert same == start and history.empty and found == []
    folder, _, _ = trainings.reinforce(tmp_path / "grpo", beta=0.3, steps=1, start=same)
    assert folder.exists()


def test_fewer_pictures_than_rounds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1 pictures do not make 2 rounds: raise imitation_pictures"):
        trainings.imitate(tmp_path, pictures=1)
