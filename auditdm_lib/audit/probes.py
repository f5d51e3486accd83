"""Probes: questions to the target and the references, judged by their answers and verified where the truth is known."""

import random
from pathlib import Path

import pandas as pd

from auditdm_lib.answers import same_answer
from auditdm_lib.audit.panel import Panel, judge, try_out
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.models.endpoint import LIMIT
from auditdm_lib.stats import clustered_proportion, tally

COUNTED = ("unfinished", "empty")  # values of invalid_reason that depend on the text alone
NOT_ASKED = "target not asked"  # and one where a limit of calls or of cost kept a model from being asked
UNWRITTEN = "the auditor's server gave no text"
UNVERIFIED = "the verifier's server gave no answer"
BY_SERVERS = (NOT_ASKED, UNWRITTEN, f"picture: {UNVERIFIED}", "target not judged")  # what a server kept from being an attempt
PICTURE_COUNTS = ("drawn", "picture_rejected", "rejected_disagrees", "verifier_unsure", "accepted_consensus_right",
                  "accepted_consensus_known")


def malformed(text: str | None, ended: bool, error: str | None = None) -> str | None:
    """Why a text is invalid: it reached the token limit before its end token, it is empty, or a server gave none because of an
    `error`. None for a valid text."""
    if error:
        return NOT_ASKED if error == LIMIT else UNWRITTEN
    return COUNTED[0] if not ended else None if text.strip() else COUNTED[1]


def texts(column: pd.Series) -> list[str | None]:
    """A column of texts as a list, with None instead of pandas' NaN for missing ones."""
    return [text if isinstance(text, str) else None for text in column]


def try_members(panel: Panel, pictures: Pictures, seed: int, n: int = 48) -> pd.DataFrame:
    """Ask every member a random question about each of `n` pictures and refuse broken ones (see `panel.try_out`)."""
    rng, seen = random.Random(f"try out/{seed}"), pictures.take([i % len(pictures) for i in range(n)])
    return try_out(panel, [seen.images[i] for i in range(n)], [seen.random_question(i, rng) for i in range(n)])


def make_probes(panel: Panel, drawn: Pictures, auditor: str, proposed: pd.DataFrame, seed: int, sources: list[str],
                images: list[str], picture_reasons: list[str | None] | None = None,
                verdicts: list[str | None] | None = None) -> pd.DataFrame:
    """The probe table, one row per proposed probe (`auditor.propose`: kind, pairing, caption, edit, question, invalid_reason).

    Row i asks about picture i of `drawn`, which is stored at `images[i]` and derived from the one at `sources[i]`. Where the
    question's answer is known (`truth`), `verified_failure` is a disagreement in which the target is wrong; elsewhere both
    columns are null. A probe is invalid (`valid`) where its picture does not show what its text says (`picture_reasons` and
    `verdicts` are those of `checking.checked`), where the target's reply raised an error or did not end and, if all is known
    about the picture, where its question has no answer; it is then no verified failure.
    """
    probes = pd.DataFrame(dict(
        probe_id=[f"{auditor}-{seed}-{i:05d}" for i in range(len(drawn))], kind=proposed["kind"], pairing=proposed["pairing"],
        auditor=auditor, source_image=sources, image=images, caption=proposed["caption"],
        edit=proposed["edit"], question=proposed["question"].fillna("").str.strip()))
    invalid = texts(proposed["invalid_reason"])
    probes = probes.join(judge(panel, drawn.images, probes["question"].tolist(), invalid, desc=auditor))
    unlike = picture_reasons or [None] * len(drawn)
    missing = ["not asked" if NOT_ASKED in (r, p) else m
               for m, r, p in zip(texts(probes.pop("target_missing")), invalid, unlike, strict=True)]
    missing, unlike = _beyond(missing, invalid), [UNVERIFIED if p == NOT_ASKED else p for p in unlike]
    invalid = [(m == "not asked" and NOT_ASKED) or r or (p and f"picture: {p}") or (m and f"target {m}")
               for r, p, m in zip(invalid, unlike, missing, strict=True)]
    known = drawn.truth
    truth = [known.right_answer(i, q) if known else None for i, q in probes["question"].items()]
    complete = known is not None and known.complete
    unknown = [not complete or not known.knows(i) for i in range(len(drawn))]
    invalid = [r or ("not answerable" if not u and t is None else None) for r, u, t in zip(invalid, unknown, truth, strict=True)]
    probes["truth"] = pd.Series(truth, dtype=object)
    probes["picture_reason"] = pd.Series(unlike, dtype=object)
    probes["verifier"] = pd.Series(verdicts or [None] * len(drawn), dtype=object)
    probes["invalid_reason"] = pd.Series(invalid, dtype=object)
    probes["valid"] = pd.Series([r is None for r in invalid], dtype=bool)
    probes["verified_failure"] = pd.Series([
        bool(v and d and not same_answer(a, t)) if t is not None or complete and not (u and v) else None for v, d, a, t, u in
        zip(probes["valid"], probes["disagrees"], probes["target_answer"], truth, unknown, strict=True)], dtype=object)
    probes["seed"] = seed
    return probes


