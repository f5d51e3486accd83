"""Confirmation: whether the target fails on a failure type more than its references do, on fresh probes (`fresh`).

The unit is a picture: a type has at most one probe about each. On a probe a member of {target, references} is *odd* if all others
agree and its answer differs from theirs. Were the target no different from its references, then of the probes with one odd member
the target would be it in 1 of 1 + k, k being the number of references. This is what the exact one-sided binomial test tests, for
each type, with the false discovery rate of Benjamini and Hochberg (1995) over all of them. The paper has no such step; it is our
choice.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binom, false_discovery_control

from auditdm_lib.answers import same_answer
from auditdm_lib.audit.probes import attempted
from auditdm_lib.stats import Estimate, paired_difference, proportion, wilson

LEVEL = 0.05  # false discovery rate over all types
POWER = 0.8  # what `needed` is computed for
MOST_NEEDED = 100_000  # probes; where more would be needed, no number is named
KNOWN = 20  # probes with a known answer from which the consensus's own error is measured within a type
CONFIRMED, NOT_CONFIRMED, UNDERPOWERED = "confirmed", "not confirmed", "underpowered"
CONFIRMATION_COLUMNS = ["category", "name", "skill", "probes", "target_wrong", "rate", "ci_low", "ci_high", "reference_wrong",
                        "reference_rate", "p_value", "q_value", "verdict", "needed", "not_seen", "corrected_rate",
                        "corrected_low", "corrected_high"]


def confirmation(fresh: pd.DataFrame, types: pd.DataFrame, searched: dict[int, float], references: int) -> pd.DataFrame:
    """One row per failure type, in the order of `types` (names.categories): CONFIRMATION_COLUMNS.

    `fresh` is fresh.parquet and `searched` the share of the search's probes within a type that were failures. Of the probes on
    whose picture the target saw what a control question asks (or was asked none), target_wrong have the target as the odd member
    (`rate` with Wilson's interval), reference_wrong one of the references (reference_rate: their mean). `needed` is the number of
    probes with which the test would have a power of 0.8 at the rates found, or, where these do not put the target above its
    references, at the rate of the search; null if confirmed, or if no number helps. `underpowered` means fewer probes than that.
    corrected_rate is the target's error by the truth (`corrected`), null where no answer is known.
    """
    seen, blind = fresh["saw"].ne(False), fresh["saw"].eq(False)
    chance, pooled, rows = 1 / (1 + references), fresh[seen & fresh["category"].ge(0)], []
    for one in types.itertuples():
        inside = fresh["category"].eq(one.category)
        own = fresh[seen & inside]
        wrong, other = int(own["target_odd"].sum()), sum(any(odd) for odd in own["references_odd"])
        low, high = wilson(wrong, len(own))
        rows.append(dict(
            category=one.category, name=one.name, skill=one.skill, probes=len(own), target_wrong=wrong,
            rate=wrong / len(own) if len(own) else np.nan, ci_low=low, ci_high=high, reference_wrong=other,
            reference_rate=other / len(own) / references if len(own) else np.nan,
            p_value=float(binom.sf(wrong - 1, wrong + other, chance)), not_seen=int((blind & inside).sum()))
            | dict(zip(("corrected_rate", "corrected_low", "corrected_high"), corrected(own, pooled), strict=True)))
    table = pd.DataFrame(rows, columns=[name for name in CONFIRMATION_COLUMNS if name not in ("q_value", "verdict", "needed")])
    table["q_value"] = false_discovery_control(table["p_value"]) if len(table) else pd.Series(dtype=float)
    holds = (table["q_value"] <= LEVEL).to_numpy(bool)
    level = LEVEL * min(1, (holds.sum() + 1) / max(len(table), 1))  # that of the next type to be confirmed
    told = references > 1 or fresh["agreed"].notna().any()  # one reference and no truth: nobody can be odd, however many probes
    judged = [(CONFIRMED, None) if held else _undecided(row, searched.get(row.category), chance, level) if told
              else (UNDERPOWERED, None) for held, row in zip(holds, table.itertuples(), strict=True)]
    table["verdict"] = [verdict for verdict, _ in judged]
    table["needed"] = pd.Series([n for _, n in judged], dtype="Int64")
    return table[CONFIRMATION_COLUMNS]


def _undecided(row: tuple, searched: float | None, chance: float, level: float) -> tuple[str, int | None]:
    """Verdict and number of probes of a type that is not confirmed."""
    found = row.target_wrong + row.reference_wrong
    above = found and row.target_wrong / found > chance
    wrong, other = (row.target_wrong, row.reference_wrong) if above else (searched or 0.0, 0.0)
    n = needed(wrong / row.probes, other / row.probes, chance, level) if above else needed(wrong, other, chance, level)
    if n is None:
        return (NOT_CONFIRMED if row.probes else UNDERPOWERED), None
    return (UNDERPOWERED if row.probes < n else NOT_CONFIRMED), n


def needed(wrong: float, other: float, chance: float, level: float) -> int | None:
    """The number of probes with which the test has a power of POWER at a `level`.

    `wrong` and `other` are the shares of probes (0-1) on which the target, or one of the references, is the odd member; `chance`
    is the target's part where there is no difference. None where no number up to MOST_NEEDED is enough.
    """
    if wrong <= 0 or wrong / (wrong + other) <= chance or power(MOST_NEEDED, wrong, other, chance, level) < POWER:
        return None
    low, high = 0, MOST_NEEDED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, wrong, other, chance, level) >= POWER else (middle, high)
    return high


def power(n: int, wrong: float, other: float, chance: float, level: float) -> float:
    """The chance that the test of `n` probes is significant at a `level` (see `needed` for the rest)."""
    odd = np.arange(binom.ppf(1e-6, n, wrong + other), binom.isf(1e-6, n, wrong + other) + 1)  # probes with one odd member
    critical = binom.isf(level, odd, chance)  # more than these are significant
    return float((binom.pmf(odd, n, wrong + other) * binom.sf(critical, odd, wrong / (wrong + other))).sum())


def corrected(own: pd.DataFrame, pooled: pd.DataFrame) -> Estimate:
    """The rate of the target's errors by the truth, from its rate of differing from the agreed answer: both rates and their
    difference, measured where the truth is known, with the interval that combines those of both (MOVER). NaN where none is known.

    Where the truth of all probes is known this is the rate by the truth itself. The difference is the consensus's own error (an
    agreed answer that is wrong); it is measured on the type's `own` probes where KNOWN of them have a truth, else on those of all
    types, `pooled`. The prediction-powered estimate of Angelopoulos et al. (2023), in the place of Rogan and Gladen (1978).
    """
    wrong = by_truth(own, "target_answer")
    if len(own) and wrong.notna().all():
        return proportion(int(wrong.sum()), len(own))
    known = own if wrong.notna().sum() >= KNOWN else pooled
    wrong = by_truth(known, "target_answer")
    checked = wrong.notna().to_numpy()
    if not len(own) or not checked.any():
        return Estimate(np.nan, np.nan, np.nan)
    seen = proportion(int(own["target_odd"].sum()), len(own))
    error = paired_difference(wrong[checked].to_numpy(bool), known["target_odd"].to_numpy(bool)[checked])
    value = seen.value + error.value
    below = np.hypot(seen.value - seen.low, error.value - error.low)
    above = np.hypot(seen.high - seen.value, error.high - error.value)
    return Estimate(*(float(np.clip(x, 0, 1)) for x in (value, value - below, value + above)))


def by_truth(rows: pd.DataFrame, answers: str) -> pd.Series:
    """Whether the answers in a column are wrong by the truth; null where it is unknown or there is no answer."""
    return pd.Series([not same_answer(a, t) if isinstance(a, str) and isinstance(t, str) else None
                      for a, t in zip(rows[answers], rows["truth"], strict=True)], index=rows.index, dtype=object)


def search_rates(probes: pd.DataFrame, belongs: Callable[[list[str], list[str]], np.ndarray]) -> dict[int, float]:
    """The share of the search's probes within each type that were failures (0-1), by category, of the trained auditor if it has
    probes. `probes` is probes.parquet, and `belongs` gives the category to a question and its consensus."""
    rows = attempted(probes)
    rows = rows[rows["consensus"].notna() & rows["picture_reason"].isna()]
    rows = rows[rows["auditor"].eq("trained")] if rows["auditor"].eq("trained").any() else rows
    category = belongs(rows["question"].tolist(), rows["consensus"].tolist())
    return rows["disagrees"].astype(float).groupby(category).mean().to_dict()


def save_regression(fresh: pd.DataFrame, table: pd.DataFrame, folder: Path) -> None:
    """Write the confirmed failures into folder/regression: items.parquet (`regression_items`) and the pictures that these name,
    from `folder`."""
    items, out = regression_items(fresh, table), folder / "regression"
    (out / "images").mkdir(parents=True)
    items["image"] = [f"images/{Path(image).name}" for image in items["image"]]
    for image in sorted(set(items["image"])):
        shutil.copyfile(folder / "fresh" / Path(image).name, out / image)
    items.to_parquet(out / "items.parquet", index=False)


def regression_items(fresh: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The confirmed failures, to be asked again of later models: item, category, name, question, answer (the agreed one), image
    (relative to 03_taxonomy)."""
    names = table[table["verdict"] == CONFIRMED].set_index("category")["name"]
    kept = fresh[fresh["category"].isin(names.index) & fresh["target_odd"] & fresh["saw"].ne(False)]
    return pd.DataFrame(dict(item=kept["probe_id"], category=kept["category"], name=kept["category"].map(names),
                             question=kept["question"], answer=kept["agreed"], image=kept["image"])).reset_index(drop=True)


def in_words(table: pd.DataFrame, references: int, verified: bool = True) -> str:
    """One paragraph: how many types are confirmed, and what keeps the others from it."""
    if table.empty:
        return "There is no type to confirm."
    if references == 1 and not table["probes"].any():
        return ("With one reference a failure of the target cannot be told from one of the reference, so no type can be "
                "confirmed: add a reference, or pictures whose answers are known.")
    count = table["verdict"].value_counts()
    text = (f"{count.get(CONFIRMED, 0)} of {len(table)} types are confirmed on fresh probes (false discovery rate {LEVEL:.0%}); "
            f"not confirmed: {count.get(NOT_CONFIRMED, 0)}; too few probes to tell: {count.get(UNDERPOWERED, 0)}.")
    if missed := int(table["not_seen"].sum()):
        text += f" Set aside: {missed} probe{'s' * (missed > 1)} about pictures on which the target missed an easy question."
    return text if verified else f"{text} Confirmed means different from the references: nobody has said who is right."
