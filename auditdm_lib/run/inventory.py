"""The models and pictures that a profile names: how large they are, under which licence, where they are, and what is missing.

Everything is found without network: in folders, in the Hugging Face cache, or in known_models.yaml.
"""

import functools
import importlib.metadata
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from auditdm_lib import paths, protocols
from auditdm_lib.run import endpoints, hub, params, pipeline_files, sizes
from auditdm_lib.run.sizes import Shape

SINGLE = ("target", "auditor", "judge_model", "verifier")  # parameters that name one model
PIPELINES = ("image_model", "edit_model")
NEEDS_TORCHVISION = {"idefics3", "smolvlm", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "qwen2_vl"}  # for their processors
PATCH = 16  # pixels that a token of FLUX stands for in each direction: the autoencoder's 8, two by two


@dataclass(frozen=True)
class Model:
    """A model or pipeline that a profile names. Sizes are None where nothing here says them."""

    role: str  # target, reference 1, auditor, image_model ...
    name: str
    where: str  # folder, cache, hub, server
    parameters: int | None
    licence: str | None
    gated: bool | None
    shape: Shape | None = None  # of a vision-language model
    parts: dict[str, int] | None = None  # parameters of a pipeline's components
    drawing: dict[str, Any] | None = None  # sizes of a pipeline's transformer, its steps and its side in pixels
    stored: int = 2  # bytes of a parameter in its files
    family: str = ""

    @property
    def download(self) -> int | None:
        """Bytes that have to be downloaded; None if unknown."""
        return 0 if self.where != "hub" else self.parameters and self.parameters * self.stored


def models(values: dict[str, Any]) -> list[Model]:
    """Every model that these parameters name and use, the target first."""
    used = params.used_pipelines(values)
    roles = [("target", values["target"]), *((f"reference {i}", name) for i, name in enumerate(values["references"], 1))]
    roles += [(name, values[name]) for name in SINGLE[1:] if values.get(name)]
    if values.get("drawer") != "diffusion":  # nothing is checked by a verifier then
        roles = [row for row in roles if row[0] != "verifier"]
    return [_vision(*row) for row in roles] + [_pipeline(name, values[name]) for name in PIPELINES if name in used]


@functools.lru_cache
def known() -> dict[str, dict]:
    """What known_models.yaml holds."""
    return yaml.safe_load((Path(__file__).parent / "known_models.yaml").read_text(encoding="utf-8"))


def cached(name: str) -> Path | None:
    """The folder of a hub model in the Hugging Face cache, if its configuration is there."""
    from huggingface_hub import try_to_load_from_cache  # a tenth of a second

    found = (try_to_load_from_cache(name, file) for file in ("config.json", "model_index.json"))
    return next((Path(path).parent for path in found if isinstance(path, str)), None)


def _place(name: str) -> tuple[str, Path | None]:
    """Where a model is, and its folder if it has one."""
    if endpoints.is_endpoint(name):
        return "server", None
    folder = paths.place(name)
    if folder.is_dir():
        return "folder", folder
    here = cached(name) if hub.is_id(name) else None
    return ("cache", here) if here and any(here.rglob("*.safetensors")) else ("hub", here)


def _json(file: Path) -> dict:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _vision(role: str, name: str) -> Model:
    where, folder = _place(name)
    row = known().get(name, {})
    config = _json(folder / "config.json") if folder else row.get("config", {})
    if where == "server":  # only what a picture becomes is of use
        return Model(role, name, where, None, None, None, _served(name))
    shape = sizes.read_shape(config, folder) if config else None
    parameters = shape.parameters if shape else None
    if parameters is None and config and folder:
        parameters = sizes.built(folder)
        shape = shape and sizes.with_parameters(shape, *parameters) if parameters else shape
        parameters = parameters and parameters[0]
    return Model(role, name, where, parameters, row.get("licence"), row.get("gated"), shape,
                 stored=shape.stored if shape else 2, family=config.get("model_type", ""))


def _served(name: str) -> Shape | None:
    """The shape of a model behind a server, where the server's name for it is known here: a folder, in the cache or by its id."""
    if not (matched := endpoints.NAME.fullmatch(name)):
        return None
    _, folder = _place(matched["model"])
    config = _json(folder / "config.json") if folder else known().get(matched["model"], {}).get("config", {})
    return sizes.read_shape(config) if config else None


def _pipeline(role: str, name: str) -> Model:
    where, folder = _place(name)
    row = known().get(name, {})
    if folder and where != "hub":
        counted = {place.name: found for place in sorted(folder.iterdir())
                   if place.is_dir() and (found := sizes.in_weights(place))}
        parts = {part: count for part, (count, *_) in counted.items()}
        stored = max((size for *_, size in counted.values()), default=2)
        drawing = _json(folder / "transformer" / "config.json") | _json(folder / "drawing.json")
        if channels := _json(folder / "vae" / "config.json").get("block_out_channels"):
            drawing["channels"] = channels[:2][-1]  # the widest at full resolution
    else:
        parts, stored, drawing = row.get("parts"), 2, row.get("transformer", {}) | row
    return Model(role, name, where, sum(parts.values()) if parts else None, row.get("licence"), row.get("gated"), parts=parts,
                 drawing=drawing, stored=stored, family="pipeline")


# What is missing

