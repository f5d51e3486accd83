"""A model is asked in its own way, and its reply counts as an answer where it ended."""

import json
import shutil

import pytest
import tiny_models
from PIL import Image

from auditdm_lib.models import vlm as models
from auditdm_lib.models.asking import CHAT, PALIGEMMA, PROTOCOL, Asking, save_asking, turn, worded
from auditdm_lib.training import examples
from auditdm_lib.training.trainings import save_auditor

QUESTION, PICTURE = "what colour is the sun ?", Image.new("RGB", (30, 24), "red")
# Gemma3's own way to write a turn: it ends with <end_of_turn>, while the tokenizer's end token is <eos>.
GEMMA_CHAT = ("{{ bos_token }}{% for m in messages %}<start_of_turn> {{ 'model' if m['role'] == 'assistant' else 'user' }} "
              "{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE {% else %}{{ c['text'] | trim }}{% endif %}"
              "{% endfor %}<end_of_turn>{% endfor %}{% if add_generation_prompt %}<start_of_turn> model {% endif %}")


@pytest.fixture
def folder(request, tmp_path):
    """A checkpoint of a family, by the test's parameter; Gemma3 where it has none."""
    return tiny_models.BUILDERS[getattr(request, "param", "gemma3")](tmp_path / "model")


def change(file, **values):
    """Set values in a JSON file."""
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | values))


def refusal(folder):
    """The message with which a folder is refused: one sentence that names it."""
    with pytest.raises(ValueError) as caught:
        models.load_vlm(folder)
    message = str(caught.value)
    assert message.startswith(str(folder)) and "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize(("question", "told"), [
    ("what colour is it?", "answer en what colour is it?"), ("detect cat", "detect cat"),
    ("segment the dog ; cat", "segment the dog ; cat"),
    ("caption en", "caption en"), ("cap de", "cap de"), ("ocr", "ocr"), ("answer de was ist das?", "answer de was ist das?"),
    ("question en red", "question en red"), ("Describe this picture.", "caption en"), ("describe the image", "caption en"),
    ("describe the dog", "answer en describe the dog"), ("answer me this", "answer en answer me this"),
    ("what does the caption en say?", "answer en what does the caption en say?"), ("caption", "answer en caption")])
def test_paligemma_s_own_task_prompts_are_put_as_they_are(question, told):
    assert worded(PALIGEMMA, question) == told
    assert worded(Asking("answer en {question}", 8), question) == f"answer en {question}"  # the testbed's know no other


def test_a_family_has_its_own_protocol_and_a_file_goes_before_it(folder, tmp_path):
    vlm = models.load_vlm(folder)
    assert vlm.asking == CHAT and "a single word or phrase" in models.put(vlm, QUESTION)
    assert "single word" not in models.prompt(vlm, QUESTION) + models.put(vlm, QUESTION, bare=True)
    assert models.load_vlm(tiny_models.paligemma2(tmp_path / "other")).asking == PALIGEMMA
    own = Asking("Q: {question}", 5, 7)
    save_asking(own, folder)
    assert models.load_vlm(folder).asking == own
    assert models.load_vlm(folder, {"prompt": "{question}"}).asking == Asking("{question}", 5, 7)


@pytest.mark.parametrize(("text", "words"), [
    ('{"prompt": "{question}", "max_new_tokens": "8"}', "max_new_tokens"), ('{"prompt": "red", "max_new_tokens": 8}', "in it"),
    ('{"prompt": "{question}"}', "max_new_tokens"), ('{"prompt": "{question}", "max_new_tokens": 0}', "at least 1"),
    ('{"prompt": "{question}", "max_new_tokens": 8, "code": "x"}', "code"), ("[1]", PROTOCOL), ("{", PROTOCOL)])
def test_a_protocol_that_is_not_valid_is_refused(folder, text, words):
    (folder / PROTOCOL).write_text(text)
    message = refusal(folder)
    assert PROTOCOL in message and words in message


def test_a_template_that_only_the_tokenizer_has_is_used(folder):
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in refusal(folder)  # as Gemma3's pretrained checkpoints
    change(folder / "tokenizer_config.json", chat_template=template)
    assert models.put(models.load_vlm(folder), QUESTION).startswith("user : IMAGE what colour")


def test_a_template_that_places_no_picture_is_refused(folder):
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert "places no picture" in refusal(folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('text only') }}")
    assert "places no picture" in refusal(folder)


