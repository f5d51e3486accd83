"""What saves memory changes nothing else: numbers, parts of a batch, activations computed twice, and where a model lies."""

import contextlib
import functools
import json
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
import trainings as small
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, TrainingArguments

from auditdm_lib.audit import auditor
from auditdm_lib.models import batches, placement
from auditdm_lib.models.vlm import answer, load_members, load_vlm, replies
from auditdm_lib.run import devices, executor, params
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training import imitation, launched, rectify
from auditdm_lib.training.trainings import PARTS, fitting, last_checkpoint, memory

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
QUESTIONS = ["what colour is the sun ?", "is the red cat left of the blue dog ?", "what colour is the dog ?"]


@pytest.fixture(autouse=True)
def usual_placement():
    yield
    placement.place()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A Gemma3 whose weights are numbers of bfloat16, so that it is the same in every placement."""
    folder = tiny_models.gemma3(tmp_path_factory.mktemp("start") / "model", hidden=32)
    AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    rows = [(f"{name}{i}.png", question, name) for name in COLOURS for i in range(6) for question in QUESTIONS[:2]]
    for name, rgb in COLOURS.items():
        for i in range(6):
            pixels = np.clip(np.array(rgb) + rng.integers(-25, 26, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}{i}.png")
    return rectify.to_dataset(pd.DataFrame(rows, columns=["image", "question", "answer"]), folder)


def weights(folder):
    return {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}


def tuned(start, examples, out, steps=8, learning_rate=1e-3, rank=0, batch_size=12, **how):
    """How far each weight of the language model moved, as one vector."""
    rectify.finetune(start, examples, out, steps, batch_size, learning_rate, rank, 0, **how)
    old, new = weights(start), weights(out)
    return torch.cat([(new[name] - old[name]).flatten() for name in old if "language_model" in name])


def apart(one, other):
    """The distance of two movements, as a share of the first."""
    return float((one - other).norm() / one.norm())


# Numbers

def test_small_updates_of_all_weights_add_up_in_bfloat16_as_in_float32(start, examples, tmp_path, monkeypatch):
    given = dict(steps=20, learning_rate=3e-6)  # the paper's rate
    exact = tuned(start, examples, tmp_path / "float32", **given)
    placement.place(dtype="bfloat16")
    assert load_vlm(start).model.dtype == torch.bfloat16  # as it is asked
    mixed = tuned(start, examples, tmp_path / "bfloat16", **given)
    monkeypatch.setattr(placement, "loading", lambda *_: {"dtype": torch.bfloat16})
    rounded = tuned(start, examples, tmp_path / "rounded", **given)
    assert float(mixed.norm()) == pytest.approx(float(exact.norm()), rel=0.03)
    assert apart(exact, mixed) < 0.1  # gradients of bfloat16 have three digits
    assert rounded.norm() < 0.3 * exact.norm()  # what becomes of the updates in the numbers of the checkpoint


def test_a_model_with_adapters_keeps_the_numbers_that_it_is_asked_in(start, examples, tmp_path):
    placement.place(dtype="bfloat16")
    assert tuned(start, examples, tmp_path / "model", rank=4).norm() > 0
    assert load_file(tmp_path / "model" / "model.safetensors").popitem()[1].dtype == torch.bfloat16


# Parts of a batch, and activations that are computed twice

@pytest.mark.parametrize("rank", [0, 4])
def test_a_fine_tuning_in_less_memory_is_the_same_but_for_rounding(start, examples, tmp_path, rank):
    whole = tuned(start, examples, tmp_path / "whole", rank=rank)
    saving = tuned(start, examples, tmp_path / "saving", rank=rank, accumulation=3, checkpointing=True)
    assert 0 < apart(whole, saving) < 1e-4  # sums in another order: 5e-7 was measured
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("whole", "saving")]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("train", ["imitate", "reinforce"])
def test_an_auditor_in_less_memory_is_the_same_but_for_rounding(train, tmp_path, monkeypatch):
    monkeypatch.setattr(auditor, "judge", small.judge)
    start, moved, wrote = weights(small.START), [], []
    for name, how in (("whole", {}), ("saving", dict(accumulation=2, checkpointing=True))):
        given = dict(learning_rate=1e-5, replay_weight=0.4) if train == "reinforce" else dict(pictures=24, batch=16)
        folder, *_, asked = getattr(small, train)(tmp_path / name, steps=2, **given, **how)
        wrote.append(asked["question"].tolist())
        new = weights(folder)
        moved.append(torch.cat([(new[key] - start[key]).flatten() for key in start]))
    assert 0 < apart(*moved) < 1e-3 and wrote[0] == wrote[1]


def test_a_batch_that_does_not_divide_is_a_fault():
    known = params.declared_anywhere()
    given = dict(imitation_batch=30, auditor_accumulation=4, rectify_batch=10, rectify_accumulation=3)
    with pytest.raises(params.BadParameters) as caught:
        params.check(params.effective(given, known), known, "profile")
    assert "imitation_batch = 30 does not divide into 4 equal parts" in str(caught.value)
    assert "rectify_batch = 10 does not divide into 3" in str(caught.value) and "group_size" not in str(caught.value)


def test_two_processes_learn_as_one_does_and_one_of_them_writes(start, examples, tmp_path, monkeypatch):
    given = dict(steps=4, batch_size=8, rank=4, patience=1)  # of the 32 examples that are not kept to validate
    one = tuned(start, examples, tmp_path / "one", **given)
    two = tuned(start, examples, tmp_path / "two", launch="--multi_gpu --num_processes 2", work=tmp_path / "work", **given)
    assert 0 < apart(one, two) < 1e-4  # sums in another order: 1e-6 was measured
    checkpoint = last_checkpoint(tmp_path / "work")
    assert {file.name for file in checkpoint.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    with pytest.raises(Stop, match="correct the parameter launch"):
        tuned(start, examples, tmp_path / "none", launch="--no-such-argument", **given)
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("WORLD_SIZE", "3")  # as a cluster may leave it in a process that trains alone
    assert memory(8, 1)["per_device_train_batch_size"] == 8
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    with pytest.raises(Stop, match="8 examples in 1 parts does not divide among 3 processes"):
        tuned(start, examples, tmp_path / "none", **given)


def test_processes_that_shard_a_model_or_lack_memory_are_stopped_with_the_remedy(start, tmp_path, monkeypatch):
    monkeypatch.setattr(rectify, "load_from_disk", lambda folder: [])

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    monkeypatch.setattr(rectify, "train", full)
    for parts, environment, stop, words in (2, {}, "OutOfMemoryError", "8 examples in 2 parts: raise rectify_accumulation"), (
            8, {}, "Stop", "8 examples in 8 parts: raise rectify_accumulation"), (
            2, {"ACCELERATE_USE_FSDP": "true"}, "Stop", "launch: FSDP divides the model's weights"):
        job = dict(job={}, batch=8, parts=parts, placement={}, threads=torch.get_num_threads())
        (tmp_path / launched.JOB).write_text(json.dumps(job))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            rectify.main(tmp_path)
        kind, _, problem = (tmp_path / launched.STOPPED).read_text().partition(": ")
        assert kind == stop and words in problem
    known = params.declared_anywhere()
    for launch in ("--config_file two.yaml", "--multi_gpu --use_fsdp", "--use-deepspeed"):
        with pytest.raises(params.BadParameters, match="launch: FSDP, DeepSpeed"):
            params.check(params.effective(dict(launch=launch), known), known, "profile")


def test_a_process_that_sees_several_gpus_trains_with_the_batch_that_was_asked_for(start, examples, tmp_path, monkeypatch):
    real, rows = TrainingArguments._setup_devices.func, []

    def several(arguments):
        found = real(arguments)
        arguments._n_gpu = 4
        return found
    devices_of = functools.cached_property(several)
    devices_of.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", devices_of)
    monkeypatch.setattr(auditor, "judge", small.judge)
    for module in (rectify, imitation):
        monkeypatch.setattr(module, "collate", lambda vlm, batch, real=module.collate, **how: rows.append(len(batch)) or real(
            vlm, batch, **how))
    tuned(start, examples, tmp_path / "model", steps=1)
    assert set(rows) == {12}
    rows.clear()
    small.imitate(tmp_path / "imitation", pictures=24, batch=16, steps=1)
    assert set(rows) == {16}
    small.reinforce(tmp_path / "grpo", steps=1)  # TRL would refuse


# A GPU whose memory does not suffice

@pytest.fixture
def model():
    return torch.nn.Linear(1, 1)


def short_of_memory(most, tried):
    def work(batch):
        tried.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [2 * item for item in batch]
    return work


def test_a_batch_that_does_not_fit_is_halved_once_and_for_good(model):
    tried = []
    with pytest.warns(UserWarning, match="batch of 8 questions or texts: this model is asked half as many"):
        assert batches.in_batches(model, range(20), 8, short_of_memory(4, tried)) == [2 * i for i in range(20)]
    assert tried == [8, 4, 4, 4, 4, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert batches.in_batches(model, range(8), 8, short_of_memory(4, tried := [])) == [2 * i for i in range(8)]
    assert tried == [4, 4]
    with pytest.raises(torch.OutOfMemoryError):
        batches.in_batches(model, range(8), 8, short_of_memory(3, []))
    assert batches.in_batches(torch.nn.Linear(1, 1), range(8), 8, short_of_memory(8, again := [])) and again == [8]


def test_what_is_sampled_does_not_depend_on_what_a_batch_drew_before_the_memory_ran_out(model):
    def drawn(most, size, module):
        def work(batch):
            given = torch.rand(len(batch)).tolist()
            if len(batch) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return given
        torch.manual_seed(0)
        return batches.in_batches(module, range(20), size, work)
    with pytest.warns(UserWarning, match="half as many"):
        assert drawn(4, 8, model) == drawn(4, 4, torch.nn.Linear(1, 1))


@pytest.fixture
def launched_here(monkeypatch):
    """A process that `accelerate launch` would start runs in this one."""
    def run(command, **_):
        with pytest.MonkeyPatch.context() as own, contextlib.suppress(SystemExit):
            own.setattr(torch, "set_num_threads", lambda threads: None)
            rectify.main(command[-1])
        return SimpleNamespace(returncode=0, stderr="")
    monkeypatch.setattr(launched, "subprocess", SimpleNamespace(run=run))


@pytest.mark.parametrize("launch", ["", "--num_processes 1"])
def test_a_fine_tuning_that_does_not_fit_goes_on_in_halves_and_remembers_it(launch, start, examples, tmp_path, monkeypatch,
                                                                            launched_here):
    real, seen = rectify.collate, []

    def collate(vlm, rows, **how):
        seen.append(len(rows))
        if len(rows) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(vlm, rows, **how)
    halves = tuned(start, examples, tmp_path / "halves", accumulation=2)
    monkeypatch.setattr(rectify, "collate", collate)
    with pytest.warns(UserWarning, match="12 examples at a time: work goes on with half as many; set the accumulation to 2"):
        assert torch.equal(tuned(start, examples, tmp_path / "model", work=tmp_path / "work", launch=launch), halves)
    tuned(start, examples, tmp_path / "same", work=tmp_path / "work", accumulation=2, checkpointing=True,  # is no other training
          launch=launch)
    assert json.loads((tmp_path / "work" / PARTS).read_text()) == {"parts": 2} and seen.count(12) == 1
    fitting(tmp_path / "work", 12, 4, seen.append)
    fitting(tmp_path / "work", 12, 1, seen.append)
    assert seen[-2:] == [4, 2]
    with pytest.raises(Stop, match="3 examples at a time, which cannot be halved|12 examples in 4 parts") as caught:
        monkeypatch.setattr(rectify, "collate", lambda *_, **__: collate(None, range(7)))
        tuned(start, examples, tmp_path / "small", accumulation=4, launch=launch)
    assert "set gradient_checkpointing to true" in str(caught.value)
    assert not (tmp_path / "small").exists()


# Where a model lies

def test_what_this_machine_cannot_do_is_said_before_anything_runs(monkeypatch, tmp_path):
    gpu, cases = devices.unfit, {
        "bitsandbytes": dict(quantisation="4bit"), "member_offload: a model that is": dict(
            quantisation="8bit", member_offload="model"), "flash_attn": dict(attention="flash_attention_2", dtype="float32")}
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    for words, given in cases.items():
        assert words in " ".join(gpu(given, gpu=True))
    assert gpu({}, gpu=False) == gpu(dict(dtype="bfloat16", attention="sdpa", device_map="auto"), gpu=False) == []
    if torch.cuda.is_available():
        return
    for given in (dict(quantisation="8bit"), dict(attention="flash_attention_2"), dict(dtype="float16")):
        name = next(iter(given))
        with pytest.raises(Stop, match=f"^{name}: {given[name]} .*: set {name} to") as caught:
            placement.place(**given)
        assert "\n" not in str(caught.value)
        monkeypatch.setattr(executor, "check_writable", lambda values: None)
        values = params.effective(given, params.declared_anywhere())
        with pytest.raises(Stop, match=f"Nothing was run.\n  {name}: "):
            executor.run_chain((), values, False, False)


def test_each_member_lies_on_a_gpu_of_its_own_in_turn(start, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert placement.of_member(1) is None  # all on the first, as usual
    placement.place(device_map="members")
    assert [placement.of_member(k) for k in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert "device_map" not in placement.loading(trained=False, all_weights=False)  # whole, by `load_weights`
    with monkeypatch.context() as launched:
        launched.setattr(torch.distributed, "is_initialized", lambda: True)
        assert placement.of_member(0) is placement.of_member(1) is None  # or all processes' targets would lie on the first
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert placement.of_member(1) is None  # a processor is one place
    monkeypatch.setattr(placement, "of_member", {0: "cpu", 1: "meta", 2: "cpu"}.get)  # a second device that is everywhere
    assert [member.model.device.type for member in load_members(start, [start, start])] == ["cpu", "meta", "cpu"]


@pytest.mark.parametrize("given", [dict(device_map="auto"), dict(attention="eager"), dict(attention="sdpa")])
def test_a_model_placed_otherwise_answers_alike(start, given):
    pictures = [Image.new("RGB", (24, 24), rgb) for rgb in COLOURS.values()]
    usual = replies(load_vlm(start), pictures, QUESTIONS)
    placement.place(**given)
    assert replies(load_vlm(start), pictures, QUESTIONS).equals(usual)


def test_an_attention_that_a_model_has_not_is_named_with_the_remedy(tmp_path):
    placement.place(attention="sdpa")
    with pytest.raises(ValueError, match="cannot compute its attention in the chosen way .*: set attention to auto"):
        load_vlm(tiny_models.paligemma2(tmp_path / "model"))


def test_a_member_waits_in_the_main_memory_and_comes_back_to_it(start, monkeypatch):
    vlm, moves = load_vlm(start), []
    monkeypatch.setattr(type(vlm.model), "to", lambda model, place: moves.append(place) or model)
    answer(vlm, [Image.new("RGB", (24, 24))], QUESTIONS[:1])
    assert moves == []  # by default nothing moves
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    placement.place(member_offload="model")
    answer(vlm, [Image.new("RGB", (24, 24))], QUESTIONS[:1])
    assert moves == ["cuda", "cpu"]
    assert placement.waits(trained=False) and not placement.waits(trained=True)


def test_on_a_gpu_a_model_keeps_its_own_numbers_and_is_trained_in_bfloat16_with_float32_masters(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placement.loading(trained=False, all_weights=False) == {"dtype": "auto"}
    assert placement.loading(trained=True, all_weights=True) == {"dtype": torch.float32}
    assert placement.mixed() == {"bf16": True, "fp16": False}
    placement.place(dtype="float16", device_map="auto", attention="eager")
    assert placement.loading(trained=False, all_weights=False) == {
        "dtype": torch.float16, "device_map": "auto", "attn_implementation": "eager"}
    assert placement.loading(trained=True, all_weights=False) == {"dtype": torch.float16, "attn_implementation": "eager"}
