"""What a model takes that is asked, writes, is trained or draws in a stage: calls, arithmetic, memory, requests to a server."""

import math
from dataclasses import dataclass, field
from typing import Any

from auditdm_lib.run import charges, inventory, sizes
from auditdm_lib.run.devices import Device
from auditdm_lib.run.inventory import Model

CHARACTERS = 4  # of a token of English text (our choice)
TEMPLATE = 12  # tokens of a chat template around a turn (our choice)
WAYS = {"paligemma": "answer en "}  # the words around a question, by family: `asking.PALIGEMMA` and `asking.CHAT`
CHAT_WAY = "\nAnswer the question using a single word or phrase."
ANSWER = 8  # tokens of a short answer with its end, for the hours; for the memory the limit counts (our choice)
WORDS = 2.5  # that a server counts of it, for the cost: a word or two and the end (our choice; 2.1 of the testbed's models)
USED = 1 / 3  # of the tokens that a text of the auditor may have, what it has, for the cost (the testbed's questions: 8 of 24)
LIMITS = {"paligemma": 32}  # most tokens of an answer, by family: `asking.PALIGEMMA` and `asking.CHAT`
CHAT_LIMIT = 64
JUDGED, JUDGED_BATCH = 40, 64  # tokens around a question that the judge reads, two answers among them; `llm.same_meaning`
HALF = 0.5  # of what is only asked after certain answers, the part that is counted (our choice)
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
    requests: list[charges.Requests] = field(default_factory=list)  # to models behind servers

    def add(self, operations: float, moved: float, layers: float) -> None:
        """Note work of the models."""
        self.operations += operations
        self.work.append((operations, moved, layers))

    def include(self, part: "Stage", device: Device, processes: int) -> None:
        """Note a part that so many processes do together, whose memory is that of one of them."""
        self.target_calls, self.calls = self.target_calls + part.target_calls, self.calls + part.calls
        self.operations, self.requests = self.operations + part.operations, self.requests + part.requests
        self.work += [tuple(one / device.faster(processes) for one in each) for each in part.work]
        self.unknown += [name for name in part.unknown if name not in self.unknown]
        for name, needed in part.moments.items():
            moment(self, name, needed * device.beside(processes))

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


def resident(p: Panel, more: dict[str, Model] | None = None) -> dict[str, int]:
    """Bytes of the members, the judge and `more` models that are asked; none where they wait outside (`when_asked`)."""
    if p.offloads:
        return {}
    asked = {name: model for name, model in p.others.items() if name == "judge_model"} | (more or {})
    gpus = p.device.places if p.values["device_map"] == "members" and p.device.number is None else 1
    held = max(sum(map(p.weights, p.members[k::gpus])) for k in range(gpus))  # on the fullest one
    return {"members": held} | {name: p.weights(model) for name, model in asked.items()}


def shares(v: dict[str, Any]) -> dict[str, float]:
    return {"question": 1 - v["regeneration_share"] - v["edit_share"], "regeneration": v["regeneration_share"],
            "edit": v["edit_share"]}


def limits(v: dict[str, Any]) -> dict[str, int]:
    return {"question": v["question_tokens"], "regeneration": v["caption_tokens"], "edit": v["edit_tokens"]}


def instruction(v: dict[str, Any], kind: str) -> int:
    """Tokens of the auditor's prompt."""
    prompt = {"question": "question_prompt", "regeneration": "caption_prompt", "edit": "edit_prompt"}[kind]
    return TEMPLATE + len(v[prompt]) // CHARACTERS


def question(p: Panel, member: Model, place: int) -> int:
    """Tokens of a question as a member is asked it."""
    given = p.values["answer_prompts"]
    way = given[place if len(given) > 1 else 0].replace("{question}", "") if given else WAYS.get(member.family, CHAT_WAY)
    return p.values["question_tokens"] + len(way) // CHARACTERS + TEMPLATE * (member.family not in WAYS)


def in_training(p: Panel, model: Model, rank: int) -> int:
    """Bytes of what is trained."""
    shape = model.shape
    if shape is None or shape.parameters is None:
        return 0
    return sizes.FLOAT32 * (sizes.adapter_parameters(shape, rank) if rank else shape.parameters - shape.vision_parameters)


def picture(p: Panel) -> int:
    """Bytes of a stored picture: half of its pixels' as PNG (our choice), at the size that the target sees or that is drawn."""
    shape = p.members[0].shape if p.members[0].where != "server" else None
    side = max([shape.image_size if shape else 0, *(_side(p, model) for model in p.others.values() if model.drawing)])
    return round(1.5 * (side or 448) ** 2)


