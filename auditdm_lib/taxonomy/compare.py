"""What has changed between two audits: `auditdm diff RUN_A RUN_B`.

Both targets answer the same fresh probes: those of both runs that belong to a type confirmed in either. Types are compared by
pairs of answers, probe by probe. A run's own answers are taken from its table; the other run's probes are asked now.

- A probe counts where all references of its own run give one answer, so that neither target has a say in what is right.
- One probe counts for each picture of a type, so the probes of a type are independent and a test by probes is valid.
- A probe is set aside where a target misses the easy question about its picture, and where a target gives no answer, since an
  error or an unfinished reply is no failure.

What the limits are and how many probes it would take is our choice; the paper compares no audits.
"""

import sys
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.stats import false_discovery_control, norm

from auditdm_lib import stats
from auditdm_lib.answers import normalise
from auditdm_lib.audit.files import pixel_hash
from auditdm_lib.audit.panel import agreement
from auditdm_lib.audit.pictures import stored
from auditdm_lib.models import placement
from auditdm_lib.models.llm import LLM, load_llm
from auditdm_lib.models.vlm import VLM, load_members
from auditdm_lib.run import manifest, stage
from auditdm_lib.shown import one_line, shorten, write_csv
from auditdm_lib.stats import Estimate
from auditdm_lib.taxonomy.cluster import belongs
from auditdm_lib.taxonomy.confirm import CONFIRMED, UNDERPOWERED

FOLDER = "03_taxonomy"
FIXED, BETTER, UNCHANGED, WORSE, BROKEN = "fixed", "better", "unchanged", "worse", "newly broken"  # beside UNDERPOWERED
FALSE_SHARE, POWER = 0.05, 0.8  # false discoveries among the changes (Benjamini-Hochberg); power of the stated numbers
HALF, LEAST = 0.5, 0.1  # a change is one of half of the larger error rate, and of ten points at least (our choice)
FEWEST_PAIRS = 6  # pairs that differ, of which the exact McNemar test needs so many for p < 0.05
KEY = ["skill", "name"]  # what two runs name alike is one type, after `aligned`
SAME = ["picture", "question", "right"]  # by pixels and by the normalised agreed answer: the same probe in both runs
COLUMNS = [*KEY, "in_a", "in_b", "probes", "not_seen", "unanswered", "wrong_a", "rate_a", "low_a", "high_a", "wrong_b", "rate_b",
           "low_b", "high_b", "change", "change_low", "change_high", "p_value", "q_value", "verdict", "needed"]


@dataclass(frozen=True)
class Audit:
    """A run whose stage 03 confirmed its types: the stage's folder, its parameters, confirmation.parquet, fresh.parquet and
    members.parquet (the clustered failures; None where the run is older than that file)."""

    run: str
    folder: Path
    parameters: dict[str, Any]
    types: pd.DataFrame
    fresh: pd.DataFrame
    members: pd.DataFrame | None = None


def stage_folder(run: str) -> Path:
    """The folder of stage 03 of a run, which is given by its name below runs/ or by its own folder, wherever that is.

    Raises manifest.NotRun, naming the runs that are there, where it is none of them.
    """
    return manifest.folder_of(run, FOLDER).resolve() / FOLDER


