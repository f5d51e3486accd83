"""Whether a target may take the place of an older one: `auditdm gate RUN --against RUN`, for continuous integration.

It fails on what is newly broken: a type that the new target fails and the old one does not (`compare`), or an item of the old
run's regression set that the old target has right and the new one wrong. It passes only where nothing is undecided, and gives no
verdict where there was nothing to compare.
"""

import sys
import traceback

import pandas as pd

from auditdm_lib import stats
from auditdm_lib.audit.files import pixel_hash
from auditdm_lib.audit.panel import agreement
from auditdm_lib.models.llm import LLM
from auditdm_lib.models.vlm import VLM
from auditdm_lib.run import manifest
from auditdm_lib.shown import one_line, shorten
from auditdm_lib.taxonomy import compare
from auditdm_lib.taxonomy.compare import BETTER, BROKEN, FIXED, UNCHANGED, WORSE
from auditdm_lib.taxonomy.confirm import CONFIRMED, UNDERPOWERED

PASSED, FAILED, UNDECIDED, UNUSABLE = range(4)  # exit codes; what is no verdict (wrong use, an error) must be none of the first
NAMED = 10  # items of a regression set that are named


def regression_set(run: str) -> pd.DataFrame:
    """The regression set that stage 03 of a run wrote (its confirmed failures): run, item, name, question, answer, file.

    Raises manifest.Stop where there is none.
    """
    folder = compare.stage_folder(run)
    manifest.verify(folder, "regression")
    items = pd.read_parquet(folder / "regression" / "items.parquet")
    files = [str(folder / "regression" / image) for image in items["image"]]
    return items[["item", "name", "question", "answer"]].assign(run=run, file=files)


def asked_again(items: pd.DataFrame, old: VLM, new: VLM, llm: LLM | None = None) -> pd.DataFrame:
    """A regression set with what both targets say now: said_old, right_old, said_new, right_new (null where one gave no answer),
    and picture, the hash of its pixels. An item that several runs hold counts once."""
    images = compare.opened(items["file"])
    items = items.assign(picture=[pixel_hash(image) for image in images], image=images)
    items = items.drop_duplicates(["picture", "question", "answer"], ignore_index=True)
    for side, target in (("old", old), ("new", new)):
        given = agreement(target, f"{side} target", items["image"].tolist(), items["question"].tolist(),
                          items["answer"].tolist(), llm)
        items[f"said_{side}"], items[f"right_{side}"] = given["answer"], given["agrees"].astype("boolean")
        items.loc[given["answer"].isna(), f"right_{side}"] = pd.NA
    return items.drop(columns="image")


def judged(table: pd.DataFrame, items: pd.DataFrame, run: str, against: str) -> tuple[int, list[str]]:
    """The exit code (PASSED, FAILED, UNDECIDED, or UNUSABLE where there is neither a type nor an item) and the sentences that
    say why.

    `table` is `compare.compared` of the types, from `against` to `run`; `items` is `asked_again`.
    """
    if table.empty and items.empty:
        return UNUSABLE, ["NO VERDICT: neither run has a confirmed failure type and the regression set is empty, so nothing was "
                          "compared."]
    broken, open_types = (table[table["verdict"].isin(said)] for said in ((BROKEN, WORSE), (UNDERPOWERED,)))
    relapsed = items[items["right_old"].fillna(False) & ~items["right_new"].fillna(True)]
    silent = items[["right_old", "right_new"]].isna().any(axis=1)
    said = [_changed(row) for row in broken.itertuples()]
    said += [f"Newly wrong, {named(row.name)}: asked “{named(row.question)}”, it now says “{named(row.said_new)}” instead of "
             f"“{named(row.answer)}”." for row in relapsed.head(NAMED).itertuples()]
    said += [f"Newly wrong: {len(relapsed) - NAMED} further items of the regression set."] if len(relapsed) > NAMED else []
    said += [_undecided(row) for row in open_types.itertuples()]
    said += [f"Undecided: to {silent.sum()} items of the regression set a target gave no answer."] if silent.any() else []
    said += [_share(items[~silent], run)]
    counts = table["verdict"].value_counts()
    said += [f"{counts.get(verdict, 0)} of {len(table)} types are {verdict}." for verdict in (FIXED, BETTER, UNCHANGED)
             if verdict in counts]
    known = table[(table["verdict"] == UNCHANGED) & (table["in_b"] == CONFIRMED) & (table["in_a"] != CONFIRMED)]
    said += [f"Found now, but not new: {named(row.name)}, which the target of {against} fails as often."
             for row in known.itertuples()]
    if len(broken) or len(relapsed):
        return FAILED, [*said, f"FAILED: the target of {run} fails where that of {against} does not."]
    if len(open_types) or silent.any():
        return UNDECIDED, [*said, "UNDERPOWERED: nothing is known to be newly broken, but there are too few probes to exclude "
                                  f"it. Run stage 03 of {run} with more fresh_probes."]
    return PASSED, [*said, f"PASSED: the target of {run} fails nothing that it did not fail in {against}."]


