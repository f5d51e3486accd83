"""Several processes give the answers of one, also where one of them is killed; without the package ray nothing begins."""

import importlib.util
import os
import subprocess
import sys

import pytest

from auditdm_lib import paths
from auditdm_lib.audit import bulk
from auditdm_lib.run import manifest

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


def test_workers_without_ray_are_refused_before_work_starts(monkeypatch):
    monkeypatch.setattr(bulk.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(manifest.Stop, match=r"^workers needs the package ray.*: pip install 'ray\[data\]', or set it to 0\.$"):
        bulk.spread(2, [])
    assert bulk.spread(0, []) is None


def test_workers_with_a_model_behind_a_server_are_refused():
    with pytest.raises(manifest.Stop, match="^workers is for models that are loaded, .*: set workers to 0"):
        bulk.spread(2, ["models/mine", "openai:model@http://127.0.0.1:8000/v1"])
