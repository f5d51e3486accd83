"""The tracked results in `figures/reference/`, taken from finished runs, and the tables of the two READMEs that show them.

`python -m auditdm_lib.results.reference testbed`: claims, tables, figures (PNG) and the stages' manifests of the run `testbed`.
`python -m auditdm_lib.results.reference models testbed`: the galleries, the census of the world and the tables of its models,
from the run's `build_testbed` notebook.
`python -m auditdm_lib.results.reference search full full-1`: the first two stages of long searches, a folder for each run in
`searches/`.
`python -m auditdm_lib.results.reference types testbed seed-1 null`: what stage 03 of these runs confirmed, a row of `types.csv`
each.
`python -m auditdm_lib.results.reference ablation ablation`: the comparison that `auditdm ablation` made.
`python -m auditdm_lib.results.reference arms rectification`: the comparison that `auditdm arms` made.
`python -m auditdm_lib.results.reference suites paligemma2 gemma3`: the scores of these runs, in `rectification.csv`.
`python -m auditdm_lib.results.reference readmes`: nothing new, only the READMEs.

Each command then writes the generated tables of `README.md` and `figures/reference/README.md`. A test fails where they differ
from the data.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd

from auditdm_lib import paths, stats
from auditdm_lib.audit.probes import overall
from auditdm_lib.results import claims, figures, paper_runs, rectification
from auditdm_lib.results.figures import OFTEN
from auditdm_lib.results.paper_figures import FAMILIES
from auditdm_lib.run import manifest
from auditdm_lib.taxonomy.confirm import UNDERPOWERED

REFERENCE = paths.ROOT / "figures" / "reference"
SEARCHES = REFERENCE / "searches"
README = paths.ROOT / "README.md"
LONG_README = REFERENCE / "README.md"
LONG = "full"  # the profile of the long search
BEGIN, END = "<!-- {}: python -m auditdm_lib.results.reference -->", "<!-- end of {} -->"  # around each generated block


def collect(run: str, folder: Path = REFERENCE) -> None:
    """Replace what is tracked of a run. Raises manifest.Damaged where a stage is unfinished or altered."""
    results = {step.notebook: paths.result(run, step.folder) for step in paths.CHAIN}
    _keep_manifests(results, folder)
    for file in [*folder.glob("fig*.png"), *folder.glob("table_*.csv")]:
        file.unlink()
    drawn, probes, types = (paths.result(run, name) for name in ("figures", "02_probes", "03_taxonomy"))
    found = [types / name for name in ("confirmation.csv", "recovered.csv", "unseen.csv")]
    for file in [*drawn.glob("*.csv"), *drawn.glob("*.png"), probes / "search.csv", probes / "gap_hits.csv", *found]:
        shutil.copy(file, folder / file.name)


def collect_models(run: str, folder: Path = REFERENCE) -> None:
    """Replace what is tracked of the world and its models. Raises manifest.Damaged where they are unfinished or altered."""
    world = paths.result(run, paths.BUILD.folder)
    _keep_manifests({paths.BUILD.notebook: world}, folder)
    for file in [*world.glob("*.csv"), *world.glob("*.png")]:
        shutil.copy(file, folder / file.name)


def _keep_manifests(results: dict[str, Path], folder: Path) -> None:
    for result in results.values():
        manifest.verify(result)
    (folder / "manifests").mkdir(parents=True, exist_ok=True)
    for notebook, result in results.items():
        shutil.copy(result / "manifest.json", folder / "manifests" / f"{notebook}.json")


def collect_ablation(run: str, folder: Path = REFERENCE) -> None:
    """Replace what is tracked of the comparison of the ablation's runs. Raises manifest.Damaged where it is altered."""
    drawn = paths.result(run, "figures")
    manifest.verify(drawn)
    (folder / run).mkdir(parents=True, exist_ok=True)
    for file in [*drawn.glob("*.csv"), *drawn.glob("*.png"), drawn / "manifest.json"]:
        shutil.copy(file, folder / run / file.name)


