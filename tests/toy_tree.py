"""A toy project  for the tests of the run machinery: the real modules, three small notebooks, no torch.

It is a copy, so a test may change the library's sources, and its commands run in processes of their own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from auditdm_lib import paths

RUN = ("__init__", "__main__", "manifest", "commit", "lock", "reach", "functions", "model_files", "hub", "endpoints",
       "pipeline_files", "params", "stage", "devices", "executor", "lab", "chain")
MODULES = ("__init__", "paths", "protocols", *(f"run/{name}" for name in RUN))
TABLE = '''
CHAIN = (Step("00_first", "00_first"), Step("01_second", "01_second", ("00_first",)),
         Step("02_third", "figures", ("00_first", "01_second")))
'''
# What start() and finish() ask of the two heavy packages.
STUBS = {"torch": "from types import SimpleNamespace\ncuda = SimpleNamespace(is_available=lambda: False)\n"
                  "def set_num_threads(n): print('threads set to', n)\n",
         "transformers": "def set_seed(seed): print('seed set to', seed)\n"}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
COMMON = ('run: str = "toy"  # name of the run\nseed: int = 0  # [0, 1000] seed of everything\n'
          'threads: int = 1  # [1, 64] CPU threads\n')
NOTEBOOKS = {
    "00_first": (COMMON + 'rate: float = 0.5  # [0, 1] a rate\n'
                 'model: str = "models/one"  # <model> a model\n',
                 '(stage.out / "numbers.txt").write_text(f"{rate} {seed}\\n")'),
    "01_second": (COMMON + 'steps: int = 2  # [1, 10] steps\nmode: str = "plain"  # {plain|fancy} the mode\n',
                  'number = stage.read("00_first") / "numbers.txt"\n'
                  '(stage.out / "squares.txt").write_text(number.read_text() * steps + mode)'),
    "02_third": (COMMON,
                 'text = (stage.read("01_second") / "squares.txt").read_text()\n'
                 '(stage.out / "claims.csv").write_text(f"claim,verdict\\nit works,holds {len(text)}\\n")\n'
                 '(stage.out / "report.html").write_text("<p>fine</p>")'),
}


def write_notebook(path: Path, *sources: str, parameters: str) -> None:
    """A notebook with an import cell, the tagged parameters cell, and one code cell for each source."""
    sources = ("from auditdm_lib.run.stage import finish, start", parameters, *sources)
    cells = [{"cell_type": "code", "id": f"cell{i}", "execution_count": None, "outputs": [], "source": source,
              "metadata": {"tags": ["parameters"]} if source is parameters else {}}
             for i, source in enumerate(sources)]
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": KERNEL},
                                "nbformat": 4, "nbformat_minor": 5}))


def make_tree(root: Path) -> Path:
    """The toy project  below `root`: package, stubs, models, profile and notebooks."""
    for folder in ("auditdm_lib/run", "notebooks", "params", "models/one"):
        (root / folder).mkdir(parents=True)
    for name in MODULES:
        shutil.copy(paths.LIBRARY / f"{name}.py", root / f"auditdm_lib/{name}.py")
    table = root / "auditdm_lib" / "paths.py"
    table.write_text(table.read_text().replace("\nBUILD =", TABLE + "\nBUILD ="))
    for name, source in STUBS.items():
        (root / f"{name}.py").write_text(source)
    (root / "models/one/config.json").write_text("{}")
    (root / "models/one/model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")  # no tensors
    (root / "params/toy.yaml").write_text("run: toy\n")
    for name, (parameters, work) in NOTEBOOKS.items():
        write_notebook(root / f"notebooks/{name}.ipynb", f'stage = start("{name}", globals())', work,
                       "finish(stage)", parameters=parameters)
    return root


def environment(root: Path) -> dict[str, str]:
    """The environment of a process that must use the toy tree's library."""
    own = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return {name: value for name, value in os.environ.items() if not name.startswith("AUDITDM")} | own


def auditdm(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`auditdm WORDS` in the toy tree; the result has returncode, stdout and stderr."""
    return subprocess.run([sys.executable, "-m", "auditdm_lib.run", *words], cwd=root, env=environment(root),
                          check=False, capture_output=True, text=True, timeout=300)
