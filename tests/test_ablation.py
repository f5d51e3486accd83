"""The ablation: four runs that differ in their kinds of probes alone, compared by their scores, each file checked first."""

import numpy as np
import pandas as pd
import pytest
import synthetic

from auditdm_lib import paths
from auditdm_lib.evaluate import scores
from auditdm_lib.results import ablation
from auditdm_lib.run import manifest, params

PAPER = pd.read_csv(paths.PAPER_VALUES)
SUITES = {"vqav2-mini": "gqa-mini", "gqa-mini": "refcoco-mini", "okvqa-mini": "ai2d-mini"}


def scored(seed: int = 0) -> pd.DataFrame:
    items = synthetic.items(60, seed)
    return items.assign(suite=items["suite"].replace(SUITES))


def seal(folder, inputs: dict, **parameters) -> str:
    record = {"stage": folder.name, "key": {"parameters": parameters, "inputs": inputs}}
    return manifest.write(folder, record, {"wall_seconds": 1})["outputs_digest"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Four finished runs below a home of their own; their folders by arm."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    for k, arm in enumerate(ablation.ARMS):
        folders = [paths.result(ablation.run_of(arm), stage) for stage in ablation.STAGES]
        for folder in folders:
            folder.mkdir(parents=True)
        shared = dict(run=ablation.run_of(arm), seed=0, edit_share=k / 3)
        sets = pd.DataFrame({"set": ["audited", "control"], "examples": 900, "target was wrong": [270, 40]})
        sets.to_csv(folders[2] / "sets.csv", index=False)
        scored(k).to_parquet(folders[3] / "items.parquet", index=False)
        rectified = [seal(folder, {}, **shared) for folder in folders[:3]][-1]
        seal(folders[3], {"04_rectified": rectified}, **shared)
    return {arm: paths.RUNS / ablation.run_of(arm) for arm in ablation.ARMS}


def test_the_gains_are_paired_by_item_and_stand_beside_the_papers():
    items = {arm: scored(k) for k, arm in enumerate(ablation.ARMS)}
    sets = {arm: pd.Series({"examples": 900, "target was wrong": 270}) for arm in items}
    table = ablation.table(items, sets, PAPER).set_index(["arm", "measure"])
    gain = scores.gains(items["edit"], "rectified", "target")["gqa-mini"]
    row = table.loc[("edit", "gqa-mini")]
    assert row[["gain", "ci_low", "ci_high"]].tolist() == pytest.approx([100 * x for x in gain], abs=1e-3)
    assert row["paper_benchmark"] == "GQA" and row["paper_gain"] == pytest.approx(67.2 - 66.2)
    assert table.loc[("all", "refcoco-mini"), "paper_gain"] == pytest.approx(74.6 - 73.4)
    assert np.isnan(table.loc[("question", "refcoco-mini"), "paper_gain"])  # the paper prints none
    suites = [table.loc[("all", name), "gain"] for name in (*ablation.STANDS_FOR, "pope-mini") if ("all", name) in table.index]
    assert len(suites) == 3 and {"mean of all suites", "gap-items"} < set(table.index.get_level_values("measure"))
    assert (table["ci_low"] < table["gain"]).all() and (table["gain"] < table["ci_high"]).all()


def test_an_arm_that_rectified_nothing_has_no_gain_and_the_rest_has(runs):
    items, sets, _ = ablation.read()
    items["regeneration"] = items["regeneration"][items["regeneration"]["model"] != "rectified"]
    table = ablation.table(items, sets, PAPER)
    assert table.loc[table["arm"] == "regeneration", "gain"].isna().all() and len(table) == 20
    assert table.loc[table["arm"] != "regeneration", "gain"].notna().all()


def test_figure_table_and_manifest_are_written_and_are_the_same_bytes_again(runs):
    folder = ablation.write()
    first = manifest.verify(folder)
    assert set(first["outputs"]) == {"ablation.csv", "table_ablation.csv", "table_ablation.tex", "fig_ablation.pdf",
                                     "fig_ablation.png"}
    assert len(first["key"]["inputs"]) == 9 and first["outputs"] == manifest.verify(ablation.write())["outputs"]
    assert len(pd.read_csv(folder / "ablation.csv")) == 20
    shown = pd.read_csv(folder / "table_ablation.csv")["probes"].tolist()
    assert shown == ["questions only", "regeneration only", "editing only", "all three"]


def test_runs_that_are_missing_altered_or_older_are_named_with_the_commands_that_make_them(runs):
    (runs["edit"] / "05_scores" / "manifest.json").unlink()
    (runs["question"] / "04_rectified" / "sets.csv").write_text("set\n")
    seal(runs["all"] / "04_rectified", {}, run="ablation-all", seed=1)
    (runs["regeneration"]).rename(runs["regeneration"].with_name("away"))
    with pytest.raises(manifest.Stop) as problem:
        ablation.read()
    words = str(problem.value)
    assert all(f"auditdm run ablation-{arm} --to 05" in words for arm in ("edit", "question", "regeneration"))
    assert "ablation-regeneration/01_auditor has not been run yet" in words and "sets.csv is damaged" in words


def test_a_target_rectified_again_after_it_was_scored_is_noticed(runs):
    folder = runs["all"] / "04_rectified"
    (folder / "sets.csv").write_text("set,examples,target was wrong\naudited,1,1\n")
    seal(folder, {}, run="ablation-all", seed=0)
    with pytest.raises(manifest.Stop, match="04_rectified was made again after 05_scores.*auditdm run ablation-all --to 05"):
        ablation.read()


def test_an_arm_whose_probes_are_newer_than_its_training_is_noticed(runs):
    (runs["all"] / "05_scores" / "manifest.json").unlink()
    probes = seal(runs["all"] / "02_probes", {}, run="ablation-all", seed=0)
    rectified = seal(runs["all"] / "04_rectified", {"02_probes": probes}, run="ablation-all", seed=0)
    seal(runs["all"] / "05_scores", {"04_rectified": rectified}, run="ablation-all", seed=0)
    ablation.read()
    (runs["all"] / "02_probes" / "probes.csv").write_text("other\n")
    seal(runs["all"] / "02_probes", {}, run="ablation-all", seed=0)
    with pytest.raises(manifest.Stop, match="02_probes was made again after 04_rectified"):
        ablation.read()


def test_arms_that_drew_by_different_pipelines_of_one_name_are_not_compared(runs):
    for arm, digest in (("edit", "old"), ("all", "old")):
        seal(runs[arm] / "02_probes", {"edit_model: models/edit": digest}, run=ablation.run_of(arm), seed=0)
    ablation.read()
    seal(runs["all"] / "02_probes", {"edit_model: models/edit": "new"}, run="ablation-all", seed=0)
    with pytest.raises(manifest.Stop, match="did not use the same edit_model: models/edit.*auditdm run ablation-edit --to 05"):
        ablation.read()


def test_runs_that_differ_in_more_than_their_kinds_are_not_compared(runs):
    seal(runs["all"] / "02_probes", {}, run="ablation-all", seed=0, probes_per_auditor=7)
    with pytest.raises(manifest.Stop, match="differ in probes_per_auditor, so"):
        ablation.read()


def test_the_profiles_of_the_arms_differ_in_the_shares_alone():
    profiles = {arm: params.read_profile(paths.PARAMS / f"{ablation.run_of(arm)}.yaml") for arm in ablation.ARMS}
    rest = [{name: value for name, value in values.items() if name not in ablation.ABLATED} for values in profiles.values()]
    assert all(values == rest[0] for values in rest) and set(ablation.STANDS_FOR) < set(rest[0]["suites"])
    shares = {arm: (values["regeneration_share"], values["edit_share"]) for arm, values in profiles.items()}
    assert shares == {"question": (0, 0), "regeneration": (1, 0), "edit": (0, 1), "all": (0.33, 0.33)}
