"""The generated tables of the READMEs are those of the tracked runs."""

import json
import re

import pandas as pd
import pytest
import synthetic

from auditdm_lib import paths
from auditdm_lib.results import claims, rectification, reference
from auditdm_lib.run import manifest


def copied(folder, *names):
    """A folder with copies of some of the reference's files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((reference.REFERENCE / name).read_bytes())
    return folder


def test_the_readmes_hold_the_numbers_of_the_reference():
    assert {name for parts in reference.blocks().values() for name in parts} == {
        "summary", "numbers", "types", "rectification", "suites", "searches", "models"}
    for path, text in reference.filled().items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m auditdm_lib.results.reference readmes` again"


def test_the_reference_is_small_and_its_claims_are_tested():
    files = [f for f in reference.REFERENCE.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 8e6
    table = pd.read_csv(reference.REFERENCE / "claims.csv")
    assert list(table.columns) == claims.COLUMNS and len(table) >= 12
    assert (table["verdict"] != claims.NOT_TESTED).sum() >= 8


def test_a_changed_number_changes_the_tables(tmp_path):
    searches = [file.relative_to(reference.REFERENCE).as_posix() for file in reference.SEARCHES.glob("*/*")]
    folder = copied(tmp_path, "claims.csv", "types.csv", "search.csv", "gap_hits.csv", "table_scores.csv",
                    "manifests/02_generate_probes.json", *searches)
    assert (reference.numbers(folder), reference.summary(folder)) == (reference.numbers(), reference.summary())
    search = pd.read_csv(folder / "search.csv")
    search.loc[0, "success"] += 0.01
    search.to_csv(folder / "search.csv", index=False)
    assert reference.numbers(folder) != reference.numbers() and reference.summary(folder) != reference.summary()


def test_the_summary_shows_search_and_rectification_beside_the_papers_values():
    rows = {row.split(" | ")[0]: row for row in reference.summary().splitlines()[2:] if row.startswith("|")}
    assert "| 91.1% |" in rows["| search success: trained"] and "| 21.4% |" in rows["| search success: prompt only"]
    assert {f"| {what}: {model}" for what in ("accuracy inside the gaps", "average of 4 suites")
            for model in ("target", "rectified", "control")} < set(rows) and len(rows) == 11


def test_the_readings_of_the_readmes_are_those_of_the_data():
    verdicts = pd.read_csv(reference.REFERENCE / "claims.csv").set_index("claim")["verdict"]
    paper = pd.read_csv(paths.PAPER_VALUES)
    for name in ("beats_control_on_gaps", "beats_control_on_average", "reaches_paper"):
        assert verdicts[claims.CLAIMS[name].worded(paper)] in (claims.FAILS, claims.UNDECIDED)
    hits = pd.read_csv(reference.REFERENCE / "gap_hits.csv").pivot(index="gap", columns="auditor", values="hits")
    assert hits["trained"].nlargest(3).sum() > hits["trained"].sum() / 2
    assert (hits["trained"] < hits["prompt_only"]).any() and (hits["trained"] == 0).sum() == 1
    search = pd.read_csv(reference.REFERENCE / "search.csv").set_index(["auditor", "kind"])["success"]
    assert search["best_of_8", "question"] >= search["trained", "all"]
    assert max(search["trained", kind] for kind in ("edit", "regeneration")) < search["trained", "question"]
    drawn = pd.read_csv(reference.REFERENCE / "search.csv").set_index(["auditor", "kind"]).loc[("trained", "all")]
    fault = pd.read_csv(reference.REFERENCE / "table_drawer.csv")
    fault = fault.query("auditor == 'trained' and kind == 'all' and measure == 'fault'").iloc[0]
    assert 0.28 < drawn["picture_rejected"] / drawn["drawn"] < 0.38 and 0.28 < fault["successes"] / fault["n"] < 0.38
    long = [pd.read_csv(folder / "search.csv").set_index(["auditor", "kind"])["success"]["trained", "all"]
            for folder in reference.SEARCHES.glob("full*")]
    assert len(long) == 3 and search["trained", "all"] < min(long) and max(long) < 0.9
    manifests = [json.loads(file.read_text(encoding="utf-8")) for file in (reference.REFERENCE / "manifests").glob("0*.json")]
    assert 800 < sum(record["timing"]["wall_seconds"] for record in manifests) < 1500  # "about twenty minutes"


def test_the_comparison_of_arms_replaces_the_rows_of_its_profiles_and_keeps_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    folder, drawn = tmp_path / "reference", tmp_path / "figures" / rectification.NAME
    folder.mkdir()
    drawn.mkdir(parents=True)
    row = dict.fromkeys(rectification.COLUMNS, 1) | dict(arm="nothing", seed="mean", budget="none", measure="gap-items")
    pd.DataFrame([row | dict(profile="paligemma2", score=5), row | dict(profile="rare", score=7)]).to_csv(
        folder / "rectification.csv", index=False)
    pd.DataFrame([row | dict(profile="rare", score=9)]).to_csv(drawn / "rectification.csv", index=False)
    claim = dict(profile="rare", claim="Audited data beat", budget="1000 examples", score=3, ci_low=1, ci_high=5, verdict="holds")
    pd.DataFrame([claim]).to_csv(drawn / "claims.csv", index=False)
    manifest.write(drawn, {"stage": "rectification"}, {})
    reference.collect_arms(rectification.NAME, folder)
    rows = pd.read_csv(folder / "rectification.csv")
    assert rows[["profile", "score"]].to_numpy().tolist() == [["paligemma2", 5], ["rare", 9]]
    shown = reference.arms(folder)
    assert "| Audited data beat | rare | 1000 examples | 3.0 (1.0 to 5.0) | holds |" in shown and "paligemma2" not in shown
    (drawn / "claims.csv").write_text("altered")
    with pytest.raises(manifest.Damaged):
        reference.collect_arms(rectification.NAME, folder)


def test_missing_markers_are_named():
    with pytest.raises(ValueError, match="markers"):
        reference.fill("no markers here", "numbers", "block")


def test_long_searches_have_a_row_a_seed_with_coverage_and_a_single_gap_the_pictures_it_is_found_in(tmp_path):
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


def test_the_readmes_say_of_the_sixteen_suites_what_the_rows_say():
    rows = rectification.load(reference.REFERENCE / "rectification.csv").set_index(["profile", "arm", "measure"])["score"]
    text = " ".join(reference.README.read_text(encoding="utf-8").split())
    for profile, family, models in (("paligemma2", "PaliGemma2", ("target", "rectified", "reference_1", "reference_2")),
                                    ("gemma3", "Gemma3", ("target", "rectified", "reference_2", "reference_1"))):
        said = re.findall(r"\b\d\d\.\d\b", text.partition(f"`params/{profile}.yaml`")[2])[:4]
        assert said == [f"{rows[profile, model, f'mean of 8 suites, {family}']:.1f}" for model in models]
