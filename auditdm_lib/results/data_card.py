"""The data card of what a run found, in Markdown: what it is, how it was made, how often its answers are wrong."""

import pandas as pd
import yaml

from auditdm_lib import __version__, stats
from auditdm_lib.answers import same_answer
from auditdm_lib.results.found import Found
from auditdm_lib.shown import inert
from auditdm_lib.training.cards import model_name

CARD = """---
{head}---

# Failures of {target}

{n:,} questions about pictures on which the vision-language model {target} gives another answer than the consensus of its
references: {counts}. Found by an audit with the AuditDM kit {version} (run {run}, seed {seed}; the method is that of arXiv
2512.16921). They are what an audit looked for and no random sample of questions, so a model's score on them says nothing about
other questions.

## How it was made

{made}

In brackets: the beginning of the digest of its files, or of its commit on the hub.

Questions, and the captions and edit commands by which pictures were drawn anew, were written by the auditors in the column
`auditors`. Each picture and question is there once. {kinds}

## The answers are pseudo-labels

{error}

## Failure types

{types}

## Licence

The kit does not know the licence of the pictures, and a picture drawn after another is derived from it: find it out before you
pass this data set on. The texts were written by the models named above, whose licences may have terms about that.
"""


def card(found: Found, more: str = "") -> str:
    """The data card: what it is, how it was made, how far the answers can be trusted, the failure types by size, the licence;
    `more` is put at its end."""
    values, rows = found.record["key"]["parameters"], found.rows
    target = model_name(values["target"])
    head = {"license": "unknown", "pretty_name": f"Failures of {target} (AuditDM run {found.run})", "tags": ["auditdm"],
            "task_categories": ["visual-question-answering"],
            "configs": [{"config_name": "default", "data_files": [{"split": "test", "path": "data/test-*.parquet"}]}]}
    return CARD.format(
        head=yaml.safe_dump(head, sort_keys=False, allow_unicode=True), target=inert(target), n=len(rows), counts=_counts(rows),
        version=__version__, run=inert(found.run), seed=values["seed"], made=_made(found), kinds=_kinds(rows),
        error=label_error(found), types=_types(found)) + more


def _made(found: Found) -> str:
    """The models and pictures of a run, as a list in Markdown; each with the digest of its files or its commit, where known."""
    values, digests = found.record["key"]["parameters"], found.record["key"]["inputs"]

    def named(parameter: str, value: str) -> str:
        digest = digests.get(f"{parameter}: {value}")
        return model_name(value) + (f" ({digest[:12]})" if digest else "")

    made = {"target": named("target", values["target"]),
            "references": ", ".join(named("references", value) for value in values["references"]),
            "auditor before its training": named("auditor", values["auditor"]),
            "pictures": named("pictures", values["pictures"]), "consensus rule": values["consensus_rule"]}
    if (found.rows["kind"] != "question").any():
        drawers = [named(name, values[name]) for name in ("image_model", "edit_model") if values.get(name)]
        made["drawer of pictures"] = ", ".join([values["drawer"], *(drawers if values["drawer"] == "diffusion" else [])])
    if values.get("judge_model"):
        made["judge of answers"] = f"{named('judge_model', values['judge_model'])} (lmms-eval's task: by the normalised match)"
    return "\n".join(f"- {name}: {inert(text)}" for name, text in made.items())


def _counts(rows: pd.DataFrame) -> str:
    verified = int(rows["verified"].eq(True).sum())
    said = [f"{verified:,} verified failures"] if verified else []
    said += [f"{len(rows) - verified:,} suspicions, which nothing has verified"] if verified < len(rows) else []
    return " and ".join(said)


def label_error(found: Found) -> str:
    """What is known about the error of the consensus, in sentences: against the truth, and by people (`auditdm label`)."""
    said = ["The column `answer` is the consensus of the references, no truth; `truth` is the right answer where it is known."]
    known = found.rows[found.rows["truth"].notna()]
    if len(known):
        wrong = pd.Series([not same_answer(a, t) for a, t in known[["answer", "truth"]].itertuples(index=False)])
        rate = stats.clustered_proportion(stats.tally(wrong, known["source_image"].reset_index(drop=True)))
        said.append(f"Of the {len(known):,} probes with a known right answer the consensus is wrong in {percents(rate)}.")
    people = found.folder.parent / "labels" / "rates.csv"
    if people.is_file():
        rates = pd.read_csv(people)
        row = rates[(rates["measure"] == "consensus right where the target disagrees") & (rates["auditor"] == "all")].iloc[0]
        said.append(f"People found it right in {percents(stats.Estimate(row['value'], row['ci_low'], row['ci_high']))} of the "
                    f"probes on which the target disagrees (a sample of {int(row['labelled'])}).")
    if len(said) == 1:
        said.append("How often it is wrong was not measured: `auditdm label` draws a sample for people.")
    return " ".join(said)


def percents(rate: stats.Estimate) -> str:
    return f"{100 * rate.value:.1f} % (95 % interval {100 * rate.low:.1f} to {100 * rate.high:.1f})"


def _kinds(rows: pd.DataFrame) -> str:
    counts = rows["kind"].value_counts().sort_index()
    return f"By kind of probe: {', '.join(f'{kind} {n:,}' for kind, n in counts.items())}."


def _types(found: Found) -> str:
    """The failure types with their sizes as a table in Markdown."""
    if not found.typed:
        return "The failures were not grouped into types."
    given = found.rows["failure_type"]
    counts = given.value_counts().reset_index(name="n").sort_values(["n", "failure_type"], ascending=[False, True])
    lines = [f"| {inert(name)} | {n:,} |" for name, n in counts.itertuples(index=False)]
    lines += [f"| in no type | {given.isna().sum():,} |"] if given.isna().any() else []
    return "\n".join(["| type | probes |", "|---|---|", *lines])
