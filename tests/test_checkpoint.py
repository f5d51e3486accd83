"""The shipped checkpoints: complete, small, and with an answer for whatever a person types."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from auditdm_lib.models import vlm as models
from auditdm_lib.models.asking import Asking, asking_of
from auditdm_lib.run import manifest
from auditdm_lib.testbed.build import DRAWERS, MODELS
from auditdm_lib.testbed.checkpoint import CHECKPOINTS, asking, build_tokenizer
from auditdm_lib.testbed.gaps import gaps_of, load_gaps
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import sample_scenes

SHIPPED = sorted(folder.name for folder in CHECKPOINTS.iterdir() if folder.is_dir() and not folder.name.startswith("."))
TYPED = ["", " ", "😀 what is this?", "この絵は何ですか", "<image> <image>", "<start_of_image> hello <eos>", "\ud800",
         "a\x00b\n\n\tc", "is there any purple unicorn on a bicycle?", "word " * 60]


def test_all_that_ships_is_in_the_list_and_small():
    assert set(SHIPPED) <= {*MODELS, *DRAWERS}
    sizes = {name: sum(file.stat().st_size for file in (CHECKPOINTS / name).rglob("*") if file.is_file()) for name in SHIPPED}
    assert sum(sizes[name] for name in MODELS) <= 55e6, "megabytes of models"
    assert sum(sizes.get(name, 0) for name in ("image", "edit")) <= 25e6, "megabytes of drawing pipelines"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_checkpoint_is_what_its_manifest_says_and_carries_its_card_and_gaps(name):
    manifest.verify(CHECKPOINTS / name)
    card = (CHECKPOINTS / name / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n") and "| seconds |" in card and "ci_low" in card
    assert gaps_of(CHECKPOINTS / name) == load_gaps().get(name, ())
    configs = [json.loads(file.read_text(encoding="utf-8")) for file in (CHECKPOINTS / name).rglob("*.json")]
    assert not [config for config in configs if Path(str(config.get("_name_or_path", ""))).is_absolute()]


@pytest.mark.parametrize("name", ["target", "gemma3-s"])
def test_whatever_a_person_types_gets_a_reply_and_an_answer_where_it_ends(name):
    vlm, picture = models.load_vlm(CHECKPOINTS / name), render(sample_scenes(1, "test", 0)[0])
    given, answers = (ask(vlm, [picture] * len(TYPED), TYPED) for ask in (models.replies, models.answer))
    assert len(given) == len(TYPED) and all(isinstance(said, str) for said in given["reply"])
    assert [said is not None for said in answers] == given["ended"].tolist() and given["ended"].sum() > 5


@pytest.mark.parametrize("name", [name for name in SHIPPED if name in MODELS])
def test_a_shipped_checkpoint_brings_its_own_answer_protocol(name):
    processor = AutoProcessor.from_pretrained(CHECKPOINTS / name)
    prompt = "{question}" if processor.chat_template else "answer en {question}"
    own = asking_of(CHECKPOINTS / name, processor, {})
    assert own == asking(processor) == Asking(prompt, max_new_tokens=8, batch_size=128, tasks=False)


TOKENIZER = build_tokenizer()


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_the_tokenizer_encodes_any_unicode_and_gives_it_back(text):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert None not in ids and all(0 <= i < len(TOKENIZER) for i in ids)
    if not any(token in text for token in TOKENIZER.get_added_vocab()):
        assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False).removeprefix(" ") == text.removeprefix(" ")
