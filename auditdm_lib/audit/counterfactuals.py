"""Counterfactual pictures: what an auditor's captions and edit commands say, drawn by the drawer that a parameter names.

`draw` is the one place where pictures are made; `protocols.Drawer` says what a drawer is.
"""

from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.protocols import supplier

UNDRAWN = "not drawn"  # why a probe is invalid whose caption or command made no new picture


def check_kinds(drawer: str, source: str, shares: dict[str, float]) -> None:
    """Raise ValueError where the shares of the kinds of probe are negative, or ask for pictures that the drawer cannot draw.

    `source` is where the pictures come from, as in `load_pictures`.
    """
    if min(shares.values()) < -1e-9:
        raise ValueError("regeneration_share and edit_share are more than 1 together; make one of them smaller.")
    if shares["regeneration"] + shares["edit"] > 0 and not supplier("drawer", drawer).can_draw(source):
        raise ValueError(f"The drawer {drawer!r} cannot draw new versions of the pictures {source!r}: set regeneration_share and "
                         "edit_share to 0.")


def draw(drawer: str, pictures: Pictures, kinds: list[str], texts: list[str | None]) -> tuple[Pictures, list[str | None]]:
    """Picture i as `texts[i]` says: a caption (kind `regeneration`) or a command to edit it (`edit`); else the original.

    Returns the pictures and, for each, why there is no new one (`UNDRAWN`, or None): the text could not be followed, or
    describes what is there already. A text None asks for nothing.
    """
    if all(text is None for text in texts):
        return pictures, [None] * len(texts)
    new, truth, undrawn = supplier("drawer", drawer).draw(pictures.truth, pictures.images, kinds, texts)
    images = [image or original for image, original in zip(new, pictures.images, strict=True)]
    return Pictures(list(pictures.names), images, truth), [UNDRAWN if u else None for u in undrawn]
