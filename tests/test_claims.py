"""Every tested claim can come out both ways, and the reasons for "not tested" are said."""

import numpy as np
import pandas as pd
import pytest
import synthetic

from auditdm_lib import stats
from auditdm_lib.audit import pairs
from auditdm_lib.evaluate import scores
from auditdm_lib.paths import PAPER_VALUES, PARAMS
from auditdm_lib.results import artefacts, claims, drawn, measures, report, tables
from auditdm_lib.run import params
from auditdm_lib.taxonomy import grading

PAPER = pd.read_csv(PAPER_VALUES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic.make_run(tmp_path_factory.mktemp("run") / "02_probes")


def judged(artefacts, name: str) -> str:
    claim = claims.CLAIMS[name]
    limits = [bound(PAPER, artefacts) if callable(bound) else bound for bound in (claim.least, claim.most)]
    return claims.verdict_of(claim.measure(artefacts), *limits)


def with_probes(run, auditor: str, share: float, column: str = "verified_failure", kind: str | None = None, value=None):
    """The run with a mark at a share of an auditor's probes, spread evenly: a bool column, or `value` there."""
    probes = run.artefacts.probes.copy()
    chosen = (probes["auditor"] == auditor) & (probes["kind"] == (kind or probes["kind"]))
    marks = np.arange(chosen.sum()) * 7919 % 1000 < 1000 * share
    probes.loc[chosen, column] = marks if value is None else np.where(marks, value, probes.loc[chosen, column])
    return run.altered(probes=probes)


def with_calls(run, calls: int):
    search = run.artefacts.search
    return run.altered(search=search.assign(training_calls=search["training_calls"].where(search["auditor"] != "trained", calls)))


def with_marks(run, model: str, like: str | None = None, share: float | None = None, where=lambda items: items["suite"].notna()):
    """The run with other marks of `model` where `where` says: those of the model `like`, or right for a `share` of items."""
    items = run.artefacts.items.copy()
    chosen = (items["model"] == model) & where(items)
    if like:
        marks = items[items["model"] == like].set_index(["suite", "item"])["correct"]
        items.loc[chosen, "correct"] = marks.loc[list(items.loc[chosen, ["suite", "item"]].itertuples(index=False))].to_numpy()
    else:
        items.loc[chosen, "correct"] = np.arange(chosen.sum()) * 7919 % 1000 < 1000 * share
    items["score"] = items["correct"].astype(float)
    return run.altered(items=items)


def types(run, n: int):
    row = run.artefacts.categories.iloc[[0]]
    return run.altered(categories=pd.concat([row] * n, ignore_index=True))


def lone(run, found: int, can_show: int, prompt_only: int = 5):
    """The run of a target with one planted gap."""
    rows = [("trained", found), ("prompt_only", prompt_only)]
    return run.altered(hits=pd.DataFrame([dict(auditor=a, gap="g", hits=n, found_in=n, can_show=can_show) for a, n in rows]))


def with_hits(run, auditor: str, hits: int, gaps: int = 26):
    """The run with a target of so many planted gaps, each found 30 times by every auditor but `auditor`."""
    rows = [(a, f"gap {i}", hits if a == auditor else 30) for a in ("random", "prompt_only", "trained") for i in range(gaps)]
    return run.altered(hits=pd.DataFrame(rows, columns=["auditor", "gap", "hits"]))


def confirmed_types(run, n: int, probes: int = 12):
    """The run with `n` failure types, each confirmed by fresh probes on which the target alone was wrong."""
    return run.altered(confirmation=pd.DataFrame(dict(
        category=range(n), probes=probes, target_wrong=probes, reference_wrong=0, verdict="confirmed")))


def with_shares(run, table: str, share: float):
    """The run with this share in every row of survival.csv or drawer.csv."""
    column = {"faults": "share", "survival": "survival"}[table]
    rows = getattr(run.artefacts, table)
    return run.altered(**{table: rows.assign(**{column: share, "ci_low": share - 0.1, "ci_high": share + 0.1})})


def exact_pictures(run, wrong: bool):
    """The run whose target is wrong, or right, about every picture that the renderer makes of an auditor's text."""
    made = run.artefacts.versions.copy()
    chosen = made["version"] == pairs.EXACT
    made.loc[chosen, ["disagrees", "target_right"]] = [wrong, not wrong]
    return run.altered(versions=made)


def typed(run, share: float, gaps: int = 60):
    return run.altered(gaps=pd.DataFrame(dict(failures=30, own_category=np.arange(gaps) < share * gaps)))


# claim -> (data under which it holds, data under which it does not)
FLIPS = {
    "trained_above_prompt_only": (lambda r: r.artefacts, lambda r: with_probes(r, "trained", 0.12)),
    "three_times_prompt_only": (lambda r: r.artefacts, lambda r: with_probes(r, "trained", 0.4)),
    "reaches_paper": (lambda r: with_probes(r, "trained", 0.95), lambda r: with_probes(r, "trained", 0.88)),
    "prompt_only_near_paper": (lambda r: r.artefacts, lambda r: with_probes(r, "prompt_only", 0.4)),
    "prompt_only_valid": (lambda r: r.artefacts, lambda r: with_probes(r, "prompt_only", 0.8, "valid")),
    "prompt_only_not_below_random": (
        lambda r: with_probes(r, "prompt_only", 0.25), lambda r: with_probes(r, "prompt_only", 0.08)),
    "trained_above_random": (lambda r: r.artefacts, lambda r: with_probes(r, "trained", 0.12)),
    "cheaper_than_random": (lambda r: with_calls(r, 1000), lambda r: with_calls(r, 20000)),
    "cheaper_than_prompt_only": (lambda r: with_calls(r, 1000), lambda r: with_calls(r, 20000)),
    "gaps_hit": (lambda r: with_hits(r, "trained", 5), lambda r: with_hits(r, "trained", 4)),
    "gaps_beyond_random": (lambda r: with_hits(r, "random", 4), lambda r: with_hits(r, "trained", 4)),
    "answerable": (lambda r: r.artefacts, lambda r: with_probes(r, "trained", 0.1, "truth", value=float("nan"))),
    "target_only_correct_is_rare": (lambda r: r.artefacts, lambda r: with_probes(r, "trained", 0.1, "truth", value="blue")),
    "more_than_20_types": (lambda r: confirmed_types(r, 30), lambda r: confirmed_types(r, 20)),
    "types_match_gaps": (lambda r: r.artefacts,
                         lambda r: r.altered(agreement=r.artefacts.agreement.assign(ari=0.0, ari_low=-0.001, ari_high=0.001))),
    "gaps_own_category": (lambda r: typed(r, 0.95), lambda r: typed(r, 0.5)),
    "rectified_on_gaps": (lambda r: r.artefacts, lambda r: with_marks(r, "rectified", share=0.12)),
    "rectified_on_average": (lambda r: r.artefacts, lambda r: with_marks(r, "rectified", share=0.5)),
    "rectified_above_sibling": (lambda r: r.artefacts, lambda r: with_marks(r, "rectified", share=0.5)),
    "kept_outside_gaps": (lambda r: r.artefacts,
                          lambda r: with_marks(r, "rectified", share=0.85, where=lambda items: items["gap"].isna())),
    "lost_at_most_1": (lambda r: r.artefacts, lambda r: with_marks(r, "rectified", share=0.97)),
    "beats_control_on_gaps": (lambda r: r.artefacts, lambda r: with_marks(r, "control", share=1)),
    "beats_control_on_average": (lambda r: r.artefacts, lambda r: with_marks(r, "control", share=1)),
    "lone_gap_found": (lambda r: lone(r, 70, 100), lambda r: lone(r, 40, 100)),
    "lone_gap_ratio": (lambda r: lone(r, 70, 100, 5), lambda r: lone(r, 70, 100, 40)),
    "regeneration": (lambda r: r.artefacts, lambda r: with_probes(r, "trained", 0.01, kind="regeneration")),
    "editing": (lambda r: r.artefacts, lambda r: with_probes(r, "trained", 0.05, kind="edit")),
    "editing_above_regeneration": (lambda r: r.artefacts, lambda r: with_probes(r, "trained", 0.3, kind="edit")),
    "sibling_worse_somewhere": (lambda r: r.artefacts, lambda r: with_marks(r, "reference_1", share=1)),
    "drawn_consensus_right": (lambda r: r.artefacts, lambda r: with_probes(r, "trained", 0.5, "consensus", "edit", "green")),
    "drawers_fault": (lambda r: r.artefacts, lambda r: with_shares(r, "faults", 0.4)),
    "drawn_near_exact": (lambda r: r.artefacts, lambda r: exact_pictures(r, wrong=True)),
    "edits_flip": (lambda r: r.artefacts, lambda r: r.altered(flips=r.artefacts.flips.rename(
        columns={"n_right_wrong": "n_wrong_right", "n_wrong_right": "n_right_wrong"}))),
    "survives_seed": (lambda r: r.artefacts, lambda r: with_shares(r, "survival", 0.6)),
    "survives_encoding": (lambda r: r.artefacts, lambda r: with_shares(r, "survival", 0.6)),
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
    by_name = {name: paper[claim.worded(PAPER)] for name, claim in claims.CLAIMS.items()}
    assert by_name["trained_above_prompt_only"] == pytest.approx(69.7)
    assert by_name["rectified_on_average"] == pytest.approx(4.52)
    assert by_name["sibling_worse_somewhere"] == 8
    doubled = PAPER.assign(value=PAPER["value"] * 2)
    changed = claims.evaluate(run.artefacts, doubled, "testbed").set_index("claim")["paper_value"]
    assert changed[claims.CLAIMS["reaches_paper"].worded(doubled)] == pytest.approx(182.2)
    assert changed[claims.CLAIMS["more_than_20_types"].worded(doubled)] == 40


def without_truth(run):
    blank = {column: np.nan for column in ("verified_failures", "success", "ci_low", "ci_high", "label_noise",
                                           "consensus_answerable", "gaps_found", "ceiling")}
    items = run.artefacts.items
    items = items[items["suite"] != scores.GAP_ITEMS].assign(gap=None)
    probes = run.artefacts.probes.assign(truth=None, verified_failure=None)
    return run.altered(search=run.artefacts.search.assign(**blank), probes=probes, hits=None, gaps=None, agreement=None,
                       items=items)


def test_a_run_without_truth_says_what_it_cannot_test(run):
    table = claims.evaluate(without_truth(run), PAPER).set_index("claim")
    row = table.loc[claims.CLAIMS["reaches_paper"].worded(PAPER)]
    assert row["verdict"] == claims.NOT_TESTED and "truth" in row["reads"]
    assert table.loc[claims.CLAIMS["rectified_on_average"].text, "verdict"] == claims.HOLDS


def test_a_run_without_planted_gaps_says_so_where_a_claim_needs_them(run):
    made = run.artefacts
    gaps, agreement = grading.grade(made.failures, made.failures[["probe_id"]].assign(gap=None))
    bare = run.altered(hits=None, gaps=gaps, agreement=agreement,
                       items=made.items[made.items["suite"] != scores.GAP_ITEMS].assign(gap=None))
    table = claims.evaluate(bare, PAPER).set_index("claim")
    for name in ("gaps_hit", "types_match_gaps", "gaps_own_category", "rectified_on_gaps", "kept_outside_gaps",
                 "beats_control_on_gaps"):
        row = table.loc[claims.CLAIMS[name].worded(PAPER)]
        assert row["verdict"] == claims.NOT_TESTED and "gaps" in row["reads"].partition(": ")[2], name
    assert "table_gaps" not in tables.all_tables(bare, PAPER) and "planted" not in " ".join(report.caveats(bare))


@pytest.mark.parametrize(("kind", "names"), [("edit", {"editing", "editing_above_regeneration"}),
                                             ("regeneration", {"regeneration", "editing_above_regeneration"})])
def test_a_kind_of_probe_that_the_parameters_leave_out_is_not_tested_and_no_fault(run, kind, names):
    made = run.artefacts
    bare = run.altered(search=made.search[made.search["kind"] != kind], probes=made.probes[made.probes["kind"] != kind])
    for must_test in ("none", "testbed", "smoke"):
        table = claims.evaluate(bare, PAPER, must_test).set_index("claim")
        for name in names:
            row = table.loc[claims.CLAIMS[name].worded(PAPER)]
            assert row["verdict"] == claims.NOT_TESTED and row["reads"].endswith(f": no {kind} probes")


def test_a_kind_of_probe_that_one_auditor_alone_lacks_is_a_fault(run):
    made, lost = run.artefacts, lambda table: (table["kind"] == "edit") & (table["auditor"] == "trained")
    bare = run.altered(search=made.search[~lost(made.search)], probes=made.probes[~lost(made.probes)])
    with pytest.raises(RuntimeError, match="no edit probes of the trained auditor"):
        claims.evaluate(bare, PAPER, "testbed")


ABOUT_DRAWINGS = {"drawn_consensus_right", "drawers_fault", "drawn_near_exact", "edits_flip", "survives_seed",
                  "survives_encoding"}


@pytest.mark.parametrize(("change", "untested"), [
    (lambda made: dict(drawer="renderer"), ABOUT_DRAWINGS - {"edits_flip", "survives_encoding"}),
    (lambda made: dict(drawer="renderer", versions=None, flips=None, survival=None, faults=None), ABOUT_DRAWINGS),
    (lambda made: dict(versions=None, probes=made.probes.assign(image=made.probes["source_image"])), ABOUT_DRAWINGS),
    (lambda made: dict(survival=None), {"survives_seed", "survives_encoding"}),
    (lambda made: dict(survival=made.survival.assign(asked=0, survival=np.nan)), {"survives_seed", "survives_encoding"}),
    (lambda made: dict(flips=made.flips.assign(n_right_wrong=0, n_wrong_right=0)), {"edits_flip"}),
    (lambda made: dict(flips=made.flips[made.flips["kind"] != "edit"]), {"edits_flip"}),
    (lambda made: dict(faults=made.faults.assign(n=0, share=np.nan)), {"drawers_fault"}),
    (lambda made: dict(versions=made.versions[made.versions["version"] != pairs.EXACT]), {"drawn_near_exact"})])
def test_a_claim_about_drawn_pictures_is_left_out_where_nothing_of_the_kind_was_drawn(run, change, untested):
    table = claims.evaluate(run.altered(**change(run.artefacts)), PAPER, "testbed").set_index("claim")["verdict"]
    verdicts = {name: table[claims.CLAIMS[name].text] for name in ABOUT_DRAWINGS}
    assert {name for name, verdict in verdicts.items() if verdict == claims.NOT_TESTED} == untested


def test_a_run_by_diffusion_that_lost_its_pairs_stops_its_profile(run):
    with pytest.raises(RuntimeError, match="02_probes has no pairs"):
        claims.evaluate(run.altered(versions=None), PAPER, "testbed")


def test_success_beside_exact_pictures_is_the_difference_of_the_two_rows_of_the_drawers_table(run):
    gain, shares = drawn.success_beside_exact(run.artefacts), run.artefacts.faults.set_index(["auditor", "kind", "measure"])
    of = shares["share"].loc["trained", "all"]
    assert gain.value == pytest.approx(100 * (of["checked"] - of["exact"])) and gain.low < gain.value < gain.high
    same = drawn.success_beside_exact(exact_pictures(run, wrong=False))
    assert same.value == pytest.approx(100 * of["checked"]) and same.low < same.value < same.high


def test_an_audit_that_found_nothing_has_a_table_and_stops_no_profile(run):
    made = run.artefacts
    items = made.items[~made.items["model"].isin(["rectified", "control"])]  # there was nothing to learn from
    probes = made.probes.assign(disagrees=False, verified_failure=False)
    bare = run.altered(items=items, probes=probes, failures=made.failures.head(0), categories=made.categories.head(0))
    table = claims.evaluate(bare, PAPER, "testbed").set_index("claim")
    row = table.loc[claims.CLAIMS["three_times_prompt_only"].worded(PAPER)]
    assert row["verdict"] == claims.NOT_TESTED and row["reads"].endswith("no failure was found on either side")
    assert "not both made" in table.loc[claims.CLAIMS["rectified_on_average"].text, "reads"]


def test_of_held_out_questions_and_suspicions_no_claim_is_made(run):
    table = claims.evaluate(synthetic.unverified(run), PAPER)
    assert (table["verdict"] == claims.NOT_TESTED).all()
    reads = table.set_index("claim")["reads"]
    for name in ("rectified_on_average", "rectified_above_sibling", "lost_at_most_1", "sibling_worse_somewhere"):
        assert reads[claims.CLAIMS[name].text].endswith("no suite is about these pictures, so none was scored")


def test_a_profile_that_must_test_a_claim_stops_when_it_cannot(run):
    with pytest.raises(RuntimeError, match="This run must test .*must_test: testbed.*truth"):
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
    made.failures.drop(columns=["category", "form"]).to_parquet(folders[1] / "probes.parquet", index=False)
    made.search.to_csv(folders[1] / "search.csv", index=False)
    made.failures[["probe_id", "category"]].to_parquet(folders[2] / "failures.parquet", index=False)
    made.categories.to_parquet(folders[2] / "categories.parquet", index=False)
    made.items.to_parquet(folders[3] / "items.parquet", index=False)
    read = artefacts.load(*folders)
    assert read.hits is None and read.gaps is None and read.agreement is None
    assert read.failures[["probe_id", "category", "question", "image"]].equals(
        made.failures[["probe_id", "category", "question", "image"]])


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (91.2, 93, claims.HOLDS), (85, 91, claims.FAILS), (89, 92, claims.UNDECIDED), (85, 91.1, claims.UNDECIDED)])
def test_an_interval_on_both_sides_of_a_limit_decides_nothing(low, high, verdict):
    assert claims.verdict_of(stats.Estimate((low + high) / 2, low, high), 91.1, np.inf) == verdict


