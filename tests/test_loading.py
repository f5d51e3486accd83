"""What is wrong with a checkpoint is said in one sentence with its name, before its weights are loaded where files show it."""

import json
import pickle
import shlex
import subprocess
import sys

import pytest
import tiny_models
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from auditdm_lib.audit.auditor import load_auditor
from auditdm_lib.models import vlm as models
from auditdm_lib.run import hub, model_files, params


@pytest.fixture
def folder(tmp_path):
    return tiny_models.gemma3(tmp_path / "model")


def refusal(folder, load=models.load_vlm):
    """The message with which a folder is refused: one sentence that names it."""
    with pytest.raises(ValueError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder} ") and message.rstrip().endswith((".", '"')) and len(message.split("\n")[0]) < 400
    return message


def change(file, **values):
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | values))


def tensors(folder, alter):
    """Let `alter` change the dictionary of the checkpoint's tensors."""
    weights = load_file(folder / "model.safetensors")
    alter(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder, bytes_left=1000):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:bytes_left])


def without_weights(folder):
    (folder / "model.safetensors").rename(folder.parent / "away")


SEEN = {  # damage that the files show
    "cut-off or damaged model.safetensors": cut, "damaged model.safetensors": lambda folder: cut(folder, 4),
    "lacks model.safetensors": without_weights,
    "pickled weights (pytorch_model.bin)": lambda folder: (
        without_weights(folder), (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))),
    "lacks model-2.safetensors": lambda folder: (
        (folder / "model.safetensors").rename(folder / "model-1.safetensors"),
        change(folder / "model.safetensors.index.json", weight_map={"a": "model-1.safetensors", "b": "model-2.safetensors"})),
    "no valid JSON": lambda folder: (folder / "config.json").write_text("{"),
    "a processor_config.json that is no valid JSON object": lambda folder: (folder / "processor_config.json").write_text("[1]"),
    "a tokenizer.json that is no valid": lambda folder: (folder / "tokenizer.json").write_bytes(b"{\xff"),
    "a generation_config.json that is no valid": lambda folder: (folder / "generation_config.json").write_text(""),
    "holds no config.json": lambda folder: (folder / "config.json").unlink()}


@pytest.mark.parametrize("words", SEEN)
def test_damage_that_files_show_is_a_fault_of_the_parameters_too(folder, words, monkeypatch):
    assert params.model_fault(str(folder)) is None
    SEEN[words](folder)
    monkeypatch.setattr(models, "load_weights", lambda *_: 1 / 0)
    assert words in refusal(folder)
    fault = params.model_fault(str(folder))
    assert words in fault and str(folder) in fault and "\n" not in fault


@pytest.mark.parametrize(("file", "values"), [
    ("tokenizer.json", dict(model={"type": "unheard of"})), ("processor_config.json", dict(processor_class="NoSuchProcessor")),
    ("config.json", dict(model_type="no-such-model")), ("config.json", dict(text_config=7)),
    ("config.json", dict(vision_config={"hidden_size": "big"}))])
def test_a_configuration_that_fits_nothing_is_refused(folder, file, values):
    change(folder / file, **values)
    assert "does not load as an image-text-to-text model" in refusal(folder)


