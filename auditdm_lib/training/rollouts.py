"""Rollouts by a vLLM server: before each step of GRPO TRL sends the auditor's weights there, and asks it for the step's texts.

The server has GPUs of its own and is started beforehand with the untrained auditor (COMMAND). It writes the texts that GRPO
rewards. All else is written by transformers here: the texts of self-imitation, and in GRPO the question that follows a caption
or an edit command (`auditor.complete`). Adapters are sent merged into the weights.

vLLM computes in other roundings than transformers, for which TRL corrects the loss, and draws random numbers of its own: with a
server the same seed gives other texts each time, and a training that was killed and resumed other weights.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch
from PIL import Image
from transformers import AutoProcessor, ProcessorMixin
from trl import GRPOTrainer
from trl.generation.vllm_client import VLLMClient

from auditdm_lib.audit.auditor import check_trainable
from auditdm_lib.models.loading import Unusable, load_reader
from auditdm_lib.models.vlm import KIND, VLM
from auditdm_lib.run import devices, endpoints
from auditdm_lib.run.manifest import Stop

COMMAND = ("VLLM_SERVER_DEV_MODE=1 vllm serve {auditor} --weight-transfer-config '{{\"backend\": \"nccl\"}}' "
           "--logprobs-mode processed_logprobs")  # as TRL's `VLLMClient` says
PICTURE = Image.new("RGB", (64, 48))


def check_server(server: str, auditor: str | Path) -> None:
    """Ask the vLLM server at this address, if it is not "", for all that training the auditor at `auditor` will need of it.

    Raises Stop where it is not there, does not serve this auditor, takes no pictures, or was not started as COMMAND says, and
    without a GPU or the package vllm here; ValueError if TRL could not send the auditor's prompts there.
    """
    if not server:
        return
    start = f"start it as `{COMMAND.format(auditor=auditor)}`, from vLLM 0.30 on with --enable-scale-out, without --api-key"
    if faults := devices.unfit({"vllm_server": server}, torch.cuda.is_available()):
        raise Stop("\n".join(faults))
    load_reader(auditor, AutoProcessor, check_prompt, KIND)
    try:
        requests.get(f"{server}/health", timeout=endpoints.LISTING).raise_for_status()  # TRL would wait for ever
    except requests.RequestException as error:
        reason = "no reply" if error.response is None else f"HTTP {error.response.status_code}"
        raise Stop(f"vllm_server: the server at {server} is not ready ({reason}): correct the address, or {start}.") from error
    try:
        client = VLLMClient(server)
        about = client.get_server_info()
        [seen] = client.image_features([[PICTURE]])
        served, logprobs = (str(about["model_config"][name]) for name in ("model", "logprobs_mode"))
        takes_weights = about["weight_transfer_config"] is not None
    except Exception as error:  # requests' own, and bare ones of TRL, whose texts say what the server lacks
        reason = endpoints.one_line(error)
        raise Stop(f"vllm_server: the server at {server} cannot write rollouts ({reason}): {start}.") from error
    for wrong, reason in ((Path(served).name != Path(auditor).name, f"serves {endpoints.one_line(served)}, not {auditor}"),
                          (not seen, f"takes no pictures with {auditor}"),
                          (not takes_weights, "takes no weights"),
                          (logprobs != "processed_logprobs",
                           "gives probabilities before the temperature, by which TRL cannot correct")):
        if wrong:
            raise Stop(f"vllm_server: the server at {server} {reason}: {start}.")


def check_prompt(processor: ProcessorMixin) -> None:
    """Raise Unusable if TRL could not train a model with this processor, or not send its prompts to a vLLM server, in which a
    picture has to be one run of image tokens."""
    check_trainable(processor)
    turns = [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "?"}]}]
    ids = processor.apply_chat_template([turns], add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"][0]
    shown = (np.array(ids) == processor.image_token_ids[0]).astype(int)
    if (runs := int((np.diff(shown, prepend=0) == 1).sum())) != 1:
        raise Unusable(f"shows a picture in {runs} runs of image tokens, of which TRL sends only one to a vLLM server: set "
                       "vllm_server to '', or train another auditor, such as Gemma3.")


def by_server(server: str, auditor: VLM) -> dict[str, Any]:
    """What `GRPOConfig` takes so that the server at this address writes the rollouts; nothing for ""."""
    ends = np.atleast_1d(auditor.model.generation_config.eos_token_id).tolist()  # as transformers ends a text
    return dict(use_vllm=True, vllm_mode="server", vllm_server_base_url=server,
                generation_kwargs={"stop_token_ids": ends}) if server else {}


@contextlib.contextmanager
def answering(server: str) -> Iterator[None]:
    """Meanwhile a server that fails, or is gone when its trainer is built, raises Stop. Nothing for ""."""
    try:
        yield
    except Exception as error:
        if not server or not (isinstance(error, requests.RequestException | ConnectionError) or type(error) is Exception):
            raise  # TRL's own is bare
        raise Stop(f"The vLLM server at {server} does not write the rollouts any more ({endpoints.one_line(error)}): start it "
                   "again and run the same command, which goes on from the last checkpoint.") from error


@contextlib.contextmanager
def connected(server: str, trainer: GRPOTrainer) -> Iterator[None]:
    """While `trainer` trains: the connection for the weights, which is closed in the end, since the next training needs its port.
    Nothing for ""."""
    if server:  # TRL 1.16 looks for pictures by this id, which in Gemma3 is that of the one token before a picture's tokens
        trainer.processing_class.image_token_id = trainer.processing_class.image_token_ids[0]
    try:
        yield
    finally:
        if server and trainer.is_world_process_zero():
            trainer.vllm_generation.vllm_client.close_communicator()
