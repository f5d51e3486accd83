"""The measurements about drawn pictures: pairs, survival and the drawer's fault, of the trained auditor's probes.

Shares are in percent, differences in percentage points. LeftOut is raised where the run drew no pictures, or none by diffusion,
and where it found nothing of the kind; NotTested where the pictures' truth is unknown or a table is missing.
"""

import pandas as pd

from auditdm_lib import stats
from auditdm_lib.answers import same_answer
from auditdm_lib.audit.pairs import DRAWN, EXACT, OTHER_SEED
from auditdm_lib.audit.probes import UNVERIFIED
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.results.measures import LeftOut, NotTested, of_trained, percent, share
from auditdm_lib.stats import Estimate


def of_pairs(run: Artefacts, table: str, diffusion: bool = True, **cells: str) -> pd.Series:
    """The trained auditor's row of the table `flips`, `survival` or `faults` with these cells; `diffusion` says whether it tells
    something about drawings by diffusion alone."""
    _drew(run, diffusion)
    rows = getattr(run, table)
    if rows is not None:
        for column, value in (cells | dict(auditor="trained")).items():
            rows = rows[rows[column] == value]
    if rows is None or rows.empty:
        raise LeftOut(f"no probe of the trained auditor belongs to it ({', '.join(cells.values())})")
    return rows.iloc[0]


def _drew(run: Artefacts, diffusion: bool) -> None:
    """Raise LeftOut where no picture was drawn, or by the renderer where it must be `diffusion`; NotTested without truth."""
    if diffusion and run.drawer != "diffusion":
        raise LeftOut("the renderer draws exactly, and no diffusion pipeline drew")
    if run.versions is None or run.versions.empty:
        lost = run.drawer == "diffusion" and bool((run.probes["image"] != run.probes["source_image"]).any())
        raise (NotTested if lost else LeftOut)("02_probes has no pairs" if lost else "no probe asks about a drawn picture")
    if not run.verified:
        raise NotTested("it needs verified failures, and these are suspicions")


def consensus_right(run: Artefacts) -> Estimate:
    """Of the accepted probes on drawn pictures with a consensus and a known answer, the share whose consensus is right."""
    _drew(run, diffusion=True)
    tried = of_trained(run)
    tried = tried[(tried["image"] != tried["source_image"]) & tried["valid"].astype(bool) & tried["consensus"].notna()
                  & tried["truth"].notna()]
    if tried.empty:
        raise LeftOut("no accepted drawn picture has a consensus and a known answer")
    return share(tried, lambda p: p["valid"].notna(), lambda p: [
        same_answer(agreed, truth) for agreed, truth in p[["consensus", "truth"]].itertuples(index=False)], "a consensus")


def fault(run: Artefacts) -> Estimate:
    """Of the successes with drawn pictures before the check, the share that the check takes away."""
    row = of_pairs(run, "faults", kind="all", measure="fault")
    if not row["n"]:
        raise LeftOut("no success with a drawn picture")
    return percent(Estimate(row["share"], row["ci_low"], row["ci_high"]))


def success_beside_exact(run: Artefacts) -> Estimate:
    """Search success with checked drawings minus that with exact pictures of the same texts, paired by picture."""
    _drew(run, diffusion=True)
    mine = run.versions[run.versions["auditor"] == "trained"]
    drawn = mine[mine["version"] == DRAWN].merge(run.probes[["probe_id", "valid"]], on="probe_id").set_index("probe_id")
    exact = mine[mine["version"] == EXACT].set_index("probe_id")
    if drawn.empty or exact.empty:
        raise LeftOut("no exact picture of the same text to compare with")
    drawn = drawn.loc[drawn.index.intersection(exact.index)]
    sides = [stats.tally(failed(rows) & kept, rows["source_image"]) for rows, kept in
             ((drawn, drawn["valid"].astype(bool)), (exact, exact["picture_reason"].isna()))]
    return percent(stats.clustered_difference(*sides))


def failed(rows: pd.DataFrame) -> pd.Series:
    """Whether the target is wrong and disagrees with the consensus, for rows of versions.parquet."""
    return rows["disagrees"].astype(bool) & rows["target_right"].eq(False)


def flipped(run: Artefacts) -> Estimate:
    """Of the edited pairs on which the references are right and the target is right once, the share right before, wrong after."""
    row = of_pairs(run, "flips", diffusion=False, kind="edit", member="target")
    flips, mended = int(row["n_right_wrong"]), int(row["n_wrong_right"])
    if not flips + mended:
        raise LeftOut("the target's answers to both pictures are equally right in every pair")
    return percent(stats.proportion(flips, flips + mended))


def survival(run: Artefacts, version: str) -> Estimate:
    """Of the disagreements on accepted pictures, the share that is there again in this version of the picture."""
    row = of_pairs(run, "survival", diffusion=version == OTHER_SEED, kind="all", version=version)
    if not row["asked"]:
        raise LeftOut("no disagreement was asked again")
    return percent(Estimate(row["survival"], row["ci_low"], row["ci_high"]))


def drawings(probes: pd.DataFrame) -> pd.DataFrame:
    """The probes of the untrained and the trained auditor on drawn pictures, without those that the verifier's server left open;
    a null `picture_reason` says that the picture passed the check, or that none was made."""
    mine = probes[probes["auditor"].isin(["prompt_only", "trained"]) & (probes["image"] != probes["source_image"])]
    mine = mine if "picture_reason" in mine else mine.assign(picture_reason=None)
    return mine[mine["picture_reason"].ne(UNVERIFIED)]


def reasons(drawn: pd.DataFrame) -> pd.Series:
    """The numbers of rejected pictures by reason, the most frequent first."""
    counts = drawn["picture_reason"].dropna().value_counts(sort=False)
    return counts.sort_index().sort_values(ascending=False, kind="stable")
