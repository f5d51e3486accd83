"""Benchmarks by lmms-eval (the optional package `lmms-eval`), whose harness brings their data, questions and metrics.

Each model is scored in a process of its own (`lmms_model`), so that what the harness changes in its process stays there. Without
the package, and for a task that it does not know, nothing begins.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from auditdm_lib import paths
from auditdm_lib.models import placement
from auditdm_lib.run import manifest, reach
from auditdm_lib.run.endpoints import is_endpoint
from auditdm_lib.run.manifest import Stop
from auditdm_lib.run.stage import input_hash

if TYPE_CHECKING:
    from auditdm_lib.evaluate import lmms_model  # noqa: F401  it runs in a process of its own; so a stage's key holds its source

COLUMNS = ["model", "task", "metric", "n", "score", "stderr", "version"]


def check_tasks(tasks: list[str], models: list[str], work: Path) -> None:
    """Raise Stop, with one sentence, where `models` cannot be scored on `tasks`: lmms-eval is missing or knows no such task, or
    a model is behind a server.

    A task is named as in lmms-eval, or by a folder that holds one (`auditdm export RUN --to lmms-eval`).
    """
    if tasks and (served := [model for model in models if is_endpoint(model)]):
        raise Stop(f"benchmarks is for models that are loaded, and {served[0]} is behind a server: set benchmarks to [], and "
                   "score it with lmms-eval's own model `openai`.")
    if tasks and importlib.util.find_spec("lmms_eval") is None:
        raise Stop("benchmarks needs the package lmms-eval, which is not installed: pip install --no-deps -r "
                   "requirements-extras.lock, or set benchmarks to [].")
    if tasks:
        _harness({"tasks": tasks}, work, "check")


def score(checkpoints: dict[str, str | Path], tasks: list[str], per_task: int, work: Path,
          asked: dict[str, dict] | None = None) -> pd.DataFrame:
    """Every model's scores on `tasks` (see `check_tasks`) as lmms-eval computes them: COLUMNS.

    `checkpoints` maps a model's role to its folder or hub id, `asked` some roles to what replaces fields of its `Asking`. Of each
    task the first `per_task` items are asked, all for 0. Scores are in the harness's own units, which differ by metric; `stderr`
    is null where it gives none, `version` is the task's. What is done for a role stays in `work` for a repeated call with
    the same weights, placement, tasks, packages and code. Raises Stop with the harness's reason, such as data that cannot be
    fetched.
    """
    rows = []
    for role, path in checkpoints.items() if tasks else ():
        wanted = {"model": paths.resolve(str(path)), "weights": input_hash(str(path), "model"), "asked": (asked or {}).get(role),
                  "tasks": tasks, "limit": per_task, "placement": placement.current(), "threads": torch.get_num_threads()}
        rows += [(role, *row) for row in _harness(wanted, work, role)]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"score": float, "stderr": float})


def _harness(wanted: dict, work: Path, name: str) -> list:
    """What `lmms_model` writes for `wanted`, from an earlier call where that was the same."""
    work.mkdir(parents=True, exist_ok=True)
    order, result = work / f"{name}.order.json", work / f"{name}.json"
    folders = {task: manifest.hash_folder(paths.place(task)) for task in wanted["tasks"]}  # none of a name
    text = json.dumps(wanted | {"folders": folders, "packages": manifest.versions(),
                                "sources": reach.module_sources("auditdm_lib.evaluate.lmms_model")})
    if not (result.exists() and order.read_text(encoding="utf-8") == text):
        result.unlink(missing_ok=True)
        order.write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, "-m", "auditdm_lib.evaluate.lmms_model", str(order), str(result)],
                              cwd=paths.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise Stop(f"lmms-eval stopped at {name}: {reason}\n"
                       "Mend that and run the same command again: what is scored is kept.")
    return json.loads(result.read_text(encoding="utf-8"))
