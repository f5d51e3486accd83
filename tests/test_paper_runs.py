"""A run's half of the paper's tables and figures of scores: the main tables, Figure 2, who beats whom, and the tracked rows."""

import json

import pandas as pd
import pytest
from test_paper import items

from auditdm_lib import paths
from auditdm_lib.results import paper, paper_runs
from auditdm_lib.run import manifest

VALUES = paper.read()
TASKS = ["vqav2-mini", "gqa-mini", "okvqa-mini", "ai2d-mini", "docvqa-mini", "chartqa-mini", "refcoco-mini", "cococap-mini"]
GENERAL = ["mmbench-mini", "mmt-mini", "seed-mini", "mme-mini", "mmmu-mini", "mmstar-mini", "realworldqa-mini", "pope-mini"]


def run_items(suites=TASKS, **right):
    """Ten items a suite; `right` says how many of them a model has right, the same on each suite or one number for each."""
    return items({model: dict(zip(suites, n if isinstance(n, list) else [n] * len(suites), strict=True)) | {"gap-items": 0}
                  for model, n in right.items()})


def test_a_family_is_there_with_all_of_its_eight_suites_only_and_in_the_papers_order():
    whole = run_items([*GENERAL[::-1], *TASKS], target=5)
    found = paper_runs.families(whole, VALUES)
    assert list(found) == ["PaliGemma2", "Gemma3"]
    assert list(found["Gemma3"]["suite"].unique()) == GENERAL  # the order of the file of the paper's numbers
    assert "gap-items" not in set(found["PaliGemma2"]["suite"]) and found["PaliGemma2"]["benchmark"].nunique() == 8
    assert paper_runs.families(run_items([*TASKS[1:], *GENERAL], target=5), VALUES).keys() == {"Gemma3"}
    assert paper_runs.families(run_items(["own"], target=5), VALUES) == {}


def test_the_main_table_has_each_suite_the_mean_the_gain_with_its_interval_and_the_papers_numbers():
    found = paper_runs.families(run_items(target=5, rectified=[9, *[5] * 7], reference_1=6), VALUES)["PaliGemma2"]
    table, caption = paper_runs.main_table(found, VALUES, "PaliGemma2")
    assert list(table["suite"]) == [*TASKS, paper_runs.MEAN]
    first, last = table.iloc[0], table.iloc[-1]
    assert (first["target"], first["rectified"], first["reference_1"]) == (50, 90, 60)
    assert first["gain [95 % interval]"].startswith("40.0 [") and last["gain [95 % interval]"].startswith("5.0 [")
    printed = VALUES[VALUES["item"] == "fig2_average"].set_index("series")["value"]
    assert (last["target"], last["rectified"]) == (50, 55) and last["PaliGemma2-3B"] == printed["PaliGemma2-3B"]
    assert (first["PaliGemma2-3B"], first["PaliGemma2-3B + AuditDM"], first["the paper's gain"]) == (84.8, 86.7, 1.9)
    assert table.set_index("suite").loc["gqa-mini", "PaliGemma2-28B"] == 68.3 and "As printed in the paper" in caption
    changed = VALUES.assign(value=VALUES["value"].replace(84.8, 80.0))
    assert paper_runs.main_table(found, changed, "PaliGemma2")[0].loc[0, "the paper's gain"] == 6.7


def test_without_a_rectified_model_the_main_table_has_no_gain():
    found = paper_runs.families(run_items(target=5, reference_1=6), VALUES)["PaliGemma2"]
    table, _ = paper_runs.main_table(found, VALUES, "PaliGemma2")
    assert "rectified" not in table and (table["gain [95 % interval]"] == "").all()
    assert paper_runs.standing(found).empty


def test_the_standing_says_where_the_rectified_model_is_ahead_and_which_suites_it_loses():
    found = paper_runs.families(run_items(target=5, rectified=[9, *[6] * 6, 4], reference_1=7), VALUES)["PaliGemma2"]
    past, sibling = paper_runs.standing(found).to_dict("records")
    assert (past["rectified minus"], past["difference"], past["ahead on"], past["suites"]) == ("target", 11.25, 7, 8)
    assert past["ci_low"] < 11.25 < past["ci_high"] and past["behind by more than a point"].startswith("cococap-mini (-10.0 [")
    assert sibling["difference"] < 0 and sibling["behind by more than a point"].count("; ") == 6


