"""What `auditdm plan` says against what models really take, and what it says is missing."""

import copy
import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
import trl
import yaml
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForImageTextToText,
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GenerationConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipVisionConfig,
)

from auditdm_lib import paths
from auditdm_lib.audit.auditor import Search
from auditdm_lib.audit.diffusion import Drawing, draw_pictures
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.models import asking
from auditdm_lib.models.vlm import encode, load_members, load_vlm, prompt
from auditdm_lib.results import first_look
from auditdm_lib.run import demand, devices, hub, inventory, params, plan, sizes, work
from auditdm_lib.run.manifest import Stop
from auditdm_lib.taxonomy import fresh
from auditdm_lib.training import grpo, replay

SHIPPED = ("target", "auditor", "gemma3-l-flawed", "paligemma2-m-flawed")  # of the testbed
PROFILES = ("paligemma2-3b", "gemma3-4b", "pair-paligemma2-3b-28b", "fast-paligemma2-3b")
WITHIN = 0.15  # of what is measured: the tolerance that the command promises
GPU = devices.gpu("NVIDIA H200", 141 * 10 ** 9)


@pytest.fixture(scope="module")
def declared():
    return params.declared_anywhere()


def effective(declared, profile=None, **values):
    given = params.read_profile(paths.PARAMS / f"{profile}.yaml") if profile else {}
    return params.effective(given | values, declared)


# Sizes

@pytest.mark.parametrize("name", SHIPPED)
def test_parameters_by_formula_are_those_in_the_weights(name):
    folder = paths.LIBRARY / "testbed" / "checkpoints" / name
    config = json.loads((folder / "config.json").read_text())
    counted, computed = sizes.read_shape(config, folder), sizes.read_shape(config)
    assert (counted.parameters, counted.vision_parameters) == (computed.parameters, computed.vision_parameters)


@pytest.mark.parametrize("name", ["google/paligemma2-3b-pt-448", "google/paligemma2-28b-pt-448", "google/gemma-3-4b-it"])
def test_parameters_of_a_known_model_are_those_of_its_class(name):
    config = inventory.known()[name]["config"]
    shape = sizes.read_shape(config)
    text = {key: value for key, value in config["text_config"].items() if key != "model_type"}
    vision = {key: value for key, value in config["vision_config"].items() if key != "model_type"} | {"vision_use_head": False}
    if config["model_type"] == "gemma3":
        built = Gemma3Config(text_config=Gemma3TextConfig(**text), vision_config=SiglipVisionConfig(**vision),
                             mm_tokens_per_image=config["mm_tokens_per_image"])
    else:
        built = PaliGemmaConfig(text_config=Gemma2Config(**text), vision_config=SiglipVisionConfig(**vision),
                                projection_dim=text["hidden_size"])
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(built)
    seen = sum(weight.numel() for weight_name, weight in model.named_parameters() if "vision" in weight_name)
    assert (shape.parameters, shape.vision_parameters) == (model.num_parameters(), seen)
    assert shape.parameters == pytest.approx(float(name.split("-")[1 + ("gemma-3" in name)].strip("b")) * 1e9, rel=0.1)


def test_an_architecture_without_a_formula_is_counted_in_its_weights_or_by_its_class(tmp_path):
    folder = tiny_models.idefics3(tmp_path / "model")
    counted = inventory.models(effective(params.declared_anywhere(), target=str(folder)))[0]
    assert counted.parameters == sum(p.numel() for p in AutoModelForImageTextToText.from_pretrained(folder).parameters())
    (folder / "model.safetensors").unlink()
    assert inventory.models(effective(params.declared_anywhere(), target=str(folder)))[0].parameters == counted.parameters


