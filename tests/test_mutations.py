"""The tests notice when the code is wrong: each line below breaks one thing, and the named test must fail."""

import os
import shutil
import subprocess
import sys

import pytest

from auditdm_lib import paths

MUTATIONS = [  # file, what stands there, what is put instead, the test that must notice
    ("audit/consensus.py", "return 1 if members <= 1 else 2", "return 1", "test_consensus.py::test_declining_is_no_vote"),
    ("audit/consensus.py", "and not same(target_answer, agreed)", "and same(target_answer, agreed)",
     "test_consensus.py::test_an_abstaining_target_disagrees_but_nothing_disagrees_without_a_consensus"),
    ("audit/probes.py", "bool(v and d and not same_answer(a, t))", "bool(v and d)",
     "test_probes.py::test_a_wrong_consensus_is_label_noise_and_not_a_failure"),
    ("audit/checking.py", "[NOT_FOLLOWED if r else None for r in refused]", "[None for r in refused]",
     "test_checking.py::test_a_picture_is_checked_against_its_text_by_the_world"),
    ("training/rewards.py", 'np.where(judged["disagrees"], 1.0', 'np.where(answered, 1.0',
     "test_auditor.py::test_the_reward_is_equation_1_and_the_paper_s_is_one_parameter_away"),
    ("testbed/scenes.py", '"probe": (8,)', '"probe": (3,)', "test_scenes.py::test_splits_share_no_scan_and_no_scene"),
    ("testbed/skills.py", "if len(found) == 1 else None", "if found else None",
     "test_skills.py::test_answers_follow_the_scene"),
    ("testbed/gaps.py", "not all(held.get", "not any(held.get",
     "test_gaps.py::test_a_gap_says_its_wrong_answer_only_where_all_conditions_hold"),
    ("run/manifest.py", "if hash_file(folder / name) != sealed[name]:", "if False:",
     "test_manifest.py::test_any_flipped_bit_in_any_file_is_noticed_and_the_file_named"),
    ("run/manifest.py", "if name not in sealed:", "if False:",
     "test_manifest.py::test_a_file_that_was_added_is_noticed_and_so_is_one_in_a_part_that_is_read"),
    ("run/reach.py", "todo += names", "todo += []",
     "test_reach.py::test_a_module_and_the_data_file_that_it_names_are_followed_and_others_are_not"),
    ("stats.py", 'method="wilson"', 'method="normal"', "test_stats.py::test_wilson_interval_keeps_its_width_at_the_ends"),
    ("training/rectify_sets.py", 'answer=lambda x: x["consensus"]', 'answer=lambda x: x["target_answer"]',
     "test_rectify_sets.py::test_labels_are_the_consensus_whatever_truth_and_target_say"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A second checkout whose library can be broken without harm; the checkpoints are linked."""
    tree = tmp_path_factory.mktemp("mutated")
    for name in ("auditdm_lib", "tests", "notebooks", "params", "figures"):
        shutil.copytree(paths.ROOT / name, tree / name, ignore=shutil.ignore_patterns("checkpoints", "__pycache__", ".*"))
    shutil.copy(paths.ROOT / "pyproject.toml", tree)
    (tree / "auditdm_lib/testbed/checkpoints").symlink_to(paths.LIBRARY / "testbed/checkpoints")
    return tree


@pytest.mark.parametrize(("file", "old", "new", "test"), MUTATIONS, ids=[m[3].split("::")[1][:50] for m in MUTATIONS])
def test_a_broken_line_is_noticed(copy, file, old, new, test):
    path = copy / "auditdm_lib" / file
    source = path.read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {file}; update the list of mutations"
    path.write_text(source.replace(old, new), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", f"tests/{test}"], cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True)
    finally:
        path.write_text(source, encoding="utf-8")
    assert done.returncode == 1, f"the broken line was not noticed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert "1 failed" in done.stdout
