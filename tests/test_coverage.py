"""What a search has not met yet: the curve of types by probes, Good-Turing and Chao1."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from auditdm_lib.audit.probes import BY_SERVERS
from auditdm_lib.taxonomy import coverage


def searched(sizes, lone=(), n=40, auditor="trained"):
    """Failures of the given sizes by category, `lone` ones of no type (one entry per kind), and the table of n probes."""
    rows = [(category, "which colour?", "red", f"blue{category}") for category, size in enumerate(sizes) for _ in range(size)]
    rows += [(-1, f"what is thing {kind}?", "cup", "anchor") for kind, size in enumerate(lone) for _ in range(size)]
    table = pd.DataFrame(rows, columns=["category", "question", "consensus", "target_answer"]).assign(auditor=auditor)
    ids = [f"{auditor}-{i}" for i in range(n)]
    return table.assign(probe_id=ids[:len(table)]), pd.DataFrame(dict(probe_id=ids, auditor=auditor, invalid_reason=None))


def test_the_curve_is_the_mean_over_all_samples_of_probes():
    clustered, probes = searched([3, 4], n=8)
    labels = [0] * 3 + [1] * 4 + [-1]
    curve = coverage.coverage(clustered, probes, [1]).set_index("probes")
    for m in range(9):
        drawn = [[labels[i] for i in rows] for rows in combinations(range(8), m)]
        found = [{c for c in (0, 1) if sample.count(c) >= 3} for sample in drawn]
        assert curve.loc[m, "types"] == pytest.approx(np.mean([len(types) for types in found]))
        assert curve.loc[m, "confirmed"] == pytest.approx(np.mean([1 in types for types in found]))


def test_kinds_are_types_and_else_skill_or_question_with_both_answers():
    table = pd.DataFrame([(0, "a?", "red", "blue", "colour"), (0, "b?", "two", "six", ""), (-1, "c?", "Red.", "blue", "colour"),
                          (-1, "d?", "red", "Blue", "colour"), (-1, "d?", "red", "blue", ""), (-1, "e?", "red", "blue", "")],
                         columns=["category", "question", "consensus", "target_answer", "skill"])
    kind = coverage.kinds(table)
    assert kind[0] == kind[1] and kind[2] == kind[3] and kind.nunique() == 4
    assert coverage.kinds(table.drop(columns="skill")).nunique() == 4  # type, c, d, e


def test_good_turing_counts_what_was_met_once():
    row = coverage.unseen(*searched([9, 3], lone=[1, 1, 2], n=100)).iloc[0]
    assert (row["failures"], row["kinds"], row["singletons"], row["doubletons"]) == (16, 5, 2, 1)
    assert row["unseen_share"] == 0.02 and 0 < row["share_low"] < 0.02 < row["share_high"] < 0.08


def test_chao1_is_the_bias_corrected_estimate():
    # EstimateS 9, user's guide, appendix B: (n - 1) / n f1 (f1 - 1) / (2 (f2 + 1))
    value, low, high = coverage.chao1(10, 4, 100)
    assert value == pytest.approx(0.99 * 10 * 9 / 10) and 0 < low < value < high
    assert coverage.chao1(0, 3, 50) == (0, 0, 3) == coverage.chao1(1, 0, 50)
    assert all(map(math.isnan, coverage.chao1(0, 0, 0)))


def test_chao1_covers_the_number_of_unseen_kinds():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        counts = np.bincount(rng.integers(60, size=100), minlength=60)
        _, low, high = coverage.chao1(int((counts == 1).sum()), int((counts == 2).sum()), 100)
        covered += low <= (counts == 0).sum() <= high
    assert covered >= 180  # 190 expected of an interval at 95 %; three standard deviations less


def test_a_search_that_met_everything_often_may_stop_and_one_that_did_not_goes_on():
    done = coverage.stop_rule(coverage.unseen(*searched([30, 20], n=2000)), "trained")
    more = coverage.stop_rule(coverage.unseen(*searched([5], lone=[1] * 12, n=100)), "trained")
    assert "hardly worth its calls" in done and "More probes are worth their calls" in more and "12.0" in more
    assert "found no failure" in coverage.stop_rule(coverage.unseen(*searched([], n=50)), "trained")


def test_auditors_are_counted_apart():
    one, probes = searched([6], n=50)
    other, more = searched([3], lone=[1], n=30, auditor="random")
    table = coverage.unseen(pd.concat([one, other], ignore_index=True), pd.concat([probes, more], ignore_index=True))
    assert table.set_index("auditor")["singletons"].to_dict() == {"trained": 0, "random": 1}


def test_probes_that_were_never_asked_do_not_count():
    """A limit of calls was reached in the middle of the prompt-only auditor's probes; of the trained one nothing was asked."""
    (some, asked), (_, none) = searched([], lone=[1, 1, 2, 1], n=12, auditor="prompt_only"), searched([], n=12)
    asked["invalid_reason"] = ["not answerable", *[None] * 7, *BY_SERVERS]
    kept = some.tail(1).assign(probe_id="prompt_only-9")  # kept from an earlier audit: beyond the limit it is no fair sample
    probes = pd.concat([none.assign(invalid_reason="target not asked"), asked]).sample(frac=1, random_state=0)
    failures = pd.concat([some, kept], ignore_index=True)
    table = coverage.unseen(failures, probes).set_index("auditor")
    assert table.loc["prompt_only", ["probes", "failures", "singletons"]].tolist() == [8, 5, 3]
    assert table.loc["prompt_only", "unseen_share"] == 3 / 8
    assert table.loc["trained", "probes"] == 0 and math.isnan(table.loc["trained", "unseen_share"])
    said = coverage.stop_rule(table.reset_index(), "trained")
    assert said == "No probe of the trained auditor was asked, so nothing can be said about what it would find."
    curves = coverage.coverage(failures, probes).groupby("auditor")["probes"].max()
    assert curves.to_dict() == {"prompt_only": 8, "trained": 0}
