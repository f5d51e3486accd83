"""Every tested claim can come out both ways, and the reasons for "not tested" are said."""

import numpy as np
import pandas as pd
import pytest
import synthetic

from auditdm_lib.audit import probes
from auditdm_lib.evaluate import scores
from auditdm_lib.paths import PAPER_VALUES
from auditdm_lib.results import artefacts, claims, measures, report, tables
from auditdm_lib.taxonomy import grading

PAPER = pd.read_csv(PAPER_VALUES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic.make_run(tmp_path_factory.mktemp("run") / "02_probes")


def judged(artefacts, name: str) -> str:
    claim = claims.CLAIMS[name]
    return claims.HOLDS if claim.holds(claim.measure(artefacts), artefacts) else claims.FAILS


def with_search(run, kind=None, **columns):
    """The run with other counts of a kind of probe; a value is for all auditors or {auditor: value}."""
    table = run.artefacts.search.copy()
    for column, value in columns.items():
        values = value if isinstance(value, dict) else dict.fromkeys(table["auditor"], value)
        chosen = table["kind"] == kind if kind else table.index.isin(probes.overall(table.reset_index())["index"])
        new = table["auditor"].map(values).where(chosen)
        table[column] = new.fillna(table[column])
    return run.altered(search=table)


def with_marks(run, model: str, like: str | None = None, share: float | None = None, where=lambda items: items["suite"].notna()):
    """The run with other marks of `model` where `where` says: those of the model `like`, or right for a `share` of items."""
    items = run.artefacts.items.copy()
    chosen = (items["model"] == model) & where(items)
    if like:
        marks = items[items["model"] == like].set_index(["suite", "item"])["correct"]
        items.loc[chosen, "correct"] = marks.loc[list(items.loc[chosen, ["suite", "item"]].itertuples(index=False))].to_numpy()
    else:
        items.loc[chosen, "correct"] = np.arange(chosen.sum()) % 1000 < 1000 * share
    return run.altered(items=items)


def types(run, n: int):
    row = run.artefacts.categories.iloc[[0]]
    return run.altered(categories=pd.concat([row] * n, ignore_index=True))


def lone(run, found: int, can_show: int, prompt_only: int = 2):
    """The run of a target with one planted gap."""
    rows = [("trained", found), ("prompt_only", prompt_only)]
    return run.altered(hits=pd.DataFrame([dict(auditor=a, gap="g", hits=n, found_in=n, can_show=can_show) for a, n in rows]))


# claim -> (data under which it holds, data under which it does not)
FLIPS = {
    "trained_above_prompt_only": (lambda r: r.artefacts, lambda r: with_search(r, verified_failures={"trained": 215})),
    "three_times_prompt_only": (lambda r: r.artefacts, lambda r: with_search(r, verified_failures={"trained": 650})),
    "reaches_paper": (lambda r: with_search(r, verified_failures={"trained": 900}), lambda r: r.artefacts),
    "prompt_only_near_paper": (lambda r: r.artefacts, lambda r: with_search(r, verified_failures={"prompt_only": 300})),
    "prompt_only_valid": (lambda r: r.artefacts, lambda r: with_search(r, "question", invalid={"prompt_only": 95})),
    "prompt_only_not_below_random": (
        lambda r: r.artefacts, lambda r: with_search(r, "question", verified_failures={"prompt_only": 120})),
    "gaps_hit": (lambda r: r.artefacts,
                 lambda r: r.altered(hits=r.artefacts.hits.assign(hits=r.artefacts.hits["hits"].where(
                     r.artefacts.hits["gap"].isin(list(synthetic.GAPS)[:4]), 0)))),
    "answerable": (lambda r: r.artefacts, lambda r: with_search(r, consensus_answerable={"trained": 915})),
    "target_only_correct_is_rare": (lambda r: r.artefacts, lambda r: with_search(r, label_noise={"trained": 40})),
    "more_than_20_types": (lambda r: types(r, 21), lambda r: types(r, 20)),
    "types_match_gaps": (lambda r: r.artefacts,
                         lambda r: r.altered(agreement=r.artefacts.agreement.assign(ari=0.02, ari_low=0.001))),
    "gaps_own_category": (lambda r: r.artefacts, lambda r: r.altered(gaps=r.artefacts.gaps.assign(own_category=False))),
    "rectified_on_gaps": (lambda r: r.artefacts, lambda r: with_marks(r, "rectified", share=0.24)),
    "rectified_on_average": (lambda r: r.artefacts, lambda r: with_marks(r, "rectified", like="target")),
    "rectified_above_sibling": (lambda r: r.artefacts, lambda r: with_marks(r, "rectified", like="reference_1")),
    "kept_outside_gaps": (lambda r: r.artefacts,
                          lambda r: with_marks(r, "rectified", share=0.95, where=lambda items: items["gap"].isna())),
    "lost_at_most_1": (lambda r: r.artefacts, lambda r: with_marks(r, "rectified", share=0.97)),
    "beats_control_on_gaps": (lambda r: r.artefacts, lambda r: with_marks(r, "control", like="rectified")),
    "beats_control_on_average": (lambda r: r.artefacts, lambda r: with_marks(r, "control", like="rectified")),
    "lone_gap_found": (lambda r: lone(r, 70, 100), lambda r: lone(r, 60, 100)),
    "lone_gap_ratio": (lambda r: lone(r, 70, 100, 2), lambda r: lone(r, 70, 100, 8)),
    "regeneration": (lambda r: r.artefacts, lambda r: with_search(r, "regeneration", verified_failures={"trained": 160})),
    "editing": (lambda r: r.artefacts, lambda r: with_search(r, "edit", verified_failures={"trained": 190})),
    "editing_above_regeneration": (lambda r: r.artefacts, lambda r: with_search(r, "edit", verified_failures={"trained": 510})),
    "sibling_worse_somewhere": (lambda r: r.artefacts, lambda r: with_marks(r, "reference_1", like="target")),
}


@pytest.mark.parametrize("name", FLIPS)
def test_the_verdict_follows_the_data(run, name):
    good, bad = FLIPS[name]
    assert (judged(good(run), name), judged(bad(run), name)) == (claims.HOLDS, claims.FAILS)


def test_every_claim_that_a_profile_must_test_is_flipped_above():
    assert set().union(*claims.MUST_TEST.values()) == set(FLIPS) <= set(claims.CLAIMS)


def test_the_table_has_twelve_claims_eight_tested_and_a_reason_for_the_rest(run):
    table = claims.evaluate(run.artefacts, PAPER, "testbed")
    assert list(table.columns) == claims.COLUMNS and table["claim"].is_unique
    tested = table[table["verdict"] != claims.NOT_TESTED]
    assert len(table) >= 12 and len(tested) >= 8
    assert tested[["run_value", "ci_low", "ci_high"]].notna().all(axis=None)
    assert (tested["ci_low"] <= tested["run_value"]).all() and (tested["run_value"] <= tested["ci_high"]).all()
    rest = table[table["verdict"] == claims.NOT_TESTED]
    assert rest["run_value"].isna().all() and rest["reads"].str.contains(": ").all()


def test_the_papers_numbers_come_from_the_table_of_printed_values(run):
    paper = claims.evaluate(run.artefacts, PAPER, "testbed").set_index("claim")["paper_value"]
    by_name = {name: paper[claim.text] for name, claim in claims.CLAIMS.items()}
    assert by_name["trained_above_prompt_only"] == pytest.approx(69.7)
    assert by_name["rectified_on_average"] == pytest.approx(4.52)
    assert by_name["sibling_worse_somewhere"] == 8
    doubled = PAPER.assign(value=PAPER["value"] * 2)
    changed = claims.evaluate(run.artefacts, doubled, "testbed").set_index("claim")["paper_value"]
    assert changed[claims.CLAIMS["reaches_paper"].text] == pytest.approx(182.2)


def without_truth(run):
    blank = {column: np.nan for column in ("verified_failures", "success", "ci_low", "ci_high", "label_noise",
                                           "consensus_answerable", "gaps_found", "ceiling")}
    items = run.artefacts.items
    items = items[items["suite"] != scores.GAP_ITEMS].assign(gap=None)
    return run.altered(search=run.artefacts.search.assign(**blank), hits=None, gaps=None, agreement=None, items=items)


def test_a_run_without_truth_says_what_it_cannot_test(run):
    table = claims.evaluate(without_truth(run), PAPER, "my-model").set_index("claim")
    row = table.loc[claims.CLAIMS["reaches_paper"].text]
    assert row["verdict"] == claims.NOT_TESTED and "truth" in row["reads"]
    assert table.loc[claims.CLAIMS["rectified_on_average"].text, "verdict"] == claims.HOLDS


def test_a_run_without_planted_gaps_says_so_where_a_claim_needs_them(run):
    made = run.artefacts
    gaps, agreement = grading.grade(made.failures, made.failures[["probe_id"]].assign(gap=None))
    bare = run.altered(hits=None, gaps=gaps, agreement=agreement,
                       items=made.items[made.items["suite"] != scores.GAP_ITEMS].assign(gap=None))
    table = claims.evaluate(bare, PAPER, "my-model").set_index("claim")
    for name in ("gaps_hit", "types_match_gaps", "gaps_own_category", "rectified_on_gaps", "kept_outside_gaps",
                 "beats_control_on_gaps"):
        row = table.loc[claims.CLAIMS[name].text]
        assert row["verdict"] == claims.NOT_TESTED and "gaps" in row["reads"].partition(": ")[2], name
    assert "table_gaps" not in tables.all_tables(bare) and "planted" not in " ".join(report.caveats(bare))


def test_a_profile_that_must_test_a_claim_stops_when_it_cannot(run):
    with pytest.raises(RuntimeError, match="The profile 'testbed' must test .*truth"):
        claims.evaluate(without_truth(run), PAPER, "testbed")


def test_the_larger_siblings_interval_counts_only_clear_differences(run):
    value, low, high = claims.CLAIMS["sibling_worse_somewhere"].measure(run.artefacts)
    table = measures.failures_by_skill(run.artefacts.items)
    assert low <= value <= high <= len(table) and value == (table["reference_1"] > table["target"]).sum()


def test_artefacts_are_read_back_from_their_folders(run, tmp_path):
    folders = [tmp_path / name for name in ("01", "02", "03", "05")]
    for folder in folders:
        folder.mkdir()
    made = run.artefacts
    made.history.to_csv(folders[0] / "history.csv", index=False)
    made.probes.to_parquet(folders[1] / "probes.parquet", index=False)
    made.search.to_csv(folders[1] / "search.csv", index=False)
    made.failures[["probe_id", "category"]].to_parquet(folders[2] / "failures.parquet", index=False)
    made.categories.to_parquet(folders[2] / "categories.parquet", index=False)
    made.items.to_parquet(folders[3] / "items.parquet", index=False)
    read = artefacts.load(*folders)
    assert read.hits is None and read.gaps is None and read.agreement is None
    assert read.failures[["probe_id", "category", "question", "image"]].equals(
        made.failures[["probe_id", "category", "question", "image"]])
