"""What each stage of a profile asks of its models: calls, arithmetic, memory and room on the disk, by its parameters alone.

All counts are upper bounds: no question is malformed or asked twice, and every reference is asked. A stage runs on one device.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from auditdm_lib.run import inventory, sizes
from auditdm_lib.run.devices import Device
from auditdm_lib.run.inventory import Model

CHARACTERS = 4  # of a token of English text (our choice)
TEMPLATE = 12  # tokens of a chat template around a turn (our choice)
WAYS = {"paligemma": "answer en "}  # the words around a question, by family: `asking.PALIGEMMA` and `asking.CHAT`
CHAT_WAY = "\nAnswer the question using a single word or phrase."
ANSWER = 8  # tokens of a short answer with its end, for the hours; for the memory the limit counts (our choice)
LIMITS = {"paligemma": 32}  # most tokens of an answer, by family: `asking.PALIGEMMA` and `asking.CHAT`
CHAT_LIMIT = 64
JUDGED, JUDGED_BATCH = 40, 64  # tokens around a question that the judge reads, two answers among them; `llm.same_meaning`
ASKED_FIRST = 48  # questions of each member at the beginning of stages 01 and 02 (`probes.try_members`)
ASKED_AGAIN = 800  # examples that stage 04 asks three models about at its end
FRESH = 5  # questions about a fresh picture at most: the auditor's, those of templates (`fresh.TRIES`), and a control
ALL_QUESTIONS = 185  # questions that can be asked about a picture of the testbed, for the ceiling: their mean
TEXT_TOKENS = 512  # that a FLUX pipeline reads
NUMBERS = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes
BITS = {"8bit": 1.0, "4bit": 0.5625}  # bytes of a weight; nf4 has a float32 for every 64 weights beside them


@dataclass
class Stage:
    """What one stage takes. `memory` holds what lies there all the time, `moments` what comes on top, one at a time."""

    name: str
    target_calls: int = 0
    calls: int = 0  # of all models that answer, the target among them
    texts: int = 0  # that the auditor writes
    drawn: int = 0  # pictures
    operations: float = 0.0
    work: list[tuple[float, float, float]] = field(default_factory=list)  # operations, bytes moved, layers: `Device.seconds`
    memory: dict[str, int] = field(default_factory=dict)
    moments: dict[str, int] = field(default_factory=dict)
    disk: int = 0
    unknown: list[str] = field(default_factory=list)  # models whose sizes are not known

    def add(self, operations: float, moved: float, layers: float) -> None:
        """Note work of the models."""
        self.operations += operations
        self.work.append((operations, moved, layers))

    def peak(self) -> int:
        """The most memory that the stage takes, in bytes."""
        return sum(self.memory.values()) + max(self.moments.values(), default=0)

    def seconds(self, device: Device) -> float | None:
        """Time on a device; None if its rates are unknown."""
        parts = [device.seconds(*part) for part in self.work]
        return None if None in parts else sum(parts)


@dataclass(frozen=True)
class Panel:
    """The models of a profile by what they do, its parameters, and the device that they are to run on."""

    values: dict[str, Any]
    members: list[Model]  # the target first
    auditor: Model
    others: dict[str, Model]  # judge_model, verifier, image_model, edit_model
    device: Device

    def size(self, model: Model) -> int:
        """Bytes of the numbers of a model that is asked (`placement.loading`)."""
        return NUMBERS.get(self.values["dtype"]) or self.device.number or model.stored

    @property
    def computed(self) -> int:
        """Bytes of the numbers that trainings compute with (`placement.number`)."""
        return NUMBERS.get(self.values["dtype"]) or self.device.number or NUMBERS["bfloat16"]

    @property
    def offloads(self) -> bool:
        """Whether only the model that is asked lies in the device's memory."""
        return self.values["member_offload"] == "model" and self.device.number is None

    def weights(self, model: Model) -> int:
        """Bytes of the weights of a model that is asked. bitsandbytes leaves the embedding as it is."""
        size = self.size(model)
        each = BITS.get(self.values["quantisation"], size)
        embedding = model.shape.vocabulary * model.shape.hidden if model.shape and each < size else 0
        return round(((model.parameters or 0) - embedding) * each + embedding * size)

    def trained(self, model: Model, rank: int) -> int:
        """Bytes of the weights of a model in training: in float32 if all are trained, and never quantised."""
        return (model.parameters or 0) * (self.size(model) if rank else NUMBERS["float32"])


