"""The vision tower's labels say what a scene shows, and it learns them."""

import torch

from auditdm_lib.testbed.checkpoint import build_model, build_tokenizer
from auditdm_lib.testbed.scenes import COLOURS, DETAILS, KINDS, MATERIALS, NUMBERS, WEATHERS, Scene, Thing, sample_scenes
from auditdm_lib.testbed.training import IGNORE, render_corpus
from auditdm_lib.testbed.vision import CELL_LABELS, COVERS, SCENE_LABELS, dense_labels, features_of, train_vision_tower


def test_labels_say_what_is_in_each_cell():
    scene = Scene("grey", (
        Thing("star", "blue", "large", 2, material="striped", covers="below"), Thing("clock", "red", "large", 4, "three"),
        Thing("cow", "black", "large", 5), Thing("chart", "pink", "large", 6, "one four two")), "rainy")
    cells, whole = dense_labels([scene])
    assert set(cells) == set(CELL_LABELS) and set(whole) == set(SCENE_LABELS)
    assert cells["present"][0].tolist() == [0, 0, 1, 0, 1, 1, 1, 0, 0]
    assert cells["kind"][0].tolist() == [KINDS.index(k) if k else IGNORE for k in
                                         ("", "", "star", "", "clock", "cow", "chart", "", "")]
    assert cells["colour"][0, 6] == tuple(COLOURS).index("pink") and cells["material"][0, 2] == MATERIALS.index("striped")
    assert cells["clock"][0].tolist() == [IGNORE] * 4 + [DETAILS["clock"].index("three")] + [IGNORE] * 4
    assert [cells[f"bar {i}"][0, 6].item() for i in range(3)] == [NUMBERS.index(n) for n in ("one", "four", "two")]
    assert COVERS[cells["covers"][0, 2]] == "below" and COVERS[cells["covered"][0, 5]] == "below"
    assert cells["covered"][0, 2] == cells["covers"][0, 4] == 0 and cells["covers"][0, 0] == IGNORE
    assert cells["row"][0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and WEATHERS[whole["weather"][0]] == "rainy"


def test_a_tower_learns_from_its_labels():
    torch.manual_seed(0)
    corpus = render_corpus(sample_scenes(64, "train", 0))
    tower = build_model("gemma3", build_tokenizer(), hidden=32, layers=1).model.vision_tower
    assert features_of(tower, corpus).shape == (64, 9, tower.config.hidden_size)
    first = train_vision_tower(tower, corpus, steps=2, seed=0, batch=32)
    last = train_vision_tower(tower, corpus, steps=60, seed=0, batch=32)
    assert last < 0.8 * first
