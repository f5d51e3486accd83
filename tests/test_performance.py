"""The script that measures models of the real sizes on a GPU, tried with small ones of the same classes."""

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from auditdm_lib.models import placement
from auditdm_lib.run import sizes
from auditdm_lib.training import performance

SMALL = dict(hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2,
             head_dim=16, vocab_size=2000)
VISION = dict(model_type="siglip_vision_model", hidden_size=32, num_hidden_layers=2, intermediate_size=64, num_attention_heads=4,
              image_size=56, patch_size=14)
GEMMA3 = dict(model_type="gemma3", mm_tokens_per_image=4, text_config=SMALL | dict(model_type="gemma3_text"),
              vision_config=VISION)
PALIGEMMA = dict(model_type="paligemma", text_config=SMALL | dict(model_type="gemma2"), vision_config=VISION)
CONFIGS = {performance.AUDITOR: GEMMA3, performance.TARGET: PALIGEMMA, performance.REFERENCE: PALIGEMMA}


@pytest.fixture(autouse=True)
def usual_placement():
    yield
    placement.place()


@pytest.mark.parametrize("config", [GEMMA3, PALIGEMMA])
def test_a_random_model_has_the_sizes_that_it_is_given(config):
    vlm, shape = performance.random_vlm(config), sizes.read_shape(config)
    assert vlm.model.num_parameters() == shape.parameters and vlm.model.dtype == torch.bfloat16


def test_each_part_is_measured(monkeypatch):
    monkeypatch.setattr(performance, "QUESTIONS", 4)
    monkeypatch.setattr(performance, "GROUPS", 2)
    monkeypatch.setattr(performance, "GROUP_SIZE", 2)
    monkeypatch.setattr(performance, "TOKENS", 6)
    table = performance.measure(CONFIGS)
    assert list(table) == performance.COLUMNS and len(table) == 3
    assert (table["seconds"] > 0).all() and (table["planned_gb"] > 0).all()
    assert table["peak_gb"].notna().all() == torch.cuda.is_available()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the models of the real sizes are measured")
def test_without_a_gpu_the_table_says_that_nothing_was_measured(tmp_path):
    done = CliRunner().invoke(performance.main, ["--out", str(tmp_path / "performance.csv")], catch_exceptions=False)
    table = pd.read_csv(tmp_path / "performance.csv")
    assert set(table["device"]) == {"no GPU here: not measured"} and table[["seconds", "peak_gb"]].isna().all(axis=None)
    assert "not measured" in done.output
