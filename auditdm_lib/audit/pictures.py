"""Loading and saving pictures. A source is a supplier that knows the truth, a folder of image files, or a data set."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Image as ImageFeature
from datasets import load_dataset
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.protocols import SUPPLIERS, Truth, supplier

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
MAX_PIXELS = 50_000_000  # larger files are refused before they are decoded
GENERIC_QUESTIONS = (  # asked by the random arm where the truth of the pictures is unknown
    "what is in the picture?", "what colour is the largest object?", "how many objects are there?", "is there a person?",
    "is there any text?", "what is in the background?", "where is the main object?", "is it day or night?",
    "what is the main object made of?", "is there an animal?", "what is on the left?", "what is on the right?")


@dataclass(frozen=True)
class Pictures:
    """A list of RGB pictures with names, and an object that knows the truth about them (None if it is unknown)."""

    names: list[str]
    images: list[Image.Image]
    truth: Truth | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int]) -> "Pictures":
        """Some of the pictures, in the order of `rows`."""
        truth = self.truth.take(rows) if self.truth else None
        return Pictures([self.names[i] for i in rows], [self.images[i] for i in rows], truth)

    def random_question(self, i: int, rng: random.Random) -> str:
        """A random question about picture i: an answerable one where the truth is known, else a generic one."""
        return self.truth.random_question(i, rng) if self.truth else rng.choice(GENERIC_QUESTIONS)


def load_pictures(source: str, n: int, seed: int, split: str = "audit") -> Pictures:
    """`n` pictures from a supplier ("testbed"), a folder, or "datasets:NAME" (a hub id or folder that `datasets` loads).

    Folders and data sets are shuffled by `seed`. If they hold fewer than `n` pictures, pictures are repeated, so that there
    are still `n` probes. Different splits of a folder share its files.
    Raises FileNotFoundError or ValueError with the remedy.
    """
    if source in SUPPLIERS["pictures"]:
        return Pictures(*supplier("pictures", source).supply_pictures(n, split, seed))
    if source.startswith("datasets:"):
        names, images = _from_dataset(source.removeprefix("datasets:"), n, seed)
    else:
        names, images = _from_folder(paths.ROOT / Path(source).expanduser(), n, seed)
    times = [i // len(names) for i in range(n)]
    return Pictures([f"{names[i % len(names)]}#{t}" if t else names[i] for i, t in enumerate(times)],
                    [images[i % len(names)] for i in range(n)])


def _from_folder(folder: Path, n: int, seed: int) -> tuple[list[str], list[Image.Image]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"No folder of pictures at {folder}; set `pictures` to one, or to 'testbed'.")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))}); add some or set `pictures`.")
    random.Random(f"pictures/{seed}").shuffle(files)
    return [str(f.relative_to(folder)) for f in files[:n]], [_open(f) for f in files[:n]]


def _open(file: Path) -> Image.Image:
    with Image.open(file) as image:  # reads the header only
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{file} has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}; make it smaller.")
        return image.convert("RGB")


def _from_dataset(name: str, n: int, seed: int) -> tuple[list[str], list[Image.Image]]:
    data = load_dataset(name, split="train")
    column = next((c for c, feature in data.features.items() if isinstance(feature, ImageFeature)), None)
    if column is None:
        raise ValueError(f"Data set {name} has no image column (it has {', '.join(data.features)}); choose another.")
    rows = random.Random(f"pictures/{seed}").sample(range(len(data)), min(n, len(data)))
    return [f"{name}-{i}" for i in rows], [data[i][column].convert("RGB") for i in rows]


def save_pictures(pictures: Pictures, folder: Path) -> list[str]:
    """Write each picture as PNG; returns the files' paths relative to the folder's parent, in order."""
    folder.mkdir()
    files = [f"{folder.name}/{i:05d}.png" for i in range(len(pictures))]
    for file, image in zip(files, pictures.images, strict=True):
        image.save(folder.parent / file)
    return files


def save_drawn(drawn: Pictures, pictures: Pictures, names: list[str], folder: Path, auditor: str) -> list[str]:
    """Save the pictures of `drawn` that differ from their original in `pictures`, stored at `names`; the paths of all."""
    files = list(names)
    for i, (new, old) in enumerate(zip(drawn.images, pictures.images, strict=True)):
        if new is not old:
            files[i] = f"{folder.name}/{auditor}-{i:05d}.png"
            new.save(folder.parent / files[i])
    return files
