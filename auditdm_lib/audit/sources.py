"""Where a user's pictures lie: a folder of files, or a data set. Each gives names and bytes, and says what it leaves out."""

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk
from datasets import Image as ImageFeature

from auditdm_lib import paths
from auditdm_lib.audit.known import one_answer
from auditdm_lib.replies import clean
from auditdm_lib.run.params import IMAGES

PREFIX = "datasets:"
SYNTAX = "write datasets:NAME, datasets:NAME:CONFIGURATION, datasets:NAME:CONFIGURATION:SPLIT, " \
         "datasets:NAME:CONFIGURATION:SPLIT:COLUMN or datasets:NAME:CONFIGURATION:SPLIT:COLUMN:streaming (a part may be empty)"
STREAMED = 2000  # rows of a data set that is not downloaded as a whole
QUESTIONS, ANSWERS = ("question", "query"), ("answer", "answers", "multiple_choice_answer", "label")  # columns, in this order


@dataclass(frozen=True)
class Source:
    """The pictures at one place: their names, a function that gives the i-th file or its bytes, and what is left out."""

    label: str
    names: list[str]
    get: Callable[[int], Path | bytes | None]
    left_out: list[tuple[str, str]] = field(default_factory=list)  # why, and what
    asked: Callable[[int], list[tuple[str, str]]] | None = None  # questions and answers about the i-th, where the source has some