@pytest.mark.parametrize("folder", ["paligemma2"], indirect=True)
def test_paligemma_is_not_asked_in_the_template_of_its_language_model(folder):
    change(folder / "tokenizer_config.json", chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert models.put(models.load_vlm(folder), QUESTION) == f"<image>answer en {QUESTION}"


@pytest.mark.parametrize("folder", ["idefics3", "llava_onevision"], indirect=True)
def test_other_families_without_a_template_are_not_asked_as_paligemma(folder):
    (folder / "chat_template.jinja").unlink()
    assert "save a chat template with its processor" in refusal(folder)


def with_turns(folder):
    """The checkpoint with Gemma3's own turns."""
    named = {"boi_token": "IMAGE", "eoi_token": "<eoi>", "image_token": "<image>"}
    tokenizer = tiny_models.word_tokenizer(["<start_of_turn>", "<end_of_turn>"], named)
    vlm = models.load_vlm(folder)
    vlm.model.resize_token_embeddings(len(tokenizer))
    vlm.model.save_pretrained(folder)
    processor = type(vlm.processor)(vlm.processor.image_processor, tokenizer, chat_template=GEMMA_CHAT,
                                    image_seq_length=vlm.processor.image_seq_length)
    processor.save_pretrained(folder)
    return folder


def test_the_turn_s_own_end_is_learnt_and_ends_a_reply(folder):
    vlm = models.load_vlm(with_turns(folder))
    end = vlm.processor.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert turn(vlm.processor) == ("", "<end_of_turn>")
    labels = examples.collate(vlm, [dict(image=PICTURE, question=QUESTION, answer="red")], asked=models.put)["labels"]
    assert vlm.processor.tokenizer.decode(labels[labels != -100]).split() == ["red", "<end_of_turn>"]
    assert vlm.model.generation_config.eos_token_id == [vlm.processor.tokenizer.eos_token_id, end]


def test_a_reply_that_has_not_ended_is_no_answer(folder):
    vlm = models.load_vlm(folder)
    given = models.replies(vlm, [PICTURE], [QUESTION], 4)
    assert not given["ended"].any() and len(given["reply"][0].split()) == 4
    assert models.answer(vlm, [PICTURE], [QUESTION], 4) == [None]
    last = vlm.processor.tokenizer.convert_tokens_to_ids(given["reply"][0].split()[-1])
    change(folder / "generation_config.json", eos_token_id=[2, last])  # any end token of several counts
    ended = models.replies(models.load_vlm(folder), [PICTURE], [QUESTION], 4)
    assert ended["ended"].all() and models.answer(models.load_vlm(folder), [PICTURE], [QUESTION], 4) != [None]


@pytest.mark.parametrize("odd", [
    dict(return_dict_in_generate=True, output_scores=True), dict(num_beams=3, num_return_sequences=2), dict(num_beams=3),
    dict(do_sample=True, temperature=5.0, top_k=64), dict(repetition_penalty=5.0, no_repeat_ngram_size=1),
    dict(forced_eos_token_id=2, min_new_tokens=3), dict(suppress_tokens=[30, 31, 32]), dict(max_length=3)],
    ids=lambda odd: " ".join(odd))
def test_what_a_checkpoint_says_of_generation_changes_no_reply(folder, odd):
    pictures, questions = [PICTURE, Image.new("RGB", (24, 24), "blue")], [QUESTION, "how many ?"]
    plain = models.replies(models.load_vlm(folder), pictures, questions, 6)
    change(folder / "generation_config.json", **odd)
    assert models.replies(models.load_vlm(folder), pictures, questions, 6).equals(plain)


@pytest.mark.parametrize("folder", ["llava"], indirect=True)
def test_a_tokenizer_without_a_padding_token_gets_one(folder):
    vlm = models.load_vlm(folder)
    assert vlm.processor.tokenizer.pad_token == "</s>"
    longer = models.replies(vlm, [PICTURE] * 2, ["how many ?", QUESTION * 3], 4)
    assert longer["reply"][0] == models.replies(vlm, [PICTURE], ["how many ?"], 4)["reply"][0]
    change(folder / "tokenizer_config.json", eos_token=None)
    assert "neither a padding nor an end token" in refusal(folder)


def test_members_are_asked_as_the_parameters_say(folder, tmp_path):
    other = tiny_models.paligemma2(tmp_path / "other")
    asked = lambda *how: [vlm.asking for vlm in models.load_members(folder, [other], *how)]  # noqa: E731
    assert asked() == [CHAT, PALIGEMMA]
    assert asked(["Q {question}"], [5], 3) == [Asking("Q {question}", 5, 3), Asking("Q {question}", 5, 3, tasks=True)]
    assert [a.prompt for a in asked(["A {question}", "B {question}"])] == ["A {question}", "B {question}"]
    with pytest.raises(ValueError, match="3 values for 2 models"):
        asked(["{question}"] * 3)


def test_all_processors_are_read_before_any_weights(folder, tmp_path, monkeypatch):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(models, "load_weights", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match=f"{broken} does not load"):
        models.load_members(folder, [broken])


def test_a_model_that_is_saved_anew_is_asked_as_before(folder, tmp_path):
    auditor = models.load_vlm(folder, {"prompt": "Say: {question}", "max_new_tokens": 9})
    save_auditor(auditor.model, auditor, tmp_path / "saved")
    assert models.load_vlm(tmp_path / "saved").asking == auditor.asking


def test_special_tokens_in_a_reply_s_question_stay_data(folder):
    vlm = models.load_vlm(folder)
    assert models.put(vlm, "<eos> IMAGE red").count("IMAGE") == 1
