"""What each stage of a profile asks of its models: calls, arithmetic, memory and room on the disk, by its parameters alone.

No question is malformed or asked twice, and every reference is asked; of what is only asked after certain answers, half is
counted. A stage runs on one device.
"""

import math
import re
from typing import Any

from auditdm_lib import paths
from auditdm_lib.run import inventory, params, sizes, work
from auditdm_lib.run.work import Panel, Stage

ASKED_FIRST = 48  # questions of each member at the beginning of stages 01 and 02 (`probes.try_members`)
ASKED_AGAIN = 800  # examples that stage 04 asks three models about at its end
CHECK = 20  # tokens around a text that a verifier is asked about (`checking.VERIFY_PROMPTS`)
GROUP, FEW = 8, 12  # stage 00 shows the group of questions of one of so many pictures (`first_look.GROUP`)
TRIES = 3  # questions by templates about a fresh picture (`fresh.TRIES`), beside the auditor's and a control
ALL_QUESTIONS = 185  # questions that can be asked about a picture of the testbed, for the ceiling: their mean


def stages(p: Panel) -> dict[str, Stage]:
    """The stages that use models, by the number of their notebooks, without those that a model behind a server rules out."""
    made = {"00": _start, "01": _train, "02": _probe, "03": _cluster, "04": _rectify, "05": _evaluate}
    cannot = {number for number in made if params.training_fault(number, p.values)}
    return {number: make(p) for number, make in made.items() if number not in cannot}


def _start(p: Panel) -> Stage:
    stage, group = Stage("00", memory=work.resident(p, {"auditor": p.auditor})), GROUP * min(FEW, p.values["gallery"])
    work.ask(stage, p, p.values["gallery"] + group)
    work.write(stage, p, group, {"question": 1.0}, p.values["text_batch"])
    return stage


def _train(p: Panel) -> Stage:
    v, auditor = p.values, p.auditor
    rank, batch = v["auditor_lora_rank"], v["group_size"] * v["groups_per_step"]
    trained = work.in_training(p, auditor, rank)
    stage = Stage("01", memory=work.resident(p) | {"auditor": p.trained(auditor, rank), "optimiser": 2 * trained})
    if v["kl_weight"] and not rank:
        stage.memory["first policy"] = p.trained(auditor, rank)
    pictures, steps = v["imitation_pictures"] * (v["imitation_rounds"] > 0), v["grpo_steps"] + v["plain_steps"]
    work.ask(stage, p, ASKED_FIRST + pictures + steps * batch)
    work.write(stage, p, pictures + steps * batch, work.shares(v), min(v["text_batch"], batch))
    work.draw(stage, p, {kind: share * (pictures + steps * batch) for kind, share in work.shares(v).items()})
    for kind, share in work.shares(v).items():  # an example holds one text, a step of GRPO texts of one kind
        text, new, parts = work.instruction(v, kind) + work.limits(v)[kind], work.limits(v)[kind], v["auditor_accumulation"]
        imitated = share * v["imitation_rounds"] * v["imitation_steps"]
        work.fit(stage, p, auditor, imitated, v["imitation_batch"], text, rank, "imitation", parts)
        replays = share * v["grpo_steps"] * (v["replay_weight"] > 0) * (v["imitation_rounds"] > 0)
        beside = work.fit(stage, p, auditor, replays, v["replay_batch"], text, rank, "replay", parts)["activations"]
        work.fit(stage, p, auditor, share * steps, batch, text, rank, "GRPO", parts, new, v["kl_weight"] > 0, beside)
        if share and work.usable(auditor):  # TRL lets the policy write all texts of a step at a time
            rollouts = sizes.forward_memory(auditor.shape, p.computed, batch, text - new, new, sampled=True)
            work.moment(stage, "the rollouts of GRPO", rollouts)
    for moment in ("imitation", "replay", "GRPO"):  # the optimiser's moments are there all the time
        if (name := f"a step of {moment}") in stage.moments:
            stage.moments[name] -= stage.memory["optimiser"]
    kept = 2 + sum(math.ceil(v[name] / v["checkpoint_steps"]) for name in ("grpo_steps", "plain_steps"))
    # a checkpoint: what is trained, and its two moments
    stage.disk = kept * p.trained(auditor, rank) + 6 * trained + 400 * (pictures + steps * batch)
    return stage


