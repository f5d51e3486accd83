"""The paper's ablation: what the target gains where the audit only asks questions, only regenerates, only edits, or does all.

`auditdm ablation` (or `python -m auditdm_lib.results.ablation`) reads the scores of the four runs of ARMS, which
`auditdm run ablation-question --to 05` and so on make, and writes `figures/ablation/`.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from auditdm_lib import paths, stats
from auditdm_lib.evaluate import scores
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.protocols import SUPPLIERS
from auditdm_lib.results import drawn_figures, figures, tables
from auditdm_lib.results.folder import write_folder
from auditdm_lib.results.measures import percent, with_interval
from auditdm_lib.run import manifest
from auditdm_lib.stats import Estimate

NAME = "ablation"  # the folder below figures/
ARMS = {"question": "probing question only", "regeneration": "image generation only", "edit": "image editing only",
        "all": "best combination"}  # the run is called ablation-<arm>; the paper's name of the arm
STANDS_FOR = {"gqa-mini": "GQA", "refcoco-mini": "RefCOCO", "ai2d-mini": "AI2D"}  # suite -> the paper's benchmark
AVERAGE = "mean of all suites"
ABLATED = ("run", "regeneration_share", "edit_share")  # the parameters in which the runs may differ
STAGES = ("01_auditor", "02_probes", "04_rectified", "05_scores")
COLUMNS = ["arm", "measure", "gain", "ci_low", "ci_high", "paper_benchmark", "paper_gain", "examples", "failures"]


def run_of(arm: str) -> str:
    return f"{NAME}-{arm}"


def read() -> tuple[dict[str, pd.DataFrame], dict[str, pd.Series], dict[str, str]]:
    """Of each arm the items scored in stage 05, the audited set of stage 04 (sets.csv), and of each run a digest of both stages.

    Raises manifest.Stop with the commands that make what is missing, damaged or older than what it was made from, and where the
    runs differ in more than their kinds of probes, be it in a model that has been trained anew between them.
    """
    items, sets, inputs, faults, parameters, models = {}, {}, {}, {}, {}, {}
    for arm in ARMS:
        folders = {name: paths.result(run_of(arm), name) for name in STAGES}
        try:
            records = {name: manifest.load(folder) for name, folder in folders.items()}
            manifest.verify(folders["05_scores"])
            manifest.verify(folders["04_rectified"], "sets.csv")
        except manifest.Stop as problem:
            faults[arm] = str(problem)
            continue
        if older := [(stage, used) for stage in STAGES for used, digest in records[stage]["key"]["inputs"].items()
                     if used in STAGES and digest != records[used]["outputs_digest"]]:
            faults[arm] = f"{run_of(arm)}/{older[0][1]} was made again after {older[0][0]}."
            continue
        items[arm] = pd.read_parquet(folders["05_scores"] / "items.parquet")
        sets[arm] = pd.read_csv(folders["04_rectified"] / "sets.csv").set_index("set").loc["audited"]
        inputs |= {f"{run_of(arm)}/{name}": records[name]["outputs_digest"] for name in ("04_rectified", "05_scores")}
        parameters[arm] = {name: value for record in records.values() for name, value in record["key"]["parameters"].items()}
        for record in records.values():
            for name, digest in record["key"]["inputs"].items():
                if ": " in name and name.partition(": ")[0] not in SUPPLIERS:
                    models.setdefault(name, set()).add(digest)
    if faults:
        makers = "; ".join(f"auditdm run {run_of(arm)} --to 05" for arm in faults)
        raise manifest.Stop(f"The ablation needs the scores of four runs: {' '.join(faults.values())} Make them with: {makers}")
    differ = sorted({name for one in parameters.values() for name in one
                     if len({repr(other.get(name)) for other in parameters.values()}) > 1} - set(ABLATED))
    if differ:
        raise manifest.Stop(f"The four runs of the ablation differ in {', '.join(differ)}, so they cannot be compared: run them "
                            "again with the same values.")
    if other := sorted(name for name, digests in models.items() if len(digests) > 1):
        again = "; ".join(f"auditdm run {run_of(arm)} --to 05" for arm in ARMS)
        raise manifest.Stop(f"The four runs of the ablation did not use the same {', '.join(other)}, whose files have changed "
                            f"between them. Run them again with: {again}")
    return items, sets, inputs


def table(items: dict[str, pd.DataFrame], sets: dict[str, pd.Series], paper: pd.DataFrame) -> pd.DataFrame:
    """What rectified gains over target in each arm: COLUMNS, in points, with intervals paired by item.

    A measure is a suite that stands for one of the ablation's benchmarks, the mean of all suites, or the items inside gaps.
    `paper_gain` is the paper's score of the arm minus its baseline, NaN where it prints none. `examples` and `failures` are the
    size of the audited set. Gains are NaN in an arm that rectified nothing.
    """
    printed = paper[paper["item"] == "ablation_paligemma2_3b_224px"].set_index(["series", "category"])["value"]
    rows = []
    for arm, series in ARMS.items():
        gains = _gains(items[arm])
        for measure in (*STANDS_FOR, AVERAGE, GAP_ITEMS):
            if measure in gains:
                benchmark = STANDS_FOR.get(measure)
                beside = printed.get((series, benchmark), np.nan) - printed.get(("baseline", benchmark), np.nan)
                rows.append((arm, measure, *percent(gains[measure]), benchmark, beside, int(sets[arm]["examples"]),
                             int(sets[arm]["target was wrong"])))
    return pd.DataFrame(rows, columns=COLUMNS).round(3)


def _gains(items: pd.DataFrame) -> dict[str, Estimate]:
    """The gain (0-1) on each suite, and their mean."""
    if "rectified" not in set(items["model"]):
        return dict.fromkeys((*items["suite"].unique(), AVERAGE), Estimate(np.nan, np.nan, np.nan))
    gains = scores.gains(items, "rectified", "target")
    suites = [gain for suite, gain in gains.items() if suite != GAP_ITEMS]
    return gains | ({AVERAGE: stats.average(suites)} if suites else {})


def shown(gains: pd.DataFrame) -> pd.DataFrame:
    """The table for people: a row for each arm, the gains with their intervals, the paper's after them."""
    rows = []
    for arm, part in gains.groupby("arm", sort=False):
        row = {"probes": drawn_figures.ARMS[arm][0], "examples": part["examples"].iloc[0], "failures": part["failures"].iloc[0]}
        row |= {f"{r.measure}: gain [95 % interval]": with_interval(Estimate(r.gain, r.ci_low, r.ci_high))
                for r in part.itertuples()}
        row |= {f"{r.paper_benchmark}: the paper's gain": r.paper_gain for r in part.itertuples() if r.paper_benchmark}
        rows.append(row)
    return pd.DataFrame(rows)


def write(paper: Path = paths.PAPER_VALUES) -> Path:
    """Write `figures/ablation/`: ablation.csv, table_ablation, fig_ablation and the manifest; the folder. Raises as `read`."""
    items, sets, inputs = read()
    gains = table(items, sets, pd.read_csv(paper))

    def fill(out: Path) -> None:
        gains.to_csv(out / "ablation.csv", index=False)
        tables.write(shown(gains), out, "table_ablation")
        figures.save(drawn_figures.fig_ablation(gains), out, "fig_ablation", f"runs {', '.join(map(run_of, ARMS))}")
    return write_folder(NAME, inputs | {paper.name: manifest.hash_file(paper)}, fill)


def main() -> None:
    try:
        folder = write()
    except manifest.Stop as problem:
        sys.exit(str(problem))
    gains = pd.read_csv(folder / "ablation.csv")
    print(gains.drop(columns=["paper_benchmark"]).to_string(index=False))
    if gains["examples"].nunique() > 1:
        print("The arms learned from different numbers of examples, so part of a difference may be due to that.")
    print(f"Figure and table: {folder}")


if __name__ == "__main__":
    main()
