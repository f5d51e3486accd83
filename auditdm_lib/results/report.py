"""report.html: one self-contained page for people. Model text reaches it through an escaping template only."""

from base64 import b64encode
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined

from auditdm_lib.audit.probes import overall
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.results import measures
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.results.tables import with_interval
from auditdm_lib.stats import Estimate, wilson

TEMPLATE = Path(__file__).with_name("report.html")
STRONG = 0.9  # a skill is called strong where the target is surely right at least so often
SHOWN = 24  # failure types with pictures; the table of all is table_categories.csv


def write(run: Artefacts, verdicts: pd.DataFrame, figures: Path, pictures: Path, note: str) -> Path:
    """Write report.html into `figures`, whose PNG files it embeds; `pictures` is the folder of 02_probes.

    `verdicts` is the claims table, `note` the line that says what kind of result this is.
    """
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text(encoding="utf-8"))
    table = verdicts.assign(tone=verdicts["verdict"].str.replace(" ", "-"))
    page = template.render(
        note=note, headline=headline(run), numbers=numbers(run), cards=cards(run, pictures), types=len(run.categories),
        figures={path.stem: data_uri(path) for path in sorted(figures.glob("fig*.png"))},
        claims=table.astype(object).where(table.notna(), None).to_dict("records"),
        counts=verdicts["verdict"].value_counts().to_dict(), caveats=caveats(run))
    path = figures / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def data_uri(picture: Path) -> str:
    """A PNG file as the text of a `src` attribute."""
    return "data:image/png;base64," + b64encode(picture.read_bytes()).decode()


def headline(run: Artefacts) -> dict[str, list[str]]:
    """What the target is strong and weak at, in words: skills (or suites) surely right, and the largest failure types."""
    mine = run.items[(run.items["model"] == "target") & (run.items["suite"] != GAP_ITEMS)]
    by = "skill" if "skill" in mine and mine["skill"].notna().any() else "suite"
    marks = mine.groupby(by)["correct"].agg(["sum", "size"])
    marks["low"] = [wilson(int(k), int(n))[0] for k, n in marks.itertuples(index=False)]
    strong = marks[marks["low"] >= STRONG].sort_values("low", ascending=False, kind="stable").index
    return {"strong": [str(name).replace("_", " ") for name in strong[:5]], "weak": run.categories["name"].head(3).tolist()}


def numbers(run: Artefacts) -> list[tuple[str, str]]:
    """The few numbers of the page's head: (what, value with interval)."""
    rows = []
    search = overall(run.search).set_index("auditor")
    for auditor, words in [("prompt_only", "untrained auditor"), ("trained", "trained auditor")]:
        if auditor in search.index and pd.notna(search.loc[auditor, "success"]):
            row = search.loc[auditor]
            success = Estimate(row["success"], row["ci_low"], row["ci_high"])
            rows.append((f"probes of the {words} that expose the target", with_interval(measures.percent(success)) + " %"))
    rows.append(("failure types found", f"{len(run.categories)}"))
    for model in ("target", "rectified", "control"):
        score = with_interval(measures.gap_score(run.items, model))
        if score:
            rows.append((f"held-out items inside the planted gaps answered right by {model}", score + " %"))
    for model in ("target", "rectified", "control"):
        rows.append((f"average of the suites, {model}", with_interval(measures.suite_average(run.items, model)) + " %"))
    return rows


def cards(run: Artefacts, pictures: Path, examples: int = 3) -> list[dict]:
    """The failure types for the page: name, description, size, and a few examples with their pictures."""
    probes = run.failures.set_index("probe_id")
    found = []
    for row in run.categories.head(SHOWN).itertuples():
        shown = probes.loc[row.example_probe_ids.split()[:examples]]
        found.append(dict(name=row.name, description=row.description, size=row.size, share=f"{100 * row.share:.0f}", examples=[
            dict(question=p.question, consensus=p.consensus, target=p.target_answer, picture=data_uri(pictures / p.image))
            for p in shown.itertuples()]))
    return found


def caveats(run: Artefacts) -> list[str]:
    """How this result can mislead, with this run's own numbers where it has them."""
    words = ["One run with one seed. The intervals are over items and probes; they do not cover other seeds of the training.",
             "“References agree” stands for the truth. A fault that all references share is taken for a fault of the target."]
    search = overall(run.search).set_index("auditor")
    if "trained" in search.index and pd.notna(search.loc["trained", "label_noise"]):
        row = search.loc["trained"]
        words.append(f"Here that happened in {int(row['label_noise'])} of {int(row['disagrees'])} disagreements of the trained "
                     "auditor (the consensus wrong, the target right).")
    else:
        words.append("No truth is known for these pictures, so a disagreement is a suspicion, not a verified failure.")
    if "trained" in search.index:
        words.append(f"The trained auditor has also used {int(search.loc['trained', 'training_calls']):,} calls of the target in "
                     "its training; the untrained one has used none.")
    words.append("Failure types are clusters of texts. They are named from their commonest question and answers, by counting, "
                 "and not yet confirmed on fresh probes.")
    if run.hits is not None:
        words.append("The target's gaps were planted, so they are systematic and separate. Those of a real model may be neither. "
                     "The paper's values stand beside this run's for orientation: other models, other pictures.")
    return words
