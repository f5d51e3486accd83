"""Rates that rest on what people say about a sample of probes: search success, and how often the consensus is right.

Every interval is at 95 % and clustered by source picture. The sample is stratified by auditor and by whether the target
disagrees; a stratum counts by its size in the run.
"""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from auditdm_lib import stats
from auditdm_lib.results.found import run_folder
from auditdm_lib.run import manifest
from auditdm_lib.stats import Estimate

LABELS = ("A", "B", "both", "neither", "cannot tell")  # what a person may say about the answers A and B
SUCCESS, RIGHT = "search success", "consensus right"
RIGHT_APART = "consensus right where the target disagrees"
ALIKE, KAPPA = "two people say the same", "Cohen's kappa of two people"
COLUMNS = ["measure", "auditor", "value", "ci_low", "ci_high", "labelled", "of", "cannot_tell", "people"]
MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True)
class Sample:
    """A drawn sample: its name, the run's folder, the digest of its stage 02, and a row for each drawn probe (item, probe_id,
    target_side "A" or "B", and the columns of `population`)."""

    name: str
    folder: Path
    probes_digest: str
    rows: pd.DataFrame


def attempts(probes_folder: Path) -> pd.DataFrame:
    """The attempts of stage 02 (`audit.probes.attempts`) in the order of probe_id."""
    from auditdm_lib.audit import probes  # slow

    return probes.attempts(pd.read_parquet(probes_folder / "probes.parquet").sort_values("probe_id", ignore_index=True))


def population(probes_folder: Path) -> pd.DataFrame:
    """The attempts that can be judged: valid, with a consensus."""
    tried = attempts(probes_folder)
    return tried[tried["valid"].astype(bool) & tried["consensus"].notna()].reset_index(drop=True)


def read(run: str, files: Sequence[Path]) -> pd.DataFrame:
    """Read the labels of one or two people, write labels/verified.csv and labels/rates.csv beside the run's stages; the rates.

    Raises manifest.Stop, with what to do, where a file is no such table, not complete or not of a sample of this run, and where
    the probes have changed since.
    """
    folder = run_folder(run)
    if len({file.resolve() for file in files}) < len(files):
        raise manifest.Stop("The same file is given twice: give the files of two people.")
    tables = [table(file) for file in files]
    sample = sample_of(folder, next(iter(tables[0]), ""), files[0])
    labels = [checked(given, sample, file.name) for given, file in zip(tables, files, strict=True)]
    rows = judged(sample, labels)
    found = rates(rows, attempts(folder / "02_probes"), labels)
    said = [name for name in rows if name.startswith("said_")]
    columns = ["item", "probe_id", "auditor", "disagrees", *said, "target_wrong", "consensus_right", "weight"]
    replace(folder / "labels" / "verified.csv", rows[columns].to_csv(index=False))
    replace(folder / "labels" / "rates.csv", found.to_csv(index=False))
    return found


def table(file: Path) -> dict[str, str]:
    """The labels of a person's file by item, as they stand there.

    Commas, semicolons (as Excel writes in many countries) or tabs separate the columns. Only the columns item and label are
    read, whose texts are the same bytes in every encoding of western letters, so any of these will do. Raises manifest.Stop on
    a file that is no such table, and where an item stands twice.
    """
    data = file.read_bytes()
    if data[:2] == b"PK":
        raise manifest.Stop(f"{file.name} is a workbook and no CSV file: save it as CSV.")
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "latin-1")
    text = data.decode(encoding, "replace")
    first = next(iter(text.splitlines()), "")
    try:
        rows = list(csv.DictReader(StringIO(text, newline=""), delimiter=max(",;\t", key=first.count)))
    except csv.Error as error:
        raise manifest.Stop(f"{file.name} cannot be read as a table ({error}): save it as CSV (UTF-8).") from error
    names = {str(name).strip().lower(): name for row in rows[:1] for name in row}
    if not {"item", "label"} <= names.keys():
        raise manifest.Stop(f"{file.name} is no table with the columns item and label: use the labels.csv of the folder or of "
                            "the page, saved as CSV (UTF-8).")
    pairs = [[(row[names[name]] or "").strip() for name in ("item", "label")] for row in rows]
    pairs = [pair for pair in pairs if any(pair)]  # a spreadsheet may leave empty rows at the end
    items = [item for item, _ in pairs]
    if twice := next((item for item in items if items.count(item) > 1), None):
        raise manifest.Stop(f"{file.name} has the item {twice or 'without a name'} twice: keep one row for each item.")
    return dict(pairs)


