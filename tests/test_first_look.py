"""The first notebook: a vote, a group worked out by hand, and what the tracked reference run found."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from auditdm_lib.results import first_look

PROBE = pd.Series(dict(question="how many? " + "x" * 200, target_answer=None, reference_answers=["two", None], consensus=None,
                       disagrees=False))


@pytest.mark.parametrize("rewards", [[1.0, 0, 0, 0, 0, 0, 0, 0], [1.0, 1, 0, 0], [1.0, -0.3, 0, 1], [0.0] * 8])
def test_an_advantage_is_that_of_trl(rewards):
    given = torch.tensor(rewards)
    trl = (given - given.mean()) / (given.std() + 1e-4)  # GRPOTrainer, with scale_rewards="group"
    assert first_look.advantages(np.array(rewards)) == pytest.approx(trl.numpy(), abs=1e-5)


def test_trl_still_computes_it_so():
    import inspect

    from trl import GRPOTrainer
    from trl.trainer import grpo_trainer

    source = inspect.getsource(GRPOTrainer)
    assert "advantages / (std_rewards + 1e-4)" in source and "nanstd(rewards.view(-1, num_generations), dim=1)" in source
    assert float(grpo_trainer.nanstd(torch.tensor([1.0, 0.0]))) == pytest.approx(np.std([1, 0], ddof=1))


def test_the_arithmetic_stands_there_with_its_numbers():
    text = first_look.by_hand(np.array([1.0, 1, 1, 0, 0, 0, 0, 0]))
    for part in (r"\frac{3}{8} = 0.375", "= 0.518", "= +1.207", "= -0.724", r"{3\,(1 - 0.375)^2 + 5\,(0 - 0.375)^2}{7}"):
        assert part in text, part
    assert "= +0.000" in first_look.by_hand(np.zeros(8)) or "= -0.000" in first_look.by_hand(np.zeros(8))


def test_a_vote_without_answers_is_shown_too():
    assert first_look.ballot(PROBE)["says"].tolist() == ["two", "no answer", "none", "no answer", "0"]
    figure = first_look.fig_vote(Image.new("RGB", (480, 480)), Image.new("RGB", (48, 48)), PROBE)
    assert any("reference 2" in text.get_text() for text in figure.axes[2].texts)


def test_the_first_disagreement_is_telling_and_without_one_the_first_question():
    assert first_look.telling(pd.DataFrame(dict(disagrees=[False, True, True]))) == 1
    assert first_look.telling(pd.DataFrame(dict(disagrees=[False, False]))) == 0


def test_what_was_found_is_read_from_the_files_of_the_reference(tmp_path):
    for file in first_look.REFERENCE.glob("*.csv"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = first_look.reference_findings(tmp_path)
    assert found.equals(first_look.reference_findings()) and found["answer"].ne("").all()
    search = pd.read_csv(tmp_path / "search.csv")
    trained = search["auditor"].eq("trained") & search["kind"].eq("all")
    search.loc[trained, ["success", "ci_low", "ci_high"]] = 0.125, 0.1, 0.15
    search.to_csv(tmp_path / "search.csv", index=False)
    table = pd.read_csv(tmp_path / "recovered.csv").assign(recovered=False)
    table.to_csv(tmp_path / "recovered.csv", index=False)
    changed = first_look.reference_findings(tmp_path)
    differ = changed[changed["answer"] != found["answer"]]["answer"].tolist()
    assert differ == ["12% (10% to 15%)", f"0 of {len(table)}"]
