"""A sealed folder notices every change; a commit leaves one complete result at every moment."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditdm_lib.run import commit, manifest


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
    with pytest.raises(manifest.Damaged, match="has no manifest.json"):
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
    folder = commit.temporary(final)
    (folder / "history.csv").write_text("new")
    manifest.write(folder, {}, {})
    commit.commit(folder, final)
    assert sorted(path.name for path in final.iterdir()) == ["history.csv", "manifest.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["01_auditor"]


def test_what_a_dead_process_left_half_written_is_cleared(tmp_path):
    left = tmp_path / ".01_auditor.tmp"
    left.mkdir()
    (left / "history.csv").write_text("half")
    assert commit.unsettled(tmp_path / "01_auditor")
    commit.settle(tmp_path / "01_auditor")
    assert not any(tmp_path.iterdir())


def test_what_belongs_to_another_name_is_left_alone(tmp_path):
    """A run named a, and one named a.v2 from before dots were refused."""
    other = tmp_path / ".a.v2.tmp"
    other.mkdir()
    (tmp_path / ".DS_Store").write_text("stray")
    commit.settle(tmp_path / "a")
    assert not commit.unsettled(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".DS_Store", ".a.v2.tmp"]


def test_a_file_that_was_added_is_noticed_and_so_is_one_in_a_part_that_is_read(sealed):
    (sealed / "images/.DS_Store").write_text("stray hidden files do not count")
    manifest.verify(sealed)
    (sealed / "images/adapter_config.json").write_text("{}")
    for names in ((), ("images",)):
        with pytest.raises(manifest.Damaged, match="images/adapter_config.json was added"):
            manifest.verify(sealed, *names)
    manifest.verify(sealed, "search.csv")


def test_only_the_parts_that_are_read_are_checked(sealed):
    (sealed / "search.csv").write_text("auditor,success\nrandom,0.9\n")
    manifest.verify(sealed, "images", "timing.csv")
    with pytest.raises(manifest.Damaged, match="search.csv is damaged"):
        manifest.verify(sealed, "search.csv")
    with pytest.raises(manifest.Damaged, match="plain is not part"):
        manifest.verify(sealed, "plain")


def test_a_stage_that_has_not_been_run_is_not_called_damaged(tmp_path):
    with pytest.raises(manifest.NotRun, match="02_probes has not been run yet"):
        manifest.load(tmp_path / "02_probes")


@pytest.mark.parametrize("content", ["[" * 100_000, "{}", "null", "\x00", '{"seal": 1, "timing": []}'])
def test_a_manifest_that_is_none_is_one_sentence(sealed, content):
    (sealed / "manifest.json").write_text(content)
    with pytest.raises(manifest.Damaged, match="manifest.json is damaged: its content does not match its own seal"):
        manifest.verify(sealed)


def test_the_digest_of_the_list_must_be_that_of_the_list(sealed):
    data = json.loads((sealed / "manifest.json").read_text())
    data["outputs_digest"] = "0" * 64
    data["seal"] = manifest.digest({name: value for name, value in data.items() if name not in ("seal", "timing")})
    (sealed / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(manifest.Damaged, match="its own seal"):
        manifest.load(sealed)


def test_a_folder_leaves_its_name_before_it_is_deleted(tmp_path, monkeypatch):
    (tmp_path / "grpo").mkdir()
    (tmp_path / "grpo/weights").write_text("old")
    monkeypatch.setattr(commit.shutil, "rmtree", lambda *args, **kwargs: None)  # killed before anything was deleted
    commit.discard(tmp_path / "grpo")
    assert not (tmp_path / "grpo").exists()


@pytest.mark.parametrize("old_moved_away", [False, True], ids=["before it", "halfway"])
def test_a_commit_cut_by_a_kill_is_finished_afterwards(tmp_path, old_moved_away):
    final, old = tmp_path / "01_auditor", tmp_path / ".01_auditor.old"
    new = tmp_path / ".01_auditor.tmp"
    for folder, text in ((old if old_moved_away else final, "old"), (new, "new")):
        folder.mkdir()
        (folder / "history.csv").write_text(text)
        manifest.write(folder, {}, {})
    commit.settle(final)
    assert manifest.verify(final) and (final / "history.csv").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["01_auditor"]


def test_the_environment_names_commit_and_versions():
    record = manifest.environment()
    assert record["packages"]["papermill"] and record["packages"].keys() >= {"torch", "transformers", "trl"}
    assert record["processor"]
    assert record["git_commit"] is None or len(record["git_commit"]) == 40
    assert json.dumps(record)
