"""The whole chain at the smoke size, through papermill, as a user runs it."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
from nbclient import NotebookClient

from auditdm_lib import paths
from auditdm_lib.models.vlm import load_vlm
from auditdm_lib.results import claims
from auditdm_lib.run import manifest


def test_every_stage_is_sealed_and_names_its_parameters(smoke):
    for step in paths.CHAIN:
        folder = smoke / "figures/smoke" if step.folder == "figures" else smoke / "runs/smoke" / step.folder
        sealed = manifest.verify(folder)
        assert sealed["key"]["parameters"]["run"] == "smoke" and sealed["stage"] == step.notebook
    record = json.loads((smoke / "runs/smoke/01_auditor/manifest.json").read_text())
    assert record["prompts"]["p_q"]["text"] == "Ask a question about this picture."


def test_all_auditors_probed_the_same_pictures(smoke):
    probes = pd.read_parquet(smoke / "runs/smoke/02_probes/probes.parquet")
    each = probes[probes["auditor"] != "best_of_8"].groupby("auditor")["source_image"].apply(list).map(tuple)
    assert each.nunique() == 1 and set(each.index) == {"random", "prompt_only", "trained"}
    assert set(probes.loc[probes["auditor"] == "trained", "kind"]) == {"question", "regeneration", "edit"}
    assert (probes["verified_failure"].astype(bool) <= (probes["valid"] & probes["disagrees"])).all()
    search = pd.read_csv(smoke / "runs/smoke/02_probes/search.csv").set_index(["auditor", "kind"])
    counted = probes[probes["auditor"] != "best_of_8"].groupby(["auditor", "kind"])["verified_failure"].sum()
    assert (search["verified_failures"].reindex(counted.index) == counted).all()
    assert (search.loc["trained", "training_calls"] > 0).all() and (search.loc["prompt_only", "training_calls"] == 0).all()
    assert search.loc[("best_of_8", "question"), "attempts"] == search["probing_calls"].xs("random").iloc[0] // 8


def test_nothing_of_an_unfinished_training_is_left(smoke):
    assert not list((smoke / "runs/smoke").glob(".*.work"))
    assert (smoke / "runs/smoke/01_auditor/auditor/model.safetensors").exists()


def test_every_failure_has_a_category_or_says_that_it_has_none(smoke):
    failures = pd.read_parquet(smoke / "runs/smoke/03_taxonomy/failures.parquet")
    categories = pd.read_csv(smoke / "runs/smoke/03_taxonomy/categories.csv")
    assert set(failures["category"]) - {-1} == set(categories["category"]) and len(failures)


def test_the_rectified_model_and_the_control_load(smoke):
    for name in ("model", "control"):
        assert load_vlm(smoke / "runs/smoke/04_rectified" / name).model.config.model_type == "paligemma"


def test_the_claims_table_is_complete_and_the_report_written(smoke):
    table = pd.read_csv(smoke / "figures/smoke/claims.csv")
    assert list(table.columns) == claims.COLUMNS and len(table) >= 12
    assert (table["verdict"] != claims.NOT_TESTED).sum() >= 8
    assert "<html" in (smoke / "figures/smoke/report.html").read_text(encoding="utf-8")


def test_a_second_run_repeats_nothing(smoke):
    before = {f: f.stat().st_mtime_ns for f in smoke.rglob("manifest.json")}
    done = subprocess.run([sys.executable, "-m", "auditdm_lib.run", "run", "params/smoke.yaml"], cwd=paths.ROOT,
                          env=os.environ | {"AUDITDM_HOME": str(smoke)}, capture_output=True, text=True)
    assert done.returncode == 0 and {f: f.stat().st_mtime_ns for f in smoke.rglob("manifest.json")} == before


def test_run_all_without_papermill_writes_the_same_stage(smoke, tmp_path, monkeypatch):
    # "Run All" uses the notebook's own defaults, so the run is called testbed.
    for folder in ("01_auditor", "02_probes"):
        shutil.copytree(smoke / "runs/smoke" / folder, tmp_path / "runs/testbed" / folder)
    monkeypatch.setenv("AUDITDM_HOME", str(tmp_path))
    notebook = nbformat.read(paths.NOTEBOOKS / "03_cluster_failures.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    made, expected = (pd.read_csv(home / "03_taxonomy/categories.csv")
                      for home in (tmp_path / "runs/testbed", smoke / "runs/smoke"))
    assert made.equals(expected)