def collect_arms(name: str, folder: Path = REFERENCE) -> None:
    """Replace what is tracked of the comparison of arms: the rows of its profiles in `rectification.csv`, and its claims, table
    and figure. Raises manifest.Damaged where it is altered."""
    drawn = paths.result(name, "figures")
    manifest.verify(drawn)
    _replace_profiles(rectification.load(drawn / f"{rectification.NAME}.csv"), folder)
    (folder / name).mkdir(parents=True, exist_ok=True)
    for file in [drawn / "claims.csv", *drawn.glob("table_*.csv"), *drawn.glob("*.png"), drawn / "manifest.json"]:
        shutil.copy(file, folder / name / file.name)


def collect_suites(run: str, folder: Path = REFERENCE) -> None:
    """Replace the rows of a run on the paper's suites in `rectification.csv`. Raises manifest.Stop where a stage is missing."""
    rows = paper_runs.rows(run, pd.read_csv(paths.PAPER_VALUES))
    _replace_profiles(rows.astype({"seed": str, "budget": str}), folder)


def _replace_profiles(rows: pd.DataFrame, folder: Path) -> None:
    """Put rows into `rectification.csv` in the place of all those of their profiles."""
    file = folder / f"{rectification.NAME}.csv"
    old = rectification.load(file) if file.exists() else rows.head(0)
    old = old[~old["profile"].isin(rows["profile"])]
    table = pd.concat([old, rows]) if len(old) else rows
    table.sort_values("profile", kind="stable").to_csv(file, index=False)


def collect_types(run: str, folder: Path = REFERENCE) -> None:
    """Replace the row of a run in `types.csv`. Raises manifest.Damaged where its stage 03 is unfinished or altered."""
    stage, file = paths.result(run, "03_taxonomy"), folder / "types.csv"
    manifest.verify(stage)
    record = manifest.load(stage)
    asked, marks = pd.read_csv(stage / "confirmation.csv"), pd.read_csv(stage / "confirmed_marks.csv")
    row = marks.assign(run=run, seed=record["key"]["parameters"]["seed"], types=len(asked), fresh_probes=asked["probes"].sum(),
                       underpowered=(asked["verdict"] == UNDERPOWERED).sum(), seconds=record["timing"]["wall_seconds"])
    old = _rows_of_types(file).query("run != @run") if file.exists() else row.head(0)
    table = pd.concat([old, row]) if len(old) else row
    table[["run", "seed", *(name for name in table if name not in ("run", "seed"))]].sort_values("run").to_csv(file, index=False)


def _rows_of_types(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, keep_default_na=False, na_values=[""])  # a run may be named null


