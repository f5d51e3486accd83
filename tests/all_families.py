"""The seven notebooks through papermill with each family of `tiny_models.py` as the target: `AUDITDM_HOME=... python
tests/all_families.py [FAMILY ...]`, a minute or two for each.

The next two families in the table are a target's references, and Gemma3 and Qwen2.5-VL take turns as the auditor; all have
random weights. The pictures are those of `test_photographs.py`. One row of CSV is printed for each run: how many probes of the
trained auditor are questions that ended; of all probes, those with a consensus and those on which the target disagrees with
it; failure types; models that stage 05 scores (target, rectified, control) and their answers; seconds. It stops at the first
run that does not write all of its stages.
"""

import os
import subprocess
import sys
import time

import pandas as pd
import tiny_models
import yaml
from test_photographs import SMALL, draw

from auditdm_lib import paths
from auditdm_lib.audit.pictures import GENERIC_QUESTIONS, load_pictures
from auditdm_lib.run import manifest

ANSWERS = ("yes", "red", "two")
ASKS = ("what", "which", "how", "many", "colour", "cat", "sun", "left")
ASKED = (*ASKS, *ASKS, *GENERIC_QUESTIONS)  # by which the random answers are set
SEED = 10
FIRST = 0.55  # share of the questions to which a reference says the first answer, so that references agree on most
AUDITORS = ("gemma3", "qwen2_5_vl")
SIZES = SMALL | {"probes_per_auditor": 40, "items_per_suite": 60, "rectify_patience": 0, "cascade": False}


def members(seen: list) -> dict[str, str]:
    """A folder for each family in each of its roles; an auditor's random words are its questions."""
    folders = {}
    for i, (name, build) in enumerate(tiny_models.BUILDERS.items()):
        roles = [("target", ANSWERS, 0.0), ("reference", ANSWERS, FIRST)] + [("auditor", ASKS, 0.0)] * (name in AUDITORS)
        for role, words, first in roles:
            folder = build(paths.HOME / "models" / f"{name}-{role}", seed=SEED + i, layers=2, scale=1.0)
            folders[f"{name}-{role}"] = str(tiny_models.in_few_words(folder, seen, ASKED, words, SEED + i, first))
    return folders


def audit(run: str, profile: dict) -> dict:
    """Run all stages in kernels of their own, as a user does; what came of it."""
    file, begun = paths.HOME / f"{run}.yaml", time.perf_counter()
    file.write_text(yaml.safe_dump({"run": run, "threads": 1} | profile), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "auditdm_lib.run", "run", str(file)], cwd=paths.ROOT, capture_output=True,
                          text=True, env=os.environ | {"AUDITDM_HOME": str(paths.HOME)})
    assert done.returncode == 0, f"{run}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    seconds, folder = time.perf_counter() - begun, paths.HOME / "runs" / run
    for step in paths.CHAIN:
        manifest.verify(paths.HOME / "figures" / run if step == paths.CHAIN[-1] else folder / step.folder)
    probes = pd.read_parquet(folder / "02_probes/probes.parquet")
    trained = probes[probes["auditor"] == "trained"]
    scored = pd.read_parquet(folder / "05_scores/items.parquet")
    return dict(questions=int(trained["invalid_reason"].isna().sum()), probes=len(probes), consensus=probes["consensus"].count(),
                disagrees=int(probes["disagrees"].sum()), failure_types=len(pd.read_csv(folder / "03_taxonomy/categories.csv")),
                models=scored["model"].nunique(), scored=len(scored), seconds=round(seconds))


def main(chosen: list[str]) -> None:
    names = list(tiny_models.BUILDERS)
    (paths.HOME / "pictures").mkdir(parents=True)
    draw(paths.HOME / "pictures")
    folders = members(load_pictures(str(paths.HOME / "pictures"), len(ASKED), 0).images)
    for i, name in enumerate(names):
        if name in (chosen or names):
            others = [names[(i + k) % len(names)] for k in (1, 2)]
            writer = AUDITORS[i % 2]
            made = audit(name.replace("_", "-"), SIZES | dict(
                pictures=str(paths.HOME / "pictures"), target=folders[f"{name}-target"], auditor=folders[f"{writer}-auditor"],
                references=[folders[f"{other}-reference"] for other in others]))
            row = pd.DataFrame([dict(target=name, references=" ".join(others), auditor=writer) | made])
            print(row.to_csv(index=False, header=name == (chosen or names)[0]), end="", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
