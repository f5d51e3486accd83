"""Several processes give the answers of one, also where one of them is killed; without the package ray nothing begins."""

import importlib.util
import os
import random
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import vllm_server

from auditdm_lib import paths
from auditdm_lib.audit import bulk, panel
from auditdm_lib.audit.panel import Panel, judge
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.models import endpoint, placement, store, vlm
from auditdm_lib.models.vlm import load_members
from auditdm_lib.run import manifest
from auditdm_lib.testbed.checkpoint import CHECKPOINTS

# In a process of its own, which ends all that Ray started: two workers, of which one is killed once it has answered something.
SCRIPT = """
import random, threading, time
from dataclasses import replace
from pathlib import Path
import pandas as pd, psutil, torch
from auditdm_lib.audit import bulk
from auditdm_lib.audit.panel import Panel, judge
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.models.vlm import load_members
from auditdm_lib.testbed.checkpoint import CHECKPOINTS

torch.set_num_threads(1)
seen, rng = load_pictures("testbed", 60, 0), random.Random(0)
rows = [*range(60), 3, 5]
questions = [seen.random_question(i, rng) for i in range(60)]
questions += [questions[3], questions[5]]
invalid = ["unfinished" if i == 7 else None for i in range(62)]
members = load_members(CHECKPOINTS / "target", [CHECKPOINTS / "gemma3-l-flawed"], answer_batch=8)
one = Panel(members[0], members[1:])
loop = judge(one, [seen.images[i] for i in rows], questions, invalid)


class Slow(bulk.Asker):
    def __call__(self, batch):
        time.sleep(0.5)
        return super().__call__(batch)


killed = []


def kill():
    while not killed:
        for child in psutil.Process().children(recursive=True):
            if "MapWorker" in child.name() and "__init__" not in child.name():
                child.kill()
                killed.append(child.pid)
                return
        time.sleep(0.1)


bulk.Asker = Slow
threading.Thread(target=kill, daemon=True).start()
several = judge(replace(one, ask=bulk.spread(2, [])), [seen.images[i] for i in rows], questions, invalid)
assert killed and loop["disagrees"].any() and loop["target_answer"].nunique() > 5
pd.testing.assert_frame_equal(loop, several)
for name, table in (("loop", loop), ("several", several)):
    table.to_parquet(name)
assert Path("loop").read_bytes() == Path("several").read_bytes()
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the optional package ray is not installed")
def test_two_workers_one_of_them_killed_give_the_bytes_of_the_loop(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=900,
                          env=os.environ | {"PYTHONPATH": f"{paths.ROOT}:{paths.ROOT / 'tests'}"})
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def by_workers(monkeypatch):
    """A function that judges like `panel.judge` by two workers, one after the other in this process, in the place of Ray's."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda parts: parts))
    askers = []

    def by_turns(how, parts, workers):
        placed = placement.current()
        placement.place()  # as a new process begins
        made = [bulk.Asker(**how, parts=parts) for _ in range(workers)]
        placement.place(**placed)
        askers.extend(made)
        return [bulk.unpacked(made[k % workers]({"id": [k]})["given"][0]) for k in range(len(parts))]

    monkeypatch.setattr(bulk, "_by_ray", by_turns)

    def judged(panel, images, questions):
        return judge(replace(panel, ask=partial(bulk.asked_by, 2)), images, questions, [None] * len(questions)), askers
    yield judged
    placement.place()


@pytest.fixture(scope="module")
def asked():
    """Pictures, and a different question about each."""
    seen, rng = load_pictures("testbed", 12, 0), random.Random(0)
    return seen.images, [f"{seen.random_question(i, rng)} {i}" for i in range(12)]


def panel_of(batch=2):
    members = load_members(CHECKPOINTS / "target", [CHECKPOINTS / "gemma3-l-flawed"], answer_batch=batch)
    return Panel(members[0], members[1:])


