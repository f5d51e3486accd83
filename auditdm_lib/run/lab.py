"""JupyterLab on copies of the notebooks, so that running and saving them leaves the checkout as it is.

With a profile, each copy has one more cell with the profile's values, below its parameters, as a batch run has.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from auditdm_lib import paths
from auditdm_lib.run import executor, manifest, params

COPIES = paths.RUNS / "lab"
SOLUTIONS = "solutions"  # the folder of the exercises' answers, below that of the notebooks
RECORD = ".copied.json"  # name -> digest of the cells as they were copied


def open_lab(options: list[str], values: dict[str, Any] | None = None) -> int:
    """Start JupyterLab with further command-line options; its exit code. Raises OSError where no copy can be written.

    With the `values` of a profile the copies lie in a folder of their own, named after its run.
    """
    copies = COPIES / values["run"] if values else COPIES
    for folder in ("", SOLUTIONS):
        for line in refresh(paths.NOTEBOOKS / folder, copies / folder, values):
            print(line)
    environment = os.environ | executor.settings_for_kernels()
    environment["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not one registered by another
    first = copies / f"{paths.CHAIN[0].notebook}.ipynb"
    words = [sys.executable, "-m", "jupyterlab", "--notebook-dir", str(paths.HOME), str(first), *options]
    return subprocess.run(words, check=False, env=environment).returncode


def refresh(notebooks: Path, copies: Path, values: dict[str, Any] | None = None) -> list[str]:
    """Copy the notebooks, with the `values` of a profile in them, but keep a copy whose cells were changed; returns a line for
    each copy kept behind its original."""
    copies.mkdir(parents=True, exist_ok=True)
    record, kept = copies / RECORD, []
    try:
        copied = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    except ValueError:  # damaged: each copy then counts as changed unless it is the kit's
        copied = {}
    for original in sorted(notebooks.glob("*.ipynb")):
        copy, text = copies / original.name, _with(original, values)
        now, then = _cells(text), copied.get(original.name)
        if copy.is_file() and _cells(copy.read_text(encoding="utf-8", errors="replace")) not in (now, then):
            kept.append(f"{manifest.shown(copy)} has changes of yours and is kept; delete it to get the kit's.")
        elif not copy.is_file() or _cells(copy.read_text(encoding="utf-8")) != now:
            copy.write_text(text, encoding="utf-8")
        copied[original.name] = then if kept and kept[-1].startswith(manifest.shown(copy)) else now
    record.write_text(json.dumps(copied), encoding="utf-8")
    return kept


def _with(notebook: Path, values: dict[str, Any] | None) -> str:
    """The text of a notebook, with a cell of those `values` that it declares below its parameters."""
    text = notebook.read_text(encoding="utf-8")
    if not values:
        return text
    data, own = json.loads(text), params.effective(values, params.declared(notebook))
    place = next(i for i, cell in enumerate(data["cells"]) if "parameters" in cell["metadata"].get("tags", []))
    source = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in own.items())])
    data["cells"].insert(place + 1, dict(cell_type="code", id="profile", execution_count=None, outputs=[], source=source,
                                         metadata={"tags": ["injected-parameters"]}))
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _cells(text: str) -> str:
    """A digest of what people write in a notebook: the cells' texts, not outputs or metadata; "" for a damaged one."""
    try:
        cells = json.loads(text)["cells"]
        return manifest.digest([[cell["cell_type"], "".join(cell["source"])] for cell in cells])
    except (ValueError, KeyError, TypeError):
        return ""
