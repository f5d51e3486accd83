"""Runs whose parameters leave something out, or that find nothing, end well, and say which claims that leaves untested."""


import pandas as pd
import pytest

from auditdm_lib import paths
from auditdm_lib.results import claims
from auditdm_lib.run import manifest

PAPER = pd.read_csv(paths.PAPER_VALUES)


@pytest.fixture(scope="module")
def home(run_chains):
    """The home of the runs of `chains.LEFT_OUT`, each of which must test the claims of the profile `smoke`."""
    return run_chains("left_out")


def verdicts(home, run):
    table = pd.read_csv(home / "figures" / run / "claims.csv").set_index("claim")
    return {name: table.loc[claim.worded(PAPER)] for name, claim in claims.CLAIMS.items()}


@pytest.mark.parametrize(("run", "kind", "name"), [
    ("no-edits", "edit", "editing"), ("one-reference", "regeneration", "regeneration")])
def test_a_kind_of_probe_that_is_left_out_is_not_tested(home, run, kind, name):
    found = verdicts(home, run)[name]
    assert found["verdict"] == claims.NOT_TESTED and found["reads"] == f"02_probes/probes.parquet: no {kind} probes"
    assert verdicts(home, run)["reaches_paper"]["verdict"] != claims.NOT_TESTED


def test_checkpoints_and_plain_grpo_are_probed_and_best_of_n_is_left_out(home):
    probes = pd.read_parquet(home / "runs/no-edits/02_probes/probes.parquet")
    assert {"random", "prompt_only", "trained", "plain_grpo"} < set(probes["auditor"])
    assert "plain_000002" in set(probes["auditor"]) and not probes["auditor"].str.startswith("best_of").any()
    assert (home / "figures/no-edits/fig_coverage.png").exists()


def test_one_reference_is_said_on_the_page(home):
    assert "There is one reference" in (home / "figures/one-reference/report.html").read_text(encoding="utf-8")


def test_an_audit_without_a_failure_ends_with_a_page(home):
    assert not pd.read_parquet(home / "runs/no-failure/02_probes/probes.parquet")["disagrees"].any()
    assert not (home / "runs/no-failure/04_rectified/model").exists()
    assert set(pd.read_parquet(home / "runs/no-failure/05_scores/items.parquet")["model"]) == {"target", "reference_1"}
    found = verdicts(home, "no-failure")
    assert found["rectified_on_average"]["verdict"] == found["cheaper_than_random"]["verdict"] == claims.NOT_TESTED
    page = (home / "figures/no-failure/report.html").read_text(encoding="utf-8")
    assert "No failure type was found in 24 probes" in page and "Nothing was fine-tuned" in page


def test_every_stage_is_sealed(home):
    for run in ("no-edits", "one-reference", "no-failure"):
        for step in paths.CHAIN[1:-1]:
            assert manifest.verify(home / "runs" / run / step.folder)
