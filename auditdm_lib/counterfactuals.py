"""Counterfactual pictures: what an auditor's captions and edit commands say, drawn.

`draw` is the one place where pictures are made. The testbed's pictures are drawn exactly, by the renderer that drew the
originals; of other pictures there is no drawer yet.
"""

from auditdm_lib.pictures import Pictures

UNDRAWN = "not drawn"  # why a probe is invalid whose caption or command made no new picture


def check_kinds(pictures: Pictures, shares: dict[str, float]) -> None:
    """Raise ValueError where the shares of the kinds of probes are no shares, or ask for pictures that nothing can draw."""
    if min(shares.values()) < -1e-9:
        raise ValueError("regeneration_share and edit_share are more than 1 together; make one of them smaller.")
    if not pictures.world and shares["regeneration"] + shares["edit"] > 0:
        raise ValueError("Only the testbed's pictures can be drawn anew; set regeneration_share and edit_share to 0.")


def draw(pictures: Pictures, kinds: list[str], texts: list[str | None]) -> tuple[Pictures, list[str | None]]:
    """Picture i as `texts[i]` says: a caption (kind `regeneration`) or a command to edit it (`edit`); else the original.

    Returns the pictures and, for each, why there is no new one (`UNDRAWN`, or None): the text could not be followed, or
    says what is there already. A text None asks for nothing.
    """
    if all(text is None for text in texts):
        return pictures, [None] * len(texts)
    check_kinds(pictures, {"question": 0, "regeneration": 0, "edit": 1})
    world, images, undrawn = pictures.world.redrawn(kinds, texts)
    images = [new or old for new, old in zip(images, pictures.images, strict=True)]
    return Pictures(list(pictures.names), images, world), [UNDRAWN if u else None for u in undrawn]