def types(folder: Path = REFERENCE) -> str:
    """What stage 03 confirmed, run by run, in Markdown."""
    lines = ["| run | seed | failure types | confirmed on fresh pictures | underpowered | of the confirmed, truly weaker (95 % "
             "interval) | planted gaps recovered (95 % interval) | confirmed, in no planted gap | seconds |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in _rows_of_types(folder / "types.csv").itertuples():
        true = f"{row.precision:.1%} ({row.precision_low:.1%} to {row.precision_high:.1%})" if row.confirmed else ""
        lines.append(f"| {row.run} | {row.seed} | {row.types} | {row.confirmed} | {row.underpowered} | {true} "
                     f"| {row.recovered} of {row.planted}: {row.recall:.1%} ({row.recall_low:.1%} to {row.recall_high:.1%}) "
                     f"| {row.natural_gaps} | {row.seconds:.0f} |")
    return "\n".join(lines)


def collect_search(run: str, folder: Path = SEARCHES) -> None:
    """Replace what is tracked of a long search. Raises manifest.Damaged where stage 01 or 02 is unfinished or altered."""
    auditor, probes = paths.result(run, "01_auditor"), paths.result(run, "02_probes")
    for result in (auditor, probes):
        manifest.verify(result)
    shutil.rmtree(folder / run, ignore_errors=True)
    (folder / run).mkdir(parents=True)
    for file in (auditor / "history.csv", *(probes / name for name in ("search.csv", "gap_hits.csv", "timing.csv"))):
        shutil.copy(file, folder / run / file.name)
    for result in (auditor, probes):
        record = manifest.load(result)  # without the hashes of thousands of pictures, which its digest of the outputs covers
        record["outputs"] = {name: value for name, value in record["outputs"].items() if not name.startswith("images/")}
        (folder / run / f"{result.name}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    search, hits = pd.read_csv(probes / "search.csv"), pd.read_csv(probes / "gap_hits.csv")
    if search["auditor"].str.startswith("plain").any():
        drawn = figures.fig_coverage(search, hits)
        figures.save(drawn, folder / run, "fig_coverage", f"testbed result, run {run!r}")
        (folder / run / "fig_coverage.pdf").unlink()  # the tracked figures are PNG


def searches(folder: Path = SEARCHES) -> str:
    """Success and coverage of the long searches, in Markdown: a table for each profile with the mean over its seeds.

    The seeds of a profile are the runs NAME, NAME-1 and so on. Intermediate checkpoints are left to `fig_coverage`.
    """
    rows = _long_searches(folder)
    return "\n\n".join(_search_table(runs) for _, runs in rows.groupby("profile"))


def _long_searches(folder: Path) -> pd.DataFrame:
    rows = pd.concat([_search_rows(path) for path in sorted(folder.iterdir())])
    rows = rows.assign(profile=rows["run"].str.replace(r"-\d+$", "", regex=True))
    return rows[~rows["auditor"].str.contains(r"\d{6}")]


def _search_table(runs: pd.DataFrame) -> str:
    """The searches of one profile as a table, followed by the ceilings and the gaps that were seldom found."""
    lone = bool(runs["lone"].any())
    coverage = "found in, of the pictures that can show the gap" if lone else f"gaps found at least {OFTEN} times"
    lines = [f"| run | seed | minutes | T | auditor | search success (95 % interval) | valid | {coverage} "
             "| calls of the target in training |", "|---|---|---|---|---|---|---|---|---|"]
    for row in runs.itertuples():
        lines.append(f"| {row.run} | {row.seed} | {row.minutes:.0f} | {row.temperature:g} | {row.auditor.replace('_', ' ')} "
                     f"| {row.success:.1%} ({row.ci_low:.1%} to {row.ci_high:.1%}) | {row.valid:.1%} | {row.coverage} "
                     f"| {row.training_calls:,.0f} |")
    columns = ["minutes", "success", "valid", "covered", "training_calls"]
    for auditor, rows in runs.groupby("auditor", sort=False):
        if len(rows) > 1:
            minutes, success, valid, covered, calls = rows[columns].mean()
            lines.append(f"| mean of {len(rows)} | | {minutes:.0f} | | {auditor.replace('_', ' ')} | {success:.1%} | {valid:.1%} "
                         f"| {covered:{'.1%' if lone else '.1f'}} | {calls:,.0f} |")
    ceilings = "; ".join(_ceiling(row.ceiling, row.ceiling_pictures) for row in runs.drop_duplicates("run").itertuples())
    lines += ["", f"Ceiling (pictures about which some question exposes the target), run by run: {ceilings}."]
    if not lone:
        missed = runs[runs["auditor"] == "trained"].set_index("run")["missed"]
        named = "; ".join(f"{run}: {gaps}" for run, gaps in missed.items())
        lines += ["", f"Gaps that the trained auditor found fewer than {OFTEN} times, with its hits (and, in brackets, how many "
                  f"pictures can show them): {named}."]
    return "\n".join(lines)


def arms(folder: Path = REFERENCE) -> str:
    """What audited and other data are worth, in Markdown: accuracy inside the gaps by arm and budget, and the claims."""
    table = pd.read_csv(folder / rectification.NAME / "claims.csv")
    rows = rectification.load(folder / f"{rectification.NAME}.csv")
    lines = [rectification.markdown(rows, list(table["profile"].unique())), "",
             "| claim | profile | budget | mean of the seeds (95 % interval) | verdict |", "|---|---|---|---|---|"]
    lines += [f"| {row.claim} | {row.profile} | {row.budget.replace('_', ' ')} "
              f"| {row.score:.1f} ({row.ci_low:.1f} to {row.ci_high:.1f}) | {row.verdict} |" for row in table.itertuples()]
    return "\n".join(lines)


def suites(folder: Path = REFERENCE) -> str:
    """The paper's experiments in miniature, in Markdown: the mean of the eight suites of each family by model, and how far the
    rectified model is above each other one."""
    rows = rectification.load(folder / f"{rectification.NAME}.csv")
    lines = ["| profile | suites of | model | mean of 8 suites (95 % interval) | rectified minus it, points | fine-tuned on |",
             "|---|---|---|---|---|---|"]
    for mean in (f"{paper_runs.MEAN} of 8 suites, {family}" for family in FAMILIES):
        above = rows[rows["measure"].str.endswith(f"this, {mean}")].set_index(["profile", "arm"])
        for row in rows[rows["measure"] == mean].itertuples():
            gain = above.loc[(row.profile, row.arm)] if (row.profile, row.arm) in above.index else None
            shown = "" if gain is None else f"{gain['score']:+.1f} ({gain['ci_low']:+.1f} to {gain['ci_high']:+.1f})"
            lines.append(f"| {row.profile} | {mean.rpartition(' ')[2]} | {row.arm.replace('_', ' ')} | {row.score:.1f} "
                         f"({row.ci_low:.1f} to {row.ci_high:.1f}) | {shown} | {f'{row.examples:,}' if row.examples else ''} |")
    return "\n".join([*lines[:2], *sorted(lines[2:], key=lambda line: line.split("|")[1:3])])


def _ceiling(share: float, n: int) -> str:
    estimate = stats.proportion(round(share * n), n)
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%}) of {n} pictures"


