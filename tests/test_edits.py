"""What people change in failure types: kept in one file, applied to all tables alike, refused for other types."""

import numpy as np
import pandas as pd
import pytest

from auditdm_lib.run import manifest
from auditdm_lib.taxonomy import edits
from auditdm_lib.taxonomy.confirm import CONFIRMATION_COLUMNS, confirmation

TYPES = pd.DataFrame(dict(
    category=[0, 1, 2], skill="colour", name=["a: x said as y", "b", "c"], description="", size=[60, 30, 10],
    share=[0.6, 0.3, 0.1], example_probe_ids="p", example_question="what?", example_consensus="x", example_target="y",
    by_random=[6, 3, 1]))


@pytest.fixture
def taxonomy(tmp_path):
    """A folder of stage 03 with three types: two on which the target is odd in 20 of 20 fresh probes, one on which nobody is."""
    rng, rows = np.random.default_rng(0), []
    for category, wrong in ((0, True), (1, True), (2, False), (-1, False)):
        rows += [dict(probe_id=f"fresh-{category}-{i}", category=category, picture=f"test-{i}", question="what?", truth="x",
                      target_answer="y" if wrong else "x", reference_answers=["x", "x"], agreed="x", target_odd=wrong,
                      references_odd=[False, False], saw=True) for i in range(20)]
    fresh = pd.DataFrame(rows).sample(frac=1, random_state=rng.integers(9)).reset_index(drop=True)
    failures = pd.DataFrame(dict(probe_id=[f"p{i}" for i in range(100)], category=[0] * 60 + [1] * 30 + [2] * 9 + [-1]))
    for name, table in dict(failures=failures, categories=TYPES, fresh=fresh,
                            confirmation=confirmation(fresh, TYPES, {}, 2)).items():
        table.to_parquet(tmp_path / f"{name}.parquet", index=False)
    return tmp_path


def saved(taxonomy, changes):
    """The types of the folder with these changes, through the file."""
    edits.save(changes, taxonomy / edits.NAME)
    return edits.read(taxonomy, str(taxonomy / edits.NAME))


def test_without_a_file_the_types_are_as_they_were_found(taxonomy):
    found = edits.read(taxonomy)
    pd.testing.assert_frame_equal(found.categories, TYPES)
    assert not edits.none(TYPES) and found.confirmation["verdict"].tolist() == ["confirmed", "confirmed", "not confirmed"]


def test_a_type_that_is_left_out_is_in_no_table_and_its_failures_in_no_type(taxonomy):
    found = saved(taxonomy, edits.veto(edits.none(TYPES), 1))
    assert found.categories["category"].tolist() == found.confirmation["category"].tolist() == [0, 2]
    assert found.failures["category"].value_counts().to_dict() == {0: 60, -1: 31, 2: 9}
    assert found.confirmation["verdict"].tolist() == ["confirmed", "not confirmed"]
    assert not edits.veto(edits.veto(edits.none(TYPES), 1), 1)


def test_a_new_name_stands_in_all_tables(taxonomy):
    found = saved(taxonomy, edits.rename(edits.none(TYPES), 1, "  yes \n: no # not a comment "))
    named = ["a: x said as y", "yes : no # not a comment", "c"]
    assert found.categories["name"].tolist() == found.confirmation["name"].tolist() == named
    assert not edits.rename(edits.rename(edits.none(TYPES), 1, "x"), 1, "")
    with pytest.raises(ValueError, match="at most 120"):
        edits.rename(edits.none(TYPES), 1, "x" * 121)