def read(run: str) -> Audit:
    """The audit of a run (see `stage_folder`); every file is checked.

    Raises manifest.Stop with the remedy where the stage has not run, is damaged, confirmed nothing on fresh probes, let its
    members sample their answers, or where the target is no longer the model that was audited.
    """
    folder = stage_folder(run)
    try:
        record = manifest.verify(folder)
    except manifest.Stop as problem:
        raise type(problem)(stage.with_remedy(run, FOLDER, problem)) from None
    parameters, again = record["key"]["parameters"], f"{stage.command(record['key']['parameters']['run'])} --only 03"
    if not {"fresh.parquet", "confirmation.parquet"} <= record["outputs"].keys() or "target" not in parameters:
        raise manifest.Stop(f"Run {run} confirmed no failure type on fresh probes, so it cannot be compared: run its stage 03 "
                            f"with fresh_probes above 0, by {again}")
    if parameters.get("answer_temperature", 0) > 0:
        raise manifest.Stop(f"The members of run {run} sampled their answers, so its target answers otherwise each time: run it "
                            "again with answer_temperature 0.")
    target = parameters["target"]
    try:
        now = stage.input_hash(target, "model")
    except (LookupError, ValueError):  # not in the cache of the hub, or no name that it could have
        now = None
    if now is None or record["key"]["inputs"].get(f"target: {target}") != now:
        raise manifest.Stop(f"The target of run {run} ({target}) is gone or no longer the model that was audited: put it back, "
                            f"or run the audit again, by {stage.command(parameters['run'])}")
    types = pd.read_parquet(folder / "confirmation.parquet").astype({name: str for name in KEY})  # an empty table has no texts
    members = pd.read_parquet(folder / "members.parquet") if "members.parquet" in record["outputs"] else None
    return Audit(run, folder, parameters, types, pd.read_parquet(folder / "fresh.parquet"), members)


def aligned(a: Audit, b: Audit) -> Audit:
    """`b` with the names that `a` gave to the same types: groups follow from the failures, so two runs name them differently.

    A type of `b` is that one of `a` into which more than half of its failures would fall (`cluster.belongs`); of several, the
    one with most failures is. The others keep their names, with a remark where `a` has another type of that name.
    """
    if a.members is None or b.members is None:
        return b
    options = [a.parameters.get(name) or None for name in ("skills", "encoder")]
    failures = b.members[b.members["category"] >= 0]
    place = belongs(a.members, failures["question"].tolist(), failures["consensus"].tolist(), *options)
    names, types = a.types.set_index("category")[KEY], b.types.set_index("category")[KEY].copy()
    for category, n in failures["category"].value_counts().sort_index().sort_values(ascending=False, kind="stable").items():
        counts = pd.Series(place[failures["category"].eq(category)]).value_counts()
        found = counts.index[0]
        if category in types.index and found in names.index and 2 * counts.iloc[0] > n:
            types.loc[category] = names.loc[found]
            names = names.drop(found)
        elif category in types.index and (names == types.loc[category]).all(axis=1).any():
            types.loc[category, "name"] += " (another type of the second run)"
    twice = types.duplicated(KEY)  # named as one that has got its name from `a`
    types.loc[twice, "name"] += " (another type of the second run)"
    names = {name: b.types["category"].map(types[name]).astype(str) for name in KEY}  # of no type, too, texts: they are merged on
    return replace(b, types=b.types.assign(**names))


def load_targets(a: Audit, b: Audit) -> tuple[VLM, VLM, LLM | None]:
    """Both targets, each to be asked as in its own run, and the judge D of both.

    Raises manifest.Stop where the runs compare answers in different ways.
    """
    judges = [audit.parameters["judge_model"] for audit in (a, b)]
    if judges[0] != judges[1]:
        said = [judge or "the normalised match" for judge in judges]
        raise manifest.Stop(f"Run {a.run} compares answers by {said[0]} and run {b.run} by {said[1]}: run the stages 01 to 03 of "
                            "one of them again with the other's judge_model.")
    torch.set_num_threads(b.parameters["threads"])
    targets = []
    for audit in (a, b):
        placement.place_as(audit.parameters)
        targets += load_members(audit.parameters["target"], [], audit.parameters["answer_prompts"][:1],
                                audit.parameters["answer_tokens"][:1], audit.parameters["answer_batch"])
    return *targets, load_llm(judges[0]) if judges[0] else None