def _search_rows(folder: Path) -> pd.DataFrame:
    """One long search, a row per auditor.

    `found` is the number of gaps with at least one hit. `covered` is the number with OFTEN hits or, where the target has a
    single gap, the share of the pictures showing it in which it was found; `coverage` is the same in words. `missed` names the
    gaps with fewer hits.
    """
    auditor, probes = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("01_auditor.json", "02_probes.json"))
    search, hits = overall(pd.read_csv(folder / "search.csv")), pd.read_csv(folder / "gap_hits.csv").groupby("auditor")
    lone, rows, missed, at_least_once = all(len(mine) == 1 for _, mine in hits), [], [], []
    for name in search["auditor"]:
        mine = hits.get_group(name)
        at_least_once.append((mine["hits"] > 0).sum())
        often, (found, shown) = (mine["hits"] >= OFTEN).sum(), mine[["found_in", "can_show"]].iloc[0]
        share = stats.proportion(int(found), int(shown))
        rows.append((share.value, f"{found} / {shown}: {share.value:.1%} ({share.low:.1%} to {share.high:.1%})") if lone else
                    (often, f"{often} of {len(mine)}"))
        seldom = mine[mine["hits"] < OFTEN].sort_values(["hits", "gap"])
        missed.append(", ".join(f"{row.gap}, {row.hits} ({row.can_show})" for row in seldom.itertuples()) or "none")
    search[["covered", "coverage"]], search["missed"], search["found"] = rows, missed, at_least_once
    return search.assign(
        run=folder.name, lone=lone, seed=auditor["key"]["parameters"]["seed"], valid=1 - search["invalid"] / search["attempts"],
        temperature=probes["key"]["parameters"]["probe_temperature"],
        ceiling_pictures=probes["key"]["parameters"]["ceiling_pictures"],
        minutes=(auditor["timing"]["wall_seconds"] + probes["timing"]["wall_seconds"]) / 60)


def numbers(folder: Path = REFERENCE) -> str:
    """Search success by kind of probe, and the claims table, in Markdown."""
    search = pd.read_csv(folder / "search.csv").set_index(["auditor", "kind"])
    table = pd.read_csv(folder / "claims.csv")
    lines = ["| auditor | kind of probe | verified failures / attempts | search success (95 % interval) | valid | planted gaps "
             "found |", "|---|---|---|---|---|---|"]
    for (name, kind), row in search.iterrows():
        lines.append(
            f"| {name.replace('_', ' ')} | {kind} | {row['verified_failures']:.0f} / {row['attempts']:.0f} "
            f"| {row['success']:.1%} ({row['ci_low']:.1%} to {row['ci_high']:.1%}) "
            f"| {1 - row['invalid'] / row['attempts']:.1%} | {row['gaps_found']:.0f} |")
    made = json.loads((folder / "manifests/02_generate_probes.json").read_text(encoding="utf-8"))["key"]["parameters"]
    ceiling = _ceiling(search["ceiling"].iloc[0], made["ceiling_pictures"])
    lines += ["", f"Ceiling (pictures about which some question exposes the target): {ceiling}.", "",
              _coverage(pd.read_csv(folder / "gap_hits.csv")), "", "| claim | paper | this run (95 % interval) | verdict |",
              "|---|---|---|---|"]
    for _, row in table.iterrows():
        value = "" if pd.isna(row["run_value"]) else f"{row['run_value']:.2f}"
        value += f" ({row['ci_low']:.2f} to {row['ci_high']:.2f})" if row["ci_low"] < row["ci_high"] else ""  # else a count
        paper = "" if pd.isna(row["paper_value"]) else f"{row['paper_value']:.2f}"
        lines.append(f"| {row['claim']} | {paper} | {value} | {row['verdict']} |")
    return "\n".join(lines)


