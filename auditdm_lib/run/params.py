"""Parameters: declared once in each notebook's `parameters` cell, checked before anything is loaded.

A declaration is an annotated literal with a comment, e.g. `steps: int = 40  # [1, 10000] GRPO updates`.
The comment may open with a range `[lo, hi]`, choices `{a|b}`, `<model>`, `<models>`, `<pipeline>`, `<pictures>`, `<file>`,
`<function>` or `<server>`; the rest is the parameter's help text.
"""

import ast
import difflib
import io
import itertools
import json
import math
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from auditdm_lib import paths, protocols
from auditdm_lib.run import endpoints, functions, hub, model_files, pipeline_files
from auditdm_lib.run.manifest import Stop

TYPES = {"str": str, "int": int, "float": float, "bool": bool,
         "list[str]": list[str], "list[int]": list[int], "list[float]": list[float]}
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
IMAGES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
LARGEST_PROFILE = 100_000  # bytes
ASKED = {"target", "references", "auditor", "judge_model", "verifier"}  # that may be models behind servers
SHARDED = re.compile(r"--(config|use).(file|fsdp|deepspeed|megatron)")  # arguments of accelerate launch
SETUP = ("target", "references", "answer_prompts", "answer_tokens", "answer_batch", "answer_temperature", "consensus_rule",
         "judge_model", "dtype", "attention", "device_map", "quantisation", "member_offload", "requests_at_once",
         "requests_per_minute", "max_target_calls", "max_cost", "price_per_million")  # the first notebook's, for all
