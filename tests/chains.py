"""The notebooks 00 to 04, cell by cell, with tiny random models as the members: `AUDITDM_HOME=... python chains.py`.

Each of five architectures is once the target, two others are its references; the auditor is the testbed's. One process runs
all chains, since the start of a kernel for each notebook would take most of the time.
"""

import random
import sys
import warnings

import matplotlib.pyplot as plt
import tiny_models

from auditdm_lib import paths
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.run import params

SMALL = dict(threads=1, gallery=24, imitation_pictures=60, imitation_rounds=1, imitation_steps=2, grpo_pictures=8, grpo_steps=2,
             group_size=4, groups_per_step=2, checkpoint_steps=2, probes_per_auditor=60, best_of_n=2, ceiling_pictures=1,
             rectify_steps=3, rectify_batch=8, regeneration_share=0.0, edit_share=0.0, cascade=False)


def run_notebook(name: str, values: dict) -> dict:
    """Run the code cells of a notebook with these parameters; what it defined."""
    notebook, names = paths.NOTEBOOKS / f"{name}.ipynb", {"display": lambda *shown: None}
    known = params.declared(notebook)
    for cell in params.code_cells(notebook):
        exec(cell["source"], names)
        if "parameters" in cell["tags"]:
            names.update({name: value for name, value in values.items() if name in known})
        plt.close("all")
    return names


def main() -> None:
    warnings.filterwarnings("ignore")
    seen, rng = load_pictures("testbed", 40, 0), random.Random(0)
    about = [seen.random_question(i, rng) for i in range(len(seen))]
    folders = {name: str(tiny_models.in_few_words(build(paths.HOME / "models" / name, layers=2, scale=1.0), seen.images, about))
               for name, build in tiny_models.BUILDERS.items()}
    names = list(folders)
    for i, name in enumerate(names):
        others = [folders[names[(i + k) % len(names)]] for k in (1, 2)]
        for step in paths.CHAIN[:5]:
            run_notebook(step.notebook, SMALL | dict(run=name.replace("_", "-"), target=folders[name], references=others))
        print(f"{name} went through stages 00 to 04", file=sys.stderr)


if __name__ == "__main__":
    main()
