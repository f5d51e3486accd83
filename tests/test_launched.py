"""The auditor's trainings in two processes of `accelerate launch` learn what one process learns, also after one was killed."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import trainings as small
from safetensors.torch import load_file
from trl import GRPOTrainer

from auditdm_lib import paths
from auditdm_lib.audit import auditor, bulk
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_again, load_pictures
from auditdm_lib.models.asking import Sampling
from auditdm_lib.models.vlm import load_members
from auditdm_lib.run import params
from auditdm_lib.run.manifest import Stop
from auditdm_lib.testbed.checkpoint import CHECKPOINTS
from auditdm_lib.training import grpo, imitation, launched
from auditdm_lib.training.alarms import Alarm
from auditdm_lib.training.replay import load_found, save_found
from auditdm_lib.training.trainings import last_checkpoint

TWO = "--multi_gpu --num_processes 2"
TOLERANCE = 1e-4  # of how far the weights moved, as `GRPOSettings` and the parameter say: sums in another order (2e-5 measured)


def moved(folder):
    old, new = load_file(small.START / "model.safetensors"), load_file(folder / "model.safetensors")
    return torch.cat([(new[name].float() - old[name].float()).flatten() for name in old])


def apart(one, other):
    return float((moved(one) - moved(other)).norm() / moved(one).norm())


@pytest.fixture(scope="module")
def panel():
    target, *references = load_members(CHECKPOINTS / "target", [CHECKPOINTS / "paligemma2-s", CHECKPOINTS / "gemma3-s"])
    return Panel(target, references)


def test_grpo_in_two_processes_learns_what_one_does_also_after_one_was_killed(panel, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(paths.ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", GRPOTrainer._generate_single_turn)  # is put back afterwards
    monkeypatch.setattr(small, "PANEL", panel)
    # groups that lie in both processes, a replay with an empty piece, edits, and existing questions
    given = dict(steps=4, groups=3, beta=0.3, replay_weight=0.4, replayed=3, learning_rate=1e-5,
                 reward="scripted_rollouts:by_length", search=replace(small.search_of(edit=0.5), existing_question_share=0.5))
    one, history, asked = small.reinforce(tmp_path / "one", **given)
    given |= dict(launch=TWO, accumulation=2)
    with monkeypatch.context() as killed, pytest.raises(Stop, match="processes of the training broke off"):
        killed.setenv("KILLED_AT", "3")
        small.reinforce(tmp_path / "two", **given)
    assert last_checkpoint(tmp_path / "two/training").name == "checkpoint-2"
    two, history_of_two, asked_of_two = small.reinforce(tmp_path / "two", **given)
    assert 0 < apart(one, two) < TOLERANCE
    assert asked_of_two.equals(asked) and (asked["pairing"] == auditor.EXISTING_QUESTION).any()
    # TRL logs the mean of its parts' means
    assert history_of_two["kl"].to_numpy() == pytest.approx(history["kl"].to_numpy(), rel=0.02) and history["kl"].iloc[-1] > 0
    states = last_checkpoint(tmp_path / "two/training").glob("rng_state*")
    assert {file.name for file in states} == {"rng_state_0.pth", "rng_state_1.pth"}


def test_self_imitation_in_two_processes_learns_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(auditor, "judge", small.judge)
    pictures, settings = load_pictures("testbed", 24, 0), imitation.ImitationSettings(1, 4, 1e-3, 4, False, 2, batch=12)
    made = {}
    for name, launch in (("one", ""), ("two", TWO)):
        made[name], *_ = imitation.self_imitation(small.START, small.PANEL, pictures, small.search_of(edit=0.2),
                                                  replace(settings, launch=launch, accumulation=3 if launch else 1), 0,
                                                  tmp_path / name)
    assert 0 < apart(made["one"], made["two"]) < TOLERANCE
    assert not (tmp_path / "two/round_1/training").exists()


def test_what_a_process_is_given_is_what_the_notebook_has(panel, tmp_path):
    sampled = replace(panel, target=replace(panel.target, sampling=Sampling(0.7, "0/0")), rule="majority")
    again = bulk.unpacked_panel(**json.loads(json.dumps(bulk.packed_panel(sampled))))
    for old, new in zip((sampled.target, *sampled.references), (again.target, *again.references), strict=True):
        assert (old.name, old.asking, old.sampling, old.identity) == (new.name, new.asking, new.sampling, new.identity)
    assert again.rule == "majority" and again.llm is None
    pictures = load_pictures("testbed", 12, 3, split="probe").take([5, 1, 5]).take([2, 1])
    loaded = load_again(**json.loads(json.dumps(pictures.again)))
    assert loaded.names == pictures.names and [i.tobytes() for i in loaded.images] == [i.tobytes() for i in pictures.images]
    assert loaded.truth.all_questions(0) == pictures.truth.all_questions(0)
    save_found(small.found(), tmp_path / "found")
    for old, new in zip(small.found(), load_found(tmp_path / "found"), strict=True):
        assert old.pop("image").tobytes() == new.pop("image").tobytes() and old == new


def test_what_stops_a_process_stops_the_training_in_its_words(tmp_path, monkeypatch):
    def stopped(command, **_):
        assert command[3:6] == ["--main_process_port", "0", "--multi_gpu"]  # the last of an argument's values counts
        (tmp_path / launched.STOPPED).write_text(said)
        return SimpleNamespace(returncode=1, stderr="")
    monkeypatch.setattr(subprocess, "run", stopped)
    for said, kind in (("Alarm: Gibberish: in 5 steps", Alarm), ("Stop: There is no such thing", Stop)):
        with pytest.raises(kind, match=said.partition(": ")[2]):
            launched.launch(TWO, "none", tmp_path, 8, 1, {})


def test_a_process_ends_with_the_one_that_started_the_training_which_may_be_run_again(tmp_path, monkeypatch):
    ended, told, given = [], [], {}
    starter = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with monkeypatch.context() as own:
        own.setattr(os, "_exit", ended.append)
        watching = threading.Thread(target=launched._end_with, args=([os.getpid(), starter.pid],))
        watching.start()
        watching.join(1.5)
        assert watching.is_alive() and not ended
        starter.kill()  # and nobody waits for it yet
        watching.join(30)
        assert ended == [1] and starter.wait() != 0
    monkeypatch.setattr(subprocess, "run", lambda *_, env, **__: given.update(env) or SimpleNamespace(returncode=0))
    launched.launch(TWO, "none", tmp_path, 8, 1, {})
    monkeypatch.setattr(launched, "_end_with", told.append)
    monkeypatch.setenv(launched.STARTER, given[launched.STARTER])
    launched.work(tmp_path, lambda: None, "auditor_accumulation")
    assert told == [[os.getpid(), os.getppid()]]


def test_processes_wait_for_one_that_asks_its_members_for_long(tmp_path, monkeypatch):
    given, job = {}, dict(job={}, batch=8, parts=1, placement={}, threads=torch.get_num_threads())
    (tmp_path / launched.JOB).write_text(json.dumps(job))
    monkeypatch.setattr(launched, "PartialState", lambda **how: given.update(how))
    launched.work(tmp_path, lambda: None, "auditor_accumulation")
    assert given["timeout"].total_seconds() > 3600  # NCCL's own limit is 600 s


def test_grpo_whose_batch_does_not_divide_or_whose_pictures_changed_is_stopped_before_a_member_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "unpacked_panel", lambda **_: pytest.fail("the members were loaded"))
    settings = grpo.GRPOSettings(1, 4, 2, 1e-3, 0.0, 0.0, 0.0, 0, False, 1)
    job = dict(start="none", panel={}, pictures=load_pictures("testbed", 2, 0).again, known=["others"], search={}, seed=0,
               watch=True)
    for parts, words in ((3, "8 examples in 3 parts does not divide"), (1, "pictures: they are not what they were")):
        given = dict(job=job | {"settings": vars(replace(settings, accumulation=parts))}, batch=8, parts=parts, placement={},
                     threads=torch.get_num_threads())
        (tmp_path / launched.JOB).write_text(json.dumps(given))
        with pytest.raises(SystemExit):
            grpo.main(tmp_path)
        assert words in (tmp_path / launched.STOPPED).read_text()


def test_a_member_behind_a_server_is_asked_by_one_process_only():
    known = params.declared(paths.NOTEBOOKS / "01_train_auditor.ipynb")
    server = "openai:some@http://localhost:9/v1"
    for values, refused in ((dict(launch=TWO, target=server), True), (dict(launch=TWO, judge_model=server), True),
                            (dict(target=server), False)):
        with pytest.raises(params.BadParameters) as caught:
            params.check_servers(params.effective(values, known), known, "01_train_auditor")
        assert ("set launch to" in str(caught.value)) == refused
    with pytest.raises(params.BadParameters, match="in one process only"):
        params.check(params.effective(dict(launch=TWO, vllm_server="http://localhost:9"), known), known, "profile")
