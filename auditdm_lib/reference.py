"""The tracked result behind the README: `python -m auditdm_lib.reference testbed` takes it from a finished run.

Copies claims, tables, figures (PNG) and the stages' manifests to `figures/reference/`, and from the run's `build_testbed`
notebook the galleries, the census of the world and the tables of its models; then writes every number of the README from
there. A test fails when the README says anything else.
"""

import shutil
import sys
from pathlib import Path

import pandas as pd

from auditdm_lib import manifest, paths

REFERENCE = paths.ROOT / "figures" / "reference"
README = paths.ROOT / "README.md"
BEGIN, END = "<!-- {}: python -m auditdm_lib.reference -->", "<!-- end of {} -->"  # of a part of the README that is written here


def collect(run: str, folder: Path = REFERENCE) -> None:
    """Replace `folder` by the result of a run. Raises manifest.Damaged where a stage is unfinished or altered."""
    results = [paths.result(run, step.folder) for step in paths.CHAIN]
    world = paths.result(run, "testbed")
    for result in (*results, world):
        manifest.verify(result)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "manifests").mkdir(parents=True)
    figures = paths.result(run, "figures")
    for file in sorted([*figures.glob("*.csv"), *figures.glob("*.png")]):
        shutil.copy(file, folder / file.name)
    for name in ("search.csv", "gap_hits.csv"):
        shutil.copy(paths.result(run, "02_probes") / name, folder / name)
    for file in sorted([*world.glob("*.csv"), *world.glob("*.png")]):
        shutil.copy(file, folder / file.name)
    for step, result in zip((*paths.CHAIN, paths.BUILD), (*results, world), strict=True):
        shutil.copy(result / "manifest.json", folder / "manifests" / f"{step.notebook}.json")


def numbers(folder: Path = REFERENCE) -> str:
    """The README's block of numbers: search success and the claims table, in Markdown."""
    search = pd.read_csv(folder / "search.csv").set_index(["auditor", "kind"])
    claims = pd.read_csv(folder / "claims.csv")
    lines = ["| auditor | kind of probe | verified failures / attempts | search success (95 % interval) | valid | planted gaps "
             "found |", "|---|---|---|---|---|---|"]
    for (name, kind), row in search.iterrows():
        lines.append(
            f"| {name.replace('_', ' ')} | {kind} | {row['verified_failures']:.0f} / {row['attempts']:.0f} "
            f"| {row['success']:.1%} ({row['ci_low']:.1%} to {row['ci_high']:.1%}) "
            f"| {1 - row['invalid'] / row['attempts']:.1%} | {row['gaps_found']:.0f} |")
    lines += ["", f"Ceiling (some question fails the target): {search['ceiling'].iloc[0]:.1%} of the pictures. The paper's "
              "figures, on real models: 21.4 % prompt-only, 91.1 % trained.", "",
              "| claim | paper | this run (95 % interval) | verdict |", "|---|---|---|---|"]
    for _, row in claims.iterrows():
        value = "" if pd.isna(row["run_value"]) else f"{row['run_value']:.2f} ({row['ci_low']:.2f} to {row['ci_high']:.2f})"
        paper = "" if pd.isna(row["paper_value"]) else f"{row['paper_value']:.2f}"
        lines.append(f"| {row['claim']} | {paper} | {value} | {row['verdict']} |")
    return "\n".join(lines)


def models(folder: Path = REFERENCE) -> str:
    """The README's table of the testbed's models, in Markdown."""
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


def fill(text: str, name: str, block: str) -> str:
    """`text` with the part between the markers of `name` replaced by `block`. Raises ValueError where a marker is missing."""
    begin, end = BEGIN.format(name), END.format(name)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"README.md must hold the markers {begin} and {end} once each.")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"


def main(run: str = "testbed") -> None:
    collect(run)
    text = fill(fill(README.read_text(encoding="utf-8"), "numbers", numbers()), "models", models())
    README.write_text(text, encoding="utf-8")
    size = sum(f.stat().st_size for f in REFERENCE.rglob("*") if f.is_file())
    print(f"figures/reference holds the run {run!r} ({size / 1e6:.1f} MB), and README.md its numbers.")


if __name__ == "__main__":
    main(*sys.argv[1:])