def test_questions_that_servers_of_the_same_models_are_asked_at_once_give_the_rows_of_the_loop(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ANSWERS", tmp_path / "answers.sqlite")
    images, questions = asked
    loop, folders = panel_of(), [CHECKPOINTS / "target", CHECKPOINTS / "gemma3-l-flawed"]
    monkeypatch.setattr(endpoint, "requests", endpoint.Requests(at_once=6))
    with vllm_server.serving(folders[0]) as one, vllm_server.serving(folders[1]) as two:
        told = [(member.asking.prompt, member.asking.max_new_tokens) for member in (loop.target, *loop.references)]
        target, reference = load_members(f"openai:served@{one.url}/v1", [f"openai:served@{two.url}/v1"],
                                         *map(list, zip(*told, strict=True)))
        served = judge(Panel(target, [reference]), images, questions, [None] * 12)
        assert len(one.posted("/v1/chat/completions")) == len(two.posted("/v1/chat/completions")) == 12
    pd.testing.assert_frame_equal(judge(loop, images, questions, [None] * 12), served)
    assert served["target_answer"].nunique() > 3


def test_workers_load_and_keep_as_the_loop_does(by_workers, asked, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ANSWERS", tmp_path / "answers.sqlite")
    monkeypatch.setattr(vlm, "LARGE", 0)
    placement.place(dtype="bfloat16")
    one = panel_of()
    _, askers = by_workers(one, *asked)
    kept = store.shared().execute("SELECT count(*) FROM texts").fetchone()
    assert kept[0] > 12
    for member in [member for asker in askers for member in (asker.panel.target, *asker.panel.references)]:
        assert member.model.dtype == torch.bfloat16
        assert member.identity in {one.target.identity, one.references[0].identity} - {None}
    judge(one, *asked, [None] * 12)  # all of it is found
    assert store.shared().execute("SELECT count(*) FROM texts").fetchone() == kept


def test_a_part_that_fails_whole_is_missing_and_only_a_member_that_always_fails_is_broken(by_workers, asked, monkeypatch):
    images, questions = asked
    bad, usual = set(sorted(questions, key=len)[:2]), panel.replies  # one part: they are put in order of their lengths

    def replies(member, images, questions, **how):
        if bad.intersection(questions):
            raise RuntimeError("out of luck")
        return usual(member, images, questions, **how)

    monkeypatch.setattr(panel, "replies", replies)
    one = panel_of()
    with pytest.warns(UserWarning, match="out of luck"):
        several, _ = by_workers(one, images, questions)
    with pytest.warns(UserWarning, match="out of luck"):
        pd.testing.assert_frame_equal(several, judge(one, images, questions, [None] * 12))
    assert several["target_missing"].eq("error").sum() == 2
    bad.update(questions)
    with pytest.raises(RuntimeError, match=r"^The target \(.*\) raised an error on every one of 12 questions \(Runtime"):
        by_workers(one, images, questions)


@pytest.mark.parametrize("kind", [manifest.Stop, manifest.Damaged, ValueError, FileNotFoundError])
def test_what_a_worker_hands_over_is_plain_text_and_comes_back_as_it_was(kind):
    given = {"target": panel.Given(["ja \ud800 é", None], [False, True], [False] * 2, [False] * 2, "OSError: no")}, [0]
    assert bulk.unpacked(bulk.packed(given)) == given
    with pytest.raises(next(k for k in bulk.SAID if issubclass(kind, k)), match="^No room é.$"):
        bulk.unpacked(bulk.packed(kind("No room é.")))


def test_what_stops_a_worker_is_said_in_its_own_sentence(by_workers, asked, monkeypatch):
    def stopped(*_, **__):
        raise manifest.Stop("No room: make some.")

    one = panel_of()
    monkeypatch.setattr(bulk, "ask_all", stopped)
    with pytest.raises(manifest.Stop, match="^No room: make some.$"):
        by_workers(one, *asked)
    monkeypatch.setattr(bulk, "load_vlm", stopped)
    with pytest.raises(manifest.Stop, match="^No room: make some.$"):
        by_workers(one, *asked)


@pytest.mark.parametrize(("gpus", "workers", "share"), [
    (0, 3, 0), (1, 1, 1), (1, 3, 0.3333), (2, 14, 0.1428), (8, 8, 1), (8, 2, 4), (8, 3, None), (2, 3, None), (3, 2, None)])
def test_gpus_are_divided_evenly_among_the_workers_or_nothing_begins(gpus, workers, share, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(bulk.importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if share is None:
        with pytest.raises(manifest.Stop, match=f"^{gpus} GPUs do not divide evenly among {workers} workers: set workers"):
            bulk.spread(workers, [])
    else:
        assert bulk.spread(workers, []) and bulk._share(workers, gpus) == share
        assert share == int(share) or share * (workers / gpus) <= 1
    cluster = SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: {"CPU": 64.0, "GPU": 6.0},
                              data=SimpleNamespace(DataContext=SimpleNamespace(get_current=SimpleNamespace)))
    monkeypatch.setitem(sys.modules, "ray", cluster)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert bulk.spread(3, [])  # by the cluster's six, whatever this machine has


def test_workers_without_ray_are_refused_before_work_starts(monkeypatch):
    monkeypatch.setattr(bulk.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(manifest.Stop, match=r"^workers needs the package ray.*: pip install -e \.\[ray\], or set it to 0\.$"):
        bulk.spread(2, [])
    assert bulk.spread(0, []) is None


def test_workers_with_a_model_behind_a_server_are_refused():
    with pytest.raises(manifest.Stop, match="^workers is for models that are loaded, .*: set workers to 0"):
        bulk.spread(2, ["models/mine", "openai:model@http://127.0.0.1:8000/v1"])