def _coverage(hits: pd.DataFrame) -> str:
    """How evenly the trained auditor finds the planted gaps, in a sentence."""
    table = hits.pivot(index="gap", columns="auditor", values="hits")
    trained = table["trained"].sort_values(ascending=False)
    return (f"The three gaps that the trained auditor hits most hold {trained[:3].sum() / trained.sum():.0%} of its hits inside "
            f"gaps; {(table['trained'] < table['prompt_only']).sum()} of the {len(table)} gaps it finds less often than the "
            "prompt-only auditor does.")


def models(folder: Path = REFERENCE) -> str:
    """The accuracy of the testbed's models, in Markdown."""
    accuracy = pd.read_csv(folder / "accuracy.csv").set_index(["model", "skill"])
    inside = pd.read_csv(folder / "gaps.csv").query("when == 'after'")
    failures = pd.read_csv(folder / "failures.csv").set_index(["model", "gap"])

    def shown(row: pd.Series, value: str = "accuracy") -> str:
        return f"{row[value]:.1%} ({row['ci_low']:.1%} to {row['ci_high']:.1%})"

    lines = ["| clean model | right (95 % interval) | says \"cannot tell\" where it should | is right to say so |",
             "|---|---|---|---|"]
    lines += [f"| {name} | {shown(accuracy.loc[name, 'all'])} | {shown(accuracy.loc[name, 'cannot tell: recall'])} "
              f"| {shown(accuracy.loc[name, 'cannot tell: precision'])} |" for name in accuracy.index.unique("model")]
    lines += ["", "| planted model | gaps | right inside the worst planted of them | right outside | wrong on random answerable "
              "questions |", "|---|---|---|---|---|"]
    for name, rows in inside.groupby("model", sort=False):
        gaps, outside = rows[rows["skill"] != "outside"], rows[rows["skill"] == "outside"].iloc[0]
        lines.append(f"| {name} | {len(gaps)} | {shown(gaps.loc[gaps['accuracy'].idxmax()])} | {shown(outside)} "
                     f"| {shown(failures.loc[name, 'all'], 'share_of_questions')} |")
    lines += ["", "| consensus of the default references | share (95 % interval) |", "|---|---|"]
    lines += [f"| {row['skill']} | {shown(row)} |" for _, row in pd.read_csv(folder / "consensus.csv").iterrows()]
    return "\n".join(lines)