def shared_types(a: Audit, b: Audit, suspected: bool = False) -> pd.DataFrame:
    """The types that are confirmed in either run: skill, name, in_a, in_b (the verdict in each run, null where it has no such
    type). With `suspected` also those that `b` could not decide and `a` did not suspect."""
    table = a.types[[*KEY, "verdict"]].merge(b.types[[*KEY, "verdict"]], "outer", KEY, suffixes=("_a", "_b"), validate="1:1")
    table = table.rename(columns=dict(verdict_a="in_a", verdict_b="in_b"))
    wanted = table["in_a"].eq(CONFIRMED) | table["in_b"].eq(CONFIRMED)
    if suspected:
        wanted |= table["in_b"].eq(UNDERPOWERED) & ~table["in_a"].eq(UNDERPOWERED)
    return table[wanted].sort_values(KEY, ignore_index=True)


def shared_probes(a: Audit, b: Audit, types: pd.DataFrame) -> pd.DataFrame:
    """The probes of `types` on which all references of their run agree, one for each type and picture (that of `a` before that
    of `b`): skill, name, file, question, agreed, control_question, control_agreed; and what the runs' own tables say about each:
    answer_a, wrong_a, saw_a, asked_a (whether that table holds the probe), and the same of `b`."""
    parts = []
    for side, audit in enumerate((a, b)):
        named = audit.types[["category", *KEY]].merge(types[KEY], on=KEY)
        rows = audit.fresh[audit.fresh["agreed"].notna() & ~audit.fresh["references_odd"].map(any).astype(bool)]
        rows = rows.merge(named, on="category", validate="m:1").sort_values("probe_id")
        parts.append(rows.assign(side=side, file=[str(audit.folder / image) for image in rows["image"]]))
    rows = pd.concat(parts, ignore_index=True)
    pictures = {file: pixel_hash(image) for file, image in zip(rows["file"], opened(rows["file"]), strict=True)}
    rows["picture"] = rows["file"].map(pictures)  # runs of one seed ask about the same pictures under other names
    rows["right"] = rows["agreed"].map(normalise)
    kept = rows.drop_duplicates([*KEY, "picture"])[[*KEY, *SAME, "file", "agreed", "control_question", "control_agreed"]]
    for side, end in enumerate(("_a", "_b")):
        own = rows[rows["side"] == side].drop_duplicates(SAME)
        saw = own["saw"].astype(object).ne(False)  # null where there was no easy question
        told = pd.DataFrame(dict(answer=own["target_answer"], wrong=own["target_odd"].astype(bool), saw=saw, asked=True))
        kept = kept.merge(told.add_suffix(end).join(own[SAME]), "left", SAME, validate="m:1")
        kept[f"asked{end}"] = kept[f"asked{end}"].notna()
    return kept.drop(columns=["picture", "right"])


def opened(files: pd.Series) -> list:
    """The pictures in these files, each opened when it is needed."""
    return stored(Path(), files.tolist())


def asked(target: VLM, name: str, probes: pd.DataFrame, llm: LLM | None = None) -> pd.DataFrame:
    """Ask a target the questions of `probes` and their easy questions: answer (null where there is none), wrong, saw."""
    controlled = probes[probes["control_question"].notna()]
    both = pd.concat([probes[["file", "question", "agreed"]], controlled[["file", "control_question", "control_agreed"]].set_axis(
        ["file", "question", "agreed"], axis=1)])
    given = agreement(target, name, opened(both["file"]), both["question"].tolist(), both["agreed"].tolist(), llm)
    found = given[:len(probes)].set_index(probes.index)
    saw = pd.Series(True, index=probes.index)
    saw[controlled.index] = given["agrees"].to_numpy()[len(probes):]
    return pd.DataFrame(dict(answer=found["answer"], wrong=~found["agrees"], saw=saw))


def answers(a: Audit, b: Audit, targets: tuple[VLM, VLM], probes: pd.DataFrame, llm: LLM | None = None) -> pd.DataFrame:
    """`shared_probes` with every target's answers: only what its run's own table lacks is asked."""
    probes = probes.astype({f"{name}{end}": object for name in ("answer", "wrong", "saw") for end in ("_a", "_b")})
    for end, audit, target in zip(("_a", "_b"), (a, b), targets, strict=True):
        new = ~probes[f"asked{end}"]
        if new.any():
            given = asked(target, f"target of {audit.run}", probes[new], llm)
            probes.loc[new, [f"{name}{end}" for name in given]] = given.to_numpy()
    return probes