def _probe(p: Panel) -> Stage:
    v, n = p.values, p.values["probes_per_auditor"]
    shares = work.shares(v)
    drawn = shares["regeneration"] + shares["edit"]
    kept = (math.ceil(v["grpo_steps"] / v["checkpoint_steps"]) + (v["imitation_rounds"] > 0)
            + math.ceil(v["plain_steps"] / v["checkpoint_steps"])) * v["probe_checkpoints"]
    auditors = 2 + bool(v["plain_steps"]) + kept
    # the original and the exact picture; of disagreements another seed and another encoding
    again = 1 + inventory.supplied(v) + 2 * work.HALF
    ceiling = v["ceiling_pictures"] * ALL_QUESTIONS * inventory.supplied(v)
    best = n // v["best_of_n"] * v["best_of_n"] if v["best_of_n"] else 0
    stage = Stage("02", memory=work.resident(p, {"auditor": p.auditor} | {
        name: model for name, model in p.others.items() if name == "verifier"}))
    asked, by_workers = Stage("02"), v["workers"]
    work.ask(asked, p, round(ASKED_FIRST + n * (1 + auditors) + best + 2 * drawn * n * again))
    work.write(stage, p, n * auditors, shares, v["text_batch"])
    work.write(stage, p, best, {"question": 1.0, "regeneration": 0.0, "edit": 0.0}, v["text_batch"])
    work.draw(stage, p, {kind: share * n * (auditors + 2) for kind, share in shares.items()})  # other seeds of two auditors
    if ceiling:
        work.answers(asked, p, p.members[0], 0, ceiling)
        asked.target_calls, asked.calls = asked.target_calls + ceiling, asked.calls + ceiling
    stage.include(asked, p.device, by_workers)
    if by_workers and not p.offloads:
        stage.memory["members of the workers"] = p.device.beside(by_workers) * stage.memory["members"]
    if verifier := p.others.get("verifier"):
        count, text = round(drawn * n * (auditors + 2)), work.TEMPLATE + work.limits(v)["regeneration"]
        work.generate(stage, p, verifier, count, text, work.ANSWER, v["answer_batch"])
        work.request(stage, p, verifier, count, work.TEMPLATE + CHECK, work.WORDS, work.limits(v)["regeneration"])
        work.when_asked(stage, p, "answers of the verifier", verifier, 0)
    stage.disk = round(n * work.picture(p) * (1 + drawn * (auditors + 2 * again)))
    return stage


def _cluster(p: Panel) -> Stage:
    """Failure types come from texts alone, but for the fresh probes that confirm them, where a profile asks for some."""
    stage, fresh = Stage("03"), p.values["fresh_probes"]
    if fresh:
        stage.memory = work.resident(p, {"auditor": p.auditor})
        first = 1 / len(p.members)  # a template is put to one member by lot, and to the others if its answer fits
        work.ask(stage, p, round((2 + TRIES * (first + (1 - first) * work.HALF)) * fresh))
        work.write(stage, p, (1 + TRIES) * fresh, {"question": 1.0, "regeneration": 0.0, "edit": 0.0}, p.values["text_batch"])
        stage.disk = fresh * work.picture(p)
    return stage


def _rectify(p: Panel) -> Stage:
    v, target = p.values, p.members[0]
    processes = _launched(p)
    weights = p.trained(target, v["lora_rank"]) * p.device.beside(processes)
    stage, tuning = Stage("04", memory=work.resident(p) | {"target in training": weights}), Stage("04")
    work.fit(tuning, p, target, 2 * v["rectify_steps"] * processes, math.ceil(v["rectify_batch"] / processes),
             work.question(p, target, 0) + work.ANSWER, v["lora_rank"], "rectification", v["rectify_accumulation"])
    stage.include(tuning, p.device, processes)
    work.answers(stage, p, target, 0, 3 * ASKED_AGAIN)
    stage.target_calls = stage.calls = 3 * ASKED_AGAIN
    most = v["rectify_examples"] or v["probes_per_auditor"]
    stage.disk = 2 * (p.trained(target, v["lora_rank"]) + most * work.picture(p))
    return stage


def _launched(p: Panel) -> int:
    """How many processes accelerate launch begins: as it is told, or one for each GPU, and one on a processor."""
    told = re.search(r"--num_processes[= ]+(\d+)", p.values["launch"])
    return max(1, int(told[1])) if told else 1 if p.device.number or not p.values["launch"] else p.device.places


def _benchmark(stage: Stage, p: Panel, tuned: int) -> None:
    """Every model answers the items of the tasks of lmms-eval, one model after the other."""
    for task in p.values["benchmarks"]:
        items = task_items(task, p.values)
        if items is None:
            stage.unknown.append(f"all items of {task} (benchmark_items)")
            continue
        for k, member in enumerate([*p.members, *[p.members[0]] * tuned]):
            work.answers(stage, p, member, k if k < len(p.members) else 0, items)
            stage.target_calls, stage.calls = stage.target_calls + items * (member is p.members[0]), stage.calls + items


def task_items(task: str, values: dict[str, Any]) -> int | None:
    """How many items of a task of lmms-eval are asked: the first `benchmark_items`, of a folder not more than it holds; None
    where that is all and only the task's own data would say how many."""
    import pyarrow.parquet

    folder, most = paths.place(task), values["benchmark_items"]
    if folder.is_dir():
        there = sum(pyarrow.parquet.read_metadata(file).num_rows for file in sorted(folder.rglob("*.parquet")))
        return min(there, most or there)
    return most or None


def _evaluate(p: Panel) -> Stage:
    v, target = p.values, p.members[0]
    stage = Stage("05", memory={} if p.offloads else {"members": max(map(p.weights, p.members))})  # one after the other
    if v["pictures"] == v["suite_source"]:
        items, tuned = v["items_per_suite"] * len(v["suites"]), 2
    else:
        items, tuned = 2 * v["items_per_suite"], 2  # random questions, and those on which the target disagreed
        stage.memory = work.resident(p, {"tuned target": target})
    work.ask(stage, p, items)
    work.answers(stage, p, target, 0, tuned * items)
    stage.calls, stage.target_calls = stage.calls + tuned * items, stage.target_calls + tuned * items
    stage.disk = 200 * items * (len(p.members) + tuned)
    _benchmark(stage, p, tuned)
    return stage
