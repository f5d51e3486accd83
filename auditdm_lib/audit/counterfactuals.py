"""Counterfactual pictures, generated from an auditor's captions and edit commands by the drawer that a parameter names.

All generated pictures come from `draw`. The drawer "renderer" draws the testbed's pictures exactly (`protocols.Drawer`), the
drawer "diffusion" any pictures by pipelines (`diffusion.draw_pictures`). Whether a pipeline's picture became what its text says
is asked in stage 02 (`checking`), never in a training.
"""

from PIL import Image

from auditdm_lib import paths
from auditdm_lib.audit.diffusion import Drawing, draw_pictures
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.protocols import SUPPLIERS, supplier
from auditdm_lib.run.params import can_draw

UNDRAWN = "not drawn"  # invalid_reason of a probe whose caption or edit command gave no new picture


def check_kinds(drawer: str, source: str, shares: dict[str, float]) -> None:
    """Raise ValueError if a kind of probe has a negative share, or if the drawer cannot work on pictures from `source`.

    `source` is a picture source as in `load_pictures`. The drawer is checked only if some probes need generated pictures.
    """
    if min(shares.values()) < -1e-9:
        raise ValueError("regeneration_share and edit_share add up to more than 1; lower one of them.")
    if shares["regeneration"] + shares["edit"] > 0 and not can_draw(drawer, source):
        raise ValueError(f"The drawer {drawer!r} cannot redraw or edit the pictures {source!r}: set drawer to diffusion, or set "
                         "regeneration_share and edit_share to 0.")


def exact(source: str) -> Drawing | None:
    """The drawing that draws pictures of `source` exactly, or None: the renderer, for the pictures that it supplies itself."""
    return Drawing("renderer") if SUPPLIERS["pictures"].get(source) == SUPPLIERS["drawer"]["renderer"] else None


def pipelines(drawing: Drawing, shares: dict[str, float]) -> list[str]:
    """The pipelines that a search with these shares uses, as the parameters name them."""
    models = dict(regeneration=drawing.image_model, edit=drawing.edit_model)
    return [model for kind, model in models.items() if drawing.drawer == "diffusion" and shares.get(kind, 0) > 0]


def draw(drawing: Drawing, pictures: Pictures, kinds: list[str], texts: list[str | None], seed: int,
         desc: str | None = None) -> tuple[Pictures, list[str | None]]:
    """Picture i redrawn from the caption `texts[i]` (kind `regeneration`) or edited by the command `texts[i]` (kind `edit`).

    Where `texts[i]` is None or gave no new picture, the original is returned, the same object. The second value is, for each
    picture, None, or why its text gave no new one: UNDRAWN if it could not be followed or changed nothing, or what the pipeline
    says. The same text about the same picture gives the same new one for the same `seed`; the renderer needs none. The truth
    about the new pictures is the renderer's; that about a pipeline's is None (see `checking.told`).
    """
    if all(text is None for text in texts):
        return pictures, [None] * len(texts)
    if drawing.drawer == "diffusion":
        new, reasons = draw_pictures(drawing, pictures.images, pictures.names, kinds, texts, seed, paths.DRAWN, desc)
        unchanged = [image is not None and same_pixels(image, old) for image, old in zip(new, pictures.images, strict=True)]
        new, truth = [None if same else image for image, same in zip(new, unchanged, strict=True)], None
        reasons = [None if text is None or image is not None else UNDRAWN if same else reason or UNDRAWN
                   for text, image, same, reason in zip(texts, new, unchanged, reasons, strict=True)]
    else:
        new, truth, undrawn = supplier("drawer", drawing.drawer).draw(pictures.truth, pictures.images, kinds, texts)
        reasons = [UNDRAWN if u else None for u in undrawn]
    images = [image or original for image, original in zip(new, pictures.images, strict=True)]
    return Pictures(list(pictures.names), images, truth), reasons


def same_pixels(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are equal pixel for pixel."""
    return one is other or (one.size == other.size and one.tobytes() == other.tobytes())
