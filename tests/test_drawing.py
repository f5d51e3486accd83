"""The testbed's drawing pipelines and its scene reader, before and after training."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxKontextPipeline, FluxPipeline
from PIL import Image

from auditdm_lib.testbed import autoencoder, drawing, encoders, pipelines, reader
from auditdm_lib.testbed.language import caption, parse_caption
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import Scene, Thing, sample_scenes
from auditdm_lib.testbed.training import pixel_values, render_corpus

FLOW = drawing.Flow(steps=4, batch=4, save_every=2)


@pytest.fixture(scope="module")
def parts():
    """A corpus of 200 scenes, the tokenizer, an autoencoder with an untrained decoder, and a drawer that has learnt nothing."""
    torch.manual_seed(0)
    corpus = render_corpus(sample_scenes(200, "train", "test drawing"))
    tokenizer, vae = encoders.build_tokenizer(), autoencoder.build_autoencoder(corpus)
    return corpus, tokenizer, vae, drawing.Drawer(drawing.build_transformer(), encoders.build_t5(tokenizer))


def fresh(drawer: drawing.Drawer, tokenizer) -> drawing.Drawer:
    other = drawing.Drawer(drawing.build_transformer(), encoders.build_t5(tokenizer))
    other.load_state_dict(drawer.state_dict())
    return other


def test_the_encoder_is_the_principal_components_and_packs_as_flux_does(parts):
    corpus, _, vae, _ = parts
    pixels = pixel_values(corpus.pixels[:20])
    matrix, offset = autoencoder.projection(vae)
    latents = vae.encode(pixels).latents * vae.config.scaling_factor
    by_matrix = (autoencoder.patches(pixels) @ matrix + offset).permute(0, 3, 1, 2)
    assert torch.allclose(latents, by_matrix, atol=1e-3) and 0.8 < by_matrix.std() < 1.2
    packed = autoencoder.packed(corpus.pixels[:20], matrix, offset)
    assert torch.equal(packed, FluxPipeline._pack_latents(by_matrix, 20, 64, 6, 6))
    back = (by_matrix.permute(0, 2, 3, 1) - offset) @ torch.linalg.pinv(matrix)
    assert (back - autoencoder.patches(pixels)).pow(2).mean() < 0.02  # 64 of 192 components
    assert vae.encode(pixels).latents.abs().max() < 3  # where the decoder clamps


def test_a_stopped_training_of_the_decoder_ends_in_the_same_weights(parts, tmp_path):
    corpus = parts[0]
    straight, stopped = (autoencoder.build_autoencoder(corpus) for _ in range(2))
    stopped.decoder.load_state_dict(straight.decoder.state_dict())
    last = autoencoder.train_decoder(straight, corpus, 6, tmp_path / "straight", save_every=3)
    real = autoencoder.save_state

    def stop(folder, *rest):
        real(folder, *rest)
        raise KeyboardInterrupt
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(autoencoder, "save_state", stop)
        autoencoder.train_decoder(stopped, corpus, 6, tmp_path / "stopped", save_every=3)
    again = autoencoder.build_autoencoder(corpus)
    assert autoencoder.train_decoder(again, corpus, 6, tmp_path / "stopped", save_every=3) == pytest.approx(last)
    assert all(torch.equal(a, b) for a, b in zip(straight.decoder.parameters(), again.decoder.parameters(), strict=True))


@pytest.mark.parametrize("text,pieces", [
    ("on grey in the rain: a large red striped star top left over its right neighbour, a large blue cup bottom centre",
     ["on grey in the rain", "large red", "striped star", "top left", "over its right neighbour", "large blue", "cup",
      "bottom centre"]),
    ("make the red star in the middle left blue", ["make", "red", "star", "in", "middle left", "blue"]),
    ("Set The Clock to three", ["set", "clock", "to", "three"]), ("", []), ("  ", []), ("Zoë's 日本 🎉!", ["<unk>"] * 6)])
def test_a_token_stands_for_a_phrase(parts, text, pieces):
    assert parts[1].tokenize(text) == pieces


def test_texts_are_padded_to_the_least_length_that_holds_them(parts):
    tokenizer = parts[1]
    texts = ["remove the star", "on grey: " + ", ".join(["a small red star top left"] * 12)]
    assert encoders.length_of(tokenizer, texts, (16, 24, 32)).tolist() == [16, 32]
    assert encoders.tokens(tokenizer, texts, 32).shape == (2, 32)
    assert (encoders.tokens(tokenizer, texts, 32)[0] == tokenizer.pad_token_id).sum() == 32 - 3


def test_a_description_is_a_caption_in_another_order():
    rng = random.Random(0)
    for scene in sample_scenes(50, "train", "descriptions"):
        text = encoders.description(scene, rng)
        assert parse_caption(text) == scene and len(text) == len(caption(scene))


def test_t5_learns_where_what_stands_and_the_transformer_starts_by_looking_there(parts):
    corpus, tokenizer, _, _ = parts
    torch.manual_seed(0)
    t5, transformer = encoders.build_t5(tokenizer), drawing.build_transformer()
    assert encoders.train_t5(t5, tokenizer, corpus.scenes, steps=120) < 6  # from 34
    drawing.wire_places(transformer, t5, tokenizer, [caption(scene) for scene in corpus.scenes])
    ids = encoders.tokens(tokenizer, [caption(scene) for scene in corpus.scenes[:50]], 32)
    block, states = transformer.transformer_blocks[0].attn, t5(ids)[0]
    keys = block.add_k_proj(torch.nn.functional.layer_norm(transformer.context_embedder(states), (encoders.WIDTH,)))
    keys = block.norm_added_k(keys.unflatten(-1, (-1, drawing.HEAD)))[:, :, 0]
    scale = torch.ones(drawing.HEAD)
    scale[[drawing.ROW, drawing.ROW + 1, drawing.COLUMN, drawing.COLUMN + 1]] = 1.5
    query = torch.zeros(drawing.HEAD)
    query[[drawing.ROW, drawing.COLUMN]] = 1.0
    right = []
    for cell, token in enumerate(encoders.place_tokens(tokenizer)):
        scores = keys @ (scale * drawing._turned(query, cell // 3, cell % 3))
        for picture in (ids == token).any(1).nonzero().flatten():
            right.append(bool(ids[picture, scores[picture].argmax()] == token))
    assert np.mean(right) > 0.95


@pytest.mark.parametrize("edits", [False, True])
def test_a_stopped_training_of_a_drawer_ends_in_the_same_weights(parts, tmp_path, edits):
    corpus, tokenizer, vae, drawer = parts
    examples = drawing.Examples(corpus.pixels, ["remove the star"] * 200 if edits else corpus.scenes,
                                corpus.pixels.flip(0) if edits else None)
    projection = autoencoder.projection(vae)
    torch.manual_seed(1)
    start = fresh(drawer, tokenizer)
    straight, done = drawing.train(fresh(start, tokenizer), tokenizer, projection, examples, FLOW, 0, tmp_path / "a", "a drawer")
    real, calls = drawing.save_state, []

    def stop(folder, *rest):
        real(folder, *rest)
        calls.append(folder)
        raise KeyboardInterrupt
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(drawing, "save_state", stop)
        drawing.train(fresh(start, tokenizer), tokenizer, projection, examples, FLOW, 0, tmp_path / "b", "a drawer")
    resumed, again = drawing.train(fresh(start, tokenizer), tokenizer, projection, examples, FLOW, 0, tmp_path / "b", "a drawer")
    assert len(calls) == 1 and again["error"] == done["error"]
    same = [torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True)]
    assert all(same)
    moved = [not torch.equal(a, b) for a, b in zip(start.t5.parameters(), resumed.t5.parameters(), strict=True)]
    assert any(moved) == edits  # T5 learns commands along with the transformer; captions it knows


def test_diffusers_loads_and_runs_what_was_saved(parts, tmp_path):
    _, tokenizer, vae, drawer = parts
    for cls, name, lengths in ((FluxPipeline, "image", encoders.CAPTION_LENGTHS),
                               (FluxKontextPipeline, "edit", encoders.COMMAND_LENGTHS)):
        pipeline = pipelines.assemble(cls, drawer.eval(), vae, tokenizer)
        pipelines.save_pipeline(pipeline, 3, lengths, tmp_path / name)
        drawer.float(), vae.float()
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 25e6
    assert json.loads((tmp_path / "edit" / "drawing.json").read_text())["text_lengths"] == [8, 16]
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt", ".pkl", ".py")]
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "image", torch_dtype=torch.float32)
    assert type(loaded) is FluxPipeline and loaded.vae_scale_factor == 8
    loaded.set_progress_bar_config(disable=True)
    texts = ["on grey: a large red star top left", "on mint: nothing"]
    made = [torch.Generator().manual_seed(i) for i in range(2)]
    drawn = loaded(texts, height=48, width=48, num_inference_steps=3, max_sequence_length=16, generator=made,
                   output_type="latent").images
    seen = Steps(loaded, 3, encoders.tokens(tokenizer, texts, 16))
    by_hand = seen.run([0, 1])
    assert (drawn - by_hand).abs().max() < 0.05 < drawn.std()  # the scheduler adds a small correction
    editing = DiffusionPipeline.from_pretrained(tmp_path / "edit", torch_dtype=torch.float32)
    assert type(editing) is FluxKontextPipeline
    editing.set_progress_bar_config(disable=True)
    sources = [render(scene) for scene in sample_scenes(2, "test", "sources")]
    how = dict(image=sources, prompt=["remove the star"] * 2, height=48, width=48, max_area=48 * 48, _auto_resize=False,
               num_inference_steps=2, max_sequence_length=8)
    assert [picture.size for picture in editing(**how, generator=made).images] == [(48, 48)] * 2
    same = [torch.Generator().manual_seed(0) for _ in range(2)]  # so that the sources alone differ
    one, other = editing(**how, generator=same, output_type="latent").images
    assert not torch.allclose(one, other, atol=1e-3)
    pipelines.save_pipeline(loaded, 3, encoders.CAPTION_LENGTHS, tmp_path / "again")
    assert str(tmp_path) not in "".join(file.read_text() for file in (tmp_path / "again").rglob("*.json"))  # where it came from


class Steps:
    """First-order steps along the flow by hand, as the training assumes them."""

    def __init__(self, pipeline: FluxPipeline, steps: int, ids: torch.Tensor):
        self.pipeline, self.ids = pipeline, ids
        levels = torch.linspace(1, 1 / 1000, steps + 1)[:-1]
        levels = pipelines.SHIFT * levels / (1 + (pipelines.SHIFT - 1) * levels)
        levels[0] -= 1e-6
        self.levels = [*levels, torch.tensor(0.0)]

    @torch.inference_mode()
    def run(self, seeds: list[int]) -> torch.Tensor:
        drawer = drawing.Drawer(self.pipeline.transformer, self.pipeline.text_encoder_2)
        noise = [torch.randn(1, 64, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        x = FluxPipeline._pack_latents(torch.cat(noise), len(seeds), 64, 6, 6)
        for now, after in zip(self.levels[:-1], self.levels[1:], strict=True):
            t = torch.full((len(seeds),), int(now * 1000) / 1000)  # the scheduler keeps whole timesteps
            clean = drawer(x, t, self.ids)
            x = clean + (x - clean) * (after / now)
        return x


def scene_of(*things: Thing, background: str = "grey", weather: str = "fair") -> Scene:
    return Scene(background, things, weather)


STAR, CUP = Thing("star", "red", "large", 0), Thing("cup", "blue", "small", 8)


@pytest.mark.parametrize("shown,reason", [
    (scene_of(STAR, CUP), None), (scene_of(STAR), "a thing is missing"),
    (scene_of(STAR, replace(CUP, cell=7)), "a thing is missing"),
    (scene_of(STAR, Thing("anchor", "red", "small", 4), CUP), "a thing too many"),
    (scene_of(STAR, CUP, background="mint"), "background"),
    (scene_of(STAR, CUP, weather="rainy"), "weather"), (scene_of(replace(STAR, kind="cross"), CUP), "kind"),
    (scene_of(replace(STAR, colour="green"), CUP), "colour"), (scene_of(STAR, replace(CUP, size="large")), "size"),
    (scene_of(replace(STAR, material="hollow"), CUP), "material")])
def test_the_reader_says_what_a_picture_does_not_show(shown, reason):
    assert reader.differences([render(shown)], [scene_of(STAR, CUP)]) == [reason]


def test_the_reader_reads_details_other_sizes_and_texts_that_are_no_scene():
    clock = scene_of(Thing("clock", "black", "large", 4, detail="three"))
    late = scene_of(Thing("clock", "black", "large", 4, detail="nine"))
    big = render(clock).resize((480, 480), Image.BOX).convert("RGBA")
    assert reader.differences([render(clock), render(late), big, render(late)], [clock, clock, clock, None]) == [
        None, "detail", None, "text not understood"]
    assert reader.differences([], []) == [] and reader.differences([render(clock)], [None]) == ["text not understood"]


def test_the_shipped_reader_s_own_error_is_what_its_table_says():
    table = reader.own_error(n=400, seed="another").set_index("what")
    assert table.loc["all things", "right"] > 0.98 and table.loc["whole pictures", "right"] > 0.92
    shipped = reader.pd.read_csv(Path(reader.FOLDER) / "measured.csv").set_index("what")
    assert abs(shipped.loc["all things", "right"] - table.loc["all things", "right"]) < 0.01


def test_every_edited_picture_weighs_the_same_and_half_of_it_lies_on_what_changes():
    changed = torch.zeros(4, 9)
    changed[0, 4], changed[1, :2], changed[3] = 1, 1, 1  # one cell, two cells, none, all (another background)
    weights = drawing.balance(changed)
    assert torch.allclose(weights.sum(1), torch.full((4,), 9.0))
    assert weights[0, 4] == 4.5 and torch.allclose((weights * changed)[1].sum(), torch.tensor(4.5))
    assert (weights[2:] == 1).all()
