"""The tables and their files."""

import numpy as np
import pandas as pd
import pytest
import synthetic

from auditdm_lib import paths
from auditdm_lib.results import tables

PAPER = pd.read_csv(paths.PAPER_VALUES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic.make_run(tmp_path_factory.mktemp("run") / "02_probes", n=300)


def test_the_scores_name_every_model_suite_and_interval(run):
    table = tables.scores(run.artefacts.items).set_index("model")
    assert list(table.index) == ["target", "rectified", "control", "reference_1", "reference_2"]
    marks = run.artefacts.items.query("model == 'target' and suite == 'gqa-mini'")["correct"]
    assert table.loc["target", "gqa-mini"].startswith(f"{100 * marks.mean():.1f} [")
    assert list(table.columns[-2:]) == ["average of suites", "gap-items"]


def test_the_table_of_gaps_lists_the_missed_ones_too(run):
    table = tables.all_tables(run.artefacts, PAPER)["table_gaps"].set_index("gap")
    assert set(table.index) == set(synthetic.GAPS) and table.loc["sand is grass", "hits trained"] == 0
    assert table.loc["orange is red", "best failure type"] == "colour: orange said as red"


def test_a_target_without_planted_gaps_has_no_table_of_them(run):
    assert "table_gaps" not in tables.all_tables(run.altered(hits=None, gaps=None, agreement=None), PAPER)


def test_files_read_back_and_escape_what_models_write(run, tmp_path):
    table = pd.DataFrame(dict(name=["50 % & _more_ $x$"], share=[0.123456]))
    tables.write(table, tmp_path, "table_x")
    assert pd.read_csv(tmp_path / "table_x.csv").equals(table)
    assert r"50 \% \& \_more\_ \$x\$ & 0.12" in (tmp_path / "table_x.tex").read_text()


def test_the_papers_success_stands_beside_the_two_auditors_that_it_names(run):
    shown = tables.search(run.artefacts.search, PAPER).set_index(["auditor", "kind"])["the paper's success %"].dropna()
    assert shown.to_dict() == {("prompt_only", "all"): 21.4, ("trained", "all"): 91.1}


def test_the_assumptions_are_shares_with_intervals_and_empty_without_truth(run):
    table = tables.assumptions(run.artefacts.search)
    assert list(table["auditor"].unique()) == ["random", "prompt_only", "trained", "best_of_8"]
    assert table["answerable % [95 % interval]"].str.startswith("99.5 [").all()
    assert table.loc[0, "target alone is right % [95 % interval]"].startswith("1.5 [")
    unknown = tables.assumptions(run.artefacts.search.assign(consensus_answerable=np.nan, label_noise=np.nan))
    assert (unknown.filter(like="interval") == "").all(axis=None)
