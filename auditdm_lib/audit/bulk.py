"""Asking a panel in several processes by Ray Data (the optional package `ray`), for more questions than one process can ask.

The answers are those of the plain loop (`panel.ask_all`): the questions are put in its order and its batches, and each process
asks whole batches of them. A process that dies is started again, and asks its batches anew.

Ray's own vLLM processor (`ray.data.llm`) is not behind this: vLLM's roundings are not those of transformers, so that its rows
would not be the loop's, and nobody would see which of the two gave an answer. Where vLLM is to answer, `vllm serve MODEL` and
name the member `openai:MODEL@http://host:port/v1`: the same engine, which is sent `requests_at_once` questions at a time, and
whose answers are kept under a name of their own.
"""

import importlib.util
import json
import logging
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from types import ModuleType

import torch
from PIL import Image

from auditdm_lib.audit.panel import Given, Panel, ask_all, failing, named
from auditdm_lib.models import placement
from auditdm_lib.models.asking import Asking, Sampling, fingerprints
from auditdm_lib.models.llm import load_llm
from auditdm_lib.models.vlm import VLM, asking_order, identity, load_vlm
from auditdm_lib.run.endpoints import is_endpoint
from auditdm_lib.run.manifest import Stop

AT_ONCE = 10_000  # questions whose pictures are handed to Ray together, some 9 GB of photographs (our choice)
SAID = (Stop, ValueError, FileNotFoundError)  # what the kit raises in a sentence; Ray would wrap it in a traceback
PARTS = 4  # of the questions for each process, so that none waits long for the last one (our choice)


def spread(workers: int, members: list[str]) -> Callable | None:
    """What `Panel.ask` takes, so that so many processes ask the members, given by name; None, which is the plain loop, for 0.

    Each process loads all members as this one does and uses as many threads. They run on this machine, or on the Ray cluster that
    the variable RAY_ADDRESS names, whose machines must have the kit and the models in the same places. Raises Stop without `ray`,
    for a member behind a server, and where the GPUs cannot be divided among the processes.
    """
    if workers and any(map(is_endpoint, members)):
        raise Stop("workers is for models that are loaded, and one of the members is behind a server, which requests_at_once "
                   "asks in parallel: set workers to 0.")
    if workers and importlib.util.find_spec("ray") is None:
        raise Stop("workers needs the package ray, which is not installed: pip install -e .[ray], or set it to 0.")
    if workers:
        _share(workers, _gpus())
    return partial(asked_by, workers) if workers else None


def _gpus() -> int:
    """How many GPUs this machine has, or the cluster that RAY_ADDRESS names."""
    if "RAY_ADDRESS" not in os.environ:
        return torch.cuda.device_count()
    return int(_begun(0).cluster_resources().get("GPU", 0))


def _share(workers: int, gpus: int) -> float:
    """The GPUs for each process: whole ones or, as Ray wants it, an even part of one. Raises Stop where they do not divide so."""
    if gpus % workers and workers % gpus:
        raise Stop(f"{gpus} GPUs do not divide evenly among {workers} workers: set workers to {gpus}, or to a divisor or a "
                   "multiple of it.")
    # rounded down to the digits that Ray counts, so that the parts fit on a GPU
    return gpus // workers if gpus >= workers else math.floor(10_000 * gpus / workers) / 10_000


@dataclass(frozen=True)
class Member:
    """What loads a member again in another process."""

    name: str
    asking: Asking
    sampling: Sampling | None
    kept: bool  # whether its answers are

    def load(self, place: int) -> VLM:
        """The member at this place of its panel (`placement.of_member`)."""
        vlm = load_vlm(self.name, {field.name: getattr(self.asking, field.name) for field in fields(self.asking)},
                       device=placement.of_member(place))
        # by where it is loaded now: a cluster's machines may have other devices
        return replace(vlm, sampling=self.sampling, identity=identity(self.name, vlm.model) if self.kept else None)


def packed_panel(panel: Panel) -> dict:
    """What loads a panel again in another process (`unpacked_panel`), as JSON holds it; its members and its judge are loaded
    models."""
    return dict(members=[asdict(one) for one in _members(panel)], rule=panel.rule, judge=panel.llm and panel.llm.name)


def unpacked_panel(members: list[dict], rule: str, judge: str | None) -> Panel:
    """The panel of `packed_panel`, loaded."""
    target, *references = [Member(**one | dict(asking=Asking(**one["asking"]), sampling=one["sampling"] and Sampling(
        **one["sampling"]))).load(place) for place, one in enumerate(members)]
    return Panel(target, references, rule, judge and load_llm(judge))


def _members(panel: Panel) -> list[Member]:
    return [Member(one.name, one.asking, one.sampling, one.identity is not None) for one in (panel.target, *panel.references)]