def compared(types: pd.DataFrame, answered: pd.DataFrame) -> pd.DataFrame:
    """One row with COLUMNS for each of `types`, from the `answers` to its probes.

    Rates are 0-1, `change` is that of the error rate from `a` to `b` (Agresti and Min), p_value is of the exact McNemar test,
    `needed` is a number of probes, null where nothing is undecided or no probe counts.

    The verdicts: the error rate is significantly lower and surely at most half (`fixed`) or not (`better`); it is significantly
    higher and was at most half (`newly broken`) or more (`worse`); the interval of the change lies within half of the larger rate
    (`unchanged`); or none of these (`underpowered`).
    """
    rows, marks = [], []
    for row in types.itertuples(index=False):
        mine = answered[(answered["skill"] == row.skill) & (answered["name"] == row.name)]
        replied, saw = mine[["answer_a", "answer_b"]].notna().all(axis=1), mine["saw_a"].astype(bool) & mine["saw_b"].astype(bool)
        counted = mine[replied & saw]
        wrong = tuple(counted[name].to_numpy(bool) for name in ("wrong_a", "wrong_b"))
        n, change = len(counted), _change(*wrong)
        rates = [(int(w.sum()), *stats.proportion(int(w.sum()), n)) for w in wrong]
        p = stats.mcnemar_p(*wrong) if n else 1.0
        rows.append((*row, n, int((~saw & replied).sum()), int((~replied).sum()), *rates[0], *rates[1], *change, p))
        marks.append(wrong)
    table = pd.DataFrame(rows, columns=COLUMNS[:-3])
    table["q_value"] = false_discovery_control(table["p_value"]) if len(table) else pd.Series(dtype=float)
    table["verdict"] = [verdict(*wrong, q) for wrong, q in zip(marks, table["q_value"], strict=True)]
    table["needed"] = pd.array([needed(*wrong) if said == UNDERPOWERED and len(wrong[0]) else None
                                for wrong, said in zip(marks, table["verdict"], strict=True)], dtype="Int64")
    return table


def _change(a: np.ndarray, b: np.ndarray) -> Estimate:
    return stats.paired_difference(b, a) if len(a) else Estimate(np.nan, np.nan, np.nan)


def margin(a: np.ndarray, b: np.ndarray) -> float:
    """The change of the error rate (0-1) that is worth knowing: half of the larger rate, and LEAST."""
    return max(HALF * max(a.mean(), b.mean()), LEAST) if len(a) else LEAST


def verdict(a: np.ndarray, b: np.ndarray, q: float) -> str:
    """The verdict of `compared` on two boolean arrays, wrong answers to the same probes, and the q-value of their difference."""
    change = _change(a, b)
    if q > FALSE_SHARE:
        return UNCHANGED if -margin(a, b) < change.low and change.high < margin(a, b) else UNDERPOWERED
    if change.value > 0:
        return BROKEN if a.mean() <= HALF * b.mean() else WORSE
    return FIXED if stats.wilson(int(b.sum()), len(b))[1] <= HALF * a.mean() else BETTER


def needed(a: np.ndarray, b: np.ndarray) -> int:
    """About how many probes decide between a change and none with power 0.8, if the rates are as observed (`deciding`).

    Half a probe is added to each cell of the 2 x 2 table, as in the interval, so that few probes do not promise too much.
    """
    only_a, only_b = (((x & ~y).sum() + 0.5) / (len(a) + 2) for x, y in ((a, b), (b, a)))
    return max(len(a) + 1, deciding(only_a, only_b, margin(a, b)))