def _beyond(missing: list[str | None], invalid: list[str | None]) -> list[str | None]:
    """`missing` with "not asked" for all probes from the first that a limit kept from being asked, malformed ones among them: of
    those, too, there would be no fair sample. If none was asked before it, all are."""
    begun = missing.index("not asked") if "not asked" in missing else len(missing)
    begun = begun if begun == len(missing) or None in invalid[:begun] else 0
    return missing[:begun] + ["not asked"] * (len(missing) - begun)


def grading(probes: pd.DataFrame, pictures: Pictures, target: str | Path) -> pd.DataFrame:
    """For grading only: each probe's skill, and the gap planted in `target` (a folder or hub id) in which it lies.

    Row i of `probes` asks about picture i.
    """
    truth = pictures.truth
    gaps = truth.gaps_in(target)
    return pd.DataFrame(dict(
        probe_id=probes["probe_id"], skill=[truth.skill(q) for q in probes["question"]],
        gap=[truth.gap(i, q, gaps) for i, q in enumerate(probes["question"])]))


def search_ceiling(panel: Panel, pictures: Pictures, n: int) -> float | None:
    """Share of the first `n` pictures with at least one question that is a verified failure. Asks every possible question; None
    if one was not asked or not judged, because of a limit or of a judge's server."""
    truth = pictures.truth
    pairs = [(i, q) for i in range(min(n, len(pictures))) for q in truth.all_questions(i)]
    judged = judge(panel, [pictures.images[i] for i, _ in pairs], [q for _, q in pairs], [None] * len(pairs),
                   cascade=panel.llm is None, full_share=0, desc="ceiling")
    if judged["target_missing"].isin(["not asked", "not judged"]).any():
        return None
    failed = {i for (i, q), a, d in zip(pairs, judged["target_answer"], judged["disagrees"], strict=True)
              if d and (right := truth.right_answer(i, q)) is not None and not same_answer(a, right)}
    return len(failed) / min(n, len(pictures))


def search_table(probes: pd.DataFrame, graded: pd.DataFrame | None, ceiling: float | None,
                 training_calls: dict[str, int]) -> pd.DataFrame:
    """Search success by auditor and kind of probe: verified failures per attempt with a 95 % interval clustered by picture, and
    the counts of the other outcomes. Columns that need the truth are null where it is unknown; success is out of the
    `verifiable` attempts, all of them where the truth is complete.

    See `attempts` for what an attempt is; all probes count as calls. no_consensus is out of the consensus_asked attempts on
    which every member was asked. label_noise counts disagreements whose consensus is wrong while the target is right, out of the
    disagreements_known whose question has a known answer (their rarity is the paper's second assumption), consensus_answerable
    those with a consensus whose question has an answer (the first assumption). `ceiling` is the ceiling of plain questions. Of
    the `drawn` attempts, whose picture is new, picture_rejected fail the check of the picture, rejected_disagrees of them with a
    disagreement; verifier_unsure counts the verifier's answers that are neither yes nor no; accepted_consensus_right are those
    whose consensus is right, out of the accepted_consensus_known valid ones with a consensus and a known answer. An auditor with
    several kinds of probe has a first row of kind `all`. Auditors keep the order of `probes`.
    """
    rows = []
    several = probes.groupby("auditor")["kind"].transform("nunique") > 1
    together = pd.concat([probes[several].assign(kind="all"), probes])
    for (auditor, kind), tried in together.groupby(["auditor", "kind"], sort=False):
        p = attempts(tried)
        agreed, full = p[p["consensus"].notna() & p["picture_reason"].isna()], p[p["in_full"]]
        row = dict(auditor=auditor, kind=kind, attempts=len(p), invalid=int((~p["valid"]).sum()), consensus_asked=len(full),
                   no_consensus=int(full["consensus"].isna().sum()), disagrees=int(p["disagrees"].sum()),
                   probing_calls=int(tried["target_answer"].notna().sum()), training_calls=training_calls.get(auditor, 0),
                   consensus_probes=len(agreed), ceiling=ceiling if kind in ("question", "all") else None)
        row |= _pictures(p)
        row |= dict(zip(("disagrees_low", "disagrees_high"), clustered_proportion(tally(p["disagrees"], p["source_image"]))[1:],
                        strict=True))
        if graded is not None:
            seen = p[p["verified_failure"].notna()]
            failures = int(seen["verified_failure"].sum())
            success, low, high = clustered_proportion(tally(seen["verified_failure"].astype(bool), seen["source_image"]))
            found = seen.loc[seen["verified_failure"].astype(bool), "probe_id"]
            gaps = graded.set_index("probe_id").loc[found, "gap"]
            known = p[p["disagrees"] & p["truth"].notna() & p["picture_reason"].isna()]
            noise = [same_answer(a, t) for t, a in known[["truth", "target_answer"]].itertuples(index=False)]
            row |= dict(verified_failures=failures, verifiable=len(seen), success=success, ci_low=low, ci_high=high,
                        gaps_found=gaps.nunique(), label_noise=sum(noise), disagreements_known=len(known),
                        consensus_answerable=int(agreed["truth"].notna().sum()))
        rows.append(row)
    columns = ["auditor", "kind", "attempts", "invalid", "consensus_asked", "no_consensus", "disagrees", "disagrees_low",
               "disagrees_high", "verified_failures", "verifiable", "success", "ci_low", "ci_high", "ceiling", "probing_calls",
               "training_calls", "gaps_found", "label_noise", "disagreements_known", "consensus_probes", "consensus_answerable",
               *PICTURE_COUNTS]
    order = {auditor: i for i, auditor in enumerate(probes["auditor"].unique())}
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table.sort_values("auditor", key=lambda auditors: auditors.map(order), kind="stable", ignore_index=True)


