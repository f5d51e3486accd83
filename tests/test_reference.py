"""The README says what the tracked run says."""

import pandas as pd
import pytest

from auditdm_lib import claims, reference


def test_the_readme_s_numbers_are_those_of_the_reference_run():
    text = reference.README.read_text(encoding="utf-8")
    for name, block in (("numbers", reference.numbers()), ("models", reference.models())):
        assert reference.fill(text, name, block) == text, "run `python -m auditdm_lib.reference` again"


def test_the_reference_is_small_and_its_claims_are_tested():
    files = [f for f in reference.REFERENCE.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 5e6
    table = pd.read_csv(reference.REFERENCE / "claims.csv")
    assert list(table.columns) == claims.COLUMNS and len(table) >= 12
    assert (table["verdict"] != claims.NOT_TESTED).sum() >= 8


def test_a_changed_number_changes_the_readme(tmp_path):
    for name in ("claims.csv", "search.csv"):
        (tmp_path / name).write_bytes((reference.REFERENCE / name).read_bytes())
    search = pd.read_csv(tmp_path / "search.csv")
    search.loc[0, "verified_failures"] += 1
    search.to_csv(tmp_path / "search.csv", index=False)
    assert reference.numbers(tmp_path) != reference.numbers()


def test_missing_markers_are_named():
    with pytest.raises(ValueError, match="markers"):
        reference.fill("no markers here", "numbers", "block")
