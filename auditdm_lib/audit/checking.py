"""Is it the model or the picture? Whether a picture that a pipeline drew became what its text says.

Only what is said about an auditor asks this (stage 02), never its training: there any picture counts that the drawer gives.
"""

from dataclasses import dataclass, replace

from PIL import Image

from auditdm_lib.answers import normalise
from auditdm_lib.audit.diffusion import Drawing
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.audit.probes import NOT_ASKED, UNVERIFIED
from auditdm_lib.models.endpoint import LIMIT, Endpoint
from auditdm_lib.models.vlm import VLM, replies
from auditdm_lib.replies import short_answer

NOT_FOLLOWED = "text cannot be followed or changes nothing"  # a reason where the truth knows the language of the texts
REFUSED = "the verifier says no"
SAID = ("yes", "no", "unsure")
VERIFY_PROMPTS = {  # what a verifier is asked, by kind of probe (our choice)
    "regeneration": "Does this picture show the following? {text} Answer yes or no.",
    "edit": "This picture was changed by the command: {text} Does it show the result? Answer yes or no."}


def told(pictures: Pictures, drawn: Pictures, kinds: list[str], texts: list[str | None]) -> tuple[Pictures, list[bool]]:
    """`drawn` with the truth about what the texts of its new pictures say, and whether text i of a new picture is one that
    cannot be followed or changes nothing.

    `pictures` are the originals. Of a picture whose text cannot be followed nothing is known.
    """
    texts = [text if new is not old else None for text, new, old in zip(texts, drawn.images, pictures.images, strict=True)]
    if pictures.truth is None:
        return drawn, [False] * len(texts)
    truth, refused = pictures.truth.told(kinds, texts)
    return replace(drawn, truth=truth), refused


@dataclass(frozen=True)
class Checked:
    """Drawn pictures after the check: with the truth about what they should show; for each, why it does not show that
    (`reasons`, None where it does or nobody can tell), and what the verifier said (`verdicts`: "yes", "no", "unsure", or None
    where it was not asked or its server gave no answer). UNVERIFIED and NOT_ASKED are reasons where a server's error or a limit
    left it open."""

    pictures: Pictures
    reasons: list[str | None]
    verdicts: list[str | None]


def checked(drawing: Drawing, pictures: Pictures, drawn: Pictures, kinds: list[str], texts: list[str | None],
            verifier: VLM | None = None, desc: str | None = None) -> Checked:
    """Whether each new picture of `drawn` became what its text says: by the truth of `pictures`, where it can tell, and by the
    `verifier`, if there is one. An exact drawer's pictures are what they should be."""
    n = len(drawn)
    if drawing.drawer != "diffusion" or drawn is pictures:
        return Checked(drawn, [None] * n, [None] * n)
    drawn, refused = told(pictures, drawn, kinds, texts)
    new = [i for i in range(n) if drawn.images[i] is not pictures.images[i]]
    reasons, verdicts = [NOT_FOLLOWED if r else None for r in refused], [None] * n
    if drawn.truth and new:
        for i, reason in zip(new, drawn.truth.take(new).unlike([drawn.images[i] for i in new]), strict=True):
            reasons[i] = reasons[i] or reason
    if verifier and new:
        said = verified(verifier, [drawn.images[i] for i in new], [kinds[i] for i in new], [texts[i] for i in new], desc)
        for i, verdict in zip(new, said, strict=True):
            verdicts[i] = verdict if verdict in SAID else None
            reasons[i] = reasons[i] or (None if verdict in ("yes", "unsure") else REFUSED if verdict == "no" else verdict)
    return Checked(drawn, reasons, verdicts)


def verified(verifier: VLM, images: list[Image.Image], kinds: list[str], texts: list[str], desc: str | None = None) -> list[str]:
    """What a vision-language model says to whether picture i shows what text i says: "yes", "no", or "unsure" for any other
    answer and for a reply that does not end. UNVERIFIED where a server gives no answer, NOT_ASKED beyond a limit."""
    asked = [VERIFY_PROMPTS[kind].replace("{text}", text) for kind, text in zip(kinds, texts, strict=True)]
    given = replies(verifier, images, asked, desc=desc and f"{desc}: verifier", partly=True)
    errors = given["error"] if isinstance(verifier, Endpoint) else [None] * len(given)
    said = [normalise(short_answer(reply, question)) if ended else ""
            for reply, ended, question in zip(given["reply"], given["ended"], asked, strict=True)]
    return [(NOT_ASKED if error == LIMIT else UNVERIFIED) if error else word if word in ("yes", "no") else "unsure"
            for word, error in zip(said, errors, strict=True)]
