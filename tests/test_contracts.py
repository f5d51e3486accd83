"""What the kit assumes of its libraries, surprises above all: an upgrade that changes it is noticed."""

import hashlib
import io

import matplotlib
import pytest
import tiny_models
import torch
import yaml
from datasets import Dataset
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)

from auditdm_lib.training import rectify


@pytest.fixture(scope="module")
def paligemma(tmp_path_factory):
    folder = tiny_models.paligemma2(tmp_path_factory.mktemp("paligemma2"))
    return AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder), folder


def batch(processor, **suffix):
    texts = ["<image>answer en what is it ?", "<image>answer en is the red cat left of the blue dog ?"]
    images = [[Image.new("RGB", (24, 24), colour)] for colour in ("red", "blue")]
    return processor(images=images, text=texts, padding=True, return_tensors="pt", **suffix)


def test_fresh_gemma3_has_a_projector_of_zeros():
    # so a model built from a configuration sees nothing until the projector is initialised
    tiny = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1)
    text = dict(tiny, num_key_value_heads=1, head_dim=8, vocab_size=16, pad_token_id=0)
    config = Gemma3Config(text_config=text,
                          vision_config=dict(tiny, image_size=16, patch_size=8), mm_tokens_per_image=4)
    projector = Gemma3ForConditionalGeneration(config).model.multi_modal_projector
    assert projector.mm_input_projection_weight.abs().max() == 0


def test_gemma2_tower_gets_eager_attention_unasked_and_refuses_sdpa(paligemma):
    # its soft-capped attention has no sdpa form; load_vlm leaves the choice to the library
    _, model, _ = paligemma
    assert model.config.text_config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="scaled_dot_product_attention"):
        model.model.language_model.set_attn_implementation("sdpa")


def test_suffix_makes_the_answer_causal_and_labels_it_alone(paligemma):
    processor, _, _ = paligemma
    inputs = batch(processor, suffix=["red", "cannot tell"])
    assert torch.equal(inputs["labels"] != -100, inputs["token_type_ids"] == 1)
    labelled = [processor.tokenizer.decode(row[row != -100]) for row in inputs["labels"]]
    assert labelled == ["red <eos>", "cannot tell <eos>"]


def test_paligemma_processor_returns_labels_even_where_nothing_is_to_be_learned(paligemma):
    # `generate` does not take them, so `models.answer` drops them
    assert set(batch(paligemma[0])["labels"].unique().tolist()) == {-100}


def test_flipped_byte_in_safetensors_loads_without_a_word(paligemma, tmp_path):
    # so only the manifest's sha256 can see it
    paligemma[1].save_pretrained(tmp_path)
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    AutoModelForImageTextToText.from_pretrained(tmp_path)


def test_missing_tensor_is_filled_with_random_numbers_and_reported_only_on_request(paligemma, tmp_path):
    # `models.load_vlm` asks for the report
    paligemma[1].save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if "projector" in name)
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert len(info["missing_keys"]) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="the default is right where there is a GPU")
def test_grpo_config_wants_bf16_unless_told_otherwise(tmp_path):
    from trl import GRPOConfig  # imported here: it takes seconds

    with pytest.raises(ValueError, match="bf16"):
        GRPOConfig(output_dir=str(tmp_path))
    assert not GRPOConfig(output_dir=str(tmp_path), bf16=False).bf16


def test_saved_data_set_is_the_same_bytes_each_time(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    rows = {"image": [{"bytes": buffer.getvalue(), "path": None}], "question": ["?"], "answer": ["red"]}
    for name in "ab":
        Dataset.from_dict(rows, features=rectify.EXAMPLE).save_to_disk(tmp_path / name)
    a, b = ({f.name: hashlib.sha256(f.read_bytes()).digest() for f in (tmp_path / n).iterdir()} for n in "ab")
    assert a == b and len(a) == 3


def test_yaml_reads_1e_minus_5_as_text_and_no_as_false():
    assert yaml.safe_load("{rate: 1e-5, better: 1.0e-5, match: no}") == {
        "rate": "1e-5", "better": 1.0e-5, "match": False}


def test_pdf_without_creation_date_is_byte_stable():
    files = []
    for _ in range(2):
        figure, buffer = Figure(), io.BytesIO()
        figure.subplots().plot([0, 1])
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
        files.append(buffer.getvalue())
    assert files[0] == files[1]


def test_matplotlib_carries_the_okabe_ito_colours():
    assert len(matplotlib.color_sequences["okabe_ito"]) >= 7


def test_processors_come_back_without_torchvision(paligemma):
    # the CPU build of torch has none; the folder names the class, the library picks its PIL twin
    assert type(paligemma[0].image_processor).__name__.startswith("SiglipImageProcessor")
