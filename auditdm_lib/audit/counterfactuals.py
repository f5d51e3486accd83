"""Counterfactual pictures: what an auditor's captions and edit commands say, drawn.

`draw` is the one place where pictures are made. The testbed's pictures are drawn exactly, by the renderer that drew the
originals; of other pictures there is no drawer yet.
"""

from auditdm_lib.audit.pictures import Pictures

UNDRAWN = "not drawn"  # why a probe is invalid whose caption or command made no new picture
NO_DRAWER = "Only the testbed's pictures can be drawn anew; set regeneration_share and edit_share to 0."


def check_kinds(source: str, shares: dict[str, float]) -> None:
    """Raise ValueError where the shares of the kinds of probes are no shares, or ask for pictures that nothing can draw.

    `source` is where the pictures come from, as in `load_pictures`.
    """
    if min(shares.values()) < -1e-9:
        raise ValueError("regeneration_share and edit_share are more than 1 together; make one of them smaller.")
    if source != "testbed" and shares["regeneration"] + shares["edit"] > 0:
        raise ValueError(NO_DRAWER)


def draw(pictures: Pictures, kinds: list[str], texts: list[str | None]) -> tuple[Pictures, list[str | None]]:
    """Picture i as `texts[i]` says: a caption (kind `regeneration`) or a command to edit it (`edit`); else the original.

    Returns the pictures and, for each, why there is no new one (`UNDRAWN`, or None): the text could not be followed, or
    says what is there already. A text None asks for nothing.
    """
    if all(text is None for text in texts):
        return pictures, [None] * len(texts)
    if not pictures.world:
        raise ValueError(NO_DRAWER)
    world, images, undrawn = pictures.world.redrawn(kinds, texts)
    images = [new or old for new, old in zip(images, pictures.images, strict=True)]
    return Pictures(list(pictures.names), images, world), [UNDRAWN if u else None for u in undrawn]
