"""What models of the real sizes take on this GPU: seconds and peak memory of each part of a GRPO step, beside the plan's figures.

The weights are random, since only sizes matter. It takes a few minutes and no disk:

    python -m auditdm_lib.training.performance --out figures/reference/performance.csv
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import pandas as pd
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from auditdm_lib import paths
from auditdm_lib.audit.auditor import Search
from auditdm_lib.models import placement
from auditdm_lib.models.asking import CHAT, PALIGEMMA
from auditdm_lib.models.vlm import VLM, replies
from auditdm_lib.run import inventory, params, sizes
from auditdm_lib.training import grpo
from auditdm_lib.training.examples import lora
from auditdm_lib.training.replay import ReplayingTrainer

AUDITOR, TARGET, REFERENCE = "google/gemma-3-4b-it", "google/paligemma2-3b-pt-448", "google/paligemma2-10b-mix-448"
GROUPS, GROUP_SIZE, TOKENS, RANK, BATCH, QUESTIONS = 8, 8, 40, 16, 16, 64
PROMPT = "Look at the picture and write one short question about it."
COLUMNS = ["device", "part", "model", "seconds", "peak_gb", "planned_gb"]


def measure(configs: dict[str, dict] | None = None) -> pd.DataFrame:
    """COLUMNS, one row a part: the answers to QUESTIONS questions in batches of BATCH, and the second of two GRPO steps of GROUPS
    prompts with GROUP_SIZE completions, by LoRA of rank RANK and with activations computed twice.

    `peak_gb` is the most that was allocated on the GPU (null without one), `planned_gb` what `auditdm plan` counts. `configs`
    gives other sizes than those of the real models.
    """
    configs = configs or {name: inventory.known()[name]["config"] for name in (AUDITOR, TARGET, REFERENCE)}
    gpu = torch.cuda.is_available()
    placement.place(dtype="bfloat16")
    rows = []
    for part, name in (("answers of the target", TARGET), ("answers of the reference", REFERENCE)):
        vlm, shape = random_vlm(configs[name]), sizes.read_shape(configs[name])
        given = pictures(QUESTIONS, shape.image_size), [f"What is number {i}?" for i in range(QUESTIONS)]
        seconds, peak = timed(partial(replies, vlm, *given, batch_size=BATCH))
        text = len(vlm.processor.tokenizer("answer en What is number 10?")["input_ids"])
        planned = weights(vlm) + sizes.forward_memory(shape, 2, BATCH, text, vlm.asking.max_new_tokens)
        rows.append((part, name, seconds, peak, planned))
        del vlm
    seconds, peak, planned = step(configs[AUDITOR])
    rows.append(("a step of GRPO", AUDITOR, seconds, peak, planned))
    table = pd.DataFrame(rows, columns=COLUMNS[1:])
    table["seconds"] = table["seconds"].round(2)
    table[["peak_gb", "planned_gb"]] = (table[["peak_gb", "planned_gb"]].astype(float) / 1e9).round(3)
    return table.assign(device=torch.cuda.get_device_name() if gpu else "cpu")[COLUMNS]


def random_vlm(config: dict) -> VLM:
    """A model of the sizes of a config.json with random weights, and the processor of one of its class that the kit ships."""
    chat = config["model_type"] == "gemma3"
    like = paths.resolve(params.declared_anywhere()["auditor" if chat else "target"].default)
    own, processor = AutoConfig.from_pretrained(like), AutoProcessor.from_pretrained(like)
    for part in ("text_config", "vision_config"):
        for name, value in config[part].items():
            if name != "model_type":
                setattr(getattr(own, part), name, value)
    own.text_config.layer_types, shape = None, sizes.read_shape(config)
    own.mm_tokens_per_image = own.text_config.num_image_tokens = shape.image_tokens
    own.projection_dim = own.vision_config.projection_dim = shape.hidden
    own = type(own).from_dict(own.to_dict())  # what follows from the sizes, such as the kinds of layers, is set anew
    seen, tokenizer = processor.image_processor, processor.tokenizer
    seen.size, seen.image_seq_length = {"height": shape.image_size, "width": shape.image_size}, shape.image_tokens
    length = {"image_seq_length": shape.image_tokens} if chat else {}  # PaliGemma's reads that of its image processor
    processor = type(processor)(image_processor=seen, tokenizer=tokenizer, chat_template=processor.chat_template, **length)
    with torch.device(placement.device()):
        model = AutoModelForImageTextToText.from_config(own, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return VLM("random weights", model.eval(), processor, CHAT if chat else PALIGEMMA)


def pictures(n: int, side: int) -> list[Image.Image]:
    """Different grey pictures."""
    return [Image.fromarray(np.full((side, side, 3), i % 256, np.uint8)) for i in range(n)]


def weights(vlm: VLM) -> int:
    """Bytes of its weights."""
    return sum(weight.nbytes for weight in vlm.model.parameters())


def timed(work: Callable[[], object]) -> tuple[float, int | None]:
    """Seconds that some work takes, and the most bytes that were allocated on the GPU meanwhile (None without one)."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - began, torch.cuda.max_memory_allocated() if gpu else None


