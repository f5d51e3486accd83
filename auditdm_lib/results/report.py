"""report.html: a self-contained page for readers. The template escapes all text, since parts of it come from models."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined
from PIL import Image

from auditdm_lib.audit.probes import overall
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.results import findings, measures
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.results.measures import with_interval
from auditdm_lib.stats import Estimate, wilson
from auditdm_lib.taxonomy.confirm import CONFIRMED

TEMPLATE = Path(__file__).with_name("report.html")
STRONG = 0.9  # a skill is called strong if the lower bound of the target's accuracy is at least this
LARGEST_SHOWN = 480  # pixels of a probe's picture
SHOWN = 24  # failure types shown with pictures; table_categories.csv lists all


def write(run: Artefacts, verdicts: pd.DataFrame, figures: Path, pictures: Path, note: str) -> Path:
    """Write report.html into the folder `figures`, whose PNG files it embeds; `pictures` is the folder of 02_probes.

    `verdicts` is the claims table, `note` a line that states what kind of result this is. Where no truth verified the failures,
    the page speaks of suspicions, and leads with how often the references agree.
    """
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text(encoding="utf-8"))
    table = verdicts.assign(tone=verdicts["verdict"].str.replace(" ", "-"))
    page = template.render(
        note=note, verified=run.verified, words=findings.words(run), agreement=findings.agreement(run), cost=findings.cost(run),
        advice=findings.advice(run), headline=headline(run), numbers=numbers(run), cards=cards(run, pictures),
        types=len(run.categories), pairs=findings.pairs(run), drawings=findings.drawings(run),
        figures={path.stem: data_uri(path) for path in sorted(figures.glob("fig*.png"))},
        claims=table.astype(object).where(table.notna(), None).to_dict("records"),
        counts=verdicts["verdict"].value_counts().to_dict(), suites=run.suites_scored,
        rectified="rectified" in set(run.items["model"]), caveats=caveats(run))
    path = figures / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def data_uri(picture: Path) -> str:
    """A PNG file as a data URI, for a `src` attribute."""
    return "data:image/png;base64," + b64encode(picture.read_bytes()).decode()


def small_data_uri(picture: Path) -> str:
    """As `data_uri`, but a photograph is made as small as the page shows it, so that the page can still be sent."""
    with Image.open(picture) as image:
        if max(image.size) <= LARGEST_SHOWN:
            return data_uri(picture)
        image.thumbnail((LARGEST_SHOWN, LARGEST_SHOWN))
        file = BytesIO()
        image.convert("RGB").save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + b64encode(file.getvalue()).decode()


def headline(run: Artefacts) -> dict[str, list[str]]:
    """The target's strengths (skills or suites with a lower bound of at least STRONG) and weaknesses (largest failure types);
    where nothing was verified, the largest types with how sure they are, and no strengths."""
    if not run.verified:
        largest = run.categories.head(3).itertuples()
        return {"strong": [], "weak": [f"{row.name}: {certainty(run, row.category)}" for row in largest]}
    mine = run.items[(run.items["model"] == "target") & (run.items["suite"] != GAP_ITEMS)]
    by = "skill" if "skill" in mine and mine["skill"].notna().any() else "suite"
    if not run.suites_scored:
        mine = mine.head(0)
    marks = mine.groupby(by)["correct"].agg(["sum", "size"])
    marks["low"] = [wilson(int(k), int(n))[0] for k, n in marks.itertuples(index=False)]
    strong = marks[marks["low"] >= STRONG].sort_values("low", ascending=False, kind="stable").index
    return {"strong": [str(name).replace("_", " ") for name in strong[:5]], "weak": run.categories["name"].head(3).tolist()}


def numbers(run: Artefacts) -> list[tuple[str, str]]:
    """The main numbers, for the top of the page: (what, value with interval)."""
    rows = []
    search = overall(run.search).set_index("auditor")
    for auditor, words in [("prompt_only", "untrained auditor"), ("trained", "trained auditor")]:
        if auditor not in search.index:
            continue
        row = search.loc[auditor]
        if pd.notna(row["success"]):
            success = Estimate(row["success"], row["ci_low"], row["ci_high"])
            among = "" if run.verified else f" among the {int(row['verifiable'])} probes whose answer is known"
            rows.append((f"search success of the {words}{among}", with_interval(measures.percent(success)) + " %"))
        if not run.verified:
            rate = measures.rates(search.loc[[auditor]], verified=False)[0]
            rows.append((f"disagreements per probe of the {words}, not verified", with_interval(rate) + " %"))
    rows.append((f"{findings.words(run)['types']} found", f"{len(run.categories)}"))
    if run.confirmation is not None:
        sure = int((run.confirmation["verdict"] == CONFIRMED).sum())
        rows.append((f"{findings.words(run)['types']} confirmed on fresh pictures", f"{sure} of {len(run.confirmation)}"))
    if not run.suites_scored:
        return rows + findings.held_out(run)
    for model in ("target", "rectified", "control"):
        score = with_interval(measures.gap_score(run.items, model))
        if score:
            rows.append((f"accuracy on held-out items inside the planted gaps, {model}", score + " %"))
    for model in [model for model in ("target", "rectified", "control") if model in set(run.items["model"])]:
        rows.append((f"average score of the suites, {model}", with_interval(measures.suite_average(run.items, model)) + " %"))
    return rows


def certainty(run: Artefacts, category: int) -> str:
    sure = findings.certainty(run.failures[run.failures["category"] == category], run)
    if run.confirmation is None:
        return sure
    row = run.confirmation.set_index("category").loc[category]
    again = f"on {row['probes']} fresh pictures the target alone was wrong {row['target_wrong']} times"
    return f"{sure}; {again if row['probes'] else 'no fresh picture showed it again'} ({row['verdict']})"


def cards(run: Artefacts, pictures: Path, examples: int = 3) -> list[dict]:
    """The failure types shown on the page: name, description, size, share, and a few examples with their pictures."""
    probes = run.failures.set_index("probe_id")
    found = []
    for row in run.categories.head(SHOWN).itertuples():
        shown = probes.loc[row.example_probe_ids.split()[:examples]]
        sure = certainty(run, row.category)
        found.append(dict(name=row.name, description=row.description, sure=sure, share=f"{100 * row.share:.0f}", examples=[
            dict(question=p.question, consensus=p.consensus, target=p.target_answer, picture=small_data_uri(pictures / p.image))
            for p in shown.itertuples()]))
    return found


def caveats(run: Artefacts) -> list[str]:
    """How this result can mislead, with the numbers of this run where they are known."""
    words = ["This is one run with one seed. The intervals are over items and probes; they do not cover other training seeds.",
             "The consensus of the references replaces the truth. An error that all references share counts as a "
             f"{findings.words(run)['one']} of the target."]
    search = overall(run.search).set_index("auditor")
    if "trained" in search.index and search.loc["trained", "disagreements_known"] > 0:
        row = search.loc["trained"]
        words.append(f"In this run that happened in {row['label_noise']:.0f} of {row['disagreements_known']:.0f} disagreements "
                     "of the trained auditor with a known answer (the consensus wrong, the target right).")
    if not run.verified:
        words.append("The truth about these pictures is not known in full, so a disagreement is a suspicion and may be the "
                     "references' error.")
    if "trained" in search.index:
        words.append(f"The training of the trained auditor has used {int(search.loc['trained', 'training_calls']):,} calls of "
                     "the target in addition; the untrained auditor has used none.")
    words.append(f"{findings.words(run)['types'].capitalize()} are clusters of texts. They are named after their most common "
                 "question and answers" + (", and were not asked again on fresh pictures." if run.confirmation is None else "."))
    if not run.suites_scored:
        words.append("Agreement with the references says how alike two models are, not who is right: a model that has learned "
                     "their errors agrees more.")
    if run.hits is not None:
        words.append("The target's gaps were planted, so they are systematic and separate. The weaknesses of a real model may be "
                     "neither. The paper's values are shown for orientation only: they are for other models and pictures.")
    return words