def ask(stage: Stage, p: Panel, questions: int) -> None:
    """Every member answers so many questions."""
    for k, member in enumerate(p.members):
        answers(stage, p, member, k, questions)
    stage.target_calls, stage.calls = stage.target_calls + questions, stage.calls + questions * len(p.members)
    if judge := p.others.get("judge_model"):  # every two answers that differ, in both orders
        compared = round(2 * math.comb(len(p.members), 2) * questions * HALF)
        text = JUDGED + p.values["question_tokens"]
        stage.calls += compared
        generate(stage, p, judge, compared, text, 1, JUDGED_BATCH)
        request(stage, p, judge, compared, TEMPLATE + JUDGED, WORDS, p.values["question_tokens"], pictures=0)
        when_asked(stage, p, "answers of the judge_model", judge, 0)


def answers(stage: Stage, p: Panel, member: Model, place: int, questions: int) -> None:
    given = p.values["answer_tokens"]
    limit = given[place if len(given) > 1 else 0] if given else LIMITS.get(member.family, CHAT_LIMIT)
    text, batch = question(p, member, place), p.values["answer_batch"]
    generate(stage, p, member, questions, text, min(limit, ANSWER), batch)
    request(stage, p, member, questions, text - p.values["question_tokens"], WORDS, p.values["question_tokens"])
    if usable(member):
        needed = sizes.forward_memory(member.shape, p.size(member), min(batch, max(questions, 1)), text, limit)
        when_asked(stage, p, f"answers of the {member.role}", member, needed)


def write(stage: Stage, p: Panel, probes: int, shares: dict[str, float], batch: int) -> None:
    """The auditor writes so many probes: a question each, and before it a caption or a command where a picture is drawn."""
    for kind, share in shares.items():
        count = round(probes * (1.0 if kind == "question" else share))
        stage.texts += count
        text, tokens = instruction(p.values, kind), limits(p.values)[kind]
        generate(stage, p, p.auditor, count, text, tokens, batch)
        request(stage, p, p.auditor, count, text, tokens * USED)
        if count and usable(p.auditor):
            needed = sizes.forward_memory(p.auditor.shape, p.size(p.auditor), min(batch, count), text, tokens, sampled=True)
            when_asked(stage, p, "texts of the auditor", p.auditor, needed)


def request(stage: Stage, p: Panel, model: Model, count: int, words: float, new: float, most: float = 0.0,
            pictures: int = 1) -> None:
    """Note so many questions, if the model is behind a server: `words` tokens around a text of the auditor of at most `most`, and
    so many `pictures`; answers of `new` tokens (`charges`)."""
    if count and model.where == "server":
        seen = pictures and charges.picture_tokens(model, str(p.values["pictures"]), p.members)
        stage.requests.append(charges.Requests(model, count, words + most * USED + seen, new))


def usable(model: Model) -> bool:
    """Whether its sizes are known; `Stage.unknown` names those of which they are not."""
    return model.shape is not None and model.parameters is not None and model.shape.parameters is not None


def _known(stage: Stage, model: Model) -> bool:
    if not usable(model) and model.name not in stage.unknown:
        stage.unknown.append(model.name)
    return usable(model)


def when_asked(stage: Stage, p: Panel, name: str, model: Model, needed: int) -> None:
    """The moment at which a model is asked, with its weights if it waits outside of the device's memory until then."""
    there = not p.offloads or (model is p.auditor and "auditor" in stage.memory)  # one in training is there all the time
    moment(stage, name, needed + (0 if there else p.weights(model)))


def moment(stage: Stage, name: str, needed: int) -> None:
    stage.moments[name] = max(stage.moments.get(name, 0), needed)


def generate(stage: Stage, p: Panel, model: Model, count: int, text: int, new: int, batch: int) -> None:
    """A model writes `count` texts of `new` tokens. A new token of a batch reads all weights, and the cache of each text."""
    if not count or not _known(stage, model):
        return
    shape, length, batches = model.shape, model.shape.image_tokens + text + new, math.ceil(count / batch)
    operations = count * (sizes.forward_flops(shape, text, 1) + new * sizes.token_flops(shape, length))
    cache = 2 * p.size(model) * shape.layers * shape.keys * length
    stage.add(operations, batches * new * p.weights(model) + count * new * cache,
              batches * ((1 + new) * shape.layers + shape.v_layers))


def fit(stage: Stage, p: Panel, model: Model, steps: float, batch: int, text: int, rank: int, name: str, parts: int,
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
    moment(stage, f"a step of {name}", needed["peak"] + beside)
    return needed


def _side(p: Panel, pipeline: Model) -> int:
    return p.values["drawing_size"] or pipeline.drawing.get("size") or 1024


def draw(stage: Stage, p: Panel, counts: dict[str, float]) -> None:
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
        moment(stage, f"drawing by the {role}", comes + batch * size * max(14 * wide * tokens, 4 * pixels))
        held = max(held, needed - comes) if p.device.number is None else held + needed  # one at a time on a GPU
    if held:
        stage.memory["pipelines"] = held
