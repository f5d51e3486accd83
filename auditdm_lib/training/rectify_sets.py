"""What a target is rectified with: examples drawn from an audit's failure types, and as many that no audit chose.

The answer of an example is the consensus of the references. With true answers for some questions (the paper's "labelled data"
case) the set is the task's own questions, and one of the auditor's for each. In addition to the audited set there is a control
set of the same size that was not selected by an audit, a comparison that the paper does not make.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from auditdm_lib.answers import same_answer
from auditdm_lib.audit.pairs import ORIGINAL
from auditdm_lib.boxes import located, overlap
from auditdm_lib.run.manifest import Stop, digest, hash_file

UNMOVED = 0.5  # least intersection over union of the box before an edit and after it where nothing moved (our choice)
CONFIRMED = "confirmed"  # a failure type's verdict (`confirm.CONFIRMED`)
COLUMNS = ["image", "question", "answer", "failure", "kind", "category"]
KEPT = 10  # one in so many pictures is kept from the training, to score the rounds


def moved(probes: pd.DataFrame, versions: pd.DataFrame | None) -> pd.Series:
    """Which probes ask where something is in a drawn picture that may have moved there (bool, indexed as `probes`).

    These are the probes on drawn pictures whose consensus is a box, but for edits after which it is nearly the box of the
    consensus about the original picture (UNMOVED), taken from `versions`, the table of `pairs.versions`. The paper filters the
    edits for grounding to the same end; how, it does not say.
    """
    drawn = probes["image"] != probes["source_image"]
    before = {} if versions is None else versions[versions["version"] == ORIGINAL].set_index("probe_id")["consensus"].to_dict()

    def may_have(kind: str, probe: str, consensus: str | None) -> bool:
        box, old = (located(text) if isinstance(text, str) else None for text in (consensus, before.get(probe)))
        return box is not None and (kind != "edit" or old is None or overlap(box, old) < UNMOVED)
    return pd.Series([d and may_have(*row) for d, row in zip(drawn, probes[["kind", "probe_id", "consensus"]].itertuples(
        index=False), strict=True)], probes.index, dtype=bool)


def kept_aside(probes: pd.DataFrame, images: Path, seed: int) -> pd.Series:
    """Which probes are about one of the pictures that are kept from the training to score the rounds (bool, indexed as
    `probes`): one picture in KEPT, known by its file below `images`, with all that was drawn from it."""
    chosen = {name: int(digest(f"{seed}/{hash_file(images / name)}")[:8], 16) % KEPT == 0 for name in set(probes["source_image"])}
    return probes["source_image"].map(chosen).astype(bool)


def types_to_learn(failures: pd.DataFrame, confirmation: pd.DataFrame | None, category_weights: str) -> dict[int, float]:
    """The failure types to learn from, as {category: weight}: the confirmed ones, or, where stage 03 confirmed none, all.

    `failures` is failures.parquet (probe_id, category) and `confirmation` confirmation.parquet, None where it was not written.
    Raises Stop where the weights are the failure rates and none were measured.
    """
    if confirmation is None:
        if category_weights == "by_failure_rate":
            raise Stop("The failure rates of the types are not known, since stage 03 asked no fresh probes: set fresh_probes "
                       "above 0, or category_weights to evenly or by_size.")
        print("Stage 03 confirmed nothing, since fresh_probes is 0, so the failures of all its types are learned.")
        return weights_of(failures, category_weights)
    held = failures["category"].isin(confirmation.loc[confirmation["verdict"] == CONFIRMED, "category"])
    if not held.any():
        print("Stage 03 confirmed no failure type, so the failures of all its types are learned.")
    rates = confirmation.set_index("category")["rate"]
    return weights_of(failures[held] if held.any() else failures, category_weights, rates)


def weights_of(failures: pd.DataFrame, category_weights: str, rates: pd.Series | None = None) -> dict[int, float]:
    """The weight of each category of `failures` (-1 is none): 1 (evenly), the number of its failures (by_size), or its rate
    (by_failure_rate)."""
    sizes = failures.loc[failures["category"] >= 0, "category"].value_counts().sort_index()
    weights = {"evenly": sizes * 0 + 1, "by_size": sizes}.get(category_weights)
    weights = rates.reindex(sizes.index).fillna(0) if weights is None else weights
    return {int(category): float(weight) for category, weight in weights.items()}


def check_strategy(strategy: str, rounds: int, category_weights: str, imitation_rounds: int) -> None:
    """Raise Stop, before any work, where these do not go together."""
    if rounds > 1 and strategy != "bootstrap":
        raise Stop("Only bootstrapping goes in rounds: set rounds to 1, or strategy to bootstrap.")
    if rounds > 1 and category_weights == "by_failure_rate":
        raise Stop("The rounds after the first ask no fresh probes of their types, so they know no failure rates: set rounds to "
                   "1, or category_weights to evenly or by_size.")
    if rounds > 1 and not imitation_rounds:
        raise Stop("Further rounds train the auditor by self-imitation: set imitation_rounds above 0, or rounds to 1.")


def allotted(weights: dict[int, float], there: dict[int, int], n: int) -> dict[int, int]:
    """How many of `n` examples each category gets: in proportion to its weight, but no more than `there` are; what a small one
    leaves goes to the others in the same way. At most `n` in all, fewer where there are not so many."""
    given = dict.fromkeys(sorted(weights), 0)
    while (left := n - sum(given.values())) > 0:
        open_ = [c for c in given if given[c] < there.get(c, 0) and weights[c] > 0]
        if not open_:
            break
        whole = sum(weights[c] for c in open_)
        more = {c: min(there[c] - given[c], int(left * weights[c] / whole)) for c in open_}
        if not any(more.values()):  # fewer than one each: one by one, the heaviest first
            more = dict.fromkeys(sorted(open_, key=lambda c: (-weights[c], c))[:left], 1)
        for c, k in more.items():
            given[c] += k
    return given


def training_sets(probes: pd.DataFrame, failure_share: float, control_auditors: list[str], seed: int,
                  failure_auditors: tuple[str, ...] | list[str] = (), most: int = 0, types: pd.DataFrame | None = None,
                  weights: dict[int, float] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The audited and the control examples, equally many: image (path), question, answer, failure (bool), kind, and
    category, the type of a failure that is learned (-1: none).

    The answer is the consensus. The audited set holds disagreements (`failure_share` of the rows) of `failure_auditors`, or of
    all auditors if none is named, and, as rehearsal, agreements of all, so that the target does not forget what it had right.
    With `types` (probe_id, category) the disagreements are those of the failure types in `weights` (`types_to_learn`), drawn by
    weight; without any type, all. The control set holds questions of `control_auditors`, whatever the target answered. Each pair
    of image and question enters a set at most once, and a probe without consensus, or with a picture that failed its check,
    never. The smallest of the three pools limits the size, and so does `most`, if it is not 0. If a pool is empty, which is
    printed, so are both sets. The order of the rows does not matter.
    """
    pools = _pools(probes, control_auditors, failure_auditors)
    if weights:
        pools["failures"] = _typed(pools["failures"], probes, types)[lambda rows: rows["category"].isin(list(weights))]
    if not _all_there(pools):
        return _nothing(), _nothing()
    failures, agreements, control = pools.values()
    size = int(min(len(failures) / failure_share, len(agreements) / (1 - failure_share), len(control), most or np.inf))
    given = allotted(weights or {0: 1.0}, failures["category"].value_counts().to_dict(), round(size * failure_share))
    found = [failures[failures["category"] == category].sample(n, random_state=seed) for category, n in given.items() if n]
    audited = pd.concat([*found, agreements.sample(size - sum(map(len, found)), random_state=seed)])
    return _examples(audited, seed), _examples(control.sample(size, random_state=seed), seed)


