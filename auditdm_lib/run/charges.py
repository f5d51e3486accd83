"""What a profile asks of models behind servers and what that costs, stage by stage, by its parameters alone; no server is asked.

Requests are counted as all calls are (`demand`), as if no answer were kept from before. Tokens are estimates: texts by their
letters or, where the auditor writes them, by a share of its limit (`work`); a picture by the configuration of a model that is
known here under the name that its server gives it. Of any other model a picture is a token for each square of SQUARE pixels, as
of Qwen2.5-VL: 391 for a photograph, for which Gemma3 takes 256 and OpenAI's GPT-4o 425.
"""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from auditdm_lib import paths
from auditdm_lib.run import endpoints, params, sizes
from auditdm_lib.run.inventory import Model

SQUARE = 28  # pixels: 14 of a patch, two by two (Qwen2.5-VL, arXiv 2502.13923, section 2.1)
TRAINS = {"01": "the training stops there, and goes on when it is raised and the command repeated",
          "04": "the stage stops there, and goes on when it is raised and the command repeated"}


@dataclass(frozen=True)
class Requests:
    """So many questions to a model behind a server, each of so many tokens, its picture's among them, and their answers'."""

    model: Model
    count: int
    sent: float
    written: float


def picture_tokens(model: Model, source: str, members: list[Model]) -> int:
    """Tokens of a picture that a model behind a server is asked about.

    The picture's size is that of the first file of a folder; else what a member here sees, or PHOTOGRAPH.
    """
    if model.shape:
        return model.shape.image_tokens
    seen = [member.shape.image_size for member in members if member.shape]
    width, height = _first(source) or ((max(seen),) * 2 if seen else sizes.PHOTOGRAPH)
    smaller = min(1.0, endpoints.LONGEST_SIDE / max(width, height))
    return max(1, round(width * smaller / SQUARE) * round(height * smaller / SQUARE))


def _first(source: str) -> tuple[int, int] | None:
    """Width and height of a picture of the folder `source`, by its file's head; None for another source or one not readable."""
    folder = paths.place(source)
    for file in sorted(folder.rglob("*"))[:100] if folder.is_dir() else ():
        if file.suffix.lower() in params.IMAGES:
            try:
                with Image.open(file) as picture:
                    return picture.size
            except (OSError, Image.DecompressionBombError):  # the run itself names what it cannot read
                continue
    return None


def by_stage(requests: list[Requests], prices: list[float]) -> dict[str, Any]:
    """What a stage asks of servers: requests, questions to a target among them, tokens, and the cost (None without prices)."""
    sent, written = (sum(r.count * getattr(r, name) for r in requests) for name in ("sent", "written"))
    return {"requests": sum(r.count for r in requests),
            "target_requests": sum(r.count for r in requests if r.model.role == "target"),
            "tokens_sent": round(sent), "tokens_written": round(written),
            "cost": (sent * prices[0] + written * prices[1]) / 1e6 if prices else None}


def by_server(requests: list[Requests], prices: list[float]) -> list[dict[str, Any]]:
    """The same of all stages for each model behind a server, with its roles."""
    rows = []
    for name in dict.fromkeys(r.model.name for r in requests):
        asked = [r for r in requests if r.model.name == name]
        roles = ", ".join(dict.fromkeys(r.model.role for r in asked))
        rows.append({"model": name, "role": roles, **by_stage(asked, prices)})
    return rows


def limits(stages: dict[str, dict[str, Any]], values: dict[str, Any]) -> list[str]:
    """Whether each stage (its name, and its row of `by_stage`) stays within max_target_calls and max_cost, in sentences.

    Both hold for a stage. Empty where no model behind a server is asked.
    """
    if not any(row["requests"] for row in stages.values()):
        return []
    found = []
    for name, limit, what in (("max_target_calls", "target_requests", "questions to the target"), ("max_cost", "cost", "")):
        over = [(stage, row[limit]) for stage, row in stages.items() if values[name] and (row[limit] or 0) > values[name]]
        for stage, needed in over:
            most = f"{needed:,} {what}" if what else money(needed)
            rest = TRAINS.get(stage[:2], "what comes after it is not asked and does not count as an attempt")
            found.append(f"{stage} may reach {name}: it takes about {most}, and {values[name]:,} is the limit: {rest}.")
        if values[name] and not over:
            found.append(f"No stage reaches {name}, which is {values[name]:,}.")
    if not (values["max_target_calls"] or values["max_cost"]):
        found.append("Nothing limits what servers are asked: set max_target_calls, or price_per_million and max_cost.")
    return found


def money(cost: float | None) -> str:
    """A cost in the currency of price_per_million."""
    return "without price_per_million" if cost is None else f"{cost:,.2f}"


def unfit(values: dict[str, Any]) -> list[str]:
    """What stages cannot do with models that are behind servers."""
    checks = (params.training_fault, endpoints.launch_fault)
    found = (check(step.notebook, values) for step in paths.CHAIN for check in checks)
    return list(dict.fromkeys(fault for fault in found if fault))  # one sentence may hold for several stages
