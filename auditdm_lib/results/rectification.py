"""What an audit is worth for rectification, and when: the same target fine-tuned on equally large sets of different origin
(`training.arms`), and on what equally many target calls find.

`auditdm arms RUN ...` (or `python -m auditdm_lib.results.rectification both RUN ...`) makes the missing cells of finished runs
(`rectification_cells`), the seeds of a profile being NAME, NAME-1 and so on, and writes `figures/rectification/`.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

from auditdm_lib import paths, stats
from auditdm_lib.audit.probes import overall
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.results import claims, figures, rectification_cells, tables
from auditdm_lib.results.folder import write_folder
from auditdm_lib.results.measures import percent, with_interval
from auditdm_lib.results.rectification_cells import CALLS, EXAMPLES, NOTHING, Run
from auditdm_lib.run import manifest
from auditdm_lib.stats import Estimate
from auditdm_lib.training.arms import ARMS, AUDITED, BY_CHANCE, CEILING, DATASET, PROMPT_ONLY

NAME = "rectification"  # the folder below figures/ and the file in it
COLUMNS = ["profile", "arm", "seed", "budget", "examples", "target_calls", "measure", "score", "ci_low", "ci_high"]
OUTSIDE = "suites outside gaps"
MEAN = "mean"  # in the place of a seed
OTHERS = {EXAMPLES: (DATASET, PROMPT_ONLY, BY_CHANCE, CEILING), CALLS: (BY_CHANCE,)}  # what audited is compared with
WAY = "share of the way to true labels"
BREAK_EVEN = "target calls from which on it has found more failures than chance"
RARITIES = (0, 0.25, 0.5, 1, 100)  # percent of random questions that meet a gap
LABEL = {NOTHING: "nothing (the target)"} | ARMS
CLAIMS = [  # text, row of `table`, measure, kind of budget, least
    ("Audited data beat as much un-audited data inside the gaps: dataset questions (points)", f"{AUDITED} - {DATASET}", GAP_ITEMS,
     EXAMPLES, claims.ABOVE_0),
    ("Audited data beat as much un-audited data inside the gaps: prompt-only questions (points)", f"{AUDITED} - {PROMPT_ONLY}",
     GAP_ITEMS, EXAMPLES, claims.ABOVE_0),
    ("Audited failures beat as many failures found by chance inside the gaps (points)", f"{AUDITED} - {BY_CHANCE}", GAP_ITEMS,
     EXAMPLES, claims.ABOVE_0),
    ("Audited data go at least 80 % of the way from the target to a model taught the true labels (%)", WAY, GAP_ITEMS,
     EXAMPLES, 80),
    *(("Outside the gaps audited data lose at most 1 point on the suites (points)", f"{AUDITED} - {NOTHING}", OUTSIDE, kind, -1)
      for kind in (EXAMPLES, CALLS)),
    ("At as many target calls, training included, audited failures beat those found by chance inside the gaps (points)",
     f"{AUDITED} - {BY_CHANCE}", GAP_ITEMS, CALLS, claims.ABOVE_0)]


def marks(items: pd.DataFrame, shares: dict[str, float] | None = None) -> dict[str, pd.Series]:
    """Whether each held-out item was answered rightly, by measure, indexed by suite and item: the items inside planted gaps,
    those of the suites outside them, and those inside gaps that so many random questions meet (RARITIES, by `shares`)."""
    rows = items.set_index(["suite", "item"])
    inside = rows.index.get_level_values("suite") == GAP_ITEMS
    parts = {GAP_ITEMS: inside, OUTSIDE: ~inside & rows["gap"].isna().to_numpy()}
    met = 100 * rows["gap"].map(shares or {}).to_numpy(float)
    parts |= {f"gaps met by {low:g} to {high:g} %": inside & (met >= low) & (met < high)
              for low, high in zip(RARITIES, RARITIES[1:], strict=False)}
    return {name: rows["correct"][part].astype(bool).sort_index() for name, part in parts.items() if part.any()}


def shares_of(runs: list[Run]) -> dict[str, dict[str, float]]:
    """For each profile the share (0-1) of the random questions of its runs that met a planted gap and failed, by gap."""
    found = {}
    for run in runs:
        folder = paths.result(run.name, "02_probes")
        if (folder / "gap_hits.csv").exists():
            asked = pd.read_csv(folder / "search.csv").query("auditor == 'random'")["attempts"].sum()
            hits = pd.read_csv(folder / "gap_hits.csv").query("auditor == 'random'").set_index("gap")["hits"]
            found.setdefault(run.profile, []).append(hits / asked)
    return {profile: pd.concat(parts, axis=1).mean(axis=1).to_dict() for profile, parts in found.items()}


def over_seeds(values: list[Estimate]) -> Estimate:
    """The mean of one estimate a seed, each from items of its own, with an interval that covers items and seeds: the wider of
    Student's over the seeds, whose spread holds that of the items, and the combined one of the items. One seed has the latter."""
    items, points = stats.average(values), np.array([value.value for value in values])
    n = len(points)
    reach = t.ppf(0.975, n - 1) * points.std(ddof=1) / np.sqrt(n) if n > 1 else 0.0
    return Estimate(items.value, min(items.low, items.value - reach), max(items.high, items.value + reach))


