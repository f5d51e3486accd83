"""Counterfactual pictures, generated from an auditor's captions and edit commands by the drawer that a parameter names.

All generated pictures come from `draw`; `protocols.Drawer` defines the interface of a drawer.
"""

from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.protocols import supplier

UNDRAWN = "not drawn"  # invalid_reason of a probe whose caption or edit command gave no new picture


def check_kinds(drawer: str, source: str, shares: dict[str, float]) -> None:
    """Raise ValueError if a kind of probe has a negative share, or if the drawer cannot work on pictures from `source`.

    `source` is a picture source as in `load_pictures`. The drawer is checked only if some probes need generated pictures.
    """
    if min(shares.values()) < -1e-9:
        raise ValueError("regeneration_share and edit_share add up to more than 1; lower one of them.")
    if shares["regeneration"] + shares["edit"] > 0 and not supplier("drawer", drawer).can_draw(source):
        raise ValueError(f"The drawer {drawer!r} cannot redraw or edit the pictures {source!r}: set regeneration_share and "
                         "edit_share to 0.")


def draw(drawer: str, pictures: Pictures, kinds: list[str], texts: list[str | None]) -> tuple[Pictures, list[str | None]]:
    """Picture i redrawn from the caption `texts[i]` (kind `regeneration`) or edited by the command `texts[i]` (kind `edit`).

    Where `texts[i]` is None or gave no new picture, the original is returned. The second value is, for each picture, UNDRAWN
    if its text could not be followed or describes what the picture already shows, else None.
    """
    if all(text is None for text in texts):
        return pictures, [None] * len(texts)
    new, truth, undrawn = supplier("drawer", drawer).draw(pictures.truth, pictures.images, kinds, texts)
    images = [image or original for image, original in zip(new, pictures.images, strict=True)]
    return Pictures(list(pictures.names), images, truth), [UNDRAWN if u else None for u in undrawn]