def named(text: str) -> str:
    """A text of a model in one short line."""
    return shorten(one_line(text), 120)


def _changed(row) -> str:
    return (f"{row.verdict.capitalize()}: {named(row.name)}. Of {row.probes} fresh probes {row.wrong_b} are wrong "
            f"({100 * row.rate_b:.0f} %), before {row.wrong_a} ({100 * row.rate_a:.0f} %); change "
            f"{100 * row.change:+.0f} points, 95 % interval {100 * row.change_low:+.0f} to "
            f"{100 * row.change_high:+.0f}.")


def _undecided(row) -> str:
    why = f"wrong are {row.wrong_a} before and {row.wrong_b} now of {row.probes}" if row.probes else "no probe could be compared"
    aside = f", {row.not_seen + row.unanswered} set aside" if row.not_seen + row.unanswered else ""
    more = "" if pd.isna(row.needed) else f", and it would take about {row.needed:,}"
    return f"Undecided: {named(row.name)}; {why}{aside}{more}."


def _share(items: pd.DataFrame, run: str) -> str:
    if items.empty:
        return "The regression set is empty."
    share = stats.clustered_proportion(stats.tally(items["right_new"].astype(bool), items["picture"]))
    return (f"Regression set: the target of {run} has {int(items['right_new'].sum())} of {len(items)} items right "
            f"({100 * share.value:.0f} %, 95 % interval {100 * share.low:.0f} to {100 * share.high:.0f} %), the older one has "
            f"{int(items['right_old'].sum())}.")


def gate(run: str, against: str, sets: tuple[str, ...] = ()) -> int:
    """Compare two runs and ask the regression sets of `against` and of the runs `sets` again, printing both; the exit code.

    Raises manifest.Stop as `compare.read` and `regression_set` do.
    """
    old, new = compare.read(against), compare.read(run)
    items = pd.concat([regression_set(name) for name in (against, *sets)], ignore_index=True)
    old_target, new_target, llm = compare.load_targets(old, new)
    table = compare.compare(old, new, (old_target, new_target), llm, suspected=True)
    if len(table):
        compare.show(table, against, run)
    code, said = judged(table, asked_again(items, old_target, new_target, llm), run, against)
    print(*compare.notes(old, new, table), *said, sep="\n")
    return code


def main() -> None:
    """`python -m auditdm_lib.taxonomy.gate RUN AGAINST [RUN ...]`, which is `auditdm gate`."""
    run, against, *sets = sys.argv[1:]
    try:
        sys.exit(gate(run, against, tuple(sets)))
    except manifest.Stop as problem:
        print(problem, file=sys.stderr)
    except Exception:  # Python would exit with 1, which says that something is newly broken
        traceback.print_exc()
    sys.exit(UNUSABLE)


if __name__ == "__main__":
    main()