def panel(values: dict[str, Any], found: list[Model], device: Device) -> Panel:
    """The found models, sorted by what they do."""
    roles = {model.role: model for model in found}
    members = [model for model in found if model.role == "target" or model.role.startswith("reference")]
    others = {name: roles[name] for name in ("judge_model", "verifier", *inventory.PIPELINES) if name in roles}
    return Panel(values, members, roles["auditor"], others, device)


def stages(p: Panel) -> dict[str, Stage]:
    """The stages that use models, by the number of their notebooks."""
    return {"00": _start(p), "01": _train(p), "02": _probe(p), "03": _cluster(p), "04": _rectify(p), "05": _evaluate(p)}


# The stages

def _start(p: Panel) -> Stage:
    stage = Stage("00", memory=_resident(p))
    _ask(stage, p, p.values["gallery"])
    return stage


def _train(p: Panel) -> Stage:
    v, auditor = p.values, p.auditor
    rank, batch = v["auditor_lora_rank"], v["group_size"] * v["groups_per_step"]
    stage = Stage("01", memory=_resident(p) | {"auditor": p.trained(auditor, rank), "optimiser": 2 * _trained(p, auditor, rank)})
    if v["kl_weight"] and not rank:
        stage.memory["first policy"] = p.trained(auditor, rank)
    pictures, steps = v["imitation_pictures"] * (v["imitation_rounds"] > 0), v["grpo_steps"] + v["plain_steps"]
    _ask(stage, p, ASKED_FIRST + pictures + steps * batch)
    _write(stage, p, pictures + steps * batch, _kinds(v), min(v["text_batch"], batch))
    _draw(stage, p, {kind: share * (pictures + steps * batch) for kind, share in _kinds(v).items()})
    for kind, share in _kinds(v).items():  # an example holds one text, a step of GRPO texts of one kind
        text, new, parts = _instruction(v, kind) + _tokens(v)[kind], _tokens(v)[kind], v["auditor_accumulation"]
        imitated = share * v["imitation_rounds"] * v["imitation_steps"]
        _fit(stage, p, auditor, imitated, v["imitation_batch"], text, rank, "imitation", parts)
        replays = share * v["grpo_steps"] * (v["replay_weight"] > 0) * (v["imitation_rounds"] > 0)
        beside = _fit(stage, p, auditor, replays, v["replay_batch"], text, rank, "replay", parts)["activations"]
        _fit(stage, p, auditor, share * steps, batch, text, rank, "GRPO", parts, new, v["kl_weight"] > 0, beside)
        if share and usable(auditor):  # TRL lets the policy write all texts of a step at a time
            rollouts = sizes.forward_memory(auditor.shape, p.computed, batch, text - new, new, sampled=True)
            _moment(stage, "the rollouts of GRPO", rollouts)
    for moment in ("imitation", "replay", "GRPO"):  # the optimiser's moments are there all the time
        if (name := f"a step of {moment}") in stage.moments:
            stage.moments[name] -= stage.memory["optimiser"]
    kept = 2 + sum(math.ceil(v[name] / v["checkpoint_steps"]) for name in ("grpo_steps", "plain_steps"))
    trained = 3 * _trained(p, auditor, rank)  # a checkpoint: what is trained, and its two moments
    stage.disk = kept * p.trained(auditor, rank) + 2 * trained + 400 * (pictures + steps * batch)
    return stage