FROM_TRAINED = {"04", "05", "06"}  # stages that train the target or need the trained one, so that no server can be it
SPLITS = 3  # of the pictures, which share none: audit, probe, test
RESERVED = {"reference", "ablation", "paper",
            "con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
GRAMMAR = re.compile(rf"(?:\[(?P<low>{NUMBER}), *(?P<high>{NUMBER})\]|\{{(?P<choices>[^}}]+)\}}"
                     r"|<(?P<kind>models?|pipeline|pictures|file|function|server|tasks)>)? *(?P<help>.*)")


class BadParameters(Stop, ValueError):
    """All faults of a set of parameters, in one message."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of a notebook."""

    name: str
    annotation: str
    default: Any
    comment: str  # the whole comment, grammar included

    @property
    def rule(self) -> dict[str, str | None]:
        """The comment's parts: low, high, choices, kind (each None where absent) and help."""
        return GRAMMAR.fullmatch(self.comment).groupdict()


def code_cells(notebook: Path) -> list[dict]:
    """The code cells of a notebook file, each with `source` as one string and its `tags`."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [{"source": "".join(cell["source"]), "tags": cell["metadata"].get("tags", [])}
            for cell in cells if cell["cell_type"] == "code"]


def declared(notebook: Path) -> dict[str, Parameter]:
    """The parameters that a notebook takes, by name: those of its cell, and where it reads `stage.setup` also SETUP, which the
    first notebook of the chain declares. Raises ValueError where a cell breaks the grammar.

    papermill's own inspection stumbles over `#` and `=` in values and comments, so the cell is parsed here.
    """
    found, first = own(notebook), paths.NOTEBOOKS / f"{paths.CHAIN[0].notebook}.ipynb"
    if not any("stage.setup" in cell["source"] for cell in code_cells(notebook)):
        return found
    shared = own(first)
    return found | {name: shared[name] for name in SETUP}


def own(notebook: Path) -> dict[str, Parameter]:
    """The parameters that a notebook's own cell declares, by name."""
    cells = [cell["source"] for cell in code_cells(notebook) if "parameters" in cell["tags"]]
    if len(cells) != 1:
        raise ValueError(f"{notebook.name} has {len(cells)} cells tagged `parameters`; it needs exactly one.")
    tokens = tokenize.generate_tokens(io.StringIO(cells[0]).readline)
    comments = {token.start[0]: token.string.lstrip("# ").strip()
                for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for node in ast.parse(cells[0]).body:
        comment = comments.get(node.end_lineno, "")
        if not isinstance(node, ast.AnnAssign) or node.value is None or not comment:
            raise ValueError(f"{notebook.name}: write `name: type = literal  # help`, not "
                             f"`{ast.unparse(node)}`, in the parameters cell.")
        annotation = ast.unparse(node.annotation)
        if annotation not in TYPES:
            raise ValueError(f"{notebook.name}: `{annotation}` is not one of {', '.join(TYPES)}.")
        found[node.target.id] = Parameter(node.target.id, annotation, ast.literal_eval(node.value), comment)
    return found


def declared_anywhere() -> dict[str, Parameter]:
    """The parameters of all notebooks of the chain, by name (a name means the same in each)."""
    notebooks = [paths.NOTEBOOKS / f"{step.notebook}.ipynb" for step in paths.CHAIN]
    return {name: parameter for notebook in notebooks if notebook.exists()
            for name, parameter in declared(notebook).items()}


def read_profile(path: Path) -> dict[str, Any]:
    """The values of a flat YAML profile. Raises BadParameters where it is missing, broken or not flat."""
    if not path.is_file():
        near = difflib.get_close_matches(path.stem, [p.stem for p in paths.PARAMS.glob("*.yaml")], 1)
        hint = f" Did you mean params/{near[0]}.yaml?" if near else ""
        raise BadParameters(f"There is no profile {path}.{hint}")
    if path.stat().st_size > LARGEST_PROFILE:
        raise BadParameters(f"{path} is larger than {LARGEST_PROFILE:,} bytes: a profile holds one `name: value` line for each "
                            "parameter.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadParameters(f"{path} is not UTF-8 text: save it as UTF-8 (in PowerShell: Set-Content -Encoding utf8).") from None
    try:
        _check_flat(text)
        node, values = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits, no such date
        raise BadParameters(f"{path} is not a valid profile: {error}") from None
    if not isinstance(values, dict):
        raise BadParameters(f"{path} must hold `name: value` lines.")
    names = [key.value for key, _ in node.value] if node else []
    if twice := sorted({name for name in names if names.count(name) > 1}):  # YAML keeps the last, silently
        raise BadParameters(f"{path} sets {', '.join(twice)} twice.")
    return values


def _check_flat(text: str) -> None:
    """Raise ValueError for what no profile needs and a hostile one has: anchors, aliases, and deep nesting."""
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken):
            raise ValueError(f"line {token.start_mark.line + 1} has an anchor, an alias or a tag; write the value out.")
        depth += isinstance(token, yaml.BlockMappingStartToken | yaml.BlockSequenceStartToken | yaml.FlowMappingStartToken
                            | yaml.FlowSequenceStartToken)
        depth -= isinstance(token, yaml.BlockEndToken | yaml.FlowMappingEndToken | yaml.FlowSequenceEndToken)
        if depth > 2:
            raise ValueError(f"line {token.start_mark.line + 1} nests values; a value is a number, a text or a list of them.")


def from_text(text: str, known: dict[str, Parameter]) -> tuple[str, Any]:
    """`key=value` of the command line: a string stays as it is typed, anything else is read as YAML."""
    name, equals, value = text.partition("=")
    if not equals:
        raise BadParameters(f"--set {text}: write --set name=value.")
    if name in known and known[name].annotation == "str":
        return name, value
    try:
        _check_flat(value)
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:  # its own message has several lines
        reason = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise BadParameters(f"--set {name}: {value[:60]!r} is not a valid value ({reason}).") from None
    except (ValueError, RecursionError) as error:
        raise BadParameters(f"--set {name}: {error}") from None


def effective(values: dict[str, Any], known: dict[str, Parameter]) -> dict[str, Any]:
    """The declared parameters of one notebook: the given value where there is one, else the default."""
    return {name: values.get(name, parameter.default) for name, parameter in known.items()}


def check(values: dict[str, Any], known: dict[str, Parameter], source: str) -> None:
    """Raise BadParameters with every fault of `values` in one message; `source` opens the message."""
    faults = []
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, 0.0)
            faults.append(f"{name}: unknown parameter; the nearest valid name is `{near[0]}`.")
        elif fault := _fault(value, known[name]):
            faults.append(f"{name}: {fault}")
    if faults := faults or together(values, known):
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise BadParameters("\n  ".join([f"{source}: {count}, nothing was run.", *faults]))


def together(values: dict[str, Any], known: dict[str, Parameter] | None = None) -> list[str]:
    """The faults of parameters that are each right alone; of those that `values` holds. Defaults of `known` suit each other."""
    target, references = values.get("target"), values.get("references") or []
    members, faults = [*([target] if target else []), *references], []
    differ = not values.get("answer_temperature")  # those that sample their answers may have the same weights: a null audit
    for i, name in enumerate(members if differ else []):
        if twice := next((other for other in members[:i] if same_model(name, other)), None):
            role = "the target" if twice == target else f"{twice}, another reference"
            faults.append(f"references: {name} is the same model as {role}; the references have to be different models.")
    for name in ("answer_prompts", "answer_tokens"):
        if references and len(given := values.get(name) or []) not in (0, 1, len(members)):
            faults.append(f"{name}: {len(given)} values for {len(members)} models; give none, one for all, or one for each, the "
                          "target first.")
    faults += [f"answer_prompts: {prompt!r} has no {{question}} in it, which stands for the question."
               for prompt in values.get("answer_prompts") or [] if "{question}" not in prompt]
    if values.get("best_of_n", 0) > values.get("probes_per_auditor", math.inf):
        faults.append(f"probes_per_auditor: {values['probes_per_auditor']} is less than best_of_n = {values['best_of_n']}, the "
                      "questions about one picture: raise it, or lower best_of_n (0 skips this arm).")
    if values.get("imitation_rounds", 0) > values.get("imitation_pictures", math.inf):
        faults.append(f"imitation_pictures: {values['imitation_pictures']} is less than imitation_rounds = "
                      f"{values['imitation_rounds']}, which need a picture each: raise it, or lower imitation_rounds.")
    if len(values.get("price_per_million") or []) not in (0, 2):
        faults.append("price_per_million: give two prices, of a million tokens sent to servers and of a million written by them.")
    elif values.get("max_cost") and not values.get("price_per_million"):
        faults.append("max_cost: without price_per_million nothing has a price: give both, or set max_cost to 0.")
    if SHARDED.search(values.get("launch") or ""):
        faults.append("launch: FSDP, DeepSpeed and Megatron leave no model that the kit could save, and a configuration file is "
                      "no part of what a result depends on: give arguments such as \"--multi_gpu --num_processes 8\".")
    if values.get("launch") and values.get("vllm_server"):
        faults.append("launch: a vllm_server writes the texts of a training in one process only: set one of the two to \"\".")
    return [*faults, *_parts(values), *_about_pictures(values, known or {})]


def _parts(values: dict[str, Any]) -> list[str]:
    """The batches that the parameters say to take in parts, and that do not divide into these."""
    batches = {"auditor_accumulation": {name: values.get(name) for name in ("imitation_batch",)} | {
        "group_size * groups_per_step": values.get("group_size", 0) * values.get("groups_per_step", 0)},
        "rectify_accumulation": {"rectify_batch": values.get("rectify_batch")}}
    return [f"{name}: {batch} = {size} does not divide into {values[name]} equal parts; give a divisor of it."
            for name, found in batches.items() for batch, size in found.items()
            if size and values.get(name) and size % values[name]]


def check_servers(values: dict[str, Any], known: dict[str, Parameter], notebook: str) -> None:
    """Raise BadParameters if a stage trains a model behind a server, or if a server that it asks is not there."""
    faults = [training_fault(notebook, values), endpoints.launch_fault(notebook, values)]
    for name in sorted(ASKED & values.keys() & known.keys()):
        items = values[name] if isinstance(values[name], list) else [values[name]]
        faults += [f"{name}: {found}" for item in items if endpoints.is_endpoint(item) and (found := endpoints.unavailable(item))]
    if faults := [fault for fault in faults if fault]:
        raise BadParameters("\n  ".join([f"{notebook}: nothing was run.", *faults]))


def training_fault(notebook: str, values: dict[str, Any]) -> str | None:
    """Why a stage cannot train a model that these values name, or use what another trains of it; None if it can."""
    role = "auditor" if notebook[:2] == "01" else "target" if notebook[:2] in FROM_TRAINED else ""
    if not endpoints.is_endpoint(name := values.get(role, "")):
        return None
    if role == "auditor":
        return (f"auditor: stage 01 trains it, which {name} behind a server does not allow: give a model's folder or a hub id "
                "(--only 02 asks an untrained one behind a server).")
    return (f"target: stage 04 trains it, which {name} behind a server does not allow, and 05 and 06 need what it trains; "
            f"so such a run ends with 03 (--to 03): runs/{values.get('run', 'RUN')}/03_taxonomy/report.md says what was found.")


def _about_pictures(values: dict[str, Any], known: dict[str, Parameter]) -> list[str]:
    """The faults of what is asked of `pictures`: kinds of probe that nothing can draw, suites that their supplier has not, and
    claims about another supplier's suites."""
    faults, source = [], values.get("pictures")
    shares = {name: values[name] for name in ("regeneration_share", "edit_share") if values.get(name)}
    if sum(shares.values()) > 1 + 1e-9:
        faults.append(f"{' and '.join(shares)}: they add up to {sum(shares.values()):g}, more than 1; lower one of them.")
    if shares and source and "drawer" in values and not can_draw(values["drawer"], source):
        faults.append(f"{' and '.join(shares)}: the drawer {values['drawer']!r} cannot redraw or edit the pictures "
                      f"{source!r}: set drawer to diffusion, or set regeneration_share and edit_share to 0.")
    faults += [fault for name in used_pipelines(values) if (fault := _pipeline_fault(name, values, known))]
    suites, supplied = values.get("suites"), values.get("suite_source")
    chosen = any(name not in known or values.get(name) != known[name].default for name in ("suites", "suite_source"))
    if suites and chosen and supplied and supplied == source:  # of other pictures no suite is scored
        there = protocols.supplier("suite_source", supplied).suite_names()
        faults += [f"suites: {supplied} has no suite {name}; it has {', '.join(there)}." for name in suites if name not in there]
    if values.get("must_test", "none") != "none" and supplied and source and supplied != source:
        faults.append(f"must_test: the claims of {values['must_test']!r} are about the suites of {supplied}, which say nothing "
                      f"about the pictures {source!r}: set must_test to none.")
    return faults


def used_pipelines(values: dict[str, Any]) -> dict[str, str]:
    """The parameters that name a pipeline which these values use, with the share of the probes that it draws for."""
    shares = {"image_model": "regeneration_share", "edit_model": "edit_share"}
    return {name: share for name, share in shares.items() if values.get("drawer") == "diffusion" and values.get(share)
            and name in values}


def _pipeline_fault(name: str, values: dict[str, Any], known: dict[str, Parameter]) -> str | None:
    """What is wrong with a pipeline that is used, by its files alone."""
    model, share = values[name], used_pipelines(values)[name]
    if not model:
        return f"{name}: it is empty, but {share} is {values[share]:g}: name a pipeline of diffusers, or set {share} to 0."
    ours = name in known and model == known[name].default
    if ours and "pictures" in known and values.get("pictures", known["pictures"].default) != known["pictures"].default:
        return (f"{name}: {model} draws the pictures of {known['pictures'].default!r} only: name a pipeline for "
                f"{values['pictures']!r}, or set {share} to 0.")
    kind = share.removesuffix("_share")
    return (fault := pipeline_files.fault(model, kind)) and f"{name}: {fault}"


def can_draw(drawer: str, source: str) -> bool:
    """Whether a drawer can redraw and edit the pictures of a source. One that draws what it supplies is not imported for it, and
    neither is "diffusion", which can draw any."""
    if drawer == "diffusion":
        return True
    module = protocols.SUPPLIERS["drawer"][drawer]
    return protocols.SUPPLIERS["pictures"].get(source) == module or protocols.supplier("drawer", drawer).can_draw(source)


def same_model(name: str, other: str) -> bool:
    """Whether two names of models mean the same: equal, one folder, or folders with equal weights."""
    one, two = (paths.place(model) for model in (name, other))
    return name == other or (one.is_dir() and two.is_dir() and model_files.same_weights(one, two))


def _fault(value: Any, parameter: Parameter) -> str | None:
    try:
        TypeAdapter(TYPES[parameter.annotation], config=STRICT).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        bad = first["input"] if parameter.annotation.startswith("list") and first["loc"] else value
        return f"{bad!r} is not {_wanted(parameter.annotation)}; {_remedy(bad, parameter.annotation)}"
    rule, items = parameter.rule, value if isinstance(value, list) else [value]
    if rule["low"] and not all(float(rule["low"]) <= item <= float(rule["high"]) for item in items):
        return f"{value!r} is out of range [{rule['low']}, {rule['high']}]."
    if rule["choices"] and not set(items) <= set(choices := rule["choices"].split("|")):
        return f"{value!r} is not one of {', '.join(choices)}."
    if parameter.name == "run" and (fault := run_fault(value)):
        return fault
    if value in ("", []) and parameter.default and rule["kind"] != "pipeline":  # only one that is used has to be there
        return f"{value!r} is empty; leave the line out to keep the default {parameter.default!r}."
    if rule["kind"] in ("model", "models"):
        if parameter.name not in ASKED and (server := next((item for item in items if endpoints.is_endpoint(item)), None)):
            return f"{server} is behind a server, which cannot do this: give a model's folder or a hub id."
        return " ".join(fault for item in items if item and (fault := model_fault(item))) or None
    if rule["kind"] == "file" and value and not paths.place(value).is_file():
        return f"there is no file {value}{paths.looked(value)}; give another, or leave the line out."
    if rule["kind"] == "function" and value != parameter.default:
        return functions.fault(value)
    if rule["kind"] == "server" and value:
        return endpoints.address_fault(value)
    return picture_fault(value) if rule["kind"] == "pictures" and value else None


def run_fault(name: str) -> str | None:
    """What keeps a name from being a run's folder on any system, or None. Dots are kept for the stages' temporary folders."""
    if len(name.encode()) > 100:
        return f"{name[:20]!r}... is too long to name a run's folder; use at most 100 bytes."
    if not re.fullmatch(r"\w[\w-]*", name):
        return f"{name!r} cannot name a run's folder; use letters, digits, `_` and `-`."
    return f"{name!r} is a reserved name; give the run another." if name.lower() in RESERVED else None


def _wanted(annotation: str) -> str:
    names = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
    return names.get(annotation) or f"a list of {names[annotation[5:-1]].removeprefix('a ')}s"


def _remedy(value: Any, annotation: str) -> str:
    if isinstance(value, bool) and "str" in annotation:
        return f"YAML reads no/off/yes/on as {value}: put it in quotes."
    if isinstance(value, str) and "float" in annotation and re.fullmatch(NUMBER, value):  # YAML wants 1.0e-5
        mantissa, _, exponent = value.lower().partition("e")
        better = f"{float(mantissa)}" + (f"e{int(exponent):+d}" if exponent else "")
        return f"YAML reads it as a string: write {better}."
    if annotation.startswith("list") and not isinstance(value, list):
        return "write it in square brackets."
    return f"it is {type(value).__name__}, and {annotation} is declared."


def model_fault(name: str) -> str | None:
    """What is wrong with a model's name (a folder that holds a model, a hub id, or a model behind a server), or None."""
    if endpoints.is_endpoint(name):
        return endpoints.fault(name)
    path = paths.place(name)
    if path.is_dir():
        return (found := model_files.fault(path)) and f"the folder {name} {found}"
    if path.exists():
        return f"{name} is a file; give the model's folder."
    if hub.is_id(name):
        try:
            hub.revision(name)
            return None
        except LookupError as error:
            return f"there is no model {name}: no such folder{paths.looked(name)}, {error}."
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, 1)
    hint = f"; did you mean {(Path(name).parent / near[0]).as_posix()}?" if near else "."
    return f"there is no model folder {name}{paths.looked(name)}{hint}"


def picture_fault(name: str) -> str | None:
    """What is wrong with a picture source ("testbed", a folder of images, or "datasets:NAME"), or None."""
    path = paths.place(name)
    if name in protocols.SUPPLIERS["pictures"] or re.fullmatch(r"datasets:\S.*", name):
        return None
    if not path.is_dir():
        known = ", ".join(map(repr, protocols.SUPPLIERS["pictures"]))
        return f"there is no picture folder {name}{paths.looked(name)}; give {known}, a folder of images, or `datasets:NAME`."
    found = sum(1 for _ in itertools.islice((p for p in path.rglob("*") if p.suffix.lower() in IMAGES), SPLITS))
    if not found:
        return f"the folder {name} holds no image files."
    if found < SPLITS:
        return (f"the folder {name} holds {found} image file{'s' * (found > 1)}; at least {SPLITS} are needed, to train, probe "
                "and test.")
    return None
