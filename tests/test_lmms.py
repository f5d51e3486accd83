"""Benchmarks by lmms-eval: what cannot be run is one sentence before work starts, what was done is kept, its scores are shown."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
import small_run
import torch

from auditdm_lib.evaluate import lmms
from auditdm_lib.models import placement
from auditdm_lib.models.asking import CHAT
from auditdm_lib.results import export, tables
from auditdm_lib.run import manifest
from auditdm_lib.testbed.checkpoint import CHECKPOINTS

MISSING = importlib.util.find_spec("lmms_eval") is None
SCORES = pd.DataFrame([
    ("target", "vqa", "exact_match", 90, 0.5, 0.01, "1"), ("rectified", "vqa", "exact_match", 90, 0.75, None, "1"),
    ("target", "mme", "mme_score", 40, 1200.0, 0.0, "0"), ("rectified", "mme", "mme_score", 40, 1300.0, 20.0, "0"),
], columns=lmms.COLUMNS)
SERVED = "openai:model@http://127.0.0.1:8000/v1"


@pytest.fixture
def run(tmp_path):
    """The folder of a run with probes of stage 02."""
    return small_run.write(tmp_path, small_run.probes(20))


def test_a_missing_package_and_a_model_behind_a_server_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lmms.importlib.util, "find_spec", lambda name: None)
    lmms.check_tasks([], [SERVED], tmp_path)
    with pytest.raises(manifest.Stop, match="^benchmarks needs the package lmms-eval.*: pip install --no-deps -r"):
        lmms.check_tasks(["gqa"], ["models/mine"], tmp_path)
    with pytest.raises(manifest.Stop, match=f"^benchmarks is for models that are loaded, and {SERVED} is behind"):
        lmms.check_tasks(["gqa"], ["models/mine", SERVED], tmp_path)


@pytest.fixture
def checkpoints(tmp_path):
    """A function that writes a model's folder with such weights."""
    def write(name, weights="first"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "model.safetensors").write_text(weights)
        return str(tmp_path / name)
    return write


def test_a_role_that_was_scored_is_not_scored_again_unless_something_changed(checkpoints, tmp_path, monkeypatch):
    asked, work = [], tmp_path / "work"

    def harness(command, **_):
        order, result = command[-2:]
        wanted = json.loads(open(order).read())
        asked.append((Path(wanted["model"]).name, wanted["limit"]))
        if asked[-1][0] == "broken":
            return SimpleNamespace(returncode=1, stderr="Traceback ...\nno_data: ConnectionError: offline")
        with open(result, "w") as file:
            json.dump([["gqa", "exact_match", 3, 0.5, None, "1"]], file)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", harness)
    a, b, broken = map(checkpoints, ("a", "b", "broken"))
    first = lmms.score({"target": a, "rectified": b}, ["gqa"], 3, work)
    with pytest.raises(manifest.Stop, match="^lmms-eval stopped at reference_1: no_data: ConnectionError: offline\\nMend that"):
        lmms.score({"target": a, "reference_1": broken}, ["gqa"], 3, work)
    lmms.score({"target": a}, ["gqa"], 4, work)
    assert asked == [("a", 3), ("b", 3), ("broken", 3), ("a", 4)]
    assert first["model"].tolist() == ["target", "rectified"] and first["stderr"].isna().all() and list(first) == lmms.COLUMNS
    assert lmms.score({"target": a}, [], 0, work).empty
    task = checkpoints("task")
    changes = [lambda: checkpoints("b", "trained again"), lambda: checkpoints("task", "other items"),
               lambda: monkeypatch.setattr(placement, "_placed", placement.Placement(dtype="bfloat16")),
               lambda: monkeypatch.setattr(manifest, "versions", lambda: {"lmms-eval": "1000"})]
    for change in [lambda: None, *changes]:
        change()
        asked.clear()
        for _ in range(2):
            lmms.score({"rectified": b}, [task], 3, work)
        assert asked == [("b", 3)]


def test_the_harness_asks_by_the_placement_and_the_threads_of_the_stage(checkpoints, tmp_path, monkeypatch):
    for name in ("lmms_eval", "lmms_eval.evaluator", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.tasks"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))  # a stand-in for the optional package
    monkeypatch.setattr(sys.modules["lmms_eval"], "evaluator", sys.modules["lmms_eval.evaluator"], raising=False)
    monkeypatch.setattr(sys.modules["lmms_eval.api.model"], "lmms", type("lmms", (), {}), raising=False)
    monkeypatch.setattr(sys.modules["lmms_eval.tasks"], "TaskManager", type(
        "TaskManager", (), {"__init__": lambda self, *_, **__: None, "all_tasks": ["gqa"]}), raising=False)
    monkeypatch.setattr(sys.modules["lmms_eval.evaluator"], "simple_evaluate",
                        lambda *_, **__: {"results": {}, "versions": {}}, raising=False)
    monkeypatch.delitem(sys.modules, "auditdm_lib.evaluate.lmms_model", raising=False)
    harness, loaded, threads = importlib.import_module("auditdm_lib.evaluate.lmms_model"), [], torch.get_num_threads()

    def load(*_):
        loaded.append((placement.current(), torch.get_num_threads()))
        return SimpleNamespace(asking=CHAT)

    def other_process(command, **_):
        placement.place()
        torch.set_num_threads(threads)
        harness.main(*map(Path, command[-2:]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(harness, "load_vlm", load)
    monkeypatch.setattr(subprocess, "run", other_process)
    monkeypatch.setattr(placement, "_placed", wanted := placement.Placement(dtype="bfloat16", attention="eager"))
    torch.set_num_threads(threads + 1)
    try:
        lmms.score({"target": checkpoints("a")}, ["gqa"], 3, tmp_path / "work")
    finally:
        torch.set_num_threads(threads)
        sys.modules.pop("auditdm_lib.evaluate.lmms_model")
    assert loaded == [(asdict(wanted), threads + 1)]


def test_the_scores_stand_in_a_table_with_the_interval_of_their_standard_error():
    table = tables.benchmarks(SCORES).set_index("task")
    assert table.loc["vqa", "target"] == "0.5 [0.4804, 0.5196]" and table.loc["vqa", "rectified"] == "0.75"
    assert table.loc["mme", "target"] == "1200" and table.loc["mme", "rectified"] == "1300 [1261, 1339]"
    assert list(table) == ["metric", "n", "target", "rectified"]


@pytest.mark.skipif(MISSING, reason="the optional package lmms-eval is not installed")
def test_the_harness_scores_an_exported_task(run, tmp_path):
    task = export.write(str(run), "lmms-eval", tmp_path / "task")
    with pytest.raises(manifest.Stop, match="^lmms-eval stopped at check: it knows no task 'nothing_such'"):
        lmms.check_tasks(["nothing_such"], [], tmp_path / "work")
    scores = lmms.score({"target": CHECKPOINTS / "target"}, [str(task)], 8, tmp_path / "work")
    n = sum(len(pd.read_parquet(file)) for file in task.glob("data/*.parquet"))
    assert scores[["task", "metric", "n"]].values.tolist() == [["auditdm_small", "consensus_match", min(8, n)]]
    assert 0 <= scores["score"].item() <= 1
