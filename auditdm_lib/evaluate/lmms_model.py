"""One model under lmms-eval's harness, in a process of its own: python -m auditdm_lib.evaluate.lmms_model ORDER.json RESULT.json.

The harness finds the data, words the questions and scores the replies; only asking is the kit's.
"""

import json
import os
import sys
from pathlib import Path

import torch
from lmms_eval import evaluator
from lmms_eval.api.model import lmms
from lmms_eval.tasks import TaskManager

from auditdm_lib import paths
from auditdm_lib.models import placement
from auditdm_lib.models.asking import CHAT
from auditdm_lib.models.vlm import load_vlm, replies
from auditdm_lib.replies import without_thought

AT_ONCE = 1024  # requests whose pictures are in memory
ERRORS = ("_clustered", "_clt", "")  # lmms-eval's standard errors of a score, the best first
WORDS = ("pre_prompt", "post_prompt")  # by which a task wraps its questions for chat models


class Asked(lmms):
    """A model of the kit as lmms-eval asks it."""

    def __init__(self, path: str, asked: dict | None):
        super().__init__()
        self.vlm = load_vlm(path, asked)

    @property
    def own_words(self) -> bool:
        """Whether the model is asked in its own way, PaliGemma's or its `answer_protocol.json`'s; else as each task says."""
        return self.vlm.asking.prompt != CHAT.prompt

    def generate_until(self, requests: list) -> list[str]:
        given = []
        for i in range(0, len(requests), AT_ONCE):
            given += self._replies([request.args for request in requests[i:i + AT_ONCE]])
        return given

    def _replies(self, rows: list[tuple]) -> list[str]:
        pictures = [seen(self.task_dict[task][split][document]) for _, _, seen, document, task, split in rows]
        for shown, row in zip(pictures, rows, strict=True):
            if len(shown) != 1 or not hasattr(shown[0], "convert"):
                raise SystemExit(f"the task {row[4]} shows {len(shown)} pictures or a video with a question, and the kit asks "
                                 "about one picture: leave it out of benchmarks.")
        found = [""] * len(rows)
        for tokens in {row[1].get("max_new_tokens") for row in rows}:
            some = [i for i, row in enumerate(rows) if row[1].get("max_new_tokens") == tokens]
            said = replies(self.vlm, [pictures[i][0] for i in some], [rows[i][0].strip() for i in some],
                           max(tokens or 0, self.vlm.asking.max_new_tokens), bare=not self.own_words)
            for i, reply in zip(some, said["reply"], strict=True):
                found[i] = _until(without_thought(reply), rows[i][1].get("until") or [])
        return found

    def loglikelihood(self, requests: list) -> list:
        raise SystemExit("a task scores likelihoods, and the kit asks for texts: leave it out of benchmarks.")

    def generate_until_multi_round(self, requests: list) -> list:
        raise SystemExit("a task asks in several rounds, and the kit in one: leave it out of benchmarks.")


def _until(reply: str, stops: str | list[str]) -> str:
    """A reply up to the first text at which its task ends it."""
    for stop in [stops] if isinstance(stops, str) else stops:
        reply = reply.partition(stop)[0] if stop else reply
    return reply


class Tasks(TaskManager):
    """lmms-eval's tasks and those of `folders`; with `bare`, without the words that wrap a question for chat models."""

    def __init__(self, folders: list[str], bare: bool = False):
        super().__init__("ERROR", include_path=folders or None, model_name="default")
        self.bare = bare

    def load_task_or_group(self, *names, **how) -> dict:
        found = super().load_task_or_group(*names, **how)
        if self.bare:
            _unwrap(found)
        return found


def _unwrap(found: dict) -> None:
    for task in found.values():
        if isinstance(task, dict):
            _unwrap(task)
        elif words := getattr(task, "lmms_eval_specific_kwargs", None):
            words.update({name: "" for name in WORDS if name in words})


def named(tasks: list[str]) -> tuple[list[str], list[str]]:
    """The names of tasks, and the folders among them, which stand for the tasks that lie there."""
    folders = [path for path in map(paths.resolve, tasks) if Path(path).is_dir()]
    inside = [file.stem for folder in folders for file in sorted(Path(folder).glob("*.yaml")) if not file.stem.startswith("_")]
    return [task for task in tasks if not paths.place(task).is_dir()] + inside, folders


def rows(found: dict) -> list[list]:
    """[task, metric, n, score, stderr, version] of the harness's results."""
    table = []
    for task, measured in sorted(found["results"].items()):
        n = found.get("n-samples", {}).get(task, {}).get("effective")
        for name, value in sorted(measured.items()):
            metric, _, how = name.partition(",")
            if how and "_stderr" not in metric and isinstance(value, (int, float)):
                errors = [measured.get(f"{metric}_stderr{kind},{how}") for kind in ERRORS]
                error = next((float(one) for one in errors if isinstance(one, (int, float))), None)
                metric = metric if how == "none" else name
                table.append([task, metric, n, float(value), error, str(found["versions"].get(task, ""))])
    return table


def main(order: Path, result: Path) -> None:
    os.environ.setdefault("HF_DATASETS_TRUST_REMOTE_CODE", "0")
    wanted = json.loads(order.read_text(encoding="utf-8"))
    names, folders = named(wanted["tasks"])
    known = Tasks(folders)
    if missing := [name for name in names if name not in known.all_tasks]:
        raise SystemExit(f"it knows no task {missing[0]!r}: `python -m lmms_eval --tasks list` names them all.")
    made = []
    if "model" in wanted:
        torch.set_num_threads(wanted["threads"])
        placement.place(**wanted["placement"])
        model = Asked(wanted["model"], wanted["asked"])
        try:
            found = evaluator.simple_evaluate(
                model, tasks=names, task_manager=Tasks(folders, model.own_words), limit=wanted["limit"] or None,
                log_samples=False, verbosity="ERROR", process_docs_parallel=1)
        except Exception as error:  # data that cannot be fetched, a package that a task needs: whatever a task raises
            first = error
            while first.__cause__ is not None:  # the harness tries again, and says only that it did
                first = first.__cause__
            reason = (str(first).strip() or "no message").splitlines()[0].rstrip(".")
            raise SystemExit(f"{', '.join(names)}: {type(first).__name__}: {reason}") from error
        made = rows(found)
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(made), encoding="utf-8")
    partial.replace(result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
