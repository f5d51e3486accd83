"""The cells of the comparison of arms (`training.arms`): one fine-tuned target each, scored on held-out items.

A cell is an arm, a budget and a run (a seed). It lies in runs/<run>/arms/, sealed on its own, so that a stopped comparison
goes on at the first cell that is missing. All cells of a run have the same items, optimiser steps and settings, which were
chosen on other items than those that are reported. A cell is made again where the stages it was made from or a setting has
changed, and not where only the code has: delete its folder then.
"""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from auditdm_lib import paths
from auditdm_lib.audit.arms import training_calls
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.audit.probes import attempted
from auditdm_lib.evaluate.benchmarks import load_items, score
from auditdm_lib.models import placement
from auditdm_lib.models.llm import load_llm
from auditdm_lib.models.vlm import load_members, settings
from auditdm_lib.run import commit, lock, manifest, params
from auditdm_lib.taxonomy.confirm import CONFIRMED
from auditdm_lib.training import arms
from auditdm_lib.training.rectify import finetune, to_dataset

FOLDER, NOTHING = "arms", "nothing"  # the folder below the run's; the arm that is the target as it is
EXAMPLES, CALLS = "examples", "target_calls"  # the two kinds of budget
SIZES = (250, 1000)  # examples
BEFORE = (2000,)  # target calls of random questions, below what the auditor's training takes
AFTER = (1000, 4000)  # target calls after the auditor's training, the training rounded up to a thousand
MOST = 2500  # examples at a budget of target calls
STEPS, BATCH, LEARNING_RATE, RANK = 250, 32, 1e-3, 16  # of every fine-tuning; rate and rank are stage 04's
PER_SUITE, IN_GAPS = 250, 600  # held-out items in each suite, and in all gaps together
SPARE = 1.3  # more random questions than the failures needed should take
STAGES = ("01_auditor", "02_probes", "03_taxonomy")
FREE = ("run", "seed", "threads")  # parameters in which the runs of one profile may differ


@dataclass(frozen=True)
class Cell:
    """An arm of `training.arms` (or NOTHING) at a budget (EXAMPLES or CALLS) of so many."""

    arm: str
    budget: str = ""
    amount: int = 0

    @property
    def name(self) -> str:
        return "-".join([self.arm, self.budget, str(self.amount)]) if self.budget else self.arm


@dataclass(frozen=True)
class Run:
    """A finished audit: its name, all parameters, the target calls of its auditor's training, and a digest of each stage."""

    name: str
    values: dict[str, Any]
    training: int
    digests: dict[str, str]

    @property
    def profile(self) -> str:
        """The name without the number of a seed: of rare-1, rare."""
        return re.sub(r"-\d+$", "", self.name)

    def folder(self, name: str) -> Path:
        return paths.RUNS / self.name / FOLDER / name


def read(name: str) -> Run:
    """A run whose stages 01 to 03 are finished. Raises manifest.Stop with the remedy where one is missing, damaged, or older than
    what it was made from, and where no failure type was confirmed."""
    manifest.folder_of(name, STAGES[-1])
    folders, records = {stage: paths.result(name, stage) for stage in STAGES}, {}
    try:
        for stage, needed in zip(STAGES, (["history.csv"], [], ["failures.parquet", "confirmation.parquet"]), strict=True):
            records[stage] = manifest.verify(folders[stage], *needed)
    except manifest.Stop as problem:
        raise type(problem)(f"{problem} The arms need a finished audit: auditdm run PROFILE --to 03 --set run={name}") from None
    digests = {stage: record["outputs_digest"] for stage, record in records.items()}
    for stage in STAGES:
        for used, digest in records[stage]["key"]["inputs"].items():
            if digests.get(used, digest) != digest:
                raise manifest.Stop(f"{name}/{used} was made again after {stage}: auditdm run PROFILE --to 03 --set run={name}")
    given = {key: value for record in records.values() for key, value in record["key"]["parameters"].items()}
    calls = training_calls(pd.read_csv(folders["01_auditor"] / "history.csv"))["trained"]
    return Run(name, params.effective(given, params.declared_anywhere()), calls, digests)


