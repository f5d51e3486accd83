"""Training goes on exactly where it was stopped."""

import pytest
import torch

from auditdm_lib.testbed import learning
from auditdm_lib.testbed.checkpoint import build_model, build_tokenizer
from auditdm_lib.testbed.learning import EVERY, Schedule, train_language
from auditdm_lib.testbed.questions import sample_question
from auditdm_lib.testbed.scenes import sample_scenes
from auditdm_lib.testbed.skills import answer


class Stopped(Exception):
    """Stands for a kill."""


def draw(scene, rng):
    return [(q, answer(scene, q)) for q in (sample_question(scene, rng) for _ in range(2))]


def trained(family, folder, alone=0):
    torch.manual_seed(0)
    tokenizer, scenes = build_tokenizer(), sample_scenes(8, "train", 0)
    model = build_model(family, tokenizer, hidden=32, layers=1)
    features = torch.randn(8, 9, model.config.vision_config.hidden_size, generator=torch.Generator().manual_seed(0))
    before = {name: p.clone() for name, p in model.named_parameters()}
    card = train_language(model, family, tokenizer, scenes, features, draw,
                          Schedule(steps=6, pictures=4, save_every=2, alone=alone), 0, folder)
    return model, before, card


@pytest.mark.parametrize("family", ["gemma3", "paligemma2"])
def test_a_stopped_training_ends_in_the_weights_of_an_undisturbed_one(family, tmp_path, monkeypatch):
    straight, before, card = trained(family, tmp_path / "straight")
    moved = {name for name, p in straight.named_parameters() if not torch.equal(p, before[name])}
    assert card["steps"] == 6 and moved == {name for name in before if "vision_tower" not in name}
    calls, real = [], learning.pack

    def killed_in_the_sixth_step(*args):
        calls.append(0)
        if len(calls) == 6:
            raise Stopped
        return real(*args)
    monkeypatch.setattr(learning, "pack", killed_in_the_sixth_step)
    with pytest.raises(Stopped):
        trained(family, tmp_path / "stopped")
    resumed, _, _ = trained(family, tmp_path / "stopped")
    assert len(calls) == 6 + 2  # it went on from step 4
    for name, p in straight.named_parameters():
        assert torch.equal(p, resumed.get_parameter(name)), name


def test_a_loss_that_is_not_finite_stops_the_training_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(learning.F, "cross_entropy", lambda logits, labels, reduction: logits.sum() * float("nan"))
    with pytest.raises(AssertionError, match="The loss of step 0 is nan; lower the learning rate"):
        trained("gemma3", tmp_path)


@pytest.mark.parametrize("pairs", [1, EVERY])
def test_pairs_alone_teach_gemma_what_packed_ones_do_and_stop_as_exactly(tmp_path, pairs):
    packed, _, _ = trained("gemma3", None)
    alone, _, card = trained("gemma3", tmp_path, pairs)
    again, _, _ = trained("gemma3", tmp_path, pairs)  # nothing is left to do
    assert card["steps"] == 6
    for name, p in packed.named_parameters():
        assert torch.allclose(p, alone.get_parameter(name), atol=1e-3), name  # sums in another order
        assert torch.equal(alone.get_parameter(name), again.get_parameter(name)), name


def test_as_many_pairs_stand_alone_as_asked_for():
    pairs = [[("a", "b"), ("c", "d"), ("e", "f")], [("g", "h")]]
    batches = [learning._batches(build_tokenizer(), [5, 6], pairs, alone) for alone in (0, 1, EVERY)]
    rows = [[row for batch in of for row in zip(*batch, strict=True)] for of in batches]
    assert rows[0] == [(5, pairs[0]), (6, pairs[1])]
    assert rows[1] == [(5, pairs[0][:1]), (6, pairs[1]), (5, pairs[0][1:])]
    assert sorted(rows[2]) == [(5, [pair]) for pair in pairs[0]] + [(6, pairs[1])]
