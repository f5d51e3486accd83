"""Questions packed behind one picture teach what each would teach alone."""

import random

import pytest
import torch
import torch.nn.functional as F

from auditdm_lib.testbed.checkpoint import build_model, build_tokenizer
from auditdm_lib.testbed.packing import answer_logits, pack
from auditdm_lib.testbed.questions import sample_question
from auditdm_lib.testbed.scenes import sample_scenes
from auditdm_lib.testbed.skills import answer
from auditdm_lib.testbed.training import collate, encode, pixel_values, render_corpus


@pytest.fixture(scope="module", params=["gemma3", "paligemma2"])
def packed(request):
    """(family, tokenizer, model, features, pixels, rows of pairs, loss of every answer token of the packed rows)."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_model(request.param, tokenizer, hidden=32, layers=2).eval()
    scenes, rng = sample_scenes(3, "train", 0), random.Random(0)
    corpus = render_corpus(scenes)
    rows = [[(q, answer(s, q)) for q in (sample_question(s, rng) for _ in range(4))] for s in scenes]
    with torch.no_grad():
        features = model.model.vision_tower(pixel_values=pixel_values(corpus.pixels)).last_hidden_state
        logits, labels = answer_logits(model, pack(request.param, tokenizer, rows), features)
    return request.param, tokenizer, model, features, corpus.pixels, rows, F.cross_entropy(logits, labels, reduction="none")


@torch.no_grad()
def test_a_question_does_not_see_the_others_of_its_row(packed):
    family, tokenizer, model, features, _, rows, together = packed
    alone = []
    for i, row in enumerate(rows):
        for pair in row:
            logits, labels = answer_logits(model, pack(family, tokenizer, [[pair]]), features[i:i + 1])
            alone.append(F.cross_entropy(logits, labels, reduction="none"))
    assert torch.allclose(torch.cat(alone), together, atol=1e-5)  # sums in another order


@torch.no_grad()
def test_gemma_s_packed_row_is_exactly_its_own_format_and_paligemma_s_is_not(packed):
    family, tokenizer, model, _, pixels, rows, together = packed
    own = []
    for i, row in enumerate(rows):
        for pair in row:
            inputs = collate([encode(family, tokenizer, [pair], packed=False)], tokenizer.pad_token_id)
            labels = inputs.pop("labels")[:, 1:]
            hidden = model.model(**inputs, pixel_values=pixel_values(pixels[i:i + 1])).last_hidden_state[:, :-1]
            wanted = labels != -100
            own.append(F.cross_entropy(model.lm_head(hidden[wanted]), labels[wanted], reduction="none"))
    assert torch.allclose(torch.cat(own), together, atol=1e-5) == (family == "gemma3")
