"""A reward of one's own is a plain function, tried before anything is loaded, and part of what a result depends on."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import trainings

from auditdm_lib import paths
from auditdm_lib.audit import auditor
from auditdm_lib.run import functions, params, stage
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training import grpo, rewards
from auditdm_lib.training.trainings import Changed

SOURCE = rewards.__doc__[rewards.__doc__.index("    import numpy"):rewards.__doc__.index("`reward:")]
OTHERS = """
import numpy as np

def too_few(probes): return np.ones(2)
def a_column(probes): return np.ones((len(probes), 1))
def undefined(probes): return np.full(len(probes), np.nan)
def failing(probes): return probes["truth"]
def meddling(probes):
    probes["disagrees"] = True
    return np.zeros(len(probes))
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A module with the documented example, and one with rewards that are of no use."""
    (tmp_path / "my_rewards.py").write_text("".join(line[4:] + "\n" for line in SOURCE.splitlines()))
    (tmp_path / "other_rewards.py").write_text(OTHERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_rewards", "other_rewards"):
        sys.modules.pop(name, None)


def test_the_documented_example_does_what_it_says(written):
    reward = rewards.load_reward("my_rewards:short_questions")
    long = "What is the colour of the very small umbrella over there?"
    assert reward(rewards.TRIAL).tolist() == [1, 0, 0, 0, 1]
    assert reward(rewards.TRIAL.assign(question=long)).tolist() == [0.5, 0, 0, 0, 0.5]


def test_an_error_of_a_model_or_a_server_gives_the_auditor_no_advantage(tmp_path, monkeypatch):
    judged = pd.DataFrame(dict(
        invalid_reason=[None] * 5 + ["empty", None, None],
        errors=[0, 1, 1, 0, 1, 0, 0, 0], consensus=["a", None, "b", None, None, None, "a", "a"],
        target_missing=[None, None, "error", "not judged"] + [None] * 4, disagrees=[True, False, True] + [False] * 5))
    paid = rewards.without_errors(judged, rewards.equation_1(judged, -0.3), 4)
    assert paid.tolist() == [1, 1, 1, 1, pytest.approx(-0.1), -0.3, 0, 0]  # the mean of the others in the group
    monkeypatch.setattr(auditor, "judge", lambda *args, **how: trainings.judge(*args, **how).assign(
        target_missing="not judged", disagrees=False, consensus=None))
    assert set(trainings.reinforce(tmp_path, steps=1)[2]["reward"]) == {0}  # not the -0.2 for no consensus
    nothing = rewards.without_errors(judged.iloc[[1, 4]], np.array([-0.3, -0.3]), 2)
    assert nothing.tolist() == [0, 0]


@pytest.mark.parametrize(("name", "words"), [
    ("my_rewards", "does not name a function: write module:function"), ("a b:c", "does not name a function"),
    ("no_such_module:reward", "there is no module no_such_module: put no_such_module.py into the repository"),
    ("my_rewards:long_questions", "defines no function long_questions: it defines short_questions"),
    ("other_rewards:too_few", r"numbers of the shape \(2,\) for 5 probes"),
    ("other_rewards:a_column", r"numbers of the shape \(5, 1\) for 5 probes"),
    ("other_rewards:undefined", "gave nan for a probe: return finite numbers"),
    ("other_rewards:failing", "raised KeyError when it was tried")])  # no function sees the truth
def test_what_is_no_reward_is_refused_before_anything_is_loaded(written, name, words):
    with pytest.raises(Stop, match=f"^reward: .*{words}"):
        rewards.load_reward(name)
    if not name.startswith("other"):  # what its source shows is a fault of the profile already
        known = params.declared_anywhere()
        with pytest.raises(params.BadParameters, match=words):
            params.check({"reward": name}, known, "profile")


def test_a_reward_cannot_change_the_probes(written):
    before = rewards.TRIAL.copy()
    rewards.load_reward("other_rewards:meddling")(rewards.TRIAL)
    pd.testing.assert_frame_equal(rewards.TRIAL, before)


def test_its_source_is_part_of_the_stages_key(written):
    step, known = paths.step("01_train_auditor"), params.declared(paths.NOTEBOOKS / "01_train_auditor.ipynb")

    def key(name):
        return stage.stage_key(step, params.effective({"reward": name}, known), known)["inputs"][f"reward: {name}"]
    before = key("my_rewards:short_questions")
    assert before and key("equation_1") is None  # the kit's own is among the sources
    with open(written / "my_rewards.py", "a") as source:
        source.write("\n# another\n")
    assert key("my_rewards:short_questions") != before


def test_the_reward_that_runs_is_the_source_that_is_hashed(written, monkeypatch):
    assert rewards.load_reward("my_rewards:short_questions")(rewards.TRIAL).tolist() == [1, 0, 0, 0, 1]
    file = written / "my_rewards.py"
    file.write_text(file.read_text().replace("0.5, 1.0", "0.5, 2.0"))  # in the same kernel, of the same length
    assert rewards.load_reward("my_rewards:short_questions")(rewards.TRIAL).tolist() == [2, 0, 0, 0, 2]
    root = written / "repository"
    root.mkdir()
    (root / "my_rewards.py").write_text(file.read_text().replace("0.5, 2.0", "0.5, 3.0"))  # another of that name comes first
    monkeypatch.setattr(paths, "ROOT", root)
    assert rewards.load_reward("my_rewards:short_questions")(rewards.TRIAL).tolist() == [3, 0, 0, 0, 3]


def test_grpo_is_rewarded_by_it_and_is_another_training_when_it_changes(written, tmp_path, monkeypatch):
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    _, history, asked = trainings.reinforce(tmp_path / "work", steps=2, reward="my_rewards:short_questions")
    words = asked["question"].fillna("").str.split().str.len()
    assert asked["reward"].tolist() == (asked["disagrees"] * words.gt(8).map({True: 0.5, False: 1.0})).tolist()
    (written / "my_rewards.py").write_text((written / "my_rewards.py").read_text().replace("> 8", "> 4"))
    with pytest.raises(Changed, match="reward"):
        trainings.reinforce(tmp_path / "work", steps=2, reward="my_rewards:short_questions")
    with pytest.raises(ValueError, match="reward to equation_1"):
        grpo.GRPOSettings(1, 2, 1, 1.0, 0.0, 0.0, 0.0, 0, True, 1, reward="my_rewards:short_questions")


def test_a_module_in_the_repository_or_on_pythonpath_is_found_from_any_folder(written, tmp_path):
    found = "from auditdm_lib.run import functions; print(functions.fault('my_rewards:short_questions'))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(paths.ROOT), str(written)])}
    done = subprocess.run([sys.executable, "-c", found], cwd="/", env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
    assert functions.source_of("auditdm_lib.training.rewards") == paths.LIBRARY / "training" / "rewards.py"