def missing(values: dict[str, Any], declared: dict[str, params.Parameter], found: list[Model]) -> list[str]:
    """What of the named models, pictures and packages is not here, each with the remedy in one sentence.

    Raises BadParameters for every other fault of the parameters.
    """
    kinds = {name: parameter.rule["kind"] for name, parameter in declared.items()}
    params.check({name: value for name, value in values.items() if not kinds.get(name)}, declared, "the profile")
    lacks = []
    for name in (name for name in values if kinds.get(name) and kinds[name] != "pipeline"):
        items = values[name] if isinstance(values[name], list) else [values[name]]
        for item in dict.fromkeys(items):
            if kinds[name] == "pictures" or not (isinstance(item, str) and hub.is_id(item)):
                lacks += _faults({name: [item] if isinstance(values[name], list) else item}, declared)
    ready = {name for name in params.used_pipelines(values) if values[name] and (
        values[name] != declared[name].default or values["pictures"] == declared["pictures"].default)}
    if wrong := params.together({name: value for name, value in values.items() if name not in ready}, declared):
        raise params.BadParameters("\n  ".join(["the profile: nothing was run.", *wrong]))
    lacks += [f"{name}: {fault}" for name in sorted(ready) if (fault := pipeline_fault(values[name]))]
    first = {model.name: model for model in reversed(found)}  # the first role of each
    lacks += [download_remedy(model) for model in found if first[model.name] is model and model.where == "hub"
              and hub.is_id(model.name)]
    return [*lacks, *_pictures(str(values["pictures"])), *packages(values, found)]


def pipeline_fault(name: str) -> str | None:
    """What is wrong with a pipeline's folder, by its files alone; whether diffusers has its classes takes seconds to ask."""
    folder = paths.place(name)
    if not folder.is_dir():
        remedy = "give a folder that save_pretrained wrote, or a hub id 'org/name'"
        return None if hub.is_id(name) else f"there is no pipeline at {name!r}{paths.looked(name)}: {remedy}."
    if not (folder / pipeline_files.INDEX).is_file():
        return f"the folder {name} {pipeline_files.folder_fault(folder)}"
    absent = [part for part, _ in pipeline_files.parts(_json(folder / pipeline_files.INDEX)) if not (folder / part).is_dir()]
    damaged = (pipeline_files.weights_fault(part.parent) for part in sorted(folder.glob("*/*.safetensors")))
    if absent:
        return f"the folder {name} lacks the component {absent[0]}, which its {pipeline_files.INDEX} names: copy it again."
    return next((f"the folder {name} {fault}" for fault in damaged if fault), None)


def _faults(values: dict[str, Any], declared: dict[str, params.Parameter]) -> list[str]:
    try:
        params.check(values, declared, "")
    except params.BadParameters as error:
        return [line.strip() for line in str(error).split("\n")[1:]]
    return []


def download_remedy(model: Model) -> str:
    """How a hub model is brought here."""
    size = f", {model.download / 1e9:.1f} GB" if model.download else ", of a size that is not known here"
    gate = (f" after accepting its licence ({model.licence}) at https://huggingface.co/{model.name} and `hf auth login`"
            if model.gated else "")
    return (f"{model.role}: {model.name} is not in the Hugging Face cache; download it with `hf download {model.name}`{gate}"
            f"{size}.")


def data_set(pictures: str) -> tuple[str, dict] | None:
    """The hub id of a data set of pictures, and what known_models.yaml says of it; None for other pictures."""
    text = pictures.removeprefix("datasets:")
    if text == pictures or paths.place(text.partition(":")[0]).exists():
        return None
    return text.partition(":")[0], next((row for name, row in known().items() if pictures.startswith(name)), {})


def _pictures(pictures: str) -> list[str]:
    data = data_set(pictures)
    if data is None or _in_cache(data[0]):
        return []
    size = f"{data[1]['gigabytes']} GB" if "gigabytes" in data[1] else "a size that is not known here"
    return [f"pictures: the data set {data[0]} is not in the cache of `datasets`; the first run downloads it ({size})."]


def _in_cache(name: str) -> bool:
    from huggingface_hub import constants

    here = [constants.HF_HUB_CACHE, str(Path(constants.HF_HOME) / "datasets")]
    return (Path(here[0]) / f"datasets--{name.replace('/', '--')}").is_dir() or (
        Path(here[1]) / name.replace("/", "___")).is_dir()


def packages(values: dict[str, Any], found: list[Model]) -> list[str]:
    """Packages that these models and pictures need and that are not installed."""
    lacks = []
    if values["pictures"] == "easy-vqa" and importlib.util.find_spec("easy_vqa") is None:
        lacks.append("pictures: the package easy-vqa is not installed; install it with `pip install -e .[easy-vqa]`.")
    need = sorted({model.role for model in found if model.family in NEEDS_TORCHVISION})
    if need and importlib.util.find_spec("torchvision") is None:
        lacks.append(f"{', '.join(need)}: the processor needs torchvision, which is not installed; `pip install torchvision`.")
    return lacks


def cpu_torch() -> bool:
    """Whether the installed torch cannot use a GPU, by its version alone."""
    return bool(re.search(r"\+cpu$", importlib.metadata.version("torch")))


def supplied(values: dict[str, Any]) -> bool:
    """Whether the pictures come from one of the kit's own suppliers, which know the truth and have suites."""
    return values["pictures"] in protocols.SUPPLIERS["pictures"]