@pytest.mark.parametrize("name", ["paligemma2", "gemma3", "idefics3", "llava"])
def test_a_picture_becomes_as_many_tokens_as_the_processor_makes_of_it(name, tmp_path):
    vlm = load_vlm(tiny_models.BUILDERS[name](tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    shape = sizes.read_shape(config, tmp_path)
    ids = encode(vlm, [Image.new("RGB", (shape.image_size,) * 2)], [prompt(vlm, "what colour")], "left")["input_ids"]
    assert shape.image_tokens == (ids == vlm.model.config.image_token_id).sum()


# Memory

def random_model(family):
    """A model of some 200 million parameters with random weights."""
    text = dict(hidden_size=896, intermediate_size=3584, num_hidden_layers=10, num_attention_heads=8, num_key_value_heads=4,
                head_dim=128, vocab_size=48000)
    vision = SiglipVisionConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=6,
                                image_size=168, patch_size=14, vision_use_head=False)
    if family == "gemma3":
        return Gemma3ForConditionalGeneration(Gemma3Config(
            text_config=Gemma3TextConfig(**text), vision_config=vision, mm_tokens_per_image=36, image_token_index=47999,
            boi_token_index=47998, eoi_token_index=47997))
    return PaliGemmaForConditionalGeneration(PaliGemmaConfig(
        text_config=Gemma2Config(**text), vision_config=vision, projection_dim=896, image_token_index=47999))


def example(model, batch, text):
    """Inputs of `batch` random pictures, each with `text` random tokens, the latter half of which are to be learned."""
    config, side = model.config, model.config.vision_config.image_size
    pictures = getattr(config, "mm_tokens_per_image", None) or (side // config.vision_config.patch_size) ** 2
    ids = torch.randint(6, 300, (batch, pictures + text))
    ids[:, 1:1 + pictures] = config.image_token_id
    if config.model_type == "gemma3":
        kinds = (ids == config.image_token_id).long()
    else:
        kinds = torch.arange(ids.shape[1]).expand_as(ids).ge(pictures + text // 2).long()  # the answer is causal
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=kinds,
                  pixel_values=torch.randn(batch, 3, side, side).to(model.dtype))
    return inputs, ids.masked_fill(torch.arange(ids.shape[1]) < pictures + 1 + text // 2, -100)


def measured(work):
    """The most bytes that torch allocated at a time beyond what was there before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = work()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        highest = max(highest, live)
    del kept
    return highest


def step_memory(model, inputs, labels, rank, parts=1, checkpointing=False):
    """Memory of a training step above the weights and AdamW's moments; its second step, when these moments are there.

    As `Trainer` does it: what is trained is in float32, the rest in the model's numbers, with which it computes.
    """
    number, model = model.dtype, copy.deepcopy(model)
    if not rank:
        model = model.float()
    for name, weight in model.named_parameters():
        weight.requires_grad_(not rank and "vision" not in name)
    if rank:
        inside = {id(module) for module in model.get_decoder().modules() if isinstance(module, torch.nn.Linear)}
        names = [name for name, module in model.named_modules() if id(module) in inside]
        model = get_peft_model(model, LoraConfig(r=rank, target_modules=names))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-6, fused=True)  # as `Trainer` has it by default

    if checkpointing:
        model.gradient_checkpointing_enable()
    rows = np.array_split(np.arange(len(labels)), parts)

    def step():
        for part in rows:
            with torch.autocast("cpu", number, enabled=number != torch.float32):
                loss = model(**{name: value[part] for name, value in inputs.items()}, labels=labels[part]).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    step()
    moments = sum(moment.nbytes for state in optimiser.state.values() for moment in state.values() if moment.ndim)
    return measured(step), moments


PLAIN = [("full", 0, 1, False), ("LoRA", 16, 1, False)]  # ways to train: name, rank, parts of the batch, computed twice
SAVING = [("full, in parts", 0, 2, True), ("LoRA, computed twice", 16, 1, True)]


def compared(model, batch, text, new, ways):
    """Planned and measured bytes of everything that a model is used for, trained in so many ways."""
    config, size = model.config.to_dict(), model.dtype.itemsize
    config["text_config"]["model_type"] = model.config.text_config.model_type
    shape = sizes.read_shape(config)
    inputs, labels = example(model, batch, text)
    greedy = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0)
    drawn = GenerationConfig(max_new_tokens=new, do_sample=True, top_k=0, top_p=1.0, temperature=0.7, eos_token_id=None,
                             pad_token_id=0)
    model.eval()
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        pairs = {
            "weights": (shape.parameters * size, sum(weight.nbytes for weight in model.parameters())),
            "forward": (sizes.forward_memory(shape, size, batch, text), measured(lambda: model(**inputs))),
            "generation": (sizes.forward_memory(shape, size, batch, text, new),
                           measured(lambda: model.generate(**inputs, generation_config=greedy))),
            "sampling": (sizes.forward_memory(shape, size, batch, text, new, sampled=True),
                         measured(lambda: model.generate(**inputs, generation_config=drawn)))}
    model.train()
    for name, r, parts, again in ways:
        planned = sizes.training_memory(shape, size, batch, text, r, parts=parts, checkpointing=again)
        peak, moments = step_memory(model, inputs, labels, r, parts, again)
        pairs[f"{name} step"] = (planned["peak"] - planned["optimiser"], peak)
        pairs[f"{name} moments"] = (planned["optimiser"], moments)
    return pairs


def check_all(pairs, ways):
    wrong = {name: (planned, real) for name, (planned, real) in pairs.items() if abs(planned - real) > WITHIN * real}
    assert len(pairs) == 4 + 2 * len(ways) and not wrong


@pytest.mark.parametrize("name", ["target", "auditor"])  # PaliGemma2, Gemma3
@pytest.mark.parametrize("number", [torch.float32, torch.bfloat16])
def test_memory_of_a_shipped_checkpoint_is_as_planned(name, number):
    folder = paths.LIBRARY / "testbed" / "checkpoints" / name
    model, ways = AutoModelForImageTextToText.from_pretrained(folder, dtype=number), PLAIN + SAVING
    check_all(compared(model, batch=16, text=24, new=12, ways=ways), ways)


@pytest.mark.parametrize("family", ["gemma3", "paligemma2"])
def test_memory_of_a_model_of_200_million_parameters_is_as_planned(family):
    torch.manual_seed(0)
    model = random_model(family)
    assert 1.5e8 < model.num_parameters() < 2.5e8
    check_all(compared(model, batch=2, text=24, new=8, ways=PLAIN), PLAIN)


@pytest.mark.parametrize("rank", [0, 16])
def test_memory_of_a_step_of_grpo_is_as_planned(rank, monkeypatch, tmp_path):
    checkpoints, seen = paths.LIBRARY / "testbed" / "checkpoints", []

    def training_step(trainer, model, inputs, num_items_in_batch=None):
        model.train()
        ready, losses = trainer._prepare_inputs(inputs), []  # the rollouts
        real = measured(lambda: losses.append(trainer.compute_loss(model, ready)) or losses[0].backward())
        seen.append((real, ready["completion_ids"].shape, ready["prompt_ids"].shape[1]))
        return losses[0].detach()
    monkeypatch.setattr(replay.ReplayingTrainer, "training_step", training_step)
    search = Search(prompts={"question": "Ask a question about this picture."}, tokens={"question": 24},
                    shares={"question": 1.0}, temperature=1.0)
    settings = grpo.GRPOSettings(steps=1, group_size=8, groups=2, learning_rate=1e-4, beta=0.0, no_consensus_reward=0.0,
                                 replay_weight=0.0, lora_rank=rank, cascade=False, save_every=1)
    members = load_members(checkpoints / "target", [checkpoints / "gemma3-l-flawed"])
    grpo.grpo(checkpoints / "auditor", Panel(members[0], members[1:]), load_pictures("testbed", 4, 0), search, settings, [], 0,
              tmp_path / "grpo")
    (real, (batch, completion), before), *_ = seen
    shape = sizes.read_shape(json.loads((checkpoints / "auditor" / "config.json").read_text()), checkpoints / "auditor")
    planned = sizes.training_memory(shape, 4, batch, before + completion - shape.image_tokens, rank, completion)
    assert planned["peak"] - planned["optimiser"] == pytest.approx(real, rel=WITHIN)
    assert batch == 16 and sizes.CHUNK == trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE


@pytest.mark.parametrize("part", ["hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"])
def test_memory_grows_with_each_size(part):
    config = inventory.known()["google/gemma-3-4b-it"]["config"]
    larger = config | {"text_config": config["text_config"] | {part: 2 * config["text_config"][part]}}
    one, two = sizes.read_shape(config), sizes.read_shape(larger)
    assert two.parameters > one.parameters
    assert sizes.training_memory(two, 2, 8, 64, 16)["peak"] > sizes.training_memory(one, 2, 8, 64, 16)["peak"]


# Work

def test_constants_are_those_of_the_stages():
    assert (demand.TRIES, demand.GROUP) == (fresh.TRIES, first_look.GROUP)
    assert work.LIMITS["paligemma"] == asking.PALIGEMMA.max_new_tokens and work.CHAT_LIMIT == asking.CHAT.max_new_tokens
    assert asking.PALIGEMMA.prompt == work.WAYS["paligemma"] + "{question}"
    assert asking.CHAT.prompt == "{question}" + work.CHAT_WAY


def test_questions_for_the_ceiling_are_as_many_as_the_testbed_has():
    pictures = load_pictures("testbed", 30, 0, "probe")
    mean = sum(len(pictures.truth.all_questions(i)) for i in range(30)) / 30
    assert mean == pytest.approx(demand.ALL_QUESTIONS, rel=0.25)  # a picture has 68 more or less, the mean of 30 some 12


def stages_of(declared, **values):
    values = effective(declared, "fast-paligemma2-3b", **values)
    return demand.stages(work.panel(values, inventory.models(values), GPU))


def test_target_calls_are_the_budget(declared):
    stages = stages_of(declared, gallery=7, imitation_rounds=2, imitation_pictures=100, grpo_steps=10, group_size=4,
                       groups_per_step=3, plain_steps=5, probes_per_auditor=1000, best_of_n=8, edit_share=0.0,
                       regeneration_share=0.0, fresh_probes=20, items_per_suite=50)
    assert stages["00"].target_calls == 7 + 7 * 8  # and a group of questions about each picture
    assert stages["01"].target_calls == 48 + 100 + (10 + 5) * 12
    assert stages["02"].target_calls == 48 + 4 * 1000 + 1000  # random, prompt-only, trained, plain, best of 8
    assert stages["03"].target_calls == 20 * (2 + 3 * (1 / 3 + 2 / 3 / 2))  # half of the templates go on to the other two
    assert stages["05"].target_calls == 3 * 100  # itself and two tuned ones, on two sets of questions
    assert stages["01"].calls == 3 * stages["01"].target_calls  # three members


def test_a_judge_compares_every_two_answers_in_both_orders(declared):
    judged = stages_of(declared, gallery=10, judge_model="google/gemma-3-4b-it")["00"]
    assert judged.calls == 90 * 3 + 90 * 3 and judged.target_calls == 90  # three pairs, of which half differ
    assert judged.operations > stages_of(declared, gallery=10)["00"].operations


def test_what_is_replayed_lies_beside_a_step_of_grpo(declared):
    given = dict(imitation_rounds=1, grpo_steps=10)
    without, replayed = (stages_of(declared, **given, replay_weight=weight)["01"].moments for weight in (0.0, 0.5))
    assert replayed["a step of GRPO"] > without["a step of GRPO"] + 0.9 * replayed["a step of replay"]


def test_drawn_pictures_follow_the_shares(declared):
    stages = stages_of(declared, regeneration_share=0.25, edit_share=0.5, grpo_steps=10, group_size=4, groups_per_step=5,
                       probes_per_auditor=100)
    assert stages["01"].drawn == 0.75 * 200
    assert stages["02"].drawn == 0.75 * 100 * 4  # two auditors, each with another seed at most
    assert stages_of(declared, regeneration_share=0.0, edit_share=0.0)["02"].drawn == 0


def test_workers_hold_members_of_their_own_and_divide_the_time_where_each_has_a_device(declared):
    def probing(places, workers):
        card = devices.gpu("NVIDIA H200", 141 * 10 ** 9, places)
        values = effective(declared, "fast-paligemma2-3b", workers=workers, member_offload="none")
        return demand.stages(work.panel(values, inventory.models(values), card))["02"], card
    (alone, card), (two, _), (four, cards) = probing(1, 0), probing(1, 2), probing(2, 4)
    members = alone.memory["members"]
    assert two.memory["members of the workers"] == four.memory["members of the workers"] == 2 * members  # on each GPU
    assert two.moments["answers of the target"] == 2 * alone.moments["answers of the target"]
    assert two.seconds(card) == pytest.approx(alone.seconds(card)) and two.calls == alone.calls
    writing = alone.seconds(card) - 2 * (alone.seconds(card) - four.seconds(cards))  # which this process does alone
    assert 0 < writing < alone.seconds(card) and alone.operations == four.operations


def test_members_on_gpus_of_their_own_take_the_memory_of_the_fullest(declared):
    def members(places, **given):
        values = effective(declared, "pair-paligemma2-3b-28b", member_offload="none", **given)
        two = devices.gpu("NVIDIA H200", 141 * 10 ** 9, places)
        return demand.stages(work.panel(values, inventory.models(values), two))["02"].memory["members"]
    both, alone = members(2), members(2, device_map="members")
    assert members(1, device_map="members") == both and 0.85 * both < alone < 0.95 * both  # the larger of the two


def test_processes_of_a_launch_each_hold_the_target_and_a_part_of_the_batch(declared):
    def tuning(places, launch):
        card = devices.gpu("NVIDIA H200", 141 * 10 ** 9, places)
        values = effective(declared, "fast-paligemma2-3b", launch=launch, rectify_batch=16, rectify_accumulation=1)
        return demand.stages(work.panel(values, inventory.models(values), card))["04"]
    alone, four = tuning(4, ""), tuning(4, "--multi_gpu")  # accelerate begins one for each GPU
    assert tuning(1, "--num_processes=4").memory["target in training"] == 4 * alone.memory["target in training"]
    assert four.memory == alone.memory and four.operations == pytest.approx(alone.operations)
    step = "a step of rectification"
    assert 0.2 * alone.moments[step] < four.moments[step] < 0.5 * alone.moments[step]
    assert four.seconds(GPU) < 0.5 * alone.seconds(GPU)
    assert tuning(4, "--multi_gpu --num_processes 2").moments[step] > four.moments[step]


def test_items_of_benchmarks_are_counted_for_every_model_where_their_number_is_known(declared, tmp_path):
    plain = stages_of(declared)["05"]
    two = stages_of(declared, benchmarks=["vqav2_val_lite", "pope"], benchmark_items=50)["05"]
    assert two.target_calls == plain.target_calls + 3 * 100 and two.calls == plain.calls + (3 + 2) * 100
    assert stages_of(declared, benchmarks=["pope"])["05"].unknown == ["all items of pope (benchmark_items)"]
    pd.DataFrame({"question": ["a", "b", "c"]}).to_parquet(tmp_path / "items.parquet")
    for most, asked in ((0, 3), (2, 2), (9, 3)):
        found = stages_of(declared, benchmarks=[str(tmp_path)], benchmark_items=most)["05"]
        assert found.calls == plain.calls + 5 * asked and found.operations > plain.operations


def test_arithmetic_of_training_is_three_forward_passes_or_two_with_lora():
    shape = sizes.read_shape(inventory.known()["google/gemma-3-4b-it"]["config"])
    shape = replace(shape, v_layers=0, vision_parameters=0, patches=0)
    once = sizes.forward_flops(shape, 100)
    assert sizes.training_flops(shape, 100, 0) == pytest.approx(3 * once)
    assert sizes.training_flops(shape, 100, 16) == pytest.approx(2 * once)
    tokens = shape.image_tokens + 100
    assert once == pytest.approx(2 * shape.parameters * tokens + 4 * shape.layers * shape.queries * tokens ** 2, rel=0.01)


@pytest.mark.parametrize("kind", ["regeneration", "edit"])
def test_drawing_takes_about_what_the_testbeds_pipelines_take(kind, declared):
    from torch.utils.flop_counter import FlopCounterMode

    values = effective(declared)
    planned, n = work.Stage("02"), 8
    work.draw(planned, work.panel(values, inventory.models(values), devices.Device("", 1.0, 1.0, 1, 4)),
                 {"regeneration": 0, "edit": 0} | {kind: n})
    drawing = Drawing("diffusion", values["image_model"], values["edit_model"])
    pictures, names = [Image.new("RGB", (48, 48), (9 * i, 90, 90)) for i in range(n)], [str(i) for i in range(n)]

    def draw(seed):
        return draw_pictures(drawing, pictures, names, [kind] * n, [f"a red cup and {i} stars" for i in range(n)], seed, None)
    draw(0)
    with FlopCounterMode(display=False) as counted:
        draw(1)
    assert 0.5 < planned.operations / counted.get_total_flops() < 2  # an estimate, for which the longest texts count
    assert 0.7 < max(planned.moments.values()) / measured(lambda: draw(2)) < 2


def test_arithmetic_of_a_pass_is_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    model = AutoModelForImageTextToText.from_pretrained(paths.LIBRARY / "testbed" / "checkpoints" / "target").eval()
    inputs, _ = example(model, 4, 24)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model(**inputs)
    shape = sizes.read_shape(model.config.to_dict())
    assert 4 * sizes.forward_flops(shape, 24) == pytest.approx(counted.get_total_flops(), rel=0.1)


def test_hours_divide_among_devices_and_are_bound_by_memory_where_little_is_computed():
    one, eight = devices.h100s(1), devices.h100s(8)
    assert one.seconds(1e18) == pytest.approx(8 * eight.seconds(1e18))
    assert one.seconds(1e9, moved=3.35e12) == pytest.approx(1.0)
    assert one.seconds(1e9, layers=1e4) == pytest.approx(1e4 * devices.LAYER)


def test_a_gpu_is_known_by_its_name(tmp_path, monkeypatch):
    assert devices.gpu("NVIDIA H100 80GB HBM3", 1).operations == devices.h100s(1).operations
    assert devices.gpu("NVIDIA L40S", 1).bandwidth == 0.864e12
    unknown = devices.gpu("Some New Card", 10 ** 11)
    assert unknown.seconds(1e12) is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-80GB, 81920'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert devices.this_device(1) == devices.gpu("NVIDIA A100-SXM4-80GB", 81920 * 2 ** 20)
    program.write_text("#!/bin/sh\nprintf 'NVIDIA L4, 24000\\nNVIDIA L4, 24000\\n'\n")
    assert devices.this_device(1) == devices.gpu("NVIDIA L4", 24000 * 2 ** 20, 2)
    program.write_text("#!/bin/sh\nexit 9\n")
    assert devices.this_device(1).number == 4  # a card that does not answer: this processor


# The profiles

@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_valid_but_for_what_cannot_be_reached(name, declared, monkeypatch):
    monkeypatch.setattr(hub, "revision", lambda name: "0" * 40)
    given = params.read_profile(paths.PARAMS / f"{name}.yaml")
    params.check(params.effective(given, declared) | given, declared, name)


@pytest.mark.parametrize("name", PROFILES)
def test_every_value_of_a_profile_says_where_it_comes_from(name):
    text = (paths.PARAMS / f"{name}.yaml").read_text()
    head = text[:text.index("\nrun:")]
    assert "our choice" in head
    if name.startswith("fast"):  # all but the marked ones, as its head says
        return
    for values in ("target", "references", "auditor", "grpo_steps", "groups_per_step", "grpo_learning_rate"):
        line = next(line for line in text.splitlines() if line.startswith(f"{values}:"))
        assert "# paper" in line
    known = yaml.safe_load(text)
    assert (known["grpo_steps"], known["groups_per_step"] * known["group_size"]) == (1000, 256)
    assert known["grpo_learning_rate"] == 3e-6


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_planned_whole(name, declared):
    made = plan.make_plan(effective(declared, name), declared, GPU)
    assert made["total"]["unknown"] == []
    assert all(model["where"] == "hub" and model["download"] > 1e9 and model["licence"] for model in made["models"])
    assert [row["stage"] for row in made["stages"]] == [step.notebook for step in paths.CHAIN]
    gated = {model["name"] for model in made["models"] if model["gated"]}
    for model in made["models"]:
        line = next(text for text in made["missing"] if f"hf download {model['name']}`" in text)
        assert ("accepting its licence" in line) == (model["name"] in gated)
    assert made["total"]["seconds"] == pytest.approx(sum(row["seconds"] for row in made["stages"]))
    assert made["total"]["seconds_8_h100"] < made["total"]["seconds"]


@pytest.mark.parametrize(("name", "gigabytes"), [
    ("paligemma2-3b", 141), ("gemma3-4b", 141), ("pair-paligemma2-3b-28b", 141), ("fast-paligemma2-3b", 24)])
def test_a_profile_fits_the_gpu_that_it_names(name, gigabytes, declared):
    text = (paths.PARAMS / f"{name}.yaml").read_text()
    assert f"fit one GPU of {gigabytes} GB" in text or f"fits one GPU of {gigabytes} GB" in text
    card, values = devices.gpu("NVIDIA H200", gigabytes * 10 ** 9), effective(declared, name)
    assert plan.make_plan(values, declared, card)["total"]["peak_memory"] * (1 + WITHIN) < card.memory
    usual = {saving: declared[saving].default for saving in ("member_offload", "gradient_checkpointing", "auditor_accumulation",
                                                             "rectify_accumulation")}
    assert plan.make_plan(values | usual, declared, card)["total"]["peak_memory"] > card.memory


def test_what_waits_outside_and_what_is_quantised_takes_less(declared):
    usual, waiting, four = (stages_of(declared, **given)["02"] for given in (
        dict(member_offload="none"), {}, dict(member_offload="none", quantisation="4bit")))
    members = usual.memory["members"]
    assert waiting.memory == {} and waiting.moments["answers of the target"] > usual.moments["answers of the target"]
    assert 0.28 * members < four.memory["members"] < 0.5 * members  # the embeddings stay as they are
    assert waiting.peak() < usual.peak() and four.peak() < usual.peak()


# What is missing

def lacking(declared, device=GPU, **values):
    return plan.make_plan(effective(declared, **values), declared, device)["missing"]


def test_nothing_of_the_testbed_is_missing(declared):
    assert lacking(declared, devices.Device("a processor", 1e10, 1e10, 64 * 10 ** 9, 4)) == []


def test_each_thing_that_is_missing_is_named_with_its_remedy(declared, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    lacks = "\n".join(lacking(declared, target="params/none-such", references=["some-org/some-model"], judge_model=str(empty),
                              pictures=str(empty), regeneration_share=0.0, edit_share=0.0))
    for part in ("target: there is no model folder params/none-such", "holds no config.json: give the folder",
                 "holds no image files", "hf download some-org/some-model`, of a size that is not known here"):
        assert part in lacks


def test_a_model_of_unknown_size_is_named_and_left_out(declared):
    made = plan.make_plan(effective(declared, target="some-org/some-model"), declared, GPU)
    assert made["total"]["unknown"] == ["some-org/some-model"]
    assert made["models"][0]["parameters"] is None
    assert any("which the figures leave out" in line for line in plan.said(made))


def test_too_little_memory_and_room_are_said_with_what_to_lower(declared, monkeypatch):
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 10 ** 6}))
    lacks = lacking(declared, devices.Device("a small card", 1e12, 1e12, 10 ** 9, 4))
    assert [text for text in lacks if text.startswith("01_train_auditor") and "raise auditor_accumulation" in text]
    assert [text for text in lacks if text.startswith("disk: ") and "make room" in text]
    assert not [text for text in lacks if text.startswith("00_start_here")]


def test_a_damaged_or_unfit_pipeline_is_missing(declared, tmp_path):
    assert any("holds no model_index.json" in text for text in lacking(declared, image_model=str(tmp_path)))
    assert any(text.startswith("image_model: there is no pipeline at 'params/none'")
               for text in lacking(declared, image_model="params/none"))


def test_a_model_in_the_cache_is_not_missing(declared, tmp_path, monkeypatch):
    folder = tmp_path / "models--some-org--some-model"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    tiny_models.gemma3(snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    made = plan.make_plan(effective(declared, target="some-org/some-model"), declared, GPU)
    assert (made["models"][0]["where"], made["models"][0]["download"]) == ("cache", 0)
    assert made["models"][0]["parameters"] and not any("some-org" in text for text in made["missing"])


@pytest.mark.parametrize(("name", "value"), [("grpo_steps", "1e3"), ("no_such", 1), ("edit_share", 2.0), ("run", "con")])
def test_other_faults_stop_the_plan(declared, name, value):
    values = effective(declared) | {name: value}
    with pytest.raises(params.BadParameters, match=name):
        plan.make_plan(values, declared, GPU)


# The command

@click.command()
@click.argument("profile", type=Path)
@click.option("--out", type=Path)
@click.option("--set", "settings", multiple=True)
def command(profile, out, settings):
    plan.show(profile, settings, out)


def test_the_command_prints_what_it_writes(tmp_path):
    out = tmp_path / "plan.json"
    shown = CliRunner().invoke(command, [str(paths.PARAMS / "paligemma2-3b.yaml"), "--out", str(out), "--set", "gallery=11"],
                               catch_exceptions=False)
    made = json.loads(out.read_text())
    assert made["stages"][0]["target_calls"] == 11 + 8 * 11
    for model in made["models"]:
        assert model["name"] in shown.output
    assert "FLUX.1 [dev] Non-Commercial" in shown.output  # square brackets are no markup
    assert f"Missing here ({len(made['missing'])}):" in shown.output
    assert all(text in shown.output for text in made["missing"])


def test_out_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(Stop, match="cannot be written .* give another file to --out"):
        plan.show(paths.PARAMS / "testbed.yaml", (), tmp_path / "none" / "plan.json")


WATCHED = """
import resource, socket, sys
from pathlib import Path
def refuse(*a, **k): sys.exit("a network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from auditdm_lib.run import plan
plan.show(Path(sys.argv[1]), (), None)
heavy = sorted({"torch", "transformers", "diffusers", "pandas"} & set(sys.modules))
used = resource.getrusage(resource.RUSAGE_SELF)
print("RESULT", round(used.ru_utime + used.ru_stime, 2), heavy)
"""


@pytest.mark.parametrize("name", ["paligemma2-3b", "testbed"])
def test_a_plan_takes_under_five_seconds_no_network_and_no_torch(name):
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run([sys.executable, "-c", WATCHED, str(paths.PARAMS / f"{name}.yaml")], capture_output=True, text=True,
                          cwd=paths.ROOT, env=environment, check=True)
    _, seconds, heavy = done.stdout.splitlines()[-1].split(maxsplit=2)
    assert float(seconds) < 5 and heavy == "[]"  # of the processor's time: others may be at work on it