def sample_of(folder: Path, item: str, file: Path) -> Sample:
    """The sample that an item belongs to, with its probes. Raises manifest.Stop where the run has no such sample, or has other
    probes now."""
    name = item.rpartition("-")[0]
    kept = sorted((folder / "labels").glob("s*.json"))
    key = next((path for path in kept if path.stem == name), None)
    if key is None:
        raise manifest.Stop(f"{file.name} is of no sample that was drawn from run {folder.name} (its first item is {item!r}, "
                            f"the samples: {', '.join(path.stem for path in kept) or 'none'}): give the run that it is from.")
    record, drawn = manifest.verify(folder / "02_probes", "probes.parquet"), json.loads(key.read_text(encoding="utf-8"))
    if record["outputs_digest"] != drawn["probes"]:
        raise manifest.Stop(f"Run {folder.name} has other probes now than when {name} was drawn: draw a new sample.")
    rows = pd.DataFrame(drawn["rows"]).merge(population(folder / "02_probes"), on="probe_id", validate="one_to_one")
    return Sample(name, folder, drawn["probes"], rows)


def checked(given: dict[str, str], sample: Sample, name: str) -> dict[str, str]:
    """One of LABELS for each item of the sample. Raises manifest.Stop on unknown, missing and unlabelled items, and on what is
    none of LABELS."""
    items = set(sample.rows["item"])
    unknown, missing = [item for item in given if item not in items], sorted(items - given.keys())
    if unknown:
        raise manifest.Stop(f"{name} has {len(unknown)} items that are not of sample {sample.name} (the first is "
                            f"{unknown[0]!r}): leave the column item as it was.")
    if missing:
        raise manifest.Stop(f"{name} lacks {len(missing)} of {len(items)} items (the first is {missing[0]}): keep every row, "
                            "and write `cannot tell` where you cannot.")
    if empty := sorted(item for item, label in given.items() if not label):
        raise manifest.Stop(f"{name} has no label for {len(empty)} of {len(items)} items (the first is {empty[0]}): label "
                            "them, or write `cannot tell`.")
    known = {label.lower(): label for label in LABELS}
    odd = sorted(item for item, label in given.items() if " ".join(label.lower().split()) not in known)
    if odd:
        raise manifest.Stop(f"{name} has the label {given[odd[0]]!r} for {odd[0]}: write one of {', '.join(LABELS)}.")
    return {item: known[" ".join(label.lower().split())] for item, label in given.items()}


def judged(sample: Sample, labels: list[dict[str, str]]) -> pd.DataFrame:
    """The sample's rows with `said_1`, `said_2` (whose answer is right: target, consensus, both, neither, cannot tell) and the
    shares of the people, 0 to 1, who say so: `target_wrong` (a person who cannot tell does not), `consensus_right` (among those
    who can tell; NaN where nobody can). `weight` is how many probes of the run a row stands for."""
    rows = sample.rows.copy()
    for k, given in enumerate(labels, 1):
        whose = {"A": {"A": "target", "B": "consensus"}, "B": {"A": "consensus", "B": "target"}}  # by the target's side
        sides = zip(rows["item"], rows["target_side"], strict=True)
        rows[f"said_{k}"] = [whose[side].get(given[item], given[item]) for item, side in sides]
    said = rows[[name for name in rows if name.startswith("said_")]]
    rows["target_wrong"] = said.isin(["consensus", "neither"]).mean(axis=1)
    rows["consensus_right"] = said.isin(["consensus", "both"]).where(said != "cannot tell").astype(float).mean(axis=1)
    size = population(sample.folder / "02_probes").groupby(["auditor", "disagrees"]).size()
    stratum = rows.groupby(["auditor", "disagrees"])["probe_id"].transform("size")
    rows["weight"] = [size[key] for key in rows[["auditor", "disagrees"]].itertuples(index=False, name=None)] / stratum
    return rows