def _probe(p: Panel) -> Stage:
    v, n = p.values, p.values["probes_per_auditor"]
    shares = _kinds(v)
    drawn = shares["regeneration"] + shares["edit"]
    kept = (math.ceil(v["grpo_steps"] / v["checkpoint_steps"]) + (v["imitation_rounds"] > 0)
            + math.ceil(v["plain_steps"] / v["checkpoint_steps"])) * v["probe_checkpoints"]
    auditors = 2 + bool(v["plain_steps"]) + kept
    again = 3 + inventory.supplied(v)  # the original, another seed, another encoding, and the exact picture
    ceiling = v["ceiling_pictures"] * ALL_QUESTIONS * inventory.supplied(v)
    best = n // v["best_of_n"] * v["best_of_n"] if v["best_of_n"] else 0
    stage = Stage("02", memory=_resident(p, {"auditor": p.auditor} | {
        name: model for name, model in p.others.items() if name == "verifier"}))
    _ask(stage, p, round(ASKED_FIRST + n * (1 + auditors) + best + 2 * drawn * n * again))
    _write(stage, p, n * auditors, shares, v["text_batch"])
    _write(stage, p, best, {"question": 1.0, "regeneration": 0.0, "edit": 0.0}, v["text_batch"])
    _draw(stage, p, {kind: share * n * (auditors + 2) for kind, share in shares.items()})  # other seeds of two auditors
    if ceiling:
        _answers(stage, p, p.members[0], 0, ceiling)
        stage.target_calls, stage.calls = stage.target_calls + ceiling, stage.calls + ceiling
    if verifier := p.others.get("verifier"):
        _generate(stage, p, verifier, round(drawn * n * (auditors + 2)), TEMPLATE + _tokens(v)["regeneration"], ANSWER,
                  v["answer_batch"])
        _asked(stage, p, "answers of the verifier", verifier, 0)
    stage.disk = round(n * _picture(p) * (1 + drawn * (auditors + 2 * again)))
    return stage


def _cluster(p: Panel) -> Stage:
    """Failure types come from texts alone, but for the fresh probes that confirm them, where a profile asks for some."""
    stage, fresh = Stage("03"), p.values["fresh_probes"]
    if fresh:
        stage.memory = _resident(p, {"auditor": p.auditor})
        _ask(stage, p, FRESH * fresh)
        _write(stage, p, (FRESH - 1) * fresh, {"question": 1.0, "regeneration": 0.0, "edit": 0.0}, p.values["text_batch"])
        stage.disk = fresh * _picture(p)
    return stage


def _rectify(p: Panel) -> Stage:
    v, target = p.values, p.members[0]
    stage = Stage("04", memory=_resident(p) | {"target in training": p.trained(target, v["lora_rank"])})
    _fit(stage, p, target, 2 * v["rectify_steps"], v["rectify_batch"], _question(p, target, 0) + ANSWER, v["lora_rank"],
         "rectification", v["rectify_accumulation"])
    _answers(stage, p, target, 0, 3 * ASKED_AGAIN)
    stage.target_calls = stage.calls = 3 * ASKED_AGAIN
    most = v["rectify_examples"] or v["probes_per_auditor"]
    stage.disk = 2 * (p.trained(target, v["lora_rank"]) + most * _picture(p))
    return stage


def _evaluate(p: Panel) -> Stage:
    v, target = p.values, p.members[0]
    stage = Stage("05", memory={} if p.offloads else {"members": max(map(p.weights, p.members))})  # one after the other
    if v["pictures"] == v["suite_source"]:
        items, tuned = v["items_per_suite"] * len(v["suites"]), 2
    else:
        items, tuned = 2 * v["items_per_suite"], 2  # random questions, and those on which the target disagreed
        stage.memory = _resident(p, {"tuned target": target})
    _ask(stage, p, items)
    _answers(stage, p, target, 0, tuned * items)
    stage.calls, stage.target_calls = stage.calls + tuned * items, stage.target_calls + tuned * items
    stage.disk = 200 * items * (len(p.members) + tuned)
    return stage


# What they are made of

def _resident(p: Panel, more: dict[str, Model] | None = None) -> dict[str, int]:
    """Bytes of the members, the judge and `more` models that are asked; none where they wait outside (`_asked`)."""
    if p.offloads:
        return {}
    asked = {name: model for name, model in p.others.items() if name == "judge_model"} | (more or {})
    return {"members": sum(map(p.weights, p.members))} | {name: p.weights(model) for name, model in asked.items()}


def _kinds(v: dict[str, Any]) -> dict[str, float]:
    return {"question": 1 - v["regeneration_share"] - v["edit_share"], "regeneration": v["regeneration_share"],
            "edit": v["edit_share"]}


def _tokens(v: dict[str, Any]) -> dict[str, int]:
    return {"question": v["question_tokens"], "regeneration": v["caption_tokens"], "edit": v["edit_tokens"]}