def summary(folder: Path = REFERENCE) -> str:
    """The table of main results, in Markdown: search success with the gaps found, and accuracy before and after rectifying."""
    search, hits = overall(pd.read_csv(folder / "search.csv")), pd.read_csv(folder / "gap_hits.csv")
    scores = pd.read_csv(folder / "table_scores.csv").set_index("model")
    often = (hits["hits"] >= OFTEN).groupby(hits["auditor"]).sum()
    seeds = _long_searches(folder / "searches").query("profile == @LONG and auditor == 'trained'")
    paper = {"prompt_only": _printed("search_success", "prompt-only auditor"), "trained": _printed("search_success", "AuditDM")}
    averages = {"target": _printed("fig2_average", "PaliGemma2-3B"),
                "rectified": _printed("fig2_average", "PaliGemma2-3B + AuditDM")}
    lines = [f"| measure | testbed result (95 % interval) | gaps found, of {hits['gap'].nunique()} | found {OFTEN} times or more "
             "| paper, real models |", "|---|---|---|---|---|"]
    lines += [f"| search success: {row.auditor.replace('_', ' ')} | {row.success:.1%} ({row.ci_low:.1%} to {row.ci_high:.1%}) "
              f"| {row.gaps_found:.0f} | {often[row.auditor]} | {paper.get(row.auditor, '')} |" for row in search.itertuples()]
    lines.append(f"| search success: trained, long search | mean of {len(seeds)} seeds {seeds['success'].mean():.1%} "
                 f"({seeds['success'].min():.1%} to {seeds['success'].max():.1%}) | {seeds['found'].mean():.1f} "
                 f"| {seeds['covered'].mean():.1f} | {paper['trained']} |")
    for column, words, beside in [("gap-items", "accuracy inside the gaps", {}),
                                  ("average of suites", f"average of {len(scores.columns) - 2} suites", averages)]:
        for model in ("target", "rectified", "control"):
            value, low, high = re.findall(r"[\d.]+", scores.loc[model, column])
            lines.append(f"| {words}: {model} | {value}% ({low}% to {high}%) | | | {beside.get(model, '')} |")
    seeds = _rows_of_types(folder / "types.csv").query("~run.str.startswith('null')")
    table = pd.read_csv(folder / "claims.csv")
    lost = table[table["claim"] == claims.CLAIMS["beats_control_on_gaps"].text].iloc[0]
    hold, fail, open_, rest = ((table["verdict"] == verdict).sum() for verdict in claims.VERDICTS)
    lines += ["", f"{_coverage(hits)} Rectified minus control inside the gaps: {lost['run_value']:.1f} points "
              f"({lost['ci_low']:.1f} to {lost['ci_high']:.1f}). Failure types confirmed on fresh pictures, in {len(seeds)} "
              f"seeds: {', '.join(f'{row.confirmed} of {row.types}' for row in seeds.itertuples())}; of the planted gaps they "
              f"recover {', '.join(f'{row.recovered}' for row in seeds.itertuples())}. Of {len(table)} claims {hold} hold, "
              f"{fail} do not hold, {open_} are undecided, and {rest} are not tested by this run."]
    return "\n".join(lines)


def _printed(item: str, series: str) -> str:
    """A percentage that the paper prints. Raises ValueError where `paper_values.csv` does not hold it exactly once."""
    table = pd.read_csv(paths.PAPER_VALUES)
    value, = table.loc[(table["item"] == item) & (table["series"] == series), "value"]
    return f"{value:.1f}%"


def fill(text: str, name: str, block: str) -> str:
    """`text` with the part between the markers of `name` replaced by `block`. Raises ValueError where a marker is missing."""
    begin, end = BEGIN.format(name), END.format(name)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"The README must hold the markers {begin} and {end} once each.")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"


def blocks() -> dict[Path, dict[str, str]]:
    """The generated blocks of each README, by name."""
    long = dict(numbers=numbers(), types=types(), rectification=arms(), suites=suites(), searches=searches(), models=models())
    return {README: dict(summary=summary()), LONG_README: long}


def filled() -> dict[Path, str]:
    """The text that each README should have: its present text with the generated blocks of today's data."""
    texts = {}
    for path, parts in blocks().items():
        texts[path] = path.read_text(encoding="utf-8")
        for name, block in parts.items():
            texts[path] = fill(texts[path], name, block)
    return texts


def main(arguments: list[str]) -> None:
    if arguments == ["readmes"]:
        what, runs = "run", []
    else:
        what, *runs = arguments if len(arguments) > 1 else ["run", *(arguments or ["testbed"])]
    for run in runs:
        dict(run=collect, models=collect_models, search=collect_search, types=collect_types,
             ablation=collect_ablation, arms=collect_arms, suites=collect_suites)[what](run)
    for path, text in filled().items():
        path.write_text(text, encoding="utf-8")
    size = sum(f.stat().st_size for f in REFERENCE.rglob("*") if f.is_file())
    print(f"The READMEs are written. Collected: {', '.join(runs) or 'nothing'}. figures/reference holds {size / 1e6:.1f} MB.")


if __name__ == "__main__":
    main(sys.argv[1:])