def table(cells: Iterable[tuple], shares: dict[str, dict[str, float]] | None = None) -> pd.DataFrame:
    """Every measure (`marks`) of every cell (`rectification_cells.scored`), in percent: COLUMNS. `shares` is that of `shares_of`.

    Beside a row for each seed there is one for their mean, then the differences of audited to the other arms, of every arm to the
    target (`... - nothing`) and, at a budget of examples, the share of the way from the target to the ceiling that audited goes.
    """
    found = {}
    for run, cell, examples, items in cells:
        for measure, right in marks(items, (shares or {}).get(run.profile)).items():
            budget = f"{cell.amount} {cell.budget}" if cell.budget else "none"
            found[run.profile, cell.budget, cell.amount, budget, cell.arm, measure, run.values["seed"]] = (
                right, len(examples), _calls(run, cell, examples))
    rows = []
    for (profile, kind, amount, budget, arm, measure), seeds in _grouped(found):
        values = {seed: stats.proportion(int(right.sum()), len(right)) for seed, (right, *_) in seeds.items()}
        rows += _rows(profile, arm, budget, seeds, measure, values, within=(0, 1))
        others = [NOTHING, *(OTHERS[kind] if arm == AUDITED else ())] if kind else []
        for other in others:
            where = ("", 0, "none") if other == NOTHING else (kind, amount, budget)
            beside = {seed: found.get((profile, *where, other, measure, seed)) for seed in seeds}
            pairs = {seed: stats.paired_difference(right, beside[seed][0]) for seed, (right, *_) in seeds.items() if beside[seed]}
            rows += _rows(profile, f"{arm} - {other}", budget, seeds, measure, pairs, within=(-1, 1)) if pairs else []
        if arm == AUDITED and kind == EXAMPLES and measure == GAP_ITEMS:
            rows += _way(found, (profile, kind, amount, budget), seeds)
    return pd.DataFrame(rows, columns=COLUMNS).round(3)


def _grouped(found: dict[tuple, tuple]) -> list[tuple[tuple, dict]]:
    """What was found, by all but the seed: seed -> value."""
    groups = {}
    for (*where, seed), value in found.items():
        groups.setdefault(tuple(where), {})[seed] = value
    return list(groups.items())


def _calls(run: Run, cell, examples: pd.DataFrame) -> int:
    """The target calls that a cell's examples took: those up to the last failure used and, if audited, the auditor's training;
    at a budget of calls all of it. Un-audited questions take none, since their labels are the references'."""
    if cell.budget == CALLS:
        return cell.amount
    failures = examples.loc[examples["failure"].astype(bool), "call"]
    used = int(failures.max()) if len(failures) and cell.arm in (AUDITED, CEILING, BY_CHANCE) else 0
    return used + (run.training if cell.arm in (AUDITED, CEILING) else 0)


