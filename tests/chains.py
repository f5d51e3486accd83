"""Chains of notebooks, cell by cell, in one process, since the start of a kernel for each notebook would take most of the time:
`AUDITDM_HOME=... python chains.py families`, `... left_out` or `... drawn`.

`families`: stages 00 to 04 with tiny random models as the members. Each of six architectures is once the target, the next two
in the table are its references; the auditor is the testbed's. `left_out`: stages 01 to 06 with the testbed's models and
parameters that leave something out. `drawn`: stages 01 and 02, twice, on pictures that nobody knows anything about, drawn anew
by random pipelines.
"""

import random
import sys
import warnings

import matplotlib.pyplot as plt
import tiny_models
import tiny_pipelines
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.run import params

SMALL = dict(threads=1, gallery=24, imitation_pictures=60, imitation_rounds=1, imitation_steps=2, grpo_pictures=8, grpo_steps=2,
             group_size=4, groups_per_step=2, checkpoint_steps=2, probes_per_auditor=60, best_of_n=2, ceiling_pictures=1,
             rectify_steps=3, rectify_batch=8, regeneration_share=0.0, edit_share=0.0, cascade=False, fresh_probes=20)


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


TARGETS = ("paligemma2", "gemma3", "idefics3", "llava", "qwen2_5_vl", "internvl")  # the others are like one of these
CHECKPOINTS = "auditdm_lib/testbed/checkpoints"
LEFT_OUT = {  # run -> its parameters
    "no-edits": dict(imitation_pictures=120, edit_share=0.0, regeneration_share=0.3, best_of_n=0, plain_steps=3,
                     probe_checkpoints=True),
    "one-reference": dict(references=[f"{CHECKPOINTS}/paligemma2-m-flawed"], consensus_rule="majority", edit_share=0.3),
    "no-failure": dict(target=f"{CHECKPOINTS}/gemma3-l", references=[f"{CHECKPOINTS}/paligemma2-l"], imitation_pictures=8,
                       probes_per_auditor=6)}


def left_out() -> None:
    small = SMALL | dict(items_per_suite=40, items_per_gap=2, must_test="smoke")
    for name, values in LEFT_OUT.items():
        for step in paths.CHAIN[1:]:
            run_notebook(step.notebook, small | dict(run=name) | values)
        print(f"{name} went through stages 01 to 06", file=sys.stderr)


def families() -> None:
    warnings.filterwarnings("ignore")
    seen, rng = load_pictures("testbed", 40, 0), random.Random(0)
    about = [seen.random_question(i, rng) for i in range(len(seen))]
    folders = {name: str(tiny_models.in_few_words(build(paths.HOME / "models" / name, layers=2, scale=1.0), seen.images, about))
               for name, build in tiny_models.BUILDERS.items()}
    names = list(folders)
    for name in TARGETS:
        i = names.index(name)
        others = [folders[names[(i + k) % len(names)]] for k in (1, 2)]
        for step in paths.CHAIN[:5]:
            run_notebook(step.notebook, SMALL | dict(run=name.replace("_", "-"), target=folders[name], references=others))
        print(f"{name} went through stages 00 to 04", file=sys.stderr)


def drawn() -> None:
    warnings.filterwarnings("ignore")
    (paths.HOME / "pictures").mkdir()
    for i in range(24):
        Image.effect_mandelbrot((60 + 9 * i, 330 - 9 * i), (-2 + i / 20, -1, 1, 1), 20).save(paths.HOME / f"pictures/{i}.png")
    for name, build in (("image", tiny_pipelines.flux), ("edit", tiny_pipelines.kontext)):
        build().save_pretrained(paths.HOME / name)
    values = SMALL | dict(
        pictures=str(paths.HOME / "pictures"), drawer="diffusion", image_model=str(paths.HOME / "image"), edit_share=0.3,
        edit_model=str(paths.HOME / "edit"), drawing_steps=1, drawing_size=48, regeneration_share=0.2, imitation_pictures=24,
        probes_per_auditor=20, existing_question_share=0.5, verifier=f"{CHECKPOINTS}/gemma3-l")
    for name in ("first", "second"):  # the second draws nothing anew
        for step in paths.CHAIN[1:3]:
            run_notebook(step.notebook, values | dict(run=name))


if __name__ == "__main__":
    {"families": families, "left_out": left_out, "drawn": drawn}[sys.argv[1]]()