def _instruction(v: dict[str, Any], kind: str) -> int:
    """Tokens of the auditor's prompt."""
    prompt = {"question": "question_prompt", "regeneration": "caption_prompt", "edit": "edit_prompt"}[kind]
    return TEMPLATE + len(v[prompt]) // CHARACTERS


def _question(p: Panel, member: Model, place: int) -> int:
    """Tokens of a question as a member is asked it."""
    given = p.values["answer_prompts"]
    way = given[place if len(given) > 1 else 0] if given else WAYS.get(member.family, CHAT_WAY)
    return p.values["question_tokens"] + len(way) // CHARACTERS + TEMPLATE * (member.family not in WAYS)


def _trained(p: Panel, model: Model, rank: int) -> int:
    """Bytes of what is trained."""
    shape = model.shape
    if shape is None or shape.parameters is None:
        return 0
    return sizes.FLOAT32 * (sizes.adapter_parameters(shape, rank) if rank else shape.parameters - shape.vision_parameters)


def _picture(p: Panel) -> int:
    """Bytes of a stored picture: half of its pixels' as PNG (our choice), at the size that the target sees or that is drawn."""
    shape = p.members[0].shape
    side = max([shape.image_size if shape else 0, *(_side(p, model) for model in p.others.values() if model.drawing)])
    return round(1.5 * (side or 448) ** 2)


def _ask(stage: Stage, p: Panel, questions: int) -> None:
    """Every member answers so many questions."""
    for k, member in enumerate(p.members):
        _answers(stage, p, member, k, questions)
    stage.target_calls, stage.calls = stage.target_calls + questions, stage.calls + questions * len(p.members)
    if judge := p.others.get("judge_model"):  # every two answers, in both orders
        compared, text = 2 * math.comb(len(p.members), 2) * questions, JUDGED + p.values["question_tokens"]
        stage.calls += compared
        _generate(stage, p, judge, compared, text, 1, JUDGED_BATCH)
        _asked(stage, p, "answers of the judge_model", judge, 0)


def _answers(stage: Stage, p: Panel, member: Model, place: int, questions: int) -> None:
    given = p.values["answer_tokens"]
    limit = given[place if len(given) > 1 else 0] if given else LIMITS.get(member.family, CHAT_LIMIT)
    text, batch = _question(p, member, place), p.values["answer_batch"]
    _generate(stage, p, member, questions, text, min(limit, ANSWER), batch)
    if usable(member):
        needed = sizes.forward_memory(member.shape, p.size(member), min(batch, max(questions, 1)), text, limit)
        _asked(stage, p, f"answers of the {member.role}", member, needed)


def _write(stage: Stage, p: Panel, probes: int, shares: dict[str, float], batch: int) -> None:
    """The auditor writes so many probes: a question each, and before it a caption or a command where a picture is drawn."""
    for kind, share in shares.items():
        count = round(probes * (1.0 if kind == "question" else share))
        stage.texts += count
        text, tokens = _instruction(p.values, kind), _tokens(p.values)[kind]
        _generate(stage, p, p.auditor, count, text, tokens, batch)
        if count and usable(p.auditor):
            needed = sizes.forward_memory(p.auditor.shape, p.size(p.auditor), min(batch, count), text, tokens, sampled=True)
            _asked(stage, p, "texts of the auditor", p.auditor, needed)


def usable(model: Model) -> bool:
    """Whether its sizes are known; `Stage.unknown` names those of which they are not."""
    return model.shape is not None and model.parameters is not None and model.shape.parameters is not None


def _known(stage: Stage, model: Model) -> bool:
    if not usable(model) and model.name not in stage.unknown:
        stage.unknown.append(model.name)
    return usable(model)


def _asked(stage: Stage, p: Panel, name: str, model: Model, needed: int) -> None:
    """The moment at which a model is asked, with its weights if it waits outside of the device's memory until then."""
    there = not p.offloads or (model is p.auditor and "auditor" in stage.memory)  # one in training is there all the time
    _moment(stage, name, needed + (0 if there else p.weights(model)))


def _moment(stage: Stage, name: str, needed: int) -> None:
    stage.moments[name] = max(stage.moments.get(name, 0), needed)


