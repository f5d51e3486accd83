"""The README says what the tracked run says."""

import json

import pandas as pd
import pytest
import synthetic

from auditdm_lib.results import claims, reference


def test_the_readme_s_numbers_are_those_of_the_reference_run():
    text = reference.README.read_text(encoding="utf-8")
    for name, block in reference.blocks().items():
        assert reference.fill(text, name, block) == text, "run `python -m auditdm_lib.results.reference` again"


def test_the_reference_is_small_and_its_claims_are_tested():
    files = [f for f in reference.REFERENCE.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 5e6
    table = pd.read_csv(reference.REFERENCE / "claims.csv")
    assert list(table.columns) == claims.COLUMNS and len(table) >= 12
    assert (table["verdict"] != claims.NOT_TESTED).sum() >= 8


def test_a_changed_number_changes_the_readme(tmp_path):
    (tmp_path / "manifests").mkdir()
    for name in ("claims.csv", "search.csv", "gap_hits.csv", "manifests/02_generate_probes.json"):
        (tmp_path / name).write_bytes((reference.REFERENCE / name).read_bytes())
    search = pd.read_csv(tmp_path / "search.csv")
    search.loc[0, "verified_failures"] += 1
    search.to_csv(tmp_path / "search.csv", index=False)
    assert reference.numbers(tmp_path) != reference.numbers()


def test_missing_markers_are_named():
    with pytest.raises(ValueError, match="markers"):
        reference.fill("no markers here", "numbers", "block")


def test_long_searches_are_told_by_seed_with_coverage_and_a_lone_gap_by_where_it_is_found(tmp_path):
    search = synthetic.search()
    for run, seed, gaps in (("full", 0, list("abc")), ("full-1", 1, list("abc")), ("needle", 0, ["snow"])):
        folder = tmp_path / run
        folder.mkdir()
        search.to_csv(folder / "search.csv", index=False)
        hits = [dict(auditor=a, gap=g, hits=4 + i - seed, found_in=30, can_show=40)
                for a in search["auditor"].unique() for i, g in enumerate(gaps)]
        pd.DataFrame(hits).to_csv(folder / "gap_hits.csv", index=False)
        for stage, seconds in (("01_auditor", 1500 * (1 + seed)), ("02_probes", 300 * (1 + seed))):
            made = dict(seed=seed, probe_temperature=0.5, ceiling_pictures=50)
            record = dict(key=dict(parameters=made), timing=dict(wall_seconds=seconds))
            (folder / f"{stage}.json").write_text(json.dumps(record))
    several, ceilings, missed, lone, ceiling = reference.searches(tmp_path).split("\n\n")
    trained = [line for line in several.splitlines() if "| trained |" in line]
    assert [line.split(" | ")[:4] for line in trained] == [
        ["| full", "0", "30", "0.5"], ["| full-1", "1", "60", "0.5"], ["| mean of 2", "| 45", "| trained", "85.0%"]]
    assert "85.0% (82.7% to 87.1%) | 97.0% | 2 of 3 | 20,000 |" in trained[0] and trained[2].endswith("| 97.0% | 1.5 | 20,000 |")
    assert missed.endswith("full: a, 4 (40); full-1: a, 3 (40), b, 4 (40).")
    assert "| needle | 0 | 30 | 0.5 | trained" in lone and "needle" not in several and "mean" not in lone
    assert "30 / 40: 75.0% (59.8% to 85.8%)" in lone
    assert [line.count("of 50 pictures") for line in (ceilings, ceiling)] == [2, 1]
