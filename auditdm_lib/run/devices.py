"""What a device can do: arithmetic, memory and its bandwidth, of this machine and of GPUs by name."""

import importlib.util
import math
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from auditdm_lib.run.manifest import Stop

# Peak of dense bfloat16 (float16 before Ampere) in operations a second, and bytes a second from memory: NVIDIA's data sheets.
GPUS = {"B200": (2250e12, 8.0e12), "H200": (989e12, 4.8e12), "H100": (989e12, 3.35e12), "A100": (312e12, 2.04e12),
        "L40S": (362e12, 0.864e12), "A6000": (155e12, 0.768e12), "L4": (121e12, 0.3e12), "A10": (125e12, 0.6e12),
        "RTX 4090": (165e12, 1.008e12), "RTX 3090": (71e12, 0.936e12), "V100": (125e12, 0.9e12), "T4": (65e12, 0.32e12)}
GPU_SHARE = 0.3  # of the peak that is reached (our choice; well-tuned training reaches 0.46: PaLM, arXiv 2204.02311, table 3)
CPU_SHARE = 0.5  # of the measured rate of large matrix products (our choice)
LAYER = 3e-4  # seconds that a layer takes however little it computes, in Python and in starting kernels (our choice)
SIDE = 512  # of the matrices that are multiplied to measure a processor: some milliseconds


@dataclass(frozen=True)
class Device:
    """A device: operations and bytes a second that it reaches (None: unknown), memory in bytes, and bytes of a number.

    `number` is None where weights keep the numbers of the checkpoint, as on a GPU; on a processor they become float32. A device
    of `count` parts is as fast as all of them. `places` are the GPUs, or the groups of the processor's cores, on which several
    processes work without sharing one.
    """

    name: str
    operations: float | None
    bandwidth: float | None
    memory: int
    number: int | None
    count: int = 1
    places: int = 1

    def seconds(self, operations: float, moved: float = 0.0, layers: float = 0.0) -> float | None:
        """Time for so many operations, for moving so many bytes or for passing so many layers, whichever takes longest."""
        if self.operations is None:
            return None
        return max(operations / self.operations, moved / self.bandwidth, layers * LAYER) / self.count

    def faster(self, processes: int) -> int:
        """How many times as fast so many processes are as one; a device whose parts share all work is no faster."""
        return 1 if self.count > 1 else max(1, min(processes, self.places))

    def beside(self, processes: int) -> int:
        """How many of so many processes share a memory: those of one GPU, or all on a processor."""
        return max(1, processes if self.number else math.ceil(processes / self.places))


def unfit(values: dict[str, Any], gpu: bool) -> list[str]:
    """What of a placement or of `vllm_server` this machine or a combination of parameters rules out, each in one sentence with
    the remedy.

    `gpu`: whether torch can use an NVIDIA GPU. A parameter that is absent is at its default.
    """
    quantisation, attention = values.get("quantisation", ""), values.get("attention", "auto")
    server, faults = values.get("vllm_server", ""), []
    for name, value, package, install in (
            ("quantisation", quantisation, "bitsandbytes", "bitsandbytes"),
            ("attention", attention * (attention == "flash_attention_2"), "flash_attn", "flash_attn"),
            ("vllm_server", server, "vllm", "-e .[vllm]")):  # for NCCL, by which weights are sent to the server
        if value and not gpu:
            faults.append(f"{name}: {value} works on NVIDIA GPUs only, and there is none here: set {name} to "
                          f"{'auto' if name == 'attention' else repr('')}.")
        elif value and importlib.util.find_spec(package) is None:
            faults.append(f"{name}: {value} needs a package that is not installed: pip install {install}.")
    if attention == "flash_attention_2" and values.get("dtype") == "float32":
        faults.append("dtype: flash_attention_2 does not compute in float32: set dtype to bfloat16 or attention to sdpa.")
    if values.get("dtype") == "float16" and not gpu:
        faults.append("dtype: float16 is for GPUs, on a processor it neither trains nor saves time: set dtype to auto.")
    if values.get("member_offload") == "model" and (quantisation or values.get("device_map")):
        faults.append("member_offload: a model that is quantised or spread by device_map cannot move between memories: set "
                      "member_offload to none, or quantisation and device_map to ''.")
    return faults


def check_fit(values: dict[str, Any]) -> None:
    """Raise Stop where the placement of these parameters cannot be had here; torch is not imported for it."""
    if faults := unfit(values, nvidia() is not None):
        raise Stop("\n  ".join(["Nothing was run.", *faults]))


def h100s(count: int = 8) -> Device:
    """Several H100 of 80 GB, as if the work divided evenly among them. The paper used eight."""
    peak, bandwidth = GPUS["H100"]
    return Device(f"{count} x H100", peak * GPU_SHARE, bandwidth, 80 * 10 ** 9, None, count, count)


def this_device(threads: int) -> Device:
    """The first GPU by its name, or this processor with so many threads, whose rates are measured in a tenth of a second."""
    return gpu(*found) if (found := nvidia()) else processor(threads)


def nvidia() -> tuple[str, int, int] | None:
    """Name and memory in bytes of the first NVIDIA GPU, by nvidia-smi, and how many there are; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=2, check=True).stdout
        first, *others = answer.strip().splitlines()
        name, megabytes = first.rsplit(",", 1)
        return name.strip(), int(megabytes) * 2 ** 20, 1 + len(others)
    except (OSError, ValueError, subprocess.SubprocessError):  # no driver, or a card that does not answer
        return None


def gpu(name: str, memory: int, places: int = 1) -> Device:
    """A GPU by its name, one of so many alike; its rates are None if the table has none for it."""
    peak, bandwidth = next((rates for part, rates in GPUS.items() if part in name), (None, None))
    return Device(name, peak and peak * GPU_SHARE, bandwidth, memory, None, places=places)


def processor(threads: int) -> Device:
    """This processor with the machine's memory. One thread is measured by its own time: other programs may be running."""
    import numpy as np
    import psutil
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    square = np.ones((SIDE, SIDE), np.float32)
    source, target = np.ones(2 ** 23, np.float32), np.empty(2 ** 23, np.float32)  # 32 MB each, beyond most caches
    with threadpool_limits(1):
        product = min(_timed(lambda: square @ square) for _ in range(4))
    copy = min(_timed(lambda: np.copyto(target, source)) for _ in range(4))
    there = psutil.cpu_count() or 1
    cores = min(threads, there)
    return Device("this processor", 2 * SIDE ** 3 / product * CPU_SHARE * cores, 2 * source.nbytes / copy,
                  psutil.virtual_memory().total, 4, places=there // cores)


def _timed(work) -> float:
    began = time.thread_time()
    work()
    return max(time.thread_time() - began, 1e-6)
