"""The kernels of the notebooks, whatever the user's shell sets."""

import json
import subprocess
import sys

import nbformat
import pytest
import toy_tree
from nbclient import NotebookClient

from auditdm_lib.run import executor

DRAWN = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


def pictures_in(notebook: dict) -> int:
    return sum("image/png" in output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", []))


def test_pictures_are_shown_whatever_backend_the_shell_names(tmp_path):
    root = toy_tree.make_tree(tmp_path)
    parameters, work = toy_tree.NOTEBOOKS["00_first"]
    toy_tree.write_notebook(root / "notebooks/00_first.ipynb", 'stage = start("00_first", globals())', work, DRAWN,
                            "finish(stage)", parameters=parameters)
    done = subprocess.run([sys.executable, "-m", "auditdm_lib.run", "run", "params/toy.yaml", "--only", "00"], cwd=root,
                          env=toy_tree.environment(root) | {"MPLBACKEND": "Agg"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert pictures_in(json.loads((root / "runs/toy/executed/00_first.ipynb").read_text())) == 1


@pytest.mark.parametrize("ours", [False, True])
def test_the_lab_starts_kernels_with_the_same_settings(monkeypatch, ours):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for name, value in executor.settings_for_kernels().items() if ours else ():
        monkeypatch.setenv(name, value)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(DRAWN)])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    assert pictures_in(notebook) == ours
