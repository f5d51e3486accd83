"""Pictures that nobody knows anything about are drawn anew by pipelines and audited, and a second run draws nothing."""

import pandas as pd
import pytest

from auditdm_lib.audit.auditor import BOTH, EXISTING_QUESTION, NEITHER, OWN_QUESTION
from auditdm_lib.audit.pairs import DRAWN, ORIGINAL, OTHER_SEED, RE_ENCODED
from auditdm_lib.run import manifest

TABLES = ("probes.parquet", "versions.parquet", "search.csv", "pairings.csv", "flips.csv", "survival.csv", "drawer.csv")


@pytest.fixture(scope="module")
def home(run_chains):
    """The home of the runs of `chains.drawn`."""
    return run_chains("drawn")


def test_captions_and_commands_are_drawn_in_training_and_probing(home):
    asked = pd.read_parquet(home / "runs/first/01_auditor/completions/imitation.parquet")
    probes = pd.read_parquet(home / "runs/first/02_probes/probes.parquet")
    assert {"regeneration", "edit"} < set(asked["kind"]) and asked.loc[asked["kind"] != "question", "question"].notna().any()
    trained = probes[probes["auditor"] == "trained"]
    assert set(trained["pairing"]) == {OWN_QUESTION, BOTH, EXISTING_QUESTION}
    assert set(probes.loc[probes["auditor"] == "random", "pairing"]) == {NEITHER}
    drawn = trained["image"] != trained["source_image"]
    assert drawn.sum() >= 5 and (trained.loc[drawn, "kind"] != "question").all()
    assert trained.loc[drawn, "verifier"].isin(["yes", "no", "unsure"]).all() and trained.loc[~drawn, "verifier"].isna().all()
    assert all((home / "runs/first/02_probes" / name).is_file() for name in probes["image"])


def test_pairs_are_asked_about_and_a_suspicion_is_drawn_again(home):
    paired = pd.read_parquet(home / "runs/first/02_probes/versions.parquet")
    counts = paired["version"].value_counts()
    assert counts[ORIGINAL] == counts[DRAWN] and set(counts.index) <= {ORIGINAL, DRAWN, OTHER_SEED, RE_ENCODED}
    assert paired["truth"].isna().all() and paired["consensus_right"].isna().all()


def test_a_second_run_gives_the_same_bytes_and_draws_nothing(home):
    pictures = list((home / "runs/.drawn").rglob("*.png"))
    first, second = (home / "runs" / run for run in ("first", "second"))
    sealed = (second / "01_auditor/manifest.json").stat().st_mtime_ns
    began = min(file.stat().st_mtime_ns for file in (second / "01_auditor").rglob("*"))
    assert pictures and all(file.stat().st_mtime_ns < min(began, sealed) for file in pictures)
    assert all((first / "02_probes" / name).read_bytes() == (second / "02_probes" / name).read_bytes() for name in TABLES)


def test_the_stages_name_the_pipelines_that_they_used(home):
    for folder in ("01_auditor", "02_probes"):
        inputs = manifest.verify(home / "runs/first" / folder)["key"]["inputs"]
        assert {f"image_model: {home / 'image'}", f"edit_model: {home / 'edit'}", "drawer: diffusion"} <= set(inputs)