def check(runs: list[Run]) -> None:
    """Raise manifest.Stop where runs of one profile differ in more than their seed, or not in it."""
    for run in runs:
        for other in runs_of(run, runs):
            differ = sorted(name for name in run.values if run.values[name] != other.values.get(name) and name not in FREE)
            if differ:
                raise manifest.Stop(f"{run.name} and {other.name} differ in {', '.join(differ)}, so they are no two seeds of one "
                                    "profile: name them otherwise, as its seeds are NAME, NAME-1 and so on.")
            if run is not other and run.values["seed"] == other.values["seed"]:
                raise manifest.Stop(f"{run.name} and {other.name} have the same seed: compare one of them, or run one anew.")


def planned(runs: list[Run], only: str = "") -> list[Cell]:
    """The cells of each of `runs`, which are the seeds of one profile and share their budgets, the most telling ones first; of
    both kinds of budget, or of `only` one.

    At a budget of target calls the audited failures begin where the auditor's training ends.
    """
    trained = -(-max(run.training for run in runs) // 1000) * 1000
    after = [trained + more for more in AFTER]
    middle, *others = sorted(SIZES, key=lambda size: size != SIZES[1])
    by_calls = [Cell(arm, CALLS, calls) for calls in (*after, *BEFORE) for arm in (arms.AUDITED, arms.BY_CHANCE)
                if arm == arms.BY_CHANCE or calls in after]
    cells = [Cell(NOTHING), *(Cell(arm, EXAMPLES, middle) for arm in arms.ARMS), *by_calls,
             *(Cell(arm, EXAMPLES, size) for size in others for arm in arms.ARMS)]
    return [cell for cell in cells if cell.budget in ("", only or cell.budget)]


def make(runs: list[Run], only: str = "", say: Callable[[str], None] = print) -> None:
    """Make every missing cell of both kinds of budget, or of `only` one, each for all runs before the next. Raises ValueError
    where a pool holds too few examples, Busy where another process is at work on a cell."""
    cells = [(place, run, cell) for run in runs for place, cell in enumerate(planned(runs_of(run, runs), only))]
    todo = [(run, cell) for _, run, cell in sorted(cells, key=lambda row: row[0]) if not finished(run, cell)]
    ready, began = {}, time.time()
    for i, (run, cell) in enumerate(todo):
        left = f", about {(time.time() - began) / i * (len(todo) - i) / 60:.0f} minutes left" if i else ""
        say(f"[{i + 1}/{len(todo)}] {run.name}: {cell.name}{left}")
        if run.name not in ready:
            ready[run.name] = prepare(run, max(c.amount for c in planned(runs_of(run, runs)) if c.budget == CALLS))
        make_cell(run, cell, *ready[run.name])


def runs_of(run: Run, runs: list[Run]) -> list[Run]:
    """The runs of the same profile."""
    return [other for other in runs if other.profile == run.profile]


def key(run: Run, cell: Cell) -> dict[str, Any]:
    """What a cell was made from."""
    chosen = dict(steps=STEPS, batch=BATCH, learning_rate=LEARNING_RATE, rank=RANK, failures=arms.FAILURES, most=MOST,
                  per_suite=PER_SUITE, in_gaps=IN_GAPS)
    return {"inputs": run.digests, "cell": asdict(cell), "settings": chosen}


def finished(run: Run, cell: Cell) -> bool:
    """Whether a cell is there, whole, and made from what would be used again."""
    try:
        return manifest.verify(run.folder(cell.name))["key"] == key(run, cell)
    except manifest.Stop:
        return False


def prepare(run: Run, calls: int) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """A run's pools of examples (`arms.pools`), and its held-out items (`benchmarks.load_items`)."""
    probes = pd.read_parquet(paths.result(run.name, "02_probes") / "probes.parquet")
    pools = arms.pools(probes, confirmed_types(run), by_chance(run, probes, calls), "02_probes")
    v = run.values
    known = load_pictures(v["pictures"], 1, v["seed"], split="test").truth
    gaps = len(known.gaps_in(v["target"])) if known else 0
    return pools, load_items(v["suite_source"], v["suites"], PER_SUITE, -(-IN_GAPS // max(gaps, 1)), v["seed"], v["target"])


def confirmed_types(run: Run) -> pd.DataFrame:
    """The failures in the types that stage 03 confirmed: probe_id, category. Raises manifest.Stop where it confirmed none."""
    folder = paths.result(run.name, "03_taxonomy")
    verdicts = pd.read_parquet(folder / "confirmation.parquet")
    held = verdicts.loc[verdicts["verdict"] == CONFIRMED, "category"]
    types = pd.read_parquet(folder / "failures.parquet")[["probe_id", "category"]]
    types = types[types["category"].isin(held)]
    if types.empty:
        raise manifest.Stop(f"Stage 03 of {run.name} confirmed no failure type, so there is nothing to learn from this audit: "
                            "ask more probes (probes_per_auditor, fresh_probes).")
    return types


def by_chance(run: Run, probes: pd.DataFrame, calls: int) -> pd.DataFrame:
    """The failures that random questions find, asked once and kept in arms/by_chance: `arms.COLUMNS`.

    The questions are as many as the largest budget of target calls, and enough for the largest one of examples.
    """
    rate = attempted(probes[probes["auditor"] == "random"])["disagrees"].mean()
    asked = max(calls, int(SPARE * arms.FAILURES * max(SIZES) / rate)) if rate > 0 else calls
    final, wanted = run.folder("by_chance"), {"inputs": run.digests, "questions": asked}
    try:
        whole = manifest.verify(final)["key"] == wanted
    except manifest.Stop:
        whole = False
    if not whole:
        lock.hold(final)
        v, out = run.values, commit.temporary(final)
        pictures = load_pictures(v["pictures"], asked, v["seed"], split="audit", damaged=v["damaged_pictures"])
        placement.place_as(v)
        members = load_members(v["target"], v["references"], v["answer_prompts"], v["answer_tokens"], v["answer_batch"],
                               v["answer_temperature"], v["seed"])
        judge = load_llm(v["judge_model"]) if v["judge_model"] else None
        found = arms.failures_by_chance(Panel(members[0], members[1:], v["consensus_rule"], judge), pictures, v["seed"])
        (out / "images").mkdir()
        for i in found["image"]:
            pictures.images[i].save(out / "images" / f"{i:06d}.png")
        found = found.assign(image=[f"{FOLDER}/{final.name}/images/{i:06d}.png" for i in found["image"]])
        found.to_parquet(out / "failures.parquet", index=False)
        manifest.write(out, {"stage": FOLDER, "run": run.name, "key": wanted}, {})
        commit.commit(out, final)
        lock.free(final)
    return pd.read_parquet(final / "failures.parquet")


def make_cell(run: Run, cell: Cell, pools: dict[str, pd.DataFrame], items: pd.DataFrame) -> None:
    """Fine-tune the target on the examples of a cell, score it, and keep examples, loss and answers; the weights are not kept."""
    final, v, began = run.folder(cell.name), run.values, time.time()
    examples = chosen(run, cell, pools)
    lock.hold(final)
    out, asked = commit.temporary(final), settings(1, v["answer_prompts"][:1], v["answer_tokens"][:1], v["answer_batch"])[0]
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model" if len(examples) else v["target"]
        if len(examples):
            data = to_dataset(examples, paths.RUNS / run.name)
            history = finetune(v["target"], data, model, STEPS, BATCH, LEARNING_RATE, RANK, v["seed"], asked)
            history.to_csv(out / "history.csv", index=False)
        answers = score({cell.arm: model}, items, v["answer_batch"], {} if len(examples) else {cell.arm: asked})
    examples.to_parquet(out / "examples.parquet", index=False)
    answers.drop(columns=["question", "expected"]).to_parquet(out / "items.parquet", index=False)
    timing = {"wall_seconds": round(time.time() - began, 1)}
    manifest.write(out, {"stage": FOLDER, "run": run.name, "key": key(run, cell)}, timing)
    commit.commit(out, final)
    lock.free(final)


def chosen(run: Run, cell: Cell, pools: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The examples of a cell (`arms.COLUMNS`), none for NOTHING."""
    if cell.arm == NOTHING:
        return pools[arms.REHEARSAL].head(0)
    if cell.budget == EXAMPLES:
        return arms.of_size(pools, cell.arm, cell.amount, run.values["seed"])
    calls = cell.amount - (run.training if cell.arm == arms.AUDITED else 0)
    return arms.within_calls(pools, cell.arm, calls, MOST, run.values["seed"])


def scored(runs: list[Run]) -> Iterator[tuple[Run, Cell, pd.DataFrame, pd.DataFrame]]:
    """Run, cell, examples and scored items of every finished cell. One that is not finished is left out."""
    for run in runs:
        for cell in planned(runs_of(run, runs)):
            if finished(run, cell):
                folder = run.folder(cell.name)
                yield run, cell, pd.read_parquet(folder / "examples.parquet"), pd.read_parquet(folder / "items.parquet")