def test_figure_2_of_a_family_shows_the_runs_means_beside_the_papers_averages():
    found = paper_runs.families(run_items(target=5, rectified=9, control=7, reference_1=8), VALUES)["PaliGemma2"]
    figure = paper_runs.fig2_family(found, VALUES, "PaliGemma2", "testbed result, run 'x'")
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == [50, 90, 70, 80]
    averages = VALUES[(VALUES["item"] == "fig2_average") & VALUES["series"].str.startswith("PaliGemma2")]["value"]
    assert sorted(bar.get_height() for bar in right.patches) == sorted(averages)
    assert "As printed in the paper" in " ".join(figure.texts[0].get_text().split())


def test_the_rows_of_a_run_name_every_model_suite_and_mean_with_what_the_audit_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    with pytest.raises(manifest.Stop):
        paper_runs.rows("small", VALUES)
    search = pd.DataFrame([("random", "question", 900, 0), ("trained", "all", 100, 500), ("trained", "edit", 30, 500)],
                          columns=["auditor", "kind", "probing_calls", "training_calls"])
    sets = pd.DataFrame(dict(set=["audited", "control"], examples=[40, 41]))
    rounds = pd.DataFrame(dict(round=[1, 2], examples=[45, 60], taken=[False, True]))
    second = tmp_path / "small" / "04_rectified" / "rounds" / "2"
    second.mkdir(parents=True)
    pd.DataFrame(dict(probe_id=["a", "b", "c"])).to_parquet(second / "probes.parquet")
    scored = run_items(target=5, rectified=9, control=8, reference_1=6)
    for stage, files in {"02_probes": {"search.csv": search.to_csv}, "05_scores": {"items.parquet": scored.to_parquet},
                         "04_rectified": {"sets.csv": sets.to_csv, "rounds.csv": rounds.to_csv}}.items():
        folder = tmp_path / "small" / stage
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in files.items():
            write(folder / name, index=False)
        parameters = {"seed": 3, "imitation_rounds": 2, "imitation_pictures": 50}
        manifest.write(folder, {"key": {"parameters": parameters, "inputs": {}}}, {})
    table = paper_runs.rows("small", VALUES)
    assert list(table) == paper_runs.COLUMNS and (table["profile"] == "small").all() and (table["seed"] == 3).all()
    measured = table.set_index(["arm", "measure"])
    mean = f"{paper_runs.MEAN} of 8 suites, PaliGemma2"
    assert measured.loc[("rectified", mean), ["score", "examples", "target_calls"]].tolist() == [90, 60, 600 + 2 * 50 + 3]
    assert measured.loc[("control", mean), ["score", "examples", "target_calls"]].tolist() == [80, 46, 0]
    assert measured.loc[("reference_1", f"rectified minus this, {mean}"), "score"] == 30
    assert len(table) == 4 * 9 + 3 and (table["ci_low"] <= table["score"]).all() and (table["score"] <= table["ci_high"]).all()
    assert json.dumps(table.to_dict("records"))  # plain numbers and texts


def test_a_run_s_folder_gets_tables_and_figures_of_whole_families_only_and_the_same_bytes_twice(tmp_path):
    scored = run_items([*TASKS, *GENERAL[1:]], target=5, rectified=9, reference_1=8)
    once, again = tmp_path / "once", tmp_path / "again"
    for folder in (once, again):
        folder.mkdir()
        made = paper_runs.write(scored, VALUES, folder, "testbed result, run 'x'", ["some/where/gemma3-m"])
    assert list(made) == ["table_paligemma2", "table_paligemma2_standing"]
    names = {file.name for file in once.iterdir()}
    assert names == {*(f"{name}.{kind}" for name in made for kind in ("csv", "tex")), *(
        f"{name}_paligemma2.{kind}" for name in ("fig2", "fig_radar") for kind in ("pdf", "png"))}
    assert all((once / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert "gemma3-m" in made["table_paligemma2"] and "gemma3-m" in set(
        made["table_paligemma2_standing"]["rectified minus"])
    assert paper_runs.write(run_items(["own"], target=5), VALUES, tmp_path, "", []) == {}


def test_two_references_of_one_name_are_told_apart_by_their_number():
    assert paper_runs.siblings(["a/m", "b/l"]) == {"reference_1": "m", "reference_2": "l"}
    assert paper_runs.siblings(["openai:org/m@http://localhost:1/v1"]) == {"reference_1": "m"}
    assert paper_runs.siblings(["a/m", "b/m"]) == {"reference_1": "m 1", "reference_2": "m 2"}