def _pictures(p: pd.DataFrame) -> dict[str, int]:
    """The counts of `search_table` that are about drawn pictures, of some attempts."""
    drawn = p[p["image"] != p["source_image"]]
    rejected = drawn["picture_reason"].notna()
    known = drawn[~rejected & drawn["valid"] & drawn["consensus"].notna() & drawn["truth"].notna()]
    right = [same_answer(agreed, truth) for agreed, truth in known[["consensus", "truth"]].itertuples(index=False)]
    unsure = drawn["verifier"].eq("unsure").sum()
    counts = (len(drawn), rejected.sum(), drawn.loc[rejected, "disagrees"].sum(), unsure, sum(right), len(known))
    return dict(zip(PICTURE_COUNTS, map(int, counts), strict=True))


def pairing_table(probes: pd.DataFrame) -> pd.DataFrame:
    """Search success by auditor and pairing of question and picture (see `auditor`), counted as in `search_table`: attempts,
    disagreements, verified failures out of the verifiable attempts, and the success with its 95 % interval clustered by picture
    (null where no attempt is verifiable)."""
    rows = []
    for (auditor, pairing), tried in probes.groupby(["auditor", "pairing"], sort=False):
        p = attempts(tried)
        seen = p[p["verified_failure"].notna()]
        success, low, high = clustered_proportion(tally(seen["verified_failure"].astype(bool), seen["source_image"]))
        rows.append(dict(auditor=auditor, pairing=pairing, attempts=len(p), disagrees=int(p["disagrees"].sum()),
                         verified_failures=int(seen["verified_failure"].sum()) if len(seen) else None, verifiable=len(seen),
                         success=success, ci_low=low, ci_high=high))
    return pd.DataFrame(rows)


def all_verified(probes: pd.DataFrame) -> bool:
    """Whether a truth said of every disagreement if the target is wrong. Else disagreements are suspicions."""
    known, differ = probes["verified_failure"].notna(), probes["disagrees"].astype(bool)
    return bool(known[differ].all() if differ.any() else known.any())


def attempts(probes: pd.DataFrame) -> pd.DataFrame:
    """The probes that count as attempts: each one that was put to the panel or is malformed, but of the questions of a best-of-n
    arm about a picture only the first that disagrees, or else the first. None is what a server kept from being one."""
    probes = attempted(probes)
    best = probes["auditor"].str.startswith("best_of_")
    chosen = probes[best].sort_values("disagrees", ascending=False, kind="stable").drop_duplicates(["auditor", "source_image"])
    return pd.concat([probes[~best], chosen]).sort_index()


def attempted(probes: pd.DataFrame) -> pd.DataFrame:
    """The probes but those that a server or a limit kept from being attempts: what an auditor has found was found in these.
    Unlike in `attempts`, each question of a best-of-n arm is one."""
    return probes[~probes["invalid_reason"].isin(BY_SERVERS)]


def gap_hits(probes: pd.DataFrame, graded: pd.DataFrame, gaps: tuple, pictures: Pictures, names: list[str]) -> pd.DataFrame:
    """How often each auditor's probes found each planted gap. One row per auditor and gap, also where there is no hit:

      hits      verified failures inside the gap
      found_in  number of source pictures of these hits; the question may be about a redrawn or edited version
      can_show  number of the source pictures of its `attempted` probes for which some question about the unchanged picture lies
                in the gap

    `names` are the paths of the source pictures, in the order of `pictures`.
    """
    failed = probes[probes["verified_failure"].eq(True)].merge(graded, on="probe_id").groupby(["auditor", "gap"])
    hits, found = failed.size(), failed["source_image"].nunique()
    shown = {gap.name: {name for i, name in enumerate(names) if pictures.truth.shows(i, gap)} for gap in gaps}
    asked = attempted(probes)
    given = {auditor: set(asked.loc[asked["auditor"].eq(auditor), "source_image"]) for auditor in probes["auditor"].unique()}
    return pd.DataFrame([(a, g, int(hits.get((a, g), 0)), int(found.get((a, g), 0)), len(showing & seen))
                         for a, seen in given.items() for g, showing in shown.items()],
                        columns=["auditor", "gap", "hits", "found_in", "can_show"])


def overall(search: pd.DataFrame) -> pd.DataFrame:
    """One row of search.csv per auditor: the row of kind `all`, or the only row of an auditor with one kind of probe."""
    return search[(search["kind"] == "all") | ~search["auditor"].duplicated(keep=False)].reset_index(drop=True)
