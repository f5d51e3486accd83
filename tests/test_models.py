"""Any image-text-to-text checkpoint answers; its answers do not depend on what else is in the batch."""

import shutil

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from auditdm_lib.models import vlm as models

QUESTIONS = ["what colour is the sun ?", "how many ?", "is the red cat left of the blue dog on the sky ?",
             "what is it ?"]


@pytest.fixture(scope="module", params=sorted(tiny_models.BUILDERS))
def vlm(request, tmp_path_factory):
    return models.load_vlm(tiny_models.BUILDERS[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.gemma3(tmp_path_factory.mktemp("gemma3"))


def noise(seed, width=40, height=30):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def said(vlm, images, questions, **how):
    """A model's replies of at most eight tokens, which a random model seldom ends by itself."""
    return models.replies(vlm, images, questions, 8, **how)["reply"].tolist()


def test_batch_of_many_gives_the_answers_of_batches_of_one(vlm):
    images = [noise(i, width) for i, width in enumerate([40, 20, 70] * 4)]  # squat, tall and wide
    questions = [QUESTIONS[i % 4] for i in range(12)]
    alone = [said(vlm, images[i:i + 1], questions[i:i + 1])[0] for i in range(12)]
    assert said(vlm, images, questions) == alone
    assert said(vlm, images, questions, batch_size=5) == alone
    assert len(set(alone)) > 3  # a model that says the same to everything would pass the lines above


def test_logits_do_not_depend_on_left_padding(vlm):
    short, long = models.prompt(vlm, QUESTIONS[1]), models.prompt(vlm, QUESTIONS[2])
    alone = models.encode(vlm, [noise(0)], [short], "left")
    both = models.encode(vlm, [noise(0), noise(1)], [short, long], "left")
    first_token = lambda inputs: vlm.model.generate(  # noqa: E731
        **{k: v for k, v in inputs.items() if k != "labels"}, max_new_tokens=1, output_logits=True,
        return_dict_in_generate=True).logits[0][0]
    # 1e-4: fp32 sums in another order; a token of padding that is attended to moves logits by 1e-2 and more
    torch.testing.assert_close(first_token(both), first_token(alone), atol=1e-4, rtol=1e-4)


def test_answer_looks_at_the_picture(vlm):
    prompt = models.prompt(vlm, QUESTIONS[0])
    inputs = models.encode(vlm, [noise(0), noise(1)], [prompt] * 2, "left")
    inputs.pop("labels", None)
    logits = vlm.model(**inputs).logits[:, -1]
    assert (logits[0] - logits[1]).abs().max() > 1e-4


def test_identical_pairs_are_answered_once(folder, monkeypatch):
    vlm, rows = models.load_vlm(folder), []
    generate = vlm.model.generate
    counted = lambda **kw: rows.append(len(kw["input_ids"])) or generate(**kw)  # noqa: E731
    monkeypatch.setattr(vlm.model, "generate", counted)
    same_pixels = noise(0).copy()
    answers = said(vlm, [noise(0), same_pixels, noise(1)] * 4, [QUESTIONS[0]] * 12)
    assert sum(rows) == 2
    assert answers == [answers[0], answers[0], answers[2]] * 4


def test_answers_keep_their_order_and_empty_lists_give_none(folder):
    vlm = models.load_vlm(folder)
    images, questions = [noise(i) for i in range(4)], [QUESTIONS[i] for i in (2, 1, 0, 3)]
    assert said(vlm, images, questions) == said(vlm, images[::-1], questions[::-1])[::-1]
    assert said(vlm, [], []) == models.answer(vlm, [], []) == []


def test_greyscale_picture_is_read_as_rgb(folder):
    vlm, grey = models.load_vlm(folder), noise(3).convert("L")
    answers = [said(vlm, [image], ["how many ?"]) for image in (grey, grey.convert("RGB"))]
    assert answers[0] == answers[1]


def test_sampling_in_a_checkpoint_is_ignored(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 5.0, "top_k": 64, "eos_token_id": 2, "pad_token_id": 0}')
    vlm = models.load_vlm(tmp_path)
    answers = [said(vlm, [noise(0)], [QUESTIONS[0]]) for _ in range(5)]
    assert answers == [said(models.load_vlm(folder), [noise(0)], [QUESTIONS[0]])] * 5


def test_unequal_lists_are_refused(folder):
    with pytest.raises(ValueError, match="1 images but 2 questions"):
        models.answer(models.load_vlm(folder), [noise(0)], QUESTIONS[:2])


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.*a folder that holds a checkpoint"):
        models.load_vlm(tmp_path / "nowhere")


def test_folder_without_image_processor_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="does not load as an image-text-to-text model"):
        models.load_vlm(tmp_path)


def test_text_model_is_refused(tmp_path):
    tokenizer = tiny_models.word_tokenizer()
    LlamaForCausalLM(LlamaConfig(**tiny_models._text(tokenizer, 16, 1))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no image processor"):
        models.load_vlm(tmp_path)


def test_checkpoint_with_a_tensor_missing_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(name for name in weights if "multi_modal_projector" in name))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 of its tensors .*projector"):
        models.load_vlm(tmp_path)
