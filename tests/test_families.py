"""Five families of models go through the stages that audit and rectify, and answer in bf16, none of them by a line of its own."""

import pandas as pd
import pytest
import tiny_models
import torch
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.models import vlm as models
from auditdm_lib.models.asking import CHAT, PALIGEMMA
from auditdm_lib.run import manifest


@pytest.fixture(scope="module")
def chains(run_chains):
    """The home of five runs of the notebooks 00 to 04, one for each family as the target."""
    return run_chains("families")


@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_a_family_is_asked_judged_and_rectified(chains, family):
    run = chains / "runs" / family.replace("_", "-")
    for step in paths.CHAIN[:5]:
        manifest.verify(run / step.folder)
    probes = pd.read_parquet(run / "02_probes/probes.parquet")
    assert probes["target_answer"].isin(["yes", "red", "two"]).mean() > 0.8 and probes["target_answer"].nunique() == 3
    assert 0 < probes["disagrees"].sum() < probes["consensus"].notna().sum()
    for name in ("model", "control"):
        saved = models.load_vlm(run / "04_rectified" / name)
        assert saved.asking == (PALIGEMMA if family == "paligemma2" else CHAT)  # it is asked as the target was
        assert len(saved.model.generation_config.eos_token_id) == 4


@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_a_family_answers_in_bf16(family, tmp_path):
    vlm = models.load_vlm(tiny_models.BUILDERS[family](tmp_path))
    vlm.model.to(torch.bfloat16)
    inputs = models.encode(vlm, [Image.new("RGB", (30, 24), "red")], [models.put(vlm, "what colour is the sun ?")], "left")
    inputs.pop("labels", None)
    with torch.no_grad():
        logits = vlm.model(**inputs).logits
    assert logits.dtype == torch.bfloat16 and torch.isfinite(logits).all()
    assert len(models.replies(vlm, [Image.new("RGB", (30, 24), "red")], ["how many ?"], 2)) == 1
