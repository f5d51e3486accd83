"""Pictures as people are shown them: one that its source can draw anew is drawn large from the same scene, any other is shown as
it is.

What the models saw is the file in 02_probes. A large drawing stands for it only where the source, asked again, gives the file's
very pixels, so a picture drawn by a diffusion pipeline is always the file itself.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from auditdm_lib.audit.pairs import EXACT
from auditdm_lib.protocols import SUPPLIERS, supplier

LARGE = 480  # pixels of a side
SPLIT = "probe"  # of the pictures of 02_probes


@dataclass(frozen=True)
class Shown:
    """The pictures of a run's 02_probes: `folder`, the parameters `pictures` (source) and `seed`, probes.parquet and, where
    pictures were drawn, versions.parquet."""

    folder: Path
    source: str
    seed: int
    probes: pd.DataFrame
    versions: pd.DataFrame | None = None

    @cached_property
    def _supplier(self) -> Any:
        """The module that supplies the pictures, if it can draw a scene in any size by `render(scene, size)`."""
        return _who_draws(self.source)

    @cached_property
    def _originals(self) -> dict[str, int]:
        """The place of each original picture in the source, by file."""
        names = pd.unique(self.probes["source_image"])
        return {name: int(Path(name).stem) for name in names if Path(name).stem.isdecimal()}

    @cached_property
    def _truth(self) -> Any:
        return self._supplier.supply_pictures(1 + max(self._originals.values(), default=0), SPLIT, self.seed)[2]

    @cached_property
    def _drawn(self) -> pd.DataFrame:
        """The first probe of each drawn picture, by file; a picture drawn exactly from a probe's text counts as drawn, too."""
        rows = self.probes[self.probes["image"] != self.probes["source_image"]]
        if self.versions is not None:
            exact = self.versions.loc[self.versions["version"] == EXACT, ["probe_id", "image"]].dropna()
            rows = pd.concat([rows, exact.merge(self.probes.drop(columns="image"), on="probe_id")])
        return rows.drop_duplicates("image").set_index("image")

    @cached_property
    def _opened(self) -> dict[str, Image.Image]:
        return {}

    def open(self, name: str) -> Image.Image:
        """The picture of a file (a path within `folder`): large where its source can draw it, else as the models saw it."""
        if name not in self._opened:
            self._opened[name] = self._larger(name) or seen(self.folder / name)
        return self._opened[name]

    def is_large(self, name: str) -> bool:
        """Whether `open` gives another drawing than what the models saw."""
        return self.open(name).size != seen(self.folder / name).size

    def _larger(self, name: str) -> Image.Image | None:
        scene = self._scene(name) if self._supplier else None
        return None if scene is None else _large(self._supplier, scene, seen(self.folder / name))

    def _scene(self, name: str) -> Any:
        """What the source knows of a picture, None where it knows nothing."""
        if name in self._originals:
            return self._truth.scenes[self._originals[name]]
        if name not in self._drawn.index or self._drawn.loc[name, "source_image"] not in self._originals:
            return None
        row = self._drawn.loc[name]
        before = self._truth.take([self._originals[row["source_image"]]])
        after, _ = before.told([row["kind"]], [row["edit"] if row["kind"] == "edit" else row["caption"]])
        return after.scenes[0]


def enlarged(source: str, image: Image.Image, truth: Any, i: int) -> Image.Image:
    """Picture i of `source`, whose truth is `truth` (None where nothing is known): large if it can be drawn so, else `image`."""
    module = _who_draws(source)
    return (_large(module, truth.scenes[i], image) if module and truth is not None else None) or image


def _who_draws(source: str) -> Any:
    module = supplier("pictures", source) if source in SUPPLIERS["pictures"] else None
    return module if hasattr(module, "render") else None


def _large(module: Any, scene: Any, image: Image.Image) -> Image.Image | None:
    """A scene drawn large, if drawn small it is `image`; else None."""
    return module.render(scene, LARGE) if np.array_equal(module.render(scene), image) else None


def seen(file: Path) -> Image.Image:
    """A picture file as the models saw it, RGB."""
    with Image.open(file) as picture:
        return picture.convert("RGB")


def opened(pictures: "Path | Shown", name: str) -> Image.Image:
    """The picture `name` of a folder, or of `Shown`, RGB."""
    return pictures.open(name) if isinstance(pictures, Shown) else seen(pictures / name)
