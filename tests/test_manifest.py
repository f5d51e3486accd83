"""A sealed folder notices every change; a commit leaves one complete result at every moment."""

import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditdm_lib.run import manifest

DEAD = 2**22 + 1  # above Linux's largest process id


@pytest.fixture
def sealed(tmp_path):
    """A sealed folder with a file, a nested file and a timing.csv."""
    folder = tmp_path / "02_probes"
    (folder / "images").mkdir(parents=True)
    (folder / "search.csv").write_text("auditor,success\nrandom,0.2\n")
    (folder / "images/a.png").write_bytes(bytes(range(256)))
    (folder / "timing.csv").write_text("stage,seconds\nask,1.5\n")
    manifest.write(folder, {"stage": "02_generate_probes"}, {"wall_seconds": 3.2})
    return folder


def test_a_sealed_folder_verifies_and_lists_every_file(sealed):
    data = manifest.verify(sealed)
    assert list(data["outputs"]) == ["images/a.png", "search.csv"]
    assert data["timing"]["outputs"].keys() == {"timing.csv"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_in_any_file_is_noticed_and_the_file_named(sealed, data):
    name = data.draw(st.sampled_from(["search.csv", "images/a.png", "timing.csv", "manifest.json"]))
    before = (sealed / name).read_bytes()
    at, bit = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(0, 7))
    flipped = before[:at] + bytes([before[at] ^ 1 << bit]) + before[at + 1:]
    (sealed / name).write_bytes(flipped)
    with pytest.raises(manifest.Damaged, match=name):
        manifest.verify(sealed)
    (sealed / name).write_bytes(before)


def test_a_missing_file_and_a_missing_manifest_are_noticed(sealed):
    (sealed / "search.csv").unlink()
    with pytest.raises(manifest.Damaged, match="search.csv is missing"):
        manifest.verify(sealed)
    (sealed / "manifest.json").unlink()
    with pytest.raises(manifest.Damaged, match="is not finished"):
        manifest.verify(sealed)


def test_seconds_change_nothing_but_the_timing_block(sealed, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(sealed, again)
    (again / "manifest.json").unlink()
    (again / "timing.csv").write_text("stage,seconds\nask,9.9\n")
    manifest.write(again, {"stage": "02_generate_probes"}, {"wall_seconds": 99.0})
    first, second = manifest.load(sealed), manifest.load(again)
    assert first.pop("timing") != second.pop("timing")
    assert first == second


def test_a_commit_replaces_the_old_result_whole(tmp_path):
    final = tmp_path / "01_auditor"
    final.mkdir()
    (final / "stale.txt").write_text("old")
    folder = manifest.temporary(final)
    (folder / "history.csv").write_text("new")
    manifest.write(folder, {}, {})
    manifest.commit(folder, final)
    assert sorted(path.name for path in final.iterdir()) == ["history.csv", "manifest.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["01_auditor"]


def test_what_a_dead_process_left_half_written_is_cleared(tmp_path):
    left = tmp_path / f".01_auditor.{DEAD}.tmp"
    left.mkdir()
    (left / "history.csv").write_text("half")
    manifest.settle(tmp_path / "01_auditor")
    assert not any(tmp_path.iterdir())


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    other = tmp_path / f".01_auditor.{os.getppid()}.tmp"
    other.mkdir()
    manifest.settle(tmp_path / "01_auditor")
    assert other.exists()


@pytest.mark.parametrize("old_moved_away", [False, True], ids=["before it", "halfway"])
def test_a_commit_cut_by_a_kill_is_finished_afterwards(tmp_path, old_moved_away):
    final, old = tmp_path / "01_auditor", tmp_path / ".01_auditor.old"
    new = tmp_path / f".01_auditor.{DEAD}.tmp"
    for folder, text in ((old if old_moved_away else final, "old"), (new, "new")):
        folder.mkdir()
        (folder / "history.csv").write_text(text)
        manifest.write(folder, {}, {})
    manifest.settle(final)
    assert manifest.verify(final) and (final / "history.csv").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["01_auditor"]


def test_the_environment_names_commit_and_versions():
    record = manifest.environment()
    assert record["packages"]["papermill"] and record["packages"].keys() >= {"torch", "transformers", "trl"}
    assert record["git_commit"] is None or len(record["git_commit"]) == 40
    assert json.dumps(record)