class Asker:
    """A process's members, and how it answers parts of the questions. What stops it, in a sentence, stands for its answers."""

    def __init__(self, members: list[Member], rule: str, threads: int, placed: dict[str, str], parts: list):
        torch.set_num_threads(threads)
        self.panel, self.parts, self.problem = None, parts, None
        try:
            placement.place(**placed)
            target, *references = [member.load(place) for place, member in enumerate(members)]
            self.panel = Panel(target, references, rule)
        except SAID as problem:
            self.problem = problem

    def __call__(self, batch: dict) -> dict:
        """What is answered to the parts with these numbers."""
        import ray

        given = [self.problem or self.answers(*part) for part in ray.get([self.parts[k] for k in batch["id"]])]
        return {"part": batch["id"], "given": [packed(one) for one in given]}

    def answers(self, images: list[Image.Image], questions: list[str], drawn: list[bool]) -> tuple | Exception:
        """What `panel.ask_all` returns for a part, or what stopped it."""
        try:
            return ask_all(self.panel, images, questions, list(range(len(questions))), drawn, None, some=True)
        except SAID as problem:
            return problem


def asked_by(workers: int, panel: Panel, images: list[Image.Image], questions: list[str], rows: list[int], drawn: list[bool],
             desc: str | None) -> tuple[dict[str, Given], list[int]]:
    """What `panel.ask_all` returns, from so many processes."""
    n, first = len(questions), {}  # (picture, question, asked in full) -> its rows
    for i, picture in zip(rows, fingerprints([images[i] for i in rows]), strict=True):
        first.setdefault((picture, questions[i], drawn[i]), []).append(i)
    turn = asking_order([panel.target, *panel.references])
    alike = {first[key][0]: first[key] for key in sorted(first, key=lambda key: turn(key[:2]))}
    members = _members(panel)
    size = math.lcm(*(member.asking.batch_size for member in members))  # whole batches of every member
    size *= max(1, len(alike) // (size * workers * PARTS))
    parts = [list(alike)[i:i + size] for i in range(0, len(alike), size)]
    wave, found = max(1, AT_ONCE // size), []
    for k in range(0, len(parts), wave):
        put = [tuple([every[i] for i in part] for every in (images, questions, drawn)) for part in parts[k:k + wave]]
        found += _by_ray(dict(members=members, rule=panel.rule, threads=torch.get_num_threads(), placed=placement.current()),
                         put, workers)
    asked, full = {name: Given([None] * n, *([False] * n for _ in range(3))) for name in named(panel)}, []
    for part, (given, rows_in_full) in zip(parts, found, strict=True):
        full += [i for place in rows_in_full for i in alike[part[place]]]
        for name, one in given.items():
            asked[name].failure = asked[name].failure or one.failure
            for place, same in enumerate(part):
                for i in alike[same]:
                    for field in ("answers", "unfinished", "failed", "limited"):
                        getattr(asked[name], field)[i] = getattr(one, field)[place]
    for name, member in named(panel).items():
        one = asked[name]
        n = sum(a is not None or u or f for a, u, f in zip(one.answers, one.unfinished, one.failed, strict=True))
        if sum(one.failed) == n > 1:
            raise failing(member, name, n, one.failure)
    return asked, sorted(full)


def _by_ray(how: dict, parts: list[tuple], workers: int) -> list[tuple[dict[str, Given], list[int]]]:
    """What the processes, made by `Asker(**how, ...)`, answer to each part (pictures, questions, whether they are asked in full),
    in order. Raises what stopped one of them."""
    ray = _begun(workers)
    asked = ray.data.range(len(parts), override_num_blocks=len(parts)).map_batches(
        Asker, batch_size=1, compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=1, num_gpus=_share(workers, _gpus()),
        fn_constructor_kwargs=how | {"parts": [ray.put(part) for part in parts]})
    return [unpacked(row["given"]) for row in sorted(asked.take_all(), key=lambda row: row["part"])]


def packed(given: tuple[dict[str, Given], list[int]] | Exception) -> str:
    """What a process answered to a part, or what stopped it, as JSON."""
    if isinstance(given, Exception):
        kind = next(kind for kind in SAID if isinstance(given, kind))
        return json.dumps({"problem": kind.__name__, "text": str(given)})
    asked, in_full = given
    return json.dumps({"asked": {name: asdict(one) for name, one in asked.items()}, "in_full": in_full})


def unpacked(text: str) -> tuple[dict[str, Given], list[int]]:
    """What a process `packed`. Raises what stopped it: an exception of SAID."""
    made = json.loads(text)
    if "problem" in made:
        raise {kind.__name__: kind for kind in SAID}[made["problem"]](made["text"])
    return {name: Given(**one) for name, one in made["asked"].items()}, made["in_full"]


def _begun(workers: int) -> ModuleType:
    """Ray, connected to the cluster, or begun here for so many workers."""
    import ray

    if not ray.is_initialized():
        # one processor more than there are workers, for what hands out the parts
        here = {} if "RAY_ADDRESS" in os.environ else dict(num_cpus=workers + 1, include_dashboard=False)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
        os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # no stack trace where a notebook's kernel is ended
        try:
            ray.init(log_to_driver=False, logging_level="ERROR", **here)
        except Exception as error:  # of any type; mostly Ray's own limit of 30 seconds, on a busy machine
            reason = str(error).splitlines()[0]
            raise Stop(f"Ray did not start ({reason}): try again when the machine is less busy, or set workers to 0.") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