def _generate(stage: Stage, p: Panel, model: Model, count: int, text: int, new: int, batch: int) -> None:
    """A model writes `count` texts of `new` tokens. A new token of a batch reads all weights, and the cache of each text."""
    if not count or not _known(stage, model):
        return
    shape, length, batches = model.shape, model.shape.image_tokens + text + new, math.ceil(count / batch)
    operations = count * (sizes.forward_flops(shape, text, 1) + new * sizes.token_flops(shape, length))
    cache = 2 * p.size(model) * shape.layers * shape.keys * length
    stage.add(operations, batches * new * p.weights(model) + count * new * cache,
              batches * ((1 + new) * shape.layers + shape.v_layers))


def _fit(stage: Stage, p: Panel, model: Model, steps: float, batch: int, text: int, rank: int, name: str, parts: int,
         completion: int = 0, first_policy: bool = False, beside: int = 0) -> dict[str, int]:
    """So many optimiser steps of a model, each in `parts`; of GRPO if `completion` says how many tokens of an example it learns.

    `first_policy`: the policy before training reads each example as well. `beside` are bytes of activations that lie there as
    well, those of what is replayed. Returns the memory of a step (`sizes.training_memory`).
    """
    if not steps or not _known(stage, model):
        return {"activations": 0}
    shape, logits, again = model.shape, completion or None, p.values["gradient_checkpointing"]
    needed = sizes.training_memory(shape, p.computed, batch, text, rank, completion, p.device.number is None, parts, again)
    operations = steps * batch * (sizes.training_flops(shape, text, rank, logits)
                                  + (first_policy + again) * sizes.forward_flops(shape, text, logits))
    passes = steps * parts
    stage.add(operations, passes * (3 + first_policy) * p.trained(model, rank), 3 * passes * (shape.layers + shape.v_layers))
    _moment(stage, f"a step of {name}", needed["peak"] + beside)
    return needed


def _side(p: Panel, pipeline: Model) -> int:
    return p.values["drawing_size"] or pipeline.drawing.get("size") or 1024


def _draw(stage: Stage, p: Panel, counts: dict[str, float]) -> None:
    """Pipelines draw so many pictures of each kind. An edit also reads the tokens of its source.

    An estimate for FLUX: 12 weights a token, layer and squared width; the autoencoder's weights work at a quarter of the side
    on average (our choice). Memory for four of the autoencoder's widest tensors, or for what a layer of the transformer makes.
    """
    held = 0
    for role, kind in (("image_model", "regeneration"), ("edit_model", "edit")):
        pipeline, count = p.others.get(role), round(counts[kind])
        if pipeline is None or not count:
            continue
        stage.drawn += count
        if not pipeline.parts or "num_layers" not in pipeline.drawing:
            stage.unknown += [pipeline.name] * (pipeline.name not in stage.unknown)
            continue
        size, side, drawing = p.device.number or 2, _side(p, pipeline), pipeline.drawing
        wide, deep = drawing["num_attention_heads"] * drawing["attention_head_dim"], (
            drawing["num_layers"] + drawing["num_single_layers"])
        tokens = (side // inventory.PATCH) ** 2 * (2 if kind == "edit" else 1)
        tokens += max(drawing.get("text_lengths", [TEXT_TOKENS]))
        steps = p.values["drawing_steps"] or drawing.get("steps") or 28
        each = steps * deep * (24 * wide ** 2 * tokens + 4 * wide * tokens ** 2) + pipeline.parts.get("vae", 0) * side ** 2 / 8
        calls = math.ceil(count / p.values["drawing_batch"]) * steps
        stage.add(count * each, calls * pipeline.parts.get("transformer", 0) * size, calls * deep)
        batch = min(p.values["drawing_batch"], count)
        pixels = drawing.get("channels", 256) * side ** 2
        weights = {"none": sum(pipeline.parts.values()), "model": max(pipeline.parts.values()), "sequential": 0}
        needed = weights[p.values["drawing_offload"]] * size
        comes = needed * (p.values["drawing_offload"] == "model" and p.device.number is None)  # and goes again
        _moment(stage, f"drawing by the {role}", comes + batch * size * max(14 * wide * tokens, 4 * pixels))
        held = max(held, needed - comes) if p.device.number is None else held + needed  # one at a time on a GPU
    if held:
        stage.memory["pipelines"] = held