def _rows(profile: str, arm: str, budget: str, seeds: dict[int, tuple], measure: str, values: dict[int, Estimate],
          within: tuple[float, float] = (-np.inf, np.inf)) -> list[tuple]:
    """A row for each seed of `values` and one for their mean, whose interval is kept `within` what is possible."""
    rows = [(profile, arm, str(seed), budget, *seeds[seed][1:], measure, *percent(value)) for seed, value in values.items()]
    size, calls = np.mean([seeds[seed][1:] for seed in values], axis=0).round().astype(int)
    mean = Estimate(*np.clip(over_seeds(list(values.values())), *within))
    return [*rows, (profile, arm, MEAN, budget, size, calls, measure, *percent(mean))]


def _way(found: dict[tuple, tuple], where: tuple, seeds: dict[int, tuple]) -> list[tuple]:
    """How much of the way from the target to the model trained on true labels audited goes, by seed; the interval of a seed is
    that of audited minus the ceiling, as a share of the way."""
    values = {}
    for seed, (right, *_) in seeds.items():
        top, base = (found.get((*key, GAP_ITEMS, seed)) for key in ((*where, CEILING), (where[0], "", 0, "none", NOTHING)))
        if top and base and (way := top[0].mean() - base[0].mean()) > 0:
            values[seed] = Estimate(*(1 + part / way for part in stats.paired_difference(right, top[0])))
    return _rows(where[0], WAY, where[3], seeds, GAP_ITEMS, values) if values else []


def break_even(runs: list[Run]) -> pd.DataFrame:
    """The number of target calls, the auditor's training included, from which on it has found more disagreements than as many
    random questions (COLUMNS, `score` in calls), by the rates of stage 02; infinite where its rate is not the higher one."""
    found = {}
    for run in runs:
        search = overall(pd.read_csv(paths.result(run.name, "02_probes") / "search.csv")).set_index("auditor")
        trained, chance = (search.loc[name, "disagrees"] / search.loc[name, "attempts"] for name in ("trained", "random"))
        calls = run.training * trained / (trained - chance) if trained > chance else np.inf
        found.setdefault(run.profile, {})[run.values["seed"]] = Estimate(calls, calls, calls)
    rows = []
    for profile, seeds in found.items():
        mean = over_seeds(list(seeds.values())) if np.isfinite([value for value, *_ in seeds.values()]).all() else (np.inf,) * 3
        rows += [(profile, AUDITED, seed, "none", 0, 0, BREAK_EVEN, *value) for seed, value in [*seeds.items(), (MEAN, mean)]]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seed": str}).round(0)


def means(rows: pd.DataFrame, measure: str, kind: str) -> pd.DataFrame:
    """The rows over all seeds of a measure at a kind of budget, with its `amount`, in its order within each profile."""
    kept = rows[(rows["seed"] == MEAN) & (rows["measure"] == measure) & rows["budget"].str.endswith(kind)]
    amount = kept["budget"].str.split(" ").str[0].astype(int)
    return kept.assign(amount=amount).sort_values(["profile", "amount", "arm"], ignore_index=True)


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """CLAIMS for each profile and budget that can test them, over all seeds: profile, claim, budget, score, ci_low, ci_high,
    verdict."""
    found = []
    for text, arm, measure, kind, least in CLAIMS:
        part = means(rows, measure, kind)
        for row in part[part["arm"] == arm].itertuples():
            estimate = Estimate(row.score, row.ci_low, row.ci_high)
            found.append((row.profile, text, row.budget, *estimate, claims.verdict_of(estimate, least, np.inf)))
    table = pd.DataFrame(found, columns=["profile", "claim", "budget", "score", "ci_low", "ci_high", "verdict"])
    return table.sort_values("profile", kind="stable", ignore_index=True)