def test_a_wide_interval_is_no_evidence_that_two_auditors_are_equal(run):
    probes = run.artefacts.probes.groupby("auditor").head(40)  # forty pictures
    made = run.altered(probes=probes)
    assert judged(made, "prompt_only_not_below_random") == claims.UNDECIDED


def test_limits_that_the_paper_gives_move_with_the_papers_values(run):
    low = PAPER.assign(value=PAPER["value"].where(PAPER["item"] != "search_success", 30.0))
    table = claims.evaluate(run.artefacts, low, "testbed").set_index("claim")["verdict"]
    assert table[claims.CLAIMS["reaches_paper"].worded(low)] == claims.HOLDS  # 91.1 does not
    assert "reaches the paper's 30 %" in claims.CLAIMS["reaches_paper"].worded(low)
    assert judged(run.artefacts, "reaches_paper") != claims.HOLDS


def test_the_average_gain_is_the_difference_of_the_averages_in_the_tables(run):
    items = run.artefacts.items.assign(metric="mme", group=run.artefacts.items["item"].str[:-1])  # groups of ten, by task
    made = run.altered(items=items)
    gain = measures.average_gain(made, "rectified", "target")
    means = [measures.suite_average(items, model).value for model in ("rectified", "target")]
    assert gain.value == pytest.approx(means[0] - means[1]) and gain.low < gain.value < gain.high


