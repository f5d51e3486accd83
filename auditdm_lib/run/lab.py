"""JupyterLab on copies of the notebooks, so that running and saving them leaves the checkout as it is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from auditdm_lib import paths
from auditdm_lib.run import executor, manifest

COPIES = paths.RUNS / "lab"
RECORD = ".copied.json"  # name -> digest of the cells as they were copied


def open_lab(options: list[str]) -> int:
    """Start JupyterLab with further command-line options; its exit code. Raises OSError where no copy can be written."""
    for line in refresh(paths.NOTEBOOKS, COPIES):
        print(line)
    environment = os.environ | executor.settings_for_kernels()
    environment["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not one registered by another
    first = COPIES / f"{paths.CHAIN[0].notebook}.ipynb"
    words = [sys.executable, "-m", "jupyterlab", "--notebook-dir", str(paths.HOME), str(first), *options]
    return subprocess.run(words, check=False, env=environment).returncode


def refresh(notebooks: Path, copies: Path) -> list[str]:
    """Copy the notebooks, but keep a copy whose cells were changed; returns a line for each copy kept behind its original."""
    copies.mkdir(parents=True, exist_ok=True)
    record, kept = copies / RECORD, []
    try:
        copied = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    except ValueError:  # damaged: each copy then counts as changed unless it is the kit's
        copied = {}
    for original in sorted(notebooks.glob("*.ipynb")):
        copy = copies / original.name
        now, then = _cells(original), copied.get(original.name)
        if copy.is_file() and _cells(copy) not in (now, then):
            kept.append(f"{manifest.shown(copy)} has changes of yours and is kept; delete it to get the kit's.")
        elif not copy.is_file() or _cells(copy) != now:
            shutil.copyfile(original, copy)
        copied[original.name] = then if kept and kept[-1].startswith(manifest.shown(copy)) else now
    record.write_text(json.dumps(copied), encoding="utf-8")
    return kept


def _cells(notebook: Path) -> str:
    """A digest of what people write in a notebook: the cells' texts, not outputs or metadata; "" for a damaged one."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return manifest.digest([[cell["cell_type"], "".join(cell["source"])] for cell in cells])
    except (ValueError, KeyError, TypeError):
        return ""