def _typed(failures: pd.DataFrame, probes: pd.DataFrame, types: pd.DataFrame) -> pd.DataFrame:
    """The failures with their category, which stage 03 gave to one of several probes with the same image and question."""
    pairs = types[["probe_id", "category"]].merge(probes[["probe_id", "image", "question"]], on="probe_id")
    pairs = pairs.drop_duplicates(["image", "question"]).drop(columns="probe_id")
    return failures.drop(columns="category").merge(pairs, on=["image", "question"])


def labelled_sets(probes: pd.DataFrame, control_auditors: list[str], seed: int, auditor: str = "trained",
                  most: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sets of the labelled strategy: the task's questions with their true answers, and one of the auditor's for each (1:1).

    The task's training set is the random arm of stage 02, the data set's own questions where it has some, of which the truth is
    known. The auditor's sample for an instance is its probe about the same picture, with the consensus as the answer, whatever
    the target said; an instance without one is left out. The control takes a question of `control_auditors` in its place. Columns
    and the rest as in `training_sets`. Raises Stop where no true answer is known.
    """
    probes = _sound(probes)
    known = probes[probes["auditor"].eq("random") & probes["truth"].notna()].drop_duplicates("source_image")
    if known.empty:
        raise Stop("The labelled strategy needs questions whose true answers are known, and stage 02 asked none: set strategy to "
                   "bootstrap, or take pictures that come with questions and answers.")
    own = probes[probes["auditor"].eq(auditor) & probes["consensus"].notna()].drop_duplicates("source_image")
    others = probes[probes["auditor"].isin([name for name in control_auditors if name != "random"]) & probes["consensus"].notna()]
    others = others.drop_duplicates("source_image")
    both = known["source_image"].isin(own["source_image"]) & known["source_image"].isin(others["source_image"])
    print(f"{(~both).sum()} of {len(known)} instances are left out: no auditor's question about their picture has a consensus.")
    instances = known[both]
    if not _all_there({"instances with a question of each auditor": instances}):
        return _nothing(), _nothing()
    instances = instances.sample(min(len(instances), most // 2 or len(instances)), random_state=seed)
    wrong = [not same_answer(a, t) for a, t in instances[["target_answer", "truth"]].itertuples(index=False)]
    task = instances.assign(consensus=instances["truth"], kind="task's own, true answer", disagrees=wrong)
    sets = []
    for name, rows in (("audited", own), ("un-audited", others)):
        rows = rows[rows["source_image"].isin(instances["source_image"])].assign(kind=f"{name}, consensus")
        sets.append(_examples(pd.concat([task, rows]), seed))
    return tuple(sets)


def _sound(probes: pd.DataFrame) -> pd.DataFrame:
    """The probes whose picture passed its check, in an order of their own."""
    return probes[probes["picture_reason"].isna()].sort_values("probe_id", kind="stable")


def _pools(probes: pd.DataFrame, control_auditors: list[str], failure_auditors: tuple[str, ...] | list[str],
           ) -> dict[str, pd.DataFrame]:
    labelled = _sound(probes[probes["consensus"].notna()])
    distinct, control = (rows.drop_duplicates(["image", "question"]) for rows in (
        labelled, labelled[labelled["auditor"].isin(control_auditors)]))
    chosen = labelled[labelled["auditor"].isin(failure_auditors) | (len(failure_auditors) == 0)]
    failed = chosen[chosen["disagrees"].astype(bool)].drop_duplicates(["image", "question"])
    agreed = distinct[~distinct["disagrees"].astype(bool)]
    return {"failures": failed.assign(kind="failure", category=0), "agreements": agreed.assign(kind="rehearsal"),
            "un-audited questions": control.assign(kind="un-audited")}


def _all_there(pools: dict[str, pd.DataFrame]) -> bool:
    empty = [name for name, pool in pools.items() if pool.empty]
    if empty:
        print(f"The probes hold no {' and no '.join(empty)} with a consensus, so nothing is rectified; more probes in stage 02 "
              "may find some.")
    return not empty


def _nothing() -> pd.DataFrame:
    return pd.DataFrame(columns=COLUMNS).astype({"failure": bool, "category": int})


def _examples(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    return rows.sample(len(rows), random_state=seed).reset_index(drop=True).assign(
        answer=lambda x: x["consensus"], failure=lambda x: x["disagrees"].astype(bool)).reindex(columns=COLUMNS).fillna(
        {"category": -1}).astype({"category": int})