@pytest.mark.parametrize("part", ["embed_tokens", "vision_tower", "projector"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_one_number_that_is_not_finite_is_found(folder, number, part):
    def alter(weights):
        weights[next(name for name in weights if part in name)].view(-1)[3] = number
    tensors(folder, alter)
    message = refusal(folder)
    assert "holds numbers that are not finite, first in" in message and part in message


def test_tensors_of_other_shapes_and_missing_ones_are_refused(folder):
    def alter(weights):
        name = next(name for name in weights if name.endswith("q_proj.weight") and "language" in name)
        weights[name] = torch.zeros(3, 3)
    tensors(folder, alter)
    assert "other shapes" in refusal(folder) or "lacks" in refusal(folder)
    tensors(folder, lambda weights: weights.pop(next(name for name in weights if name.endswith("q_proj.weight"))))
    assert "lacks" in refusal(folder) or "shapes" in refusal(folder)


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_of_a_checkpoint_is_neither_asked_for_nor_run(folder, file, tmp_path, monkeypatch):
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Anything: pass\n")
    names = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer")
    change(folder / file, auto_map={name: "code.Anything" for name in names})
    if file == "config.json":
        change(folder / file, model_type="of-its-own")
    if file == "processor_config.json":
        change(folder / file, processor_class="Anything")
    if file == "tokenizer_config.json":
        change(folder / file, tokenizer_class="Anything")
    monkeypatch.setattr("builtins.input", lambda *_: 1 / 0)
    try:
        models.load_vlm(folder)  # transformers may have a class of its own for what the file names
    except ValueError as error:
        assert str(error).startswith(f"{folder} ") and "\n" not in str(error)
    assert not (tmp_path / "ran").exists()


def test_code_that_is_needed_is_named(folder):
    change(folder / "config.json", model_type="of-its-own", auto_map={"AutoConfig": "code.Anything"})
    assert "needs code of its own, which is never run" in refusal(folder)


def test_an_adapter_alone_is_to_be_merged_with_the_command_that_is_given(folder, tmp_path):
    model = models.load_vlm(folder).model
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    change(tmp_path / "adapter/adapter_config.json", base_model_name_or_path=str(folder))
    with pytest.raises(ValueError, match="holds an adapter .* merge it first") as caught:
        models.load_vlm(tmp_path / "adapter")
    assert "merge it first" in params.model_fault(str(tmp_path / "adapter"))
    command = shlex.split(str(caught.value).split("\n")[-1])
    assert subprocess.run([sys.executable, *command[1:]], capture_output=True).returncode == 0
    assert models.load_vlm(f"{tmp_path / 'adapter'}-merged")


def test_an_adapter_beside_a_model_is_not_loaded_in_its_place(folder):
    change(folder / "adapter_config.json", base_model_name_or_path="someone/else\"; rm -rf x")
    assert "THE MODEL IT WAS TRAINED ON" in refusal(folder) and "rm -rf" not in refusal(folder)


def test_a_hub_model_is_loaded_at_the_revision_that_is_recorded(folder, monkeypatch):
    asked = []

    def recorded(real):
        def from_pretrained(name, *args, **kwargs):
            asked.append((name, kwargs.pop("revision", None)))
            return real(folder, *args, **kwargs)
        return from_pretrained
    for kind in (models.AutoProcessor, models.AutoModelForImageTextToText):
        monkeypatch.setattr(kind, "from_pretrained", recorded(kind.from_pretrained))
    monkeypatch.setattr("auditdm_lib.models.asking.cached_file",
                        lambda name, file, revision=None, **_: asked.append((name, revision)))
    monkeypatch.setattr(hub, "revision", lambda name: "0123abc")
    assert models.load_vlm("org/model").name == "org/model"
    assert asked == [("org/model", "0123abc")] * 3  # processor, protocol, weights
    models.load_vlm(folder)
    assert {revision for name, revision in asked if name == str(folder)} == {None}


def test_a_hub_model_that_nobody_has_is_named(monkeypatch):
    hub.revision.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="No model at nobody/no-such-model: .* not in the Hugging Face cache"):
        models.load_vlm("nobody/no-such-model")


@pytest.mark.parametrize(("family", "words"), [
    ("llava_onevision", "takes the inputs batch_num_images, which TRL's GRPO does not hand on"),
    ("paligemma2", "TRL's GRPO does not train PaliGemma correctly")])
def test_an_auditor_that_grpo_cannot_train_is_refused_before_its_weights_are_loaded(family, words, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load_weights", lambda *_: 1 / 0)
    assert words in refusal(tiny_models.BUILDERS[family](tmp_path / family), load_auditor)


@pytest.mark.parametrize("family", ["gemma3", "idefics3", "llava"])
def test_other_chat_models_can_be_auditors(family, tmp_path):
    assert load_auditor(tiny_models.BUILDERS[family](tmp_path))


def test_equal_weights_are_one_model(folder, tmp_path):
    same, other = tiny_models.gemma3(tmp_path / "same"), tiny_models.gemma3(tmp_path / "other", seed=1)
    assert model_files.same_weights(folder, same) and not model_files.same_weights(folder, other)
    assert model_files.same_weights(folder, folder / ".." / "model")