def test_the_interval_of_the_rand_index_holds_its_estimate_where_many_failures_are_alone():
    n = 300
    clustered = pd.DataFrame(dict(probe_id=[str(i) for i in range(n)], source_image=[f"{i}.png" for i in range(n)],
                                  category=[i % 3 if i < 100 else -1 for i in range(n)]))
    gaps = pd.DataFrame(dict(probe_id=clustered["probe_id"], gap=[f"gap {i % 3}" for i in range(n)]))
    agreement = grading.grade(clustered, gaps)[1].iloc[0]
    assert agreement["ari_low"] <= agreement["ari"] <= agreement["ari_high"]


def test_what_the_target_alone_had_right_is_counted_among_disagreements_with_a_known_answer(run):
    probes = run.artefacts.probes.copy()
    unknown = probes.index[(probes["auditor"] == "trained") & probes["disagrees"]][::2]
    probes.loc[unknown, "truth"] = None
    known = probes[(probes["auditor"] == "trained") & probes["disagrees"] & probes["truth"].notna()
                   & probes["picture_reason"].isna()]  # of a rejected picture nothing is known
    probes.loc[known.index[:40], "truth"] = "blue"
    estimate = measures.target_only_correct(run.altered(probes=probes))
    assert estimate.value == pytest.approx(100 * 40 / len(known))


def test_a_clean_target_under_the_testbeds_profile_ends_well(run):
    items = run.artefacts.items[run.artefacts.items["suite"] != scores.GAP_ITEMS].assign(gap=None)
    clean = run.altered(hits=None, gaps=None, agreement=None, items=items)
    table = claims.evaluate(clean, PAPER, "testbed")
    assert (table["verdict"] == claims.NOT_TESTED).sum() == len(claims.ABOUT_GAPS) + 3


def test_what_must_be_tested_is_said_by_the_profile_and_not_by_the_name_of_the_run():
    profiles = ("testbed", "needle", "smoke", "full")
    said = {name: params.read_profile(PARAMS / f"{name}.yaml").get("must_test") for name in profiles}
    assert said == {"testbed": "testbed", "needle": "needle", "smoke": "smoke", "full": None}


def test_the_lone_gap_is_searched_at_the_temperature_of_all_other_searches():
    """At 1.0 the untrained auditor is weakest, so a ratio quoted there alone would be chosen after the fact."""
    assert "probe_temperature" not in params.read_profile(PARAMS / "needle.yaml")
