"""Asking a panel in several processes by Ray Data (the optional package `ray`), for more questions than one process can ask.

The answers are those of the plain loop (`panel.ask_all`): the questions are put in its order and its batches, and each process
asks whole batches of them. A process that dies is started again, and asks its batches anew.
"""

import importlib.util
import logging
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from PIL import Image

from auditdm_lib.audit.panel import Given, Panel, ask_all, named
from auditdm_lib.models.asking import Asking, Sampling, fingerprints
from auditdm_lib.models.vlm import VLM, load_vlm
from auditdm_lib.run.endpoints import is_endpoint
from auditdm_lib.run.manifest import Stop

AT_ONCE = 10_000  # questions whose pictures are handed to Ray together, some 9 GB of photographs (our choice)
PARTS = 4  # of the questions for each process, so that none waits long for the last one (our choice)


def spread(workers: int, members: list[str]) -> Callable | None:
    """What `Panel.ask` takes, so that so many processes ask the members, given by name; None, which is the plain loop, for 0.

    Each process loads all members and uses as many threads as this one. They run on this machine, or on the Ray cluster that the
    variable RAY_ADDRESS names, whose machines must have the kit and the models in the same places. Raises Stop without `ray`, and
    for a member behind a server.
    """
    if workers and any(map(is_endpoint, members)):
        raise Stop("workers is for models that are loaded, and one of the members is behind a server, which requests_at_once "
                   "asks in parallel: set workers to 0.")
    if workers and importlib.util.find_spec("ray") is None:
        raise Stop("workers needs the package ray, which is not installed: pip install 'ray[data]', or set it to 0.")
    return partial(asked_by, workers) if workers else None


@dataclass(frozen=True)
class Member:
    """What loads a member again in another process."""

    name: str
    asking: Asking
    sampling: Sampling | None

    def load(self) -> VLM:
        return replace(load_vlm(self.name, {field.name: getattr(self.asking, field.name) for field in fields(self.asking)}),
                       sampling=self.sampling)


class Asker:
    """A process's members, and how it answers parts of the questions."""

    def __init__(self, members: list[Member], rule: str, threads: int, parts: list):
        torch.set_num_threads(threads)
        target, *references = [member.load() for member in members]
        self.panel, self.parts = Panel(target, references, rule), parts

    def __call__(self, batch: dict) -> dict:
        """What is answered to the parts with these numbers."""
        import ray

        given = []
        for images, questions, drawn in ray.get([self.parts[k] for k in batch["id"]]):
            given.append(pickle.dumps(ask_all(self.panel, images, questions, list(range(len(questions))), drawn, None)))
        return {"part": batch["id"], "given": given}


def asked_by(workers: int, panel: Panel, images: list[Image.Image], questions: list[str], rows: list[int], drawn: list[bool],
             desc: str | None) -> tuple[dict[str, Given], list[int]]:
    """What `panel.ask_all` returns, from so many processes."""
    n, first = len(questions), {}  # (picture, question, asked in full) -> its rows
    for i, picture in zip(rows, fingerprints([images[i] for i in rows]), strict=True):
        first.setdefault((picture, questions[i], drawn[i]), []).append(i)
    alike = {same[0]: same for same in sorted(first.values(), key=lambda same: len(questions[same[0]]))}
    members = [Member(one.name, one.asking, one.sampling) for one in (panel.target, *panel.references)]
    size = math.lcm(*(member.asking.batch_size for member in members))  # whole batches of every member
    size *= max(1, len(alike) // (size * workers * PARTS))
    parts = [list(alike)[i:i + size] for i in range(0, len(alike), size)]
    wave, found = max(1, AT_ONCE // size), []
    for k in range(0, len(parts), wave):
        put = [tuple([every[i] for i in part] for every in (images, questions, drawn)) for part in parts[k:k + wave]]
        found += _by_ray(members, panel.rule, put, workers)
    asked, full = {name: Given([None] * n, *([False] * n for _ in range(3))) for name in named(panel)}, []
    for part, (given, rows_in_full) in zip(parts, found, strict=True):
        full += [i for place in rows_in_full for i in alike[part[place]]]
        for name, one in given.items():
            asked[name].failure = asked[name].failure or one.failure
            for place, same in enumerate(part):
                for i in alike[same]:
                    for field in ("answers", "unfinished", "failed", "limited"):
                        getattr(asked[name], field)[i] = getattr(one, field)[place]
    return asked, sorted(full)


def _by_ray(members: list[Member], rule: str, parts: list[tuple], workers: int) -> list[tuple[dict[str, Given], list[int]]]:
    """What the processes answer to each part (pictures, questions, whether they are asked in full), in order."""
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
    how = dict(members=members, rule=rule, threads=torch.get_num_threads(), parts=[ray.put(part) for part in parts])
    asked = ray.data.range(len(parts), override_num_blocks=len(parts)).map_batches(
        Asker, batch_size=1, compute=ray.data.ActorPoolStrategy(size=workers), fn_constructor_kwargs=how, num_cpus=1,
        num_gpus=torch.cuda.device_count() / workers)
    return [pickle.loads(row["given"]) for row in sorted(asked.take_all(), key=lambda row: row["part"])]
