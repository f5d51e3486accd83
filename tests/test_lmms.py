"""Benchmarks by lmms-eval: what cannot be run is one sentence before work starts, what was done is kept, its scores are shown."""

import importlib.util
import json
import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest
import small_run

from auditdm_lib.evaluate import lmms
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


def test_a_role_that_was_scored_is_not_scored_again_unless_something_changed(tmp_path, monkeypatch):
    asked = []

    def harness(command, **_):
        order, result = command[-2:]
        wanted = json.loads(open(order).read())
        asked.append((wanted["model"], wanted["limit"]))
        if wanted["model"] == "org/broken":
            return SimpleNamespace(returncode=1, stderr="Traceback ...\nno_data: ConnectionError: offline")
        with open(result, "w") as file:
            json.dump([["gqa", "exact_match", 3, 0.5, None, "1"]], file)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", harness)
    first = lmms.score({"target": "org/a", "rectified": "org/b"}, ["gqa"], 3, tmp_path)
    with pytest.raises(manifest.Stop, match="^lmms-eval stopped at reference_1: no_data: ConnectionError: offline\\nMend that"):
        lmms.score({"target": "org/a", "reference_1": "org/broken"}, ["gqa"], 3, tmp_path)
    lmms.score({"target": "org/a"}, ["gqa"], 4, tmp_path)
    assert asked == [("org/a", 3), ("org/b", 3), ("org/broken", 3), ("org/a", 4)]
    assert first["model"].tolist() == ["target", "rectified"] and first["stderr"].isna().all() and list(first) == lmms.COLUMNS
    assert lmms.score({"target": "org/a"}, [], 0, tmp_path).empty


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