def crossing(rows: pd.DataFrame) -> dict[str, int | None]:
    """For each profile the smallest budget of target calls from which on audited is ahead of failures found by chance inside the
    gaps, with an interval clear of zero at each larger one; None where there is none."""
    found = {}
    part = means(rows, GAP_ITEMS, CALLS)
    for profile, one in part[part["arm"] == f"{AUDITED} - {BY_CHANCE}"].groupby("profile"):
        ahead = None
        for row in one[::-1].itertuples():
            if row.ci_low <= 0:
                break
            ahead = row.amount
        found[profile] = ahead
    return found


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The table for people: a row for each profile, budget and arm, with the means over the seeds and their intervals."""
    mean = rows[(rows["seed"] == MEAN) & (rows["measure"] != BREAK_EVEN)]
    cells = mean.assign(text=[with_interval(Estimate(r.score, r.ci_low, r.ci_high)) for r in mean.itertuples()])
    wide = cells.pivot_table(index=["profile", "budget", "arm"], columns="measure", values="text", aggfunc="first", sort=False)
    calls = cells.groupby(["profile", "budget", "arm"], sort=False)[["examples", "target_calls"]].first()
    return calls.join(wide).reset_index().rename(columns={name: f"{name} % [95 % interval]" for name in wide.columns})


def markdown(rows: pd.DataFrame, profiles: list[str]) -> str:
    """Accuracy inside the gaps in percent over all seeds, in Markdown: a row for each of these profiles and budgets, a column for
    each arm."""
    lines = [f"| profile | budget | {' | '.join(LABEL.values())} |", "|---" * (2 + len(LABEL)) + "|"]
    for profile in profiles:
        mine = rows[rows["profile"] == profile]
        base = mine[(mine["arm"] == NOTHING) & (mine["seed"] == MEAN) & (mine["measure"] == GAP_ITEMS)]
        for kind in (EXAMPLES, CALLS):
            for (_, budget), part in means(mine, GAP_ITEMS, kind).groupby(["amount", "budget"]):
                at = pd.concat([part, base]).set_index("arm")
                cells = [f"{at.loc[arm, 'score']:.1f} ({at.loc[arm, 'ci_low']:.1f} to {at.loc[arm, 'ci_high']:.1f})"
                         if arm in at.index else "" for arm in LABEL]
                lines.append(f"| {profile} | {budget.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def load(file: Path) -> pd.DataFrame:
    """The rows of a rectification.csv, `seed` and `budget` as texts."""
    return pd.read_csv(file, dtype={"seed": str, "budget": str})


def in_words(rows: pd.DataFrame) -> list[str]:
    """One line for each finding: the differences at equal examples and at equal calls, by rarity of the gaps too, and where the
    audit is ahead."""
    said = []
    rarities = sorted(name for name in rows["measure"].unique() if name.startswith("gaps met"))
    for kind, measure in [(EXAMPLES, GAP_ITEMS), (CALLS, GAP_ITEMS), *((CALLS, name) for name in rarities)]:
        for row in means(rows, measure, kind).itertuples():
            if row.arm.startswith(f"{AUDITED} - ") and not row.arm.endswith(NOTHING):
                verdict = "ahead" if row.ci_low > 0 else "behind" if row.ci_high < 0 else "undecided"
                said.append(f"{row.profile}, {row.budget.replace('_', ' ')}, {measure}: {row.arm.replace('_', ' ')} "
                            f"{row.score:+.1f} points ({row.ci_low:+.1f} to {row.ci_high:+.1f}): {verdict}")
    for row in rows[(rows["measure"] == BREAK_EVEN) & (rows["seed"] == MEAN)].itertuples():
        said.append(f"{row.profile}: {BREAK_EVEN}: {row.score:,.0f} ({row.ci_low:,.0f} to {row.ci_high:,.0f})")
    for profile, calls in crossing(rows).items():
        said.append(f"{profile}: at equal target calls, training included, the audit is ahead of chance "
                    + (f"from {calls} calls on." if calls else "at none of the budgets."))
    return said


@figures.styled
def fig_rectification(rows: pd.DataFrame) -> figures.Figure:
    """Accuracy inside the gaps against the budget, in a column for each profile: examples above, target calls below; means over
    the seeds with intervals that cover seeds and items."""
    profiles = list(dict.fromkeys(rows["profile"]))
    figure = figures.blank(1.2 + 4 * len(profiles), 7)
    axes = figure.subplots(2, len(profiles), squeeze=False, sharey=True)
    look = dict(zip((DATASET, PROMPT_ONLY, AUDITED, CEILING, BY_CHANCE), zip(
        ("sky", "purple", "green", "black", "orange"), "svo^D", ("--", "--", "-", ":", "-."), strict=True), strict=True))
    for column, profile in enumerate(profiles):
        mine = rows[rows["profile"] == profile]
        base = mine.loc[(mine["arm"] == NOTHING) & (mine["seed"] == MEAN) & (mine["measure"] == GAP_ITEMS), "score"]
        for axis, kind in zip(axes[:, column], (EXAMPLES, CALLS), strict=True):
            part = means(mine, GAP_ITEMS, kind)
            for k, (arm, (colour, marker, line)) in enumerate(look.items()):
                own = part[part["arm"] == arm]
                if len(own):
                    x = own["amount"] * 1.03 ** (k - 2)  # side by side, so that the intervals do not cover each other
                    reach = [own["score"] - own["ci_low"], own["ci_high"] - own["score"]]
                    axis.errorbar(x, own["score"], reach, color=figures.OKABE[colour], marker=marker, linestyle=line, capsize=3,
                                  linewidth=1.4, markersize=5, label=LABEL[arm])
            for score in base:
                axis.axhline(score, color="#777777", linewidth=1, label=LABEL[NOTHING])
            axis.set(xscale="log", ylim=(-3, 103),
                     xlabel="examples" if kind == EXAMPLES else "target calls, the auditor's training included")
            ticks = sorted(set(part["amount"]))
            axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30, fontsize=8)
            axis.minorticks_off()
            axis.set_xlim(min(ticks, default=1) / 1.5, max(ticks, default=1) * 1.5)
            if not ticks:
                axis.text(0.5, 0.5, "not compared", ha="center", transform=axis.transAxes)
        axes[0, column].set_title(f"profile {profile}")
    for axis in axes[:, 0]:
        axis.set_ylabel("right inside the gaps (%)")
    found = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    order = [label for label in LABEL.values() if label in found]
    figure.legend([found[label] for label in order], order, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def write(runs: list[Run]) -> Path:
    """Write `figures/rectification/` from the finished cells of these runs: rectification.csv, claims.csv, table_rectification,
    fig_rectification and the manifest; the folder. Raises manifest.Stop where no cell is finished."""
    found = list(rectification_cells.scored(runs))
    if not found:
        raise manifest.Stop("No cell is finished yet: run the command again.")
    rows = pd.concat([table(found, shares_of(runs)), break_even(runs)], ignore_index=True)
    inputs = {f"{run.name}/arms/{cell.name}": manifest.load(run.folder(cell.name))["outputs_digest"] for run, cell, *_ in found}

    def fill(out: Path) -> None:
        rows.to_csv(out / f"{NAME}.csv", index=False)
        verdicts(rows).to_csv(out / "claims.csv", index=False)
        tables.write(shown(rows), out, f"table_{NAME}")
        figures.save(fig_rectification(rows), out, f"fig_{NAME}", f"testbed result, runs {', '.join(run.name for run in runs)}")
    return write_folder(NAME, inputs, fill)


def main(names: list[str], only: str = "") -> None:
    """Make the missing cells of the runs `names`, of both kinds of budget or of one, and write and say what they show."""
    try:
        runs = [rectification_cells.read(name) for name in dict.fromkeys(names)]
        rectification_cells.check(runs)
        rectification_cells.make(runs, only)
        folder = write(runs)
    except (manifest.Stop, ValueError) as problem:
        sys.exit(str(problem))
    rows = load(folder / f"{NAME}.csv")
    print(*in_words(rows), verdicts(rows).to_string(index=False), sep="\n")
    print(f"Figure and table: {folder}")


if __name__ == "__main__":
    kind, *given = sys.argv[1:]
    main(given, "" if kind == "both" else kind)
