"""Questions packed behind one picture teach what each would teach alone, and a question alone is the family's own format."""

import random

import pytest
import torch
import torch.nn.functional as F

from auditdm_lib.models import vlm as models
from auditdm_lib.models.vlm import VLM
from auditdm_lib.testbed.checkpoint import asking, build_model, build_processor
from auditdm_lib.testbed.packing import answer_logits, pack
from auditdm_lib.testbed.questions import sample_question
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import sample_scenes
from auditdm_lib.testbed.skills import answer
from auditdm_lib.testbed.training import pixel_values, render_corpus


@pytest.fixture(scope="module", params=["gemma3", "paligemma2"])
def asked(request):
    """(family, model and processor, pictures, features, rows of pairs)."""
    torch.manual_seed(0)
    processor = build_processor(request.param)
    model = build_model(request.param, processor.tokenizer, hidden=32, layers=2).eval()
    scenes, rng = sample_scenes(3, "train", 0), random.Random(0)
    rows = [[(q, answer(s, q)) for q in (sample_question(s, rng) for _ in range(4))] for s in scenes]
    with torch.no_grad():
        features = model.model.vision_tower(pixel_values=pixel_values(render_corpus(scenes).pixels)).last_hidden_state
    return request.param, VLM("tiny", model, processor, asking(processor)), [render(s) for s in scenes], features, rows


@torch.no_grad()
def losses(family, vlm, rows, features):
    """The loss of every answer token, rows and their pairs in order."""
    logits, labels = answer_logits(vlm.model, pack(family, vlm.processor.tokenizer, rows), features)
    return F.cross_entropy(logits, labels, reduction="none")


def alone(family, vlm, rows, features):
    return torch.cat([losses(family, vlm, [[pair]], features[i:i + 1]) for i, row in enumerate(rows) for pair in row])


@torch.no_grad()
def test_a_question_alone_is_what_the_processor_makes_of_it(asked):
    family, vlm, pictures, features, rows = asked
    own = []
    for picture, row in zip(pictures, rows, strict=True):
        for question, right in row:
            text = models.put(vlm, question)
            if family == "paligemma2":  # the processor's own suffix: prefix and picture see all of themselves
                inputs = models.encode(vlm, [picture], [text], "right", suffix=[right])
            else:
                inputs = models.encode(vlm, [picture], [text + f"{right}<eos>"], "right")
                said = len(vlm.processor.tokenizer(f"{right}<eos>", add_special_tokens=False)["input_ids"])
                inputs["labels"] = inputs["input_ids"].clone()
                inputs["labels"][:, :-said] = -100
            labels = inputs.pop("labels")[:, 1:]
            logits = vlm.model(**inputs).logits[:, :-1]
            wanted = labels != -100
            own.append(F.cross_entropy(logits[wanted], labels[wanted], reduction="none"))
    assert torch.allclose(torch.cat(own), alone(family, vlm, rows, features), atol=1e-5)


def test_a_packed_question_does_not_see_the_others_of_its_row(asked):
    family, vlm, _, features, rows = asked
    together = losses(family, vlm, rows, features)
    changed = [[row[0], ("is there any red cow?", "yes"), *row[2:]] for row in rows]
    first = [len(vlm.processor.tokenizer(f"{row[0][1]}<eos>", add_special_tokens=False)["input_ids"]) for row in rows]
    again = losses(family, vlm, [[*row] for row in changed], features)
    assert torch.allclose(together[:first[0]], again[:first[0]], atol=1e-5)
    assert torch.allclose(losses(family, vlm, [row[::-1] for row in rows[:1]], features[:1])[-first[0]:], together[:first[0]],
                          atol=1e-5)  # nor does its place in the row matter


def test_gemma_s_packed_row_is_exactly_its_own_format_and_paligemma_s_is_not(asked):
    family, vlm, _, features, rows = asked
    together, single = losses(family, vlm, rows, features), alone(family, vlm, rows, features)
    assert torch.allclose(together, single, atol=1e-5) == (family == "gemma3")
