"""The autoencoder of the testbed's drawing pipelines: an `AutoencoderTiny` with principal components as its encoder.

Its encoder has no activation, so its strided convolutions can be set to the principal components of patches of 8 x 8 pixels:
the best linear code, known before anything is trained. Only the decoder is learnt. A picture of 48 x 48 pixels has 6 x 6
latents of 64 channels, which FLUX packs in twos to nine tokens, one for each cell of a scene.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import nn
from tqdm.auto import tqdm

from auditdm_lib.testbed.learning import load_state, save_state
from auditdm_lib.testbed.training import Corpus, cosine, pixel_values

PATCH, CHANNELS, WIDTH = 8, 64, 64
SCALE = 16.0  # latents of unit variance are this many times those of the autoencoder, whose decoder clamps at 3
SAMPLE = 8000  # pictures from which the components are computed


def patches(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels (B, 3, H, W) to patches (B, H/8, W/8, 192), each in the order channel, row, column."""
    b, _, height, width = pixels.shape
    tiled = pixels.reshape(b, 3, height // PATCH, PATCH, width // PATCH, PATCH)
    return tiled.permute(0, 2, 4, 1, 3, 5).reshape(b, height // PATCH, width // PATCH, 3 * PATCH**2)


@torch.no_grad()
def build_autoencoder(corpus: Corpus) -> AutoencoderTiny:
    """An autoencoder with its encoder set to the principal components of the corpus and an untrained decoder."""
    vae = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 4, decoder_block_out_channels=(WIDTH,) * 4, latent_channels=CHANNELS,
        num_encoder_blocks=(0, 0, 0, 0), num_decoder_blocks=(3, 2, 1, 0), scaling_factor=SCALE)
    flat = patches(pixel_values(corpus.pixels[:SAMPLE])).flatten(0, -2)
    mean = flat.mean(0)
    _, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))  # by ascending variance
    components = vectors.flip(1)[:, :CHANNELS].T
    components = components / ((flat - mean) @ components.T).std() / SCALE
    for parameter in vae.encoder.parameters():
        parameter.zero_()
    first, *halving, last = vae.encoder.layers
    _identity(first.weight, 3)
    _identity(last.weight, CHANNELS)
    _gather(halving[0].weight, 3)  # the first two halvings move the pixels of 2 x 2 and 4 x 4 into channels ...
    _gather(halving[1].weight, 12)
    for row in range(PATCH):  # ... and the third projects those of 8 x 8
        for column in range(PATCH):
            source = 12 * (2 * (row // 2 % 2) + column // 2 % 2) + 3 * (2 * (row % 2) + column % 2)
            weight = components.unflatten(1, (3, PATCH, PATCH))[:, :, row, column]
            halving[2].weight[:, source:source + 3, 1 + row // 4, 1 + column // 4] = 2 * weight  # the encoder halves pixels + 1
    last.bias.copy_(-components @ (mean + 1))
    return vae


def _identity(weight: torch.Tensor, channels: int) -> None:
    weight[range(channels), range(channels), 1, 1] = 1


def _gather(weight: torch.Tensor, channels: int) -> None:
    """Output channel (2 row + column) * channels + c of a convolution with stride 2 takes c at that place of its 2 x 2 inputs."""
    for row in range(2):
        for column in range(2):
            start = (2 * row + column) * channels
            weight[range(start, start + channels), range(channels), 1 + row, 1 + column] = 1


@torch.no_grad()
def projection(vae: AutoencoderTiny) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder as a matrix (192, 64) and an offset (64,): patches @ matrix + offset are the latents of unit variance."""
    units = torch.eye(3 * PATCH**2).unflatten(1, (3, PATCH, PATCH))
    offset = vae.encode(torch.zeros(1, 3, PATCH, PATCH)).latents.flatten()
    return SCALE * (vae.encode(units).latents.flatten(1) - offset), SCALE * offset


def packed(pixels: torch.Tensor, matrix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """uint8 pictures (B, H, W, 3) as FLUX's tokens (B, H/16 * W/16, 256)."""
    latents = patches(pixel_values(pixels)) @ matrix + offset
    b, rows, columns, channels = latents.shape
    latents = latents.reshape(b, rows // 2, 2, columns // 2, 2, channels).permute(0, 1, 3, 5, 2, 4)
    return latents.reshape(b, rows * columns // 4, channels * 4)


def train_decoder(vae: AutoencoderTiny, corpus: Corpus, steps: int, state: Path, seed: int = 0, batch: int = 16,
                  rate: float = 2e-3, noise: float = 0.05, save_every: int = 500) -> float:
    """Teach the decoder to draw pictures from their latents, to which noise is added; returns the last mean squared error.

    It resumes from `state` (see `learning.save_state`).
    """
    decoder, (matrix, offset) = vae.decoder.to(memory_format=torch.channels_last), projection(vae)
    optimizer = torch.optim.AdamW(decoder.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.01)
    begun = f"decoder/{steps}/{batch}/{rate}/{noise}/{seed}/{len(corpus.scenes)}"
    done, _, error = load_state(state, decoder, [(optimizer, rate)], begun)
    for step in tqdm(range(done, steps), desc="decoder", initial=done, total=steps, mininterval=10):
        optimizer.param_groups[0]["lr"] = rate * cosine(step, steps)
        generator = torch.Generator().manual_seed(hash_of(seed, step))
        rows = torch.randint(0, len(corpus.scenes), (batch,), generator=generator)
        wanted = pixel_values(corpus.pixels[rows]).contiguous(memory_format=torch.channels_last)
        latents = (patches(wanted) @ matrix + offset).permute(0, 3, 1, 2)
        latents = latents + noise * torch.randn(latents.shape, generator=generator)
        drawn = decoder(latents / SCALE)
        squared = F.mse_loss(drawn, wanted)
        loss = squared + 0.05 * F.l1_loss(drawn, wanted)
        optimizer.zero_grad()
        loss.backward()
        error = squared.item()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save_state(state, decoder, [(optimizer, rate)], dict(step=step + 1, seconds=0.0, loss=error, begun=begun))
    vae.decoder.to(memory_format=torch.contiguous_format)
    return error


def hash_of(seed: int, step: int) -> int:
    """A seed for one step, so that a resumed training draws what an uninterrupted one does."""
    return seed * 1_000_003 + step