def step(config: dict) -> tuple[float, int | None, int]:
    """Seconds and bytes of the second of two steps of GRPO, rollouts included, and the bytes that are planned for it.

    The reward is the length of a text, so that no panel is needed; the second step has the optimiser's moments.
    """
    auditor, shape = random_vlm(config), sizes.read_shape(config)
    search = Search({"question": PROMPT}, {"question": TOKENS}, {"question": 1.0}, 1.0)
    settings = grpo.GRPOSettings(2, GROUP_SIZE, GROUPS, 1e-5, 0.0, 0.0, 0.0, RANK, False, 1000, accumulation=GROUPS,
                                 checkpointing=True)
    found = []
    with TemporaryDirectory() as folder:
        trainer = ReplayingTrainer(
            auditor.model, lambda completion_ids, **_: [float(len(ids)) + i % 2 for i, ids in enumerate(completion_ids)],
            grpo.arguments(Path(folder), search, settings, 0), processing_class=auditor.processor,
            train_dataset=grpo.prompts(GROUPS, search, settings, 0), peft_config=lora(auditor, RANK))
        shown = pictures(GROUPS, shape.image_size)
        trainer.data_collator = lambda rows: [row | {"image": shown[row["picture"]]} for row in rows]
        learn = trainer.training_step

        def part(*args, **kwargs):
            found.append(timed(lambda: losses.append(learn(*args, **kwargs))))
            return losses[-1]
        losses, trainer.training_step = [], part
        trainer.train()
    last = found[GROUPS:]  # the parts of the second step, the first of which writes all texts
    text = len(auditor.processor.tokenizer(PROMPT)["input_ids"]) + 16
    rollouts = sizes.forward_memory(shape, 2, GROUPS * GROUP_SIZE, text, TOKENS, sampled=True)
    learned = sizes.training_memory(shape, 2, GROUPS * GROUP_SIZE, text + TOKENS, RANK, TOKENS, torch.cuda.is_available(), GROUPS,
                                    True)
    base = weights(auditor)
    peaks = [peak for _, peak in last if peak is not None]
    return (sum(seconds for seconds, _ in last), max(peaks, default=None),
            base + max(learned["optimiser"] + rollouts, learned["peak"]))


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The table to write, as CSV.")
def main(out: Path) -> None:
    """Measure on this machine's GPU; without one the figures stay empty and the table says so."""
    if torch.cuda.is_available():
        table = measure()
    else:
        parts = [("answers of the target", TARGET), ("answers of the reference", REFERENCE), ("a step of GRPO", AUDITOR)]
        table = pd.DataFrame([("no GPU here: not measured", *row, None, None, None) for row in parts], columns=COLUMNS)
    table.to_csv(out, index=False)
    click.echo(table.to_string(index=False))


if __name__ == "__main__":
    main()