def source_of(text: str) -> Source:
    """The source that a value of the parameter `pictures` names; paths are relative to the repository.

    Raises FileNotFoundError or ValueError with the remedy.
    """
    return data_set(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else folder(text)


# A folder

def folder(text: str) -> Source:
    """The picture files below a folder, in the order of their names. Hidden files and linked folders are left out."""
    top = paths.ROOT / Path(text).expanduser()
    if not top.is_dir():
        raise FileNotFoundError(f"No folder of pictures at {top}; set `pictures` to one, or to 'testbed'.")
    files, left_out = [], []
    for file, why in sorted(_found(top)):
        if why:
            left_out.append((why, shown(file.relative_to(top))))
        else:
            files.append(file)
    return Source(str(text), [shown(file.relative_to(top)) for file in files], files.__getitem__, left_out)


def _found(top: Path) -> Iterator[tuple[Path, str]]:
    """Every file below a folder and every subfolder that is not entered, with the reason not to read it or ""."""
    unread = []
    for place, folders, files in os.walk(top, onerror=lambda error: unread.append(Path(error.filename))):
        for name in list(folders):
            path = Path(place, name)
            why = "hidden" if name.startswith(".") else "a linked folder" if path.is_symlink() else ""
            if why:
                folders.remove(name)
                yield path, why
            elif path.suffix.lower() in IMAGES:
                yield path, "a folder that is named like a picture"
        for name in files:
            yield Path(place, name), _why_not(Path(place, name))
    for path in unread:
        yield path, "a folder that cannot be read"


def _why_not(file: Path) -> str:
    if file.name.startswith("."):
        return "hidden"
    if file.suffix.lower() not in IMAGES:
        return "of another kind"
    try:
        about = file.stat()
    except OSError:
        return "a broken link" if file.is_symlink() else "not there"
    if not stat.S_ISREG(about.st_mode):
        return "not a regular file"
    return "" if about.st_size else "empty"


def shown(path: Path) -> str:
    r"""A path as text that any encoding can hold: a byte that is not UTF-8 becomes \xNN."""
    text = path.as_posix().replace("\\", "\\\\")
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# A data set

def data_set(text: str) -> Source:
    """The pictures of a data set, by the text after "datasets:" (SYNTAX): each row's, or each of a row's list of pictures."""
    name, configuration, split, column, mode = _parts(text)
    if mode not in ("", "streaming"):
        raise ValueError(f"The data set {text!r} ends in {mode!r}, not in streaming: {SYNTAX}.")
    data = _loaded(name, configuration, split, bool(mode))
    pictures = {c: f for c, f in data.features.items() if isinstance(getattr(f, "feature", f), ImageFeature)}
    if column and column not in pictures:
        raise ValueError(f"Data set {name} has no image column {column!r}; it has {', '.join(pictures) or 'none'}.")
    if not pictures:
        raise ValueError(f"Data set {name} has no image column (it has {', '.join(data.features)}); choose another.")
    column = column or next(iter(pictures))
    return _rows(name, data, column, pictures[column])


def _parts(text: str) -> tuple[str, str, str, str, str]:
    """Name or folder, configuration, split, column and mode, each "" if it is not given. A split may be train[:100]."""
    if (paths.ROOT / Path(text).expanduser()).is_dir():
        return text, "", "", "", ""
    parts = re.split(r":(?![^\[]*\])", text)
    if len(parts) > 5 or not parts[0]:
        raise ValueError(f"The data set {text!r} has too many parts or no name: {SYNTAX}.")
    return tuple(parts + [""] * (5 - len(parts)))


def _loaded(name: str, configuration: str, split: str, streaming: bool) -> Dataset:
    folder = paths.ROOT / Path(name).expanduser()
    saved = [(folder / file).is_file() for file in ("dataset_dict.json", "state.json")]  # by save_to_disk
    try:
        if any(saved):
            data = load_from_disk(str(folder))
            data = data[split] if split and isinstance(data, DatasetDict) and split in data else data
        else:
            data = load_dataset(str(folder) if folder.is_dir() else name, configuration or None, split=split or None,
                                streaming=streaming)
            data = {key: _first_rows(part) for key, part in data.items()} if isinstance(data, dict) and streaming else data
            data = DatasetDict(data) if isinstance(data, dict) else data if isinstance(data, Dataset) else _first_rows(data)
    except Exception as error:  # a loader raises what it likes
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The data set {name} cannot be loaded ({type(error).__name__}: {reason}): {SYNTAX}.") from error
    if not isinstance(data, DatasetDict):
        return data
    if not split and ("train" in data or len(data) == 1):
        return data["train" if "train" in data else next(iter(data))]
    raise ValueError(f"The data set {name} has the splits {', '.join(data)}: name one of them ({SYNTAX}).")


def _first_rows(data: IterableDataset) -> Dataset:
    """The first STREAMED rows of a data set that is read as it comes, its pictures undecoded."""
    for column, feature in (data.features or {}).items():
        if isinstance(feature, ImageFeature):
            data = data.cast_column(column, ImageFeature(decode=False))
    return Dataset.from_list(list(data.take(STREAMED)), features=data.features)


def _asked(data: Dataset) -> Callable[[int], list[tuple[str, str]]] | None:
    """The question and answer of each row, where the data set has columns with such names; None where it has not."""
    question, answer = (next((c for c in names if c in data.features), None) for names in (QUESTIONS, ANSWERS))
    kind = getattr(data.features.get(question), "dtype", None)
    if question is None or answer is None or kind not in ("string", "large_string"):
        return None
    texts = data.select_columns([question, answer])

    def pairs(i: int) -> list[tuple[str, str]]:
        row = texts[i]
        known = one_answer(row[answer])
        return [(clean(row[question]), clean(known))] if row[question] and known else []
    return pairs


def _rows(name: str, data: Dataset, column: str, feature) -> Source:
    """Undecoded, so that the files of a data set are read by the same road as those of a folder."""
    plain = ImageFeature(decode=False)
    lists, asked = not isinstance(feature, ImageFeature), _asked(data)
    data = data.select_columns([column]).cast_column(column, type(feature)(plain) if lists else plain)
    if not lists:
        return Source(name, [f"{name}-{i}" for i in range(len(data))], lambda i: _entry(data[i][column]), asked=asked)
    places = [(i, k) for i, row in enumerate(data) for k in range(len(row[column] or []))]
    return Source(name, [f"{name}-{i}.{k}" for i, k in places], lambda i: _entry(data[places[i][0]][column][places[i][1]]))


def _entry(cell: dict | None) -> Path | bytes | None:
    if cell is None or cell["bytes"] is None and not cell["path"]:
        return None
    return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"])
