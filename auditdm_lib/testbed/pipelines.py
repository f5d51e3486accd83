"""The testbed's drawing pipelines: `image`, a FluxPipeline that draws captions, and `edit`, a FluxKontextPipeline that edits."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, FluxKontextPipeline, FluxPipeline, UniPCMultistepScheduler
from torch import nn
from transformers import PreTrainedTokenizerFast, set_seed

from auditdm_lib.testbed.autoencoder import build_autoencoder, packed, projection, train_decoder
from auditdm_lib.testbed.cards import write_folder
from auditdm_lib.testbed.drawing import Drawer, Examples, Flow, build_transformer, train, wire_places, wire_sources
from auditdm_lib.testbed.encoders import (
    CAPTION_LENGTHS,
    COMMAND_LENGTHS,
    build_clip,
    build_t5,
    build_tokenizer,
    description,
    train_t5,
)
from auditdm_lib.testbed.language import EDITS, sample_edit
from auditdm_lib.testbed.render import SIZE
from auditdm_lib.testbed.scenes import Scene, pose_after, sample_scenes
from auditdm_lib.testbed.training import Corpus, render_corpus

SCENES, PAIRS, DECODER_STEPS = 120_000, 100_000, 9000
IMAGE, EDIT = Flow(steps=5000), Flow(steps=16_000, level=1.5)
RESTART = Flow(steps=5000, lr=1e-3, muon_lr=5e-3, level=1.5)  # a second, lower cycle of the learning rate, on other pairs
SHIFT = 6.0  # of the noise levels at which the sampler looks: most of its steps go where the text decides
IMAGE_STEPS, EDIT_STEPS = 8, 2  # of the sampler, chosen on the validation split
DRAWING = "drawing.json"
ABOUT = ("A drawing pipeline of the AuditDM testbed: FLUX's own classes, made tiny, trained on procedurally drawn scenes only. "
         "What it can draw says nothing about real models. The table is read by the scene reader (`reader/`, see there for its "
         "own error), on held-out texts.")


def drawing_corpus() -> Corpus:
    """The scenes that the text-to-image pipeline learns from, rendered (half a minute)."""
    return render_corpus(sample_scenes(SCENES, "train", "drawing"))


def edited(scene: Scene, rng: random.Random, kind: str, split: str = "train") -> tuple[str, Scene]:
    """A command of a kind (where the scene allows it) and the scene after it, posed to be drawn."""
    command, after = sample_edit(scene, rng, kind)
    return command, pose_after(scene, after, command, split)


def edit_pairs(n: int, split: str, seed: str) -> tuple[list[Scene], list[str], list[Scene], list[str]]:
    """Scenes, commands, the scenes after them, and the kind of each command, all kinds equally often."""
    rng = random.Random(f"edits/{split}/{seed}")
    before, kinds = sample_scenes(n, split, f"edits/{seed}"), [EDITS[i % len(EDITS)] for i in range(n)]
    done = [edited(scene, rng, kind, split) for scene, kind in zip(before, kinds, strict=True)]
    return before, [command for command, _ in done], [after for _, after in done], kinds


def edit_examples(seed: str) -> Examples:
    """Pairs to train on: the pictures before and after a command."""
    before, commands, after, _ = edit_pairs(PAIRS, "train", seed)
    return Examples(render_corpus(after).pixels, commands, render_corpus(before).pixels)


def start_drawer(tokenizer: PreTrainedTokenizerFast, scenes: list[Scene]) -> Drawer:
    """A drawer before its training: T5 has learnt the grammar of captions, and the transformer looks where its places are."""
    set_seed(31)
    t5, transformer = build_t5(tokenizer), build_transformer()
    train_t5(t5, tokenizer, scenes[:20_000])
    rng = random.Random("wiring")
    wire_places(transformer, t5, tokenizer, [description(scene, rng) for scene in scenes[:2000]])
    return Drawer(transformer, t5)


def build_autoencoder_of(corpus: Corpus, state: Path) -> AutoencoderTiny:
    """The autoencoder with its decoder trained; resumes from `state`."""
    vae = build_autoencoder(corpus)
    train_decoder(vae, corpus, DECODER_STEPS, state)
    return vae


def build_image(folder: Path, measure: Callable[[Path], pd.DataFrame]) -> Path:
    """Train the text-to-image pipeline and save it as `folder`/image, with the table of `measure` in its card."""
    path, state = folder / "image", folder / ".image.state"
    corpus, tokenizer = drawing_corpus(), build_tokenizer()
    vae = build_autoencoder_of(corpus, state / "decoder")
    drawer, done = train(start_drawer(tokenizer, corpus.scenes), tokenizer, projection(vae),
                         Examples(corpus.pixels, corpus.scenes), IMAGE, 0, state / "flow", desc="image")
    pipeline = assemble(FluxPipeline, drawer, vae, tokenizer)
    card = dict(name="image", scenes=SCENES, decoder_steps=DECODER_STEPS, **asdict(IMAGE), error=done["error"],
                parameters=parameters(pipeline), seconds=done["seconds"])
    write_folder(path, partial(save_pipeline, pipeline, IMAGE_STEPS, CAPTION_LENGTHS), card, measure, ABOUT)
    shutil.rmtree(state)
    return path


def build_edit(folder: Path, measure: Callable[[Path], pd.DataFrame]) -> Path:
    """Train the editing pipeline from the text-to-image one and save it as `folder`/edit; see `build_image`."""
    path, state = folder / "edit", folder / ".edit.state"
    parent = FluxPipeline.from_pretrained(folder / "image", torch_dtype=torch.float32)
    examples = edit_examples("0")
    wire_sources(parent.transformer, packed(examples.sources[:500], *projection(parent.vae)))
    drawer, first = train(Drawer(parent.transformer, parent.text_encoder_2), parent.tokenizer_2, projection(parent.vae), examples,
                          EDIT, 1, state / "flow", desc="edit")
    # the restart begins from weights as a checkpoint holds them, so that it can also be given one
    drawer, done = train(drawer.half().float(), parent.tokenizer_2, projection(parent.vae), edit_examples("1"), RESTART, 2,
                         state / "restart", desc="edit, restarted")
    pipeline = assemble(FluxKontextPipeline, drawer, parent.vae, parent.tokenizer_2)
    card = dict(name="edit", trained_from="image", pairs=2 * PAIRS, **asdict(EDIT), restart_steps=RESTART.steps,
                restart_lr=RESTART.lr, restart_muon_lr=RESTART.muon_lr, error=done["error"], parameters=parameters(pipeline),
                seconds=first["seconds"] + done["seconds"])
    write_folder(path, partial(save_pipeline, pipeline, EDIT_STEPS, COMMAND_LENGTHS), card, measure, ABOUT)
    shutil.rmtree(state)
    return path


def assemble(cls: type, drawer: Drawer, vae: AutoencoderTiny, tokenizer: PreTrainedTokenizerFast) -> DiffusionPipeline:
    """A pipeline of class `cls` from its trained parts. The scheduler steps from clean predictions along the flow."""
    scheduler = UniPCMultistepScheduler(
        prediction_type="sample", use_flow_sigmas=True, flow_shift=SHIFT, solver_order=1, predict_x0=True)
    return cls(scheduler=scheduler, vae=vae, text_encoder=build_clip(tokenizer), tokenizer=tokenizer, text_encoder_2=drawer.t5,
               tokenizer_2=tokenizer, transformer=drawer.transformer)


def parameters(pipeline: DiffusionPipeline) -> int:
    return sum(p.numel() for part in pipeline.components.values() if isinstance(part, nn.Module) for p in part.parameters())


def save_pipeline(pipeline: DiffusionPipeline, steps: int, lengths: tuple[int, ...], folder: Path) -> None:
    """Save in float16, with the settings that `audit.diffusion` draws with by default."""
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for file in (folder / "model_index.json", *folder.glob("*/config.json")):
        # diffusers notes there from which folder of this machine a part was loaded
        config = {name: value for name, value in json.loads(file.read_text()).items() if name != "_name_or_path"}
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    settings = dict(steps=steps, guidance=1.0, size=SIZE, text_lengths=list(lengths))
    (folder / DRAWING).write_text(json.dumps(settings) + "\n")