def test_a_merged_type_has_the_sums_and_is_tested_anew_on_one_probe_a_picture(taxonomy):
    found = saved(taxonomy, edits.merge(edits.none(TYPES), [2, 1]))
    assert found.categories[["category", "size", "by_random"]].to_numpy().tolist() == [[0, 60, 6], [1, 40, 4]]
    assert found.categories["share"].tolist() == pytest.approx([0.6, 0.4])
    assert found.failures["category"].value_counts().to_dict() == {0: 60, 1: 39, -1: 1}
    merged = found.confirmation.set_index("category").loc[1]
    assert merged["probes"] == 20  # both types were asked of the same 20 pictures
    assert list(found.confirmation) == CONFIRMATION_COLUMNS


def test_merging_two_true_types_keeps_the_verdict_and_three_are_one_group(taxonomy):
    changes = edits.merge(edits.merge(edits.none(TYPES), [0, 1]), [1, 2])
    assert changes.merge == ((0, 1, 2),) and edits.split(changes, 2).merge == ()
    found = saved(taxonomy, edits.merge(edits.none(TYPES), [0, 1]))
    assert found.confirmation["verdict"].tolist() == ["confirmed", "not confirmed"]
    with pytest.raises(ValueError, match="at least two"):
        edits.merge(edits.none(TYPES), [1, 1])


def test_the_order_of_the_rows_changes_nothing(taxonomy):
    changes = edits.rename(edits.merge(edits.none(TYPES), [0, 2]), 1, "new")
    first = saved(taxonomy, changes)
    for name in ("failures", "fresh"):
        pd.read_parquet(taxonomy / f"{name}.parquet").iloc[::-1].to_parquet(taxonomy / f"{name}.parquet", index=False)
    again = saved(taxonomy, changes)
    pd.testing.assert_frame_equal(first.categories, again.categories)
    pd.testing.assert_frame_equal(first.confirmation, again.confirmation)
    pd.testing.assert_frame_equal(first.failures, again.failures.iloc[::-1].reset_index(drop=True))


def test_the_file_is_the_same_bytes_and_gives_the_same_changes(tmp_path):
    changes = edits.Edits(edits.fingerprint(TYPES), (2,), {1: "b, “neu” 🎈"}, ((0, 1),))
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for file in files:
        edits.save(changes, file)
    assert files[0].read_bytes() == files[1].read_bytes() and edits.load(files[0], TYPES) == changes
    assert len(list(tmp_path.iterdir())) == 2  # nothing half-written is left


@pytest.mark.parametrize("text", [
    "", "veto: [1]", "[1, 2]", "{", "made_for: x\nveto: 3\nrename: {}\nmerge: []",
    "made_for: x\nveto: [yes]\nrename: {}\nmerge: []",
    "made_for: x\nveto: []\nrename: {1: 2}\nmerge: []", "made_for: x\nveto: []\nrename: {}\nmerge: [[1]]",
    "made_for: x\nveto: []\nrename: {}\nmerge: [[0, 1], [1, 2]]", "made_for: !!python/name:os.system\nveto: []"])
def test_a_file_of_another_form_is_one_sentence_with_the_remedy(tmp_path, text):
    (tmp_path / "edits.yaml").write_text(text)
    with pytest.raises(manifest.Stop, match="mend it, or delete it"):
        edits.load(tmp_path / "edits.yaml", TYPES)


@pytest.mark.parametrize("other", [TYPES.assign(size=[61, 30, 10]), TYPES.assign(name=["a", "b", "c"]), TYPES.head(2)])
def test_changes_for_other_types_are_refused(tmp_path, other):
    edits.save(edits.veto(edits.none(TYPES), 2), tmp_path / "edits.yaml")
    assert edits.load(tmp_path / "edits.yaml", TYPES).veto == (2,)
    with pytest.raises(manifest.Stop, match="made for other failure types"):
        edits.load(tmp_path / "edits.yaml", other)


def test_changes_that_name_a_type_that_is_not_there_are_refused(tmp_path):
    edits.save(edits.veto(edits.none(TYPES), 7), tmp_path / "edits.yaml")
    with pytest.raises(manifest.Stop, match="made for other failure types"):
        edits.load(tmp_path / "edits.yaml", TYPES)
