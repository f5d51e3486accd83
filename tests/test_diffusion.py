"""Pictures drawn by random pipelines of diffusers' own classes."""

import errno
import functools
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_pipelines
import torch
from PIL import Image

from auditdm_lib.audit import diffusion, pipelines, store
from auditdm_lib.audit.diffusion import Drawing, draw_pictures, fault
from auditdm_lib.audit.files import OpenedWhenNeeded
from auditdm_lib.run.pipeline_files import class_fault

TEXTS = ["red star", "a blue circle on the left", "make it green", "add a square", "remove the large star", "one two three"]
ODD = ["a" * 10_000, "\u0646\u062c\u0645\u0629 \u7ea2\u8272 \u2b50", "\U0001f98a", "red \ud800 star", "red\0star", "?!.,;",
       "</s> <pad> <unk>", "{}", "<|image_pad|>", "(star:1.5)"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function that gives the folder of a tiny pipeline, saved once."""
    home = tmp_path_factory.mktemp("pipelines")

    def folder(name):
        if not (home / name).exists():
            build = (tiny_pipelines.IMAGE | tiny_pipelines.EDIT)[name]
            tiny_pipelines.strong(build()).save_pretrained(home / name)
        return home / name
    return folder


@pytest.fixture
def calls(monkeypatch):
    """The number of pictures of each call of a pipeline, and of each text that was encoded."""
    seen = {"lanes": [], "texts": []}
    called, encode = pipelines._called, pipelines._encode
    monkeypatch.setattr(pipelines, "_called", lambda *a: seen["lanes"].append(len(a[1])) or called(*a))
    monkeypatch.setattr(pipelines, "_encode", lambda *a: seen["texts"].extend(
        text for text in dict.fromkeys(a[1]) if text not in (pipelines.SHORT, pipelines.LONG)) or encode(*a))
    return seen


def sources(n, size=(64, 64)):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), np.uint8)) for _ in range(n)]


def drawing(saved, image="flux", edit="kontext", **how):
    return Drawing("diffusion", str(saved(image)), str(saved(edit)), **{"steps": 2, "size": 48, "batch": 8} | how)


def draw(how, kinds, texts, seed=0, folder=None, images=None):
    kinds = [kinds] * len(texts) if isinstance(kinds, str) else kinds
    return draw_pictures(how, images or sources(len(texts)), ["x"] * len(texts), kinds, texts, seed, folder)


def pixels(pictures):
    return [picture and picture.tobytes() for picture in pictures]


@pytest.mark.parametrize("name", ["flux", "xl", "stable_diffusion", "qwen", "flux2_klein"])
def test_a_caption_is_drawn_the_same_alone_and_among_others(saved, name):
    how = drawing(saved, name)
    together, reasons = draw(how, "regeneration", TEXTS)
    assert reasons == [None] * len(TEXTS) and len(set(pixels(together))) == len(TEXTS)
    assert {(picture.mode, picture.size) for picture in together} == {("RGB", (48, 48))}
    assert pixels(draw(how, "regeneration", TEXTS[::-1])[0])[::-1] == pixels(together)
    assert pixels(draw(replace(how, batch=1), "regeneration", TEXTS[2:4])[0]) == pixels(together)[2:4]


@pytest.mark.parametrize("name", ["stable_diffusion_3", "pixart"])
def test_other_classes_draw_at_the_size_that_is_asked_for(saved, name):
    found, reasons = draw(drawing(saved, name, steps=1, batch=2), "regeneration", TEXTS[:2])
    assert reasons == [None] * 2 and len(set(pixels(found))) == 2 and {picture.size for picture in found} == {(48, 48)}


def test_a_text_is_drawn_the_same_beside_a_much_longer_one(saved):
    how = drawing(saved, "cogview4", size=32)  # its texts are padded to the longest of a call
    together = draw(how, "regeneration", ["red star", "a blue circle on the left " * 8])[0]
    assert pixels(draw(how, "regeneration", ["red star"])[0]) == pixels(together)[:1]


def test_a_class_with_encodings_in_an_order_of_its_own_is_given_texts():
    from diffusers import FluxPipeline, HiDreamImagePipeline

    names = [pipelines._encodings(pipelines.Pipeline("", cls, 1, 1.0, 48, ())) for cls in (HiDreamImagePipeline, FluxPipeline)]
    assert names == [[], ["prompt_embeds", "pooled_prompt_embeds"]]


@pytest.mark.parametrize("name", ["kontext", "instruct", "xl_instruct", "flux2_klein"])
def test_picture_i_is_edited_from_source_i(saved, name):
    how, images = drawing(saved, edit=name, size=96 if "flux2" in name else 48), sources(3) + sources(1, (90, 60))
    together, reasons = draw(how, "edit", ["make it green"] * 4, images=images)
    assert reasons == [None] * 4 and len(set(pixels(together))) == 4
    assert together[3].width > together[3].height
    alone = [draw(replace(how, batch=1), "edit", ["make it green"], images=[image])[0][0] for image in images[1:]]
    assert pixels(alone) == pixels(together[1:])


@pytest.mark.parametrize("name", ["flux2", "qwen_edit", "qwen_edit_plus"])
def test_the_largest_classes_edit_one_picture_at_a_time(saved, monkeypatch, name, calls):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    if "qwen" in name:  # its processor needs torchvision, and its sources are made a megapixel large
        for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
            area = module.calculate_dimensions
            monkeypatch.setattr(module, "calculate_dimensions", lambda pixels, ratio, area=area: area(pixels // 256, ratio))
        pipe = tiny_pipelines.EDIT[name]()
        pipe.set_progress_bar_config(disable=True)
        monkeypatch.setattr(pipelines, "load", lambda *a: pipe)
        how = drawing(saved)
        monkeypatch.setattr(diffusion, "LOADED", {})
    else:
        how = drawing(saved, edit=name, size=96)
    found, reasons = draw(replace(how, steps=1), "edit", ["make it green", "make it <|image_pad|> red"])
    assert reasons == [None, None] and len(set(pixels(found))) == 2
    assert calls["lanes"] == [1, 1]


def test_encoding_a_text_beforehand_changes_nothing(saved):
    for name in ("flux", "xl", "qwen"):
        found = draw(drawing(saved, name, guidance=4.0), "regeneration", TEXTS[:1])[0][0]
        pipe = next(pipe for key, pipe in diffusion.LOADED.items() if key[0] == "regeneration")
        takes = pipelines.Pipeline("", pipe, 2, 4.0, 48, ())
        guided = {pipelines._guide(takes): 4.0} | ({"negative_prompt": " "} if name == "qwen" else {})
        plain = pipe(prompt=TEXTS[0], num_inference_steps=2, height=48, width=48, **guided,
                     generator=torch.Generator("cpu").manual_seed(_seed(TEXTS[0]))).images[0]
        assert np.abs(np.asarray(plain, int) - np.asarray(found, int)).max() <= 1  # a call of one has other last bits


def _seed(text):
    what = {"kind": "regeneration", "seed": 0, "text": text, "source": None}
    return int(diffusion.manifest.digest(what)[:15], 16)


def test_a_second_call_loads_and_draws_nothing(saved, tmp_path, monkeypatch, calls):
    kinds = ["question", "regeneration", "edit", "edit", "regeneration"]
    texts = [None, "red star", "add a star", None, "red star"]
    first, reasons = draw(drawing(saved), kinds, texts, folder=tmp_path)
    assert [picture is None for picture in first] == [True, False, False, True, False] and reasons == [None] * 5
    assert first[1] is not None and pixels(first)[1] == pixels(first)[4] and calls["lanes"] == [1, 1]
    assert isinstance(first[1], OpenedWhenNeeded) and len(list(tmp_path.glob("??/*.png"))) == 2
    monkeypatch.setattr(pipelines, "load", lambda *a: pytest.fail("loaded"))
    monkeypatch.setattr(diffusion, "LOADED", {})
    assert pixels(draw(drawing(saved), kinds, texts, folder=tmp_path)[0]) == pixels(first)


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: b"", lambda b: b[:-30] + b"x" * 30,
                                    lambda b: b[:len(b) // 2] + bytes([b[len(b) // 2] ^ 1]) + b[len(b) // 2 + 1:]])
def test_a_damaged_file_is_drawn_again(saved, tmp_path, damage, calls):
    first, _ = draw(drawing(saved), "regeneration", TEXTS[:1], folder=tmp_path)
    file, = tmp_path.glob("??/*.png")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    again, _ = draw(drawing(saved), "regeneration", TEXTS[:1], folder=tmp_path)
    assert pixels(again) == pixels(first) and file.read_bytes() == whole and len(calls["lanes"]) == 2
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_stopped_run_goes_on(saved, tmp_path, monkeypatch, calls):
    how, keep = drawing(saved, batch=2), diffusion.keep
    monkeypatch.setattr(diffusion, "keep", lambda file, picture: (_ for _ in ()).throw(KeyboardInterrupt)
                        if len(list(tmp_path.glob("??/*.png"))) == 3 else keep(file, picture))
    with pytest.raises(KeyboardInterrupt):
        draw(how, "regeneration", TEXTS, folder=tmp_path)
    monkeypatch.setattr(diffusion, "keep", keep)
    calls["lanes"].clear()
    assert None not in draw(how, "regeneration", TEXTS, folder=tmp_path)[0]
    assert sum(calls["lanes"]) == 3


def test_what_a_picture_depends_on(saved, tmp_path):
    how, seen = drawing(saved), set()
    for other, text, seed in ((how, "red star", 0), (how, "blue star", 0), (how, "red star", 1),
                              (replace(how, steps=3), "red star", 0), (replace(how, size=64), "red star", 0)):
        seen.add(pixels(draw(other, "regeneration", [text], seed, tmp_path)[0])[0])
    assert len(seen) == 5 == len(list(tmp_path.glob("??/*.png")))
    draw(replace(how, batch=3), "regeneration", ["red star"], 0, tmp_path)
    assert len(list(tmp_path.glob("??/*.png"))) == 5


def test_each_text_is_encoded_once(saved, calls):
    draw(drawing(saved), "edit", ["make it green"] * 12)
    assert calls["texts"] == ["make it green"] and calls["lanes"] == [8, 4]


@pytest.mark.parametrize("kind", ["regeneration", "edit"])
def test_any_text_gives_a_picture_or_a_reason(saved, kind):
    found, reasons = draw(drawing(saved), kind, [*ODD, "", " \n\t", "\0"])
    assert reasons[-3:] == [diffusion.EMPTY] * 3 and found[-3:] == [None] * 3
    assert reasons[:-3] == [None] * len(ODD)


def test_sources_of_any_size(saved):
    images = [Image.new("RGB", size, "red") for size in ((1, 1), (1, 3000), (7000, 7000), (400, 50))] + [Image.new("L", (9, 9))]
    found, reasons = draw(drawing(saved), "edit", ["add a star"] * 5, images=images)
    assert reasons == [None, pipelines.TOO_NARROW, None, None, None]
    assert found[0].size == found[2].size == found[4].size == (48, 48) and found[3].size == (128, 16)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("Unable to allocate 3 GiB")])
def test_a_call_that_does_not_fit_is_halved(saved, monkeypatch, error):
    called, sizes = pipelines._called, []

    def small(pipeline, texts, *rest):
        sizes.append(len(texts))
        if len(texts) > most:
            raise error
        return called(pipeline, texts, *rest)
    monkeypatch.setattr(pipelines, "_called", small)
    most, how = 2, drawing(saved, steps=1)
    assert None not in draw(how, "regeneration", TEXTS[:5])[0] and sizes == [5, 2, 2, 1]
    most = 0
    with pytest.raises(MemoryError, match="drawing_batch.*drawing_offload"):
        draw(how, "regeneration", TEXTS[:2])


def test_what_a_failed_call_held_is_gone_before_the_next(saved, monkeypatch):
    called, held, gone = pipelines._called, [], []

    def small(pipeline, texts, *rest):
        gone.extend(old() is None for old in held)
        if len(texts) > 1:
            activations = torch.zeros(9)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return called(pipeline, texts, *rest)
    monkeypatch.setattr(pipelines, "_called", small)
    assert None not in draw(drawing(saved), "regeneration", TEXTS[:2])[0] and gone == [True, True]


def test_a_pipeline_that_gives_another_number_of_pictures_is_refused(saved, monkeypatch):
    draw(how := drawing(saved, steps=1), "regeneration", TEXTS[:1])
    pipe = next(type(pipe) for key, pipe in diffusion.LOADED.items() if key[0] == "regeneration")

    @functools.wraps(call := pipe.__call__)
    def fewer(*args, **given):
        output = call(*args, **given)
        return type(output)(images=output.images[1:])
    monkeypatch.setattr(pipe, "__call__", fewer)
    with pytest.raises(ValueError, match="cannot draw any picture .it gave 3 pictures for 4 texts"):
        draw(how, "regeneration", TEXTS[:2])


def test_one_text_that_fails_is_a_reason_and_a_pipeline_that_fails_is_an_error(saved, monkeypatch):
    called = pipelines._called

    def moody(pipeline, texts, *rest):
        if bad is None or bad in texts:
            raise RuntimeError("shapes do not match\nand more")
        return called(pipeline, texts, *rest)
    monkeypatch.setattr(pipelines, "_called", moody)
    bad = "add a square"
    found, reasons = draw(drawing(saved), "regeneration", TEXTS)
    assert [reason for reason in reasons if reason] == ["the pipeline failed on it (shapes do not match)"]
    assert found[3] is None and None not in found[:3]
    bad = None
    with pytest.raises(ValueError, match="cannot draw any picture"):
        draw(drawing(saved), "regeneration", TEXTS)


def test_what_is_no_picture_is_kept_as_the_reason(saved, tmp_path, monkeypatch, calls):
    how = drawing(saved, "stable_diffusion")
    draw(how, "regeneration", TEXTS[:1])
    pipe = next(pipe for key, pipe in diffusion.LOADED.items() if key[0] == "regeneration")
    monkeypatch.setattr(pipe, "run_safety_checker", lambda image, *a: (image, [True] + [False] * (len(image) - 1)))
    found, reasons = draw(how, "regeneration", TEXTS[:2], folder=tmp_path)
    assert sorted(map(str, reasons)) == ["None", pipelines.BLOCKED] and len(list(tmp_path.glob("??/*.png"))) == 1
    monkeypatch.setattr(pipe, "run_safety_checker", lambda image, *a: (image * float("nan"), None))
    assert draw(how, "regeneration", TEXTS[2:4], folder=tmp_path) == ([None] * 2, [pipelines.NOT_A_NUMBER] * 2)
    calls["lanes"].clear()
    again, why = draw(how, "regeneration", TEXTS[:4], folder=tmp_path)
    assert pixels(again)[:2] == pixels(found) and why == [*reasons, *[pipelines.NOT_A_NUMBER] * 2] and not calls["lanes"]
    for file in tmp_path.glob("??/*.txt"):
        file.write_text("damaged")
    draw(how, "regeneration", TEXTS[:4], folder=tmp_path)
    assert calls["lanes"] == [3]


def test_infinite_pixels_are_not_white(saved, monkeypatch):
    draw(how := drawing(saved, steps=1), "regeneration", TEXTS[:1])
    pipe = next(pipe for key, pipe in diffusion.LOADED.items() if key[0] == "regeneration")
    monkeypatch.setattr(pipe.vae, "decode", lambda latents, **k: [torch.full((len(latents), 3, 48, 48), torch.inf)])
    assert draw(how, "regeneration", TEXTS[:1]) == ([None], [pipelines.NOT_A_NUMBER])


def test_a_store_that_is_full_is_one_sentence_and_what_was_kept_stays(saved, tmp_path, monkeypatch):
    how, save = drawing(saved, batch=1), Image.Image.save

    def full(picture, file, *rest, **more):
        save(picture, file, *rest, **more)
        if len(list(tmp_path.glob("??/*.png"))) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="cannot be kept in .*No space left on device.*make room"):
        draw(how, "regeneration", TEXTS[:3], folder=tmp_path)
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 2


def test_a_pipelines_own_settings(saved, tmp_path, calls):
    shutil.copytree(saved("flux"), folder := tmp_path / "own")
    (folder / "drawing.json").write_text(json.dumps({"steps": 2, "guidance": 1.0, "size": 64, "text_lengths": [8, 4]}))
    how = Drawing("diffusion", str(folder), batch=8)
    assert draw(how, "regeneration", TEXTS[:1])[0][0].size == (64, 64)
    assert draw(replace(how, size=48), "regeneration", TEXTS[:1])[0][0].size == (48, 48)
    together = draw(how, "regeneration", TEXTS)[0]
    assert calls["lanes"][-2:] == [4, 2]  # "red star" and its end are 3 tokens, "a blue circle on the left" is longer than 4
    assert pixels(draw(how, "regeneration", TEXTS[1:2])[0]) == pixels(together)[1:2]


FAULTS = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "holds no model_index.json"),
    "no JSON": (lambda f: (f / "model_index.json").write_text("{"), "no valid JSON"),
    "unknown class": (lambda f: _index(f, _class_name="MyPipeline"), "does not have"),
    "code by name": (lambda f: _index(f, _class_name=["pipeline", "MyPipeline"]), "does not have"),
    "code": (lambda f: (f / "pipeline.py").write_text("x"), "holds code"),
    "code of a part": (lambda f: _index(f, transformer=["my_module", "Net"]), "do not have"),
    "part missing": (lambda f: shutil.rmtree(f / "vae"), "lacks the component vae"),
    "weights missing": (lambda f: _weights(f).unlink(), "holds no weights"),
    "pickled": (lambda f: _weights(f).rename(f / "transformer" / "diffusion_pytorch_model.bin"), "pickled"),
    "cut off": (lambda f: _weights(f).write_bytes(_weights(f).read_bytes()[:-9]), "cut-off"),
    "shard missing": (lambda f: (f / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "gone.safetensors"}})), "lacks transformer/gone.safetensors"),
    "unknown setting": (lambda f: (f / "drawing.json").write_text('{"step": 6}'), "unknown key 'step'"),
    "a wrong type": (lambda f: (f / "drawing.json").write_text('{"steps": "6"}'), "whole number"),
    "a wrong list": (lambda f: (f / "drawing.json").write_text('{"text_lengths": []}'), "text_lengths"),
    "true": (lambda f: (f / "drawing.json").write_text('{"steps": true}'), "whole number"),
    "a list": (lambda f: (f / "drawing.json").write_text("[]"), "no valid JSON"),
}


def _index(folder, **changed):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | changed))


def _weights(folder):
    return folder / "transformer" / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_before_anything_is_loaded(saved, tmp_path, name):
    shutil.copytree(saved("flux"), folder := tmp_path / "flux")
    assert fault(str(folder)) is None
    spoil, sentence = FAULTS[name]
    spoil(folder)
    assert sentence in fault(str(folder)) and fault(str(folder)).endswith(".") and "\n" not in fault(str(folder))
    with pytest.raises(ValueError, match="The pipeline"):
        draw(Drawing("diffusion", str(folder), steps=1, size=48), "regeneration", TEXTS[:1])


def test_the_class_must_fit_the_kind(saved):
    assert fault(str(saved("kontext")), "edit") is None and fault(str(saved("instruct")), "edit") is None
    assert "image_model" in fault(str(saved("instruct")), "regeneration")
    assert "edit_model" in fault(str(saved("flux")), "edit")
    assert "no pipeline" in fault("nowhere at all") and "no pipeline" in fault("")


def test_classes_for_other_tasks_are_refused():
    for name in ("StableDiffusionControlNetPipeline", "StableDiffusionUpscalePipeline", "StableDiffusionXLAdapterPipeline"):
        assert "image_model" in class_fault(name, "regeneration") and "edit_model" in class_fault(name, "edit")
    assert "neither draws" in class_fault("KandinskyPriorPipeline")


def test_a_class_that_needs_a_package_says_which(monkeypatch):
    import diffusers
    import transformers

    class Dummy:  # what diffusers has in its place
        _backends = ["torch", "sentencepiece"]
    monkeypatch.setattr(diffusers, "KolorsPipeline", Dummy, raising=False)
    monkeypatch.setattr(transformers.utils, "is_sentencepiece_available", lambda: False)
    assert "needs the package sentencepiece" in class_fault("KolorsPipeline", "regeneration")


@pytest.mark.parametrize("shards", ["1GB", "100KB"])
def test_variants_and_shards_are_loaded(saved, tmp_path, shards):
    pipe = tiny_pipelines.flux()
    pipe.save_pretrained(tmp_path, variant="fp16", max_shard_size=shards)
    assert fault(str(tmp_path)) is None
    assert draw(Drawing("diffusion", str(tmp_path), steps=1, size=48), "regeneration", TEXTS[:1])[1] == [None]


@pytest.mark.parametrize("how", [dict(steps=-1), dict(batch=0), dict(dtype="int8"), dict(offload="disk"), dict(size=9999),
                                 dict(image_model="")])
def test_a_setting_out_of_range_is_one_sentence(saved, how):
    with pytest.raises(ValueError, match=next(iter(how))):
        draw(replace(drawing(saved), **how), "regeneration", ["red star"])


def test_a_kept_picture_that_goes_while_in_use_is_an_error(tmp_path):
    file = store.place(tmp_path, "ab12")
    assert store.kept(file) is None and file == Path(tmp_path, "ab", "ab12.png")
    store.keep(file, Image.new("RGB", (4, 4)))
    file.unlink()
    with pytest.raises(FileNotFoundError, match="gone or damaged"):
        store._again(file)