def deciding(only_a: float, only_b: float, worth: float) -> int:
    """How many probes decide with power 0.8 where these shares of them (0-1) are failed by one target alone.

    The smaller of two numbers: for a significant change (Connor 1987), and for an interval of it within `worth` on both sides.
    """
    differ, change = only_a + only_b, abs(only_a - only_b)
    spread, room = differ - change**2, worth - change
    z, z_power, z_both = norm.ppf([0.975, POWER, (1 + POWER) / 2])  # both ends of the interval have to lie within
    significant = ((z * np.sqrt(differ) + z_power * np.sqrt(spread)) / change) ** 2 if change else inf
    within = spread * ((z + z_both) / room) ** 2 if room > 0 else inf
    return ceil(min(max(significant, FEWEST_PAIRS / differ), within))


def compare(a: Audit, b: Audit, targets: tuple[VLM, VLM], llm: LLM | None = None, suspected: bool = False) -> pd.DataFrame:
    """The types of both runs side by side: `compared`, of `shared_types`, on `shared_probes`."""
    b = aligned(a, b)
    types = shared_types(a, b, suspected)
    return compared(types, answers(a, b, targets, shared_probes(a, b, types), llm))


def notes(a: Audit, b: Audit, table: pd.DataFrame) -> list[str]:
    """What a reader of the comparison has to know about the two runs, in sentences."""
    said = []
    if set(a.parameters["references"]) != set(b.parameters["references"]):
        said.append("The runs have different references, so what counts as right differs with the run that a probe is from.")
    if a.parameters["pictures"] != b.parameters["pictures"]:
        said.append(f"The pictures differ: {a.parameters['pictures']} and {b.parameters['pictures']}.")
    if a.members is None or b.members is None:
        said.append("A run is older than members.parquet, so types are the same where their names are: run its stage 03 again.")
    if others := len(pd.concat([a.types[KEY], aligned(a, b).types[KEY]]).drop_duplicates()) - len(table):
        said.append(f"{others} further type{'s' * (others > 1)}, confirmed in neither run, {'are' if others > 1 else 'is'} not "
                    "compared.")
    return said


def show(table: pd.DataFrame, a: str, b: str) -> None:
    """Print the comparison of the runs `a` and `b` as a table."""
    def share(value: float, low: float, high: float, sign: str = "") -> str:
        return "" if pd.isna(value) else f"{100 * value:{sign}.0f} [{100 * low:{sign}.0f}, {100 * high:{sign}.0f}]"
    shown = Table("failure type", "confirmed in", "probes", "% wrong, A", "% wrong, B", "change in points", "verdict",
                  title=Text(f"A: {a}   B: {b}   (95 % intervals)"))
    for r in table.itertuples():
        where = " and ".join(run for run, found in (("A", r.in_a), ("B", r.in_b)) if found == CONFIRMED) or "neither"
        said = r.verdict if pd.isna(r.needed) else f"{r.verdict}: about {r.needed:,} probes needed"
        shown.add_row(*map(Text, (  # Text, since a string may hold markup
            shorten(one_line(r.name), 80), where, f"{r.probes:,}", share(r.rate_a, r.low_a, r.high_a),
            share(r.rate_b, r.low_b, r.high_b), share(r.change, r.change_low, r.change_high, "+"), said)))
    Console(width=None if sys.stdout.isatty() else 160).print(shown)


def main() -> None:
    """`python -m auditdm_lib.taxonomy.compare RUN_A RUN_B [FILE.csv]`, which is `auditdm diff`."""
    run_a, run_b, *out = sys.argv[1:]
    try:
        a, b = read(run_a), read(run_b)
        *targets, llm = load_targets(a, b)
    except (manifest.Stop, OSError, ValueError) as problem:
        sys.exit(str(problem))
    table = compare(a, b, tuple(targets), llm)
    if table.empty:
        print(f"Neither {a.run} nor {b.run} has a confirmed failure type, so there is nothing to compare.")
    else:
        show(table, a.run, b.run)
        counts = table["verdict"].value_counts()
        print(f"Of {len(table)} types: " + ", ".join(f"{n} {said}" for said, n in counts.items()) + ".", *notes(a, b, table))
    for file in out:
        write_csv(table, Path(file))
        print(f"Table: {file}")


if __name__ == "__main__":
    main()
