"""Nine families of models go through the stages that audit and rectify, answer in bf16, and are trained as auditors as far as TRL
trains them, none of them by a line of its own. `all_families.py` takes them through all seven notebooks by papermill."""

import chains as processes
import pandas as pd
import pytest
import tiny_models
import torch
import trainings
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.audit import auditor
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.models import vlm as models
from auditdm_lib.models.asking import CHAT, PALIGEMMA
from auditdm_lib.run import manifest


@pytest.fixture(scope="module")
def chains(run_chains):
    """The home of six runs of the notebooks 00 to 04, one for each of these families as the target."""
    return run_chains("families")


@pytest.mark.parametrize("family", processes.TARGETS)
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


@pytest.mark.parametrize("family", sorted(tiny_models.BUILDERS.keys() - {"paligemma2", "llava_onevision"}))
def test_grpo_trains_the_language_model_of_a_chat_family_and_leaves_its_vision_tower(family, tmp_path, monkeypatch):
    monkeypatch.setattr(auditor, "judge", trainings.judge)
    seen, asked = load_pictures("testbed", 8, 0).images, [trainings.PROMPTS[0]] * 8
    start = tiny_models.in_few_words(tiny_models.BUILDERS[family](tmp_path / "start"), seen, asked, ("colour", "what"), bare=True)
    trained, history, asked = trainings.reinforce(
        tmp_path / "work", beta=0.3, steps=2, start=start, search=trainings.search_of(temperature=2.0), replay_weight=0.3)
    assert asked["disagrees"].any() and asked["reward"].nunique() > 1 and (history["reward_std"] > 0).any()
    assert history[["entropy", "kl"]].notna().all().all()
    before, after = (models.load_vlm(path).model for path in (start, trained))
    inside = {id(weight) for weight in before.get_decoder().parameters()}
    now = dict(after.named_parameters())
    moved = {name: not torch.equal(weight, now[name]) for name, weight in before.named_parameters()}
    assert all(moved[name] for name, weight in before.named_parameters() if id(weight) in inside)
    assert not any(moved[name] for name in moved if "vision" in name or "visual" in name)