def rates(rows: pd.DataFrame, tried: pd.DataFrame, labels: list[dict[str, str]]) -> pd.DataFrame:
    """The rates by auditor, and of all together where that means something (COLUMNS).

    `rows` is from `judged`, `tried` holds all attempts. `labelled` counts the drawn probes that a rate rests on, `of` those
    that they stand for, `cannot_tell` the ones among them of which a person could not tell.
    """
    found, people = [], len(labels)
    unsure = rows[[name for name in rows if name.startswith("said_")]].eq("cannot tell").any(axis=1)

    def add(measure: str, auditor: str, rate: Estimate, part: pd.DataFrame, of: int) -> None:
        found.append((measure, auditor, *rate, len(part), of, int(unsure[part.index].sum()), people))

    for auditor, mine in [*rows.groupby("auditor", sort=True), ("all", rows)]:
        apart = mine[mine["disagrees"]]
        if auditor != "all":
            attempted = tried[tried["auditor"] == auditor]
            add(SUCCESS, auditor, success(attempted, apart), apart, len(attempted))
        add(RIGHT, auditor, weighted(mine, "consensus_right"), mine, round(mine["weight"].sum()))
        add(RIGHT_APART, auditor, weighted(apart, "consensus_right"), apart, round(apart["weight"].sum()))
    if people == 2:
        found += alike(rows.drop_duplicates("item"))
    return pd.DataFrame(found, columns=COLUMNS).sort_values("measure", key=lambda names: names.map(
        [SUCCESS, RIGHT, RIGHT_APART, ALIKE, KAPPA].index), kind="stable", ignore_index=True)


def success(attempted: pd.DataFrame, apart: pd.DataFrame) -> Estimate:
    """Search success of one auditor: the share of attempts that are valid disagreements, times the share of the drawn ones in
    which people say that the target is wrong. The errors of both are combined (MOVER for a product)."""
    differ = attempted["disagrees"].astype(bool) & attempted["valid"].astype(bool)
    p = stats.clustered_proportion(stats.tally(differ, attempted["source_image"]))
    if not differ.any():
        return p
    q = weighted(apart, "target_wrong")
    value = p.value * q.value
    return Estimate(value, max(0.0, value - np.hypot(q.value * (p.value - p.low), p.value * (q.value - q.low))),
                    min(1.0, value + np.hypot(q.value * (p.high - p.value), p.value * (q.high - q.value))))


def weighted(rows: pd.DataFrame, score: str) -> Estimate:
    """The mean of a score (0 to 1) over the probes of the run that the rows stand for, each stratum by its size.

    The intervals of the strata (`stats.clustered_proportion`) are combined in quadrature, which has a width also where all
    scores of a stratum are equal. Where strata share pictures, the width grows by how alike these are. NaN where a stratum has
    no score.
    """
    if rows.empty:
        return Estimate(np.nan, np.nan, np.nan)
    total, parts, errors = rows["weight"].sum(), [], []
    for _, stratum in rows.groupby(["auditor", "disagrees"]):
        given = stratum[stratum[score].notna()]
        rate = stats.clustered_proportion(stats.tally(given[score], given["source_image"]))
        share = stratum["weight"].sum() / total
        parts.append(share * np.array(rate))
        errors.append((share * (given[score] - rate.value) / len(given)).groupby(given["source_image"]).sum() if len(given) else
                      pd.Series(dtype=float))
    value, low, high = np.array(parts).T
    apart = sum((error**2).sum() for error in errors)
    together = (pd.concat(errors).groupby(level=0).sum() ** 2).sum()
    wider = np.sqrt(max(1.0, together / apart)) if apart > 0 else 1.0
    return Estimate(float(value.sum()), float(max(0.0, value.sum() - wider * np.sqrt(((value - low) ** 2).sum()))),
                    float(min(1.0, value.sum() + wider * np.sqrt(((high - value) ** 2).sum()))))


def alike(items: pd.DataFrame) -> list[tuple]:
    """How far two people agree about the items: the share of equal labels, and Cohen's kappa (NaN where both say one thing)."""
    from sklearn.metrics import cohen_kappa_score  # slow

    first, second = items["said_1"], items["said_2"]
    rate = stats.clustered_proportion(stats.tally(first == second, items["source_image"]))
    kappa = float(cohen_kappa_score(first, second)) if pd.concat([first, second]).nunique() > 1 else np.nan
    unsure = int((first.eq("cannot tell") | second.eq("cannot tell")).sum())
    return [(ALIKE, "all", *rate, len(items), len(items), unsure, 2),
            (KAPPA, "all", kappa, np.nan, np.nan, len(items), len(items), unsure, 2)]


def shown(found: pd.DataFrame) -> str:
    """The rates for people: percentages with their intervals, kappa as it is."""
    def cell(row) -> str:
        if pd.isna(row.value):
            return "not known"
        if row.measure == KAPPA:
            return f"{row.value:.2f}"
        return f"{100 * row.value:.1f} % [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
    columns = {"measure": found["measure"], "auditor": found["auditor"],
               "value [95 % interval]": [cell(row) for row in found.itertuples()],
               "labelled": found["labelled"], "of": found["of"], "cannot tell": found["cannot_tell"]}
    return pd.DataFrame(columns).to_string(index=False)


def replace(file: Path, text: str) -> None:
    """Write a file whole: beside its place, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, file)
