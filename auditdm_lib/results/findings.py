"""What a run found, in sentences for the report: how often the references agree, how sure a type of failure is, what the search
cost, and what to do first. A disagreement that nothing verified is called a suspicion."""

import pandas as pd

from auditdm_lib.answers import same_answer
from auditdm_lib.audit.pairs import OTHER_SEED, RE_ENCODED
from auditdm_lib.audit.probes import attempted, overall
from auditdm_lib.results import drawn, measures
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.results.measures import percent, with_interval
from auditdm_lib.stats import Estimate, clustered_proportion, tally

LOW = 50  # % of the probes: references that agree on fewer are probably unfit for the pictures


def words(run: Artefacts) -> dict[str, str]:
    """What disagreements and their types are called: failures where a truth verified them, else suspicions."""
    if run.verified:
        return dict(one="failure", many="failures", type="failure type", types="failure types")
    return dict(one="suspicion", many="suspicions", type="type of suspicion", types="types of suspicion")


def counted(n: int, one: str, many: str = "") -> str:
    """'1 picture', '1,200 pictures'."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def references_agree(probes: pd.DataFrame) -> tuple[int, int, Estimate]:
    """Probes with a consensus, the attempted probes on which every member was asked, and the share in percent, clustered by
    picture."""
    asked = attempted(probes)
    asked = asked[asked["in_full"].astype(bool)]
    agreed = asked["consensus"].notna()
    return int(agreed.sum()), len(asked), percent(clustered_proportion(tally(agreed, asked["source_image"])))


def single_reference(run: Artefacts) -> bool:
    return bool(run.probes["reference_answers"].map(len).max() == 1)


def unfit(run: Artefacts) -> bool:
    """Whether the references agree on less than half of the probes."""
    return references_agree(run.probes)[2].value < LOW


def agreement(run: Artefacts) -> tuple[str, str]:
    """How often the references agree, and a warning or ""."""
    if single_reference(run):
        return ("There is one reference, and its answer alone counts as the consensus.",
                "" if run.verified else "Nothing shows whether the only reference is fit for these pictures; a second one would.")
    agreed, asked, share = references_agree(run.probes)
    if not asked:
        return "No probe was put to all references, so how often they agree is unknown.", ""
    parts = []
    for auditor, of in (("random", "random questions"), ("prompt_only", "probes of the untrained auditor"),
                        ("trained", "of the trained one")):
        k, n, _ = references_agree(run.probes[run.probes["auditor"] == auditor])
        parts += [f"{k:,} of {n:,} {of}"] if n else []
    said = (f"The references agree on {share.value:.0f} % of the probes that all of them were asked ({agreed:,} of {asked:,}; "
            f"95 % interval {share.low:.0f} to {share.high:.0f} %): on {', '.join(parts)}.")
    return said, (f"The references agree on {share.value:.1f} % of the probes, less than half: they are probably unfit for these "
                  "pictures, and then what follows is about them and not about the target." if share.value < LOW else "")


def certainty(rows: pd.DataFrame, run: Artefacts) -> str:
    """How sure a type is: its failures, their pictures, and in how many of them every reference gave the same answer."""
    name, n = words(run), len(rows)
    every = sum(all(a is not None and same_answer(a, agreed) for a in given)
                for given, agreed in rows[["reference_answers", "consensus"]].itertuples(index=False))
    found = counted(n, name["one"], name["many"])
    known = rows["verified_failure"].dropna().astype(bool)
    if len(known):
        found += f", {known.sum():,} verified" + ("," if len(known) == n else f" of {len(known):,} checked,")
    found += f" on {counted(rows['source_image'].nunique(), 'picture')}"
    if single_reference(run):
        return f"{found}; one reference alone was asked"
    return f"{found}; in {every:,} of {n:,} every reference gave the same answer" + (
        "" if every == n else ", in the others not all did or some could not tell")


def calls(run: Artefacts) -> tuple[int, int]:
    """Calls of the target in the search: in training the auditors, and in probing."""
    rows = overall(run.search).set_index("auditor")
    rows = rows[rows.index != "union"]  # it has no probes of its own
    training = rows["training_calls"].reindex(["trained", "plain_grpo"]).fillna(0).sum()
    return int(training), int(rows.loc[~rows.index.duplicated(), "probing_calls"].sum())


def cost(run: Artefacts) -> str:
    """What the search cost, in calls of the target."""
    training, probing = calls(run)
    found, name = len(run.failures), words(run)
    said = (f"The search took {training + probing:,} calls of the target, {training:,} of them to train the auditor and "
            f"{probing:,} to probe with all methods")
    said += f": {(training + probing) / found:,.0f} for each {name['one']} found." if found else "."
    return said + _cost_of_training(run)


def _cost_of_training(run: Artefacts) -> str:
    """Calls for each failure by the trained auditor, its training included, and by random questions; "" where one found none."""
    rows = overall(run.search).set_index("auditor")
    found = rows["verified_failures" if run.verified else "disagrees"]
    if not {"trained", "random"} <= set(rows.index) or not found[["trained", "random"]].all():
        return ""
    spent = (rows["probing_calls"] + rows["training_calls"].where(rows.index == "trained", 0)) / found
    return (f" With its training the trained auditor took {spent['trained']:,.1f} for each of its own, random questions "
            f"{spent['random']:,.1f}.")


def advice(run: Artefacts) -> str:
    """The one thing to do first."""
    name = words(run)
    if not single_reference(run) and unfit(run):
        return ("First look at the references' answers in 02_probes/probes.parquet, and take references that know such pictures, "
                "or set a judge_model if they only word the same answer differently.")
    if run.categories.empty and len(run.failures):
        return (f"The {counted(len(run.failures), name['one'], name['many'])} are too few alike to make a type: look at them in "
                "03_taxonomy/failures.parquet, and search with more pictures.")
    if run.categories.empty:
        return (f"No {name['type']} was found in {len(attempted(run.probes)):,} probes: look for rarer ones with more pictures "
                "or a longer training before you collect any data.")
    first = run.categories.iloc[0]
    rows = run.failures[run.failures["category"] == first["category"]]
    on = f"{counted(len(rows), name['one'], name['many'])} on {counted(rows['source_image'].nunique(), 'picture')}"
    check = "" if run.verified else "judge its pictures by eye, and where the references are right "
    return (f"First look at {first['name']} ({on}): {check}collect examples with questions such as "
            f"“{first['example_question']}”.")


def pairs(run: Artefacts) -> list[str]:
    """How often the target is right on one picture of a pair alone, and whether its disagreements survive, in sentences."""
    said, whose = [], {"trained": "the trained auditor", "prompt_only": "the untrained auditor"}
    for row in having(run.flips, kind="edit", member="target"):
        if row.auditor in whose and row.pairs:
            said.append(
                f"Edits of {whose[row.auditor]}: of {counted(row.pairs, 'pair')} on which the references are right both times, "
                f"the target is right before the edit and wrong after it in {row.n_right_wrong:,}, and the reverse in "
                f"{row.n_wrong_right:,} (p of the exact McNemar test: {row.p:.2g}" + (
                    "; no more than chance would give)." if row.p > 0.05 else ")."))
    if said and not run.verified:
        said.append("Right is here what the references agree on.")
    done = {OTHER_SEED: "when the text is drawn by another seed", RE_ENCODED: "after the picture is re-encoded as JPEG"}
    for row in having(run.survival, kind="all", auditor="trained"):
        if row.asked:
            share = with_interval(percent(Estimate(row.survival, row.ci_low, row.ci_high)))
            said.append(f"Of the trained auditor's disagreements on drawn pictures, {share} % ({row.survived:,} of "
                        f"{row.asked:,}) are there again {done.get(row.version, row.version)}"
                        + (f"; {counted(row.rejected, 'other new picture')} did not show the text." if row.rejected else "."))
    return said


def drawings(run: Artefacts) -> list[str]:
    """How many drawings of a diffusion pipeline were rejected and why, and what of the success is the drawer's fault."""
    mine = drawn.drawings(run.probes)
    if run.drawer != "diffusion" or mine.empty:
        return []
    lost, why = mine["picture_reason"].notna(), drawn.reasons(mine)
    share = percent(clustered_proportion(tally(lost, mine["source_image"])))
    first = "; ".join(f"{reason}: {count:,}" for reason, count in why.head(5).items())
    said = [f"Of {counted(len(mine), 'picture')} drawn by diffusion, {lost.sum():,} ({with_interval(share)} %) do not show what "
            f"their text says, so their probes are invalid{'. Most frequent reasons: ' + first if first else ''}."]
    what = "Success" if run.verified else "Disagreements"
    names = {"unchecked": "without the check", "checked": "with it", "exact": "with exact pictures of the same texts",
             "fault": "share of the first that the check takes away"}
    found = {row.measure: with_interval(percent(Estimate(row.share, row.ci_low, row.ci_high))) for row in
             having(run.faults, kind="all", auditor="trained") if row.n}
    parts = [f"{names[name]} {found[name]} %" for name in names if name in found]
    return said + ([f"{what} of the trained auditor with drawn pictures: {', '.join(parts)}."] if parts else [])


def having(table: pd.DataFrame | None, **cells: str) -> list:
    """The rows of a table, if there is one, that have these cells."""
    for column, value in cells.items() if table is not None else ():
        table = table[table[column] == value]
    return [] if table is None else list(table.itertuples(index=False))


def held_out(run: Artefacts) -> list[tuple[str, str]]:
    """Agreement with the references on held-out questions, by model, and how many questions were left out."""
    kinds = {"held-out": "random questions", "held-out-failures": "questions on which the target had disagreed elsewhere"}
    rows = []
    for suite, part in run.items.groupby("suite", sort=False):
        of = f"{kinds[suite]} about {counted(part['group'].nunique(), 'picture')} that no earlier stage saw"
        for model, table in part.groupby("model", sort=False):
            share = percent(clustered_proportion(tally(table["score"], table["group"])))
            rows.append((f"agreement with the references on {of}, {model}", measures.with_interval(share) + " %"))
    if run.held_out is not None:
        lost = run.held_out[["asked", "without_consensus", "unanswered"]].sum()
        rows.append((f"held-out questions left out of {lost['asked']:,}",
                     f"{lost['without_consensus']:,} without a consensus, {lost['unanswered']:,} unanswered"))
    return rows
