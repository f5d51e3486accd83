"""A pair is one unit: the same question about a picture and about what was drawn from it, and what becomes of a disagreement when
the picture is drawn in another way.

`versions` asks the panel; `flips`, `survival` and `drawer_fault` are functions of its table and of the probes alone.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from auditdm_lib.answers import same_answer
from auditdm_lib.audit.auditor import Search, drawing_texts, stream
from auditdm_lib.audit.checking import NOT_FOLLOWED, checked
from auditdm_lib.audit.counterfactuals import draw
from auditdm_lib.audit.diffusion import Drawing
from auditdm_lib.audit.panel import Panel, judge
from auditdm_lib.audit.pictures import Pictures, stored
from auditdm_lib.audit.probes import COUNTED, NOT_ASKED, UNVERIFIED
from auditdm_lib.models.vlm import VLM
from auditdm_lib.stats import clustered_proportion, mcnemar_p, tally

ORIGINAL, DRAWN, OTHER_SEED, RE_ENCODED, EXACT = VERSIONS = ("original", "drawn", "other seed", "re-encoded", "exact")
JPEG_QUALITY = 90  # of the re-encoded version (our choice)
OF_THE_PROBE = ["probe_id", "auditor", "kind", "source_image", "question"]
ANSWERS = ["target_answer", "reference_answers", "consensus", "disagrees"]
COLUMNS = [*OF_THE_PROBE, "version", "image", *ANSWERS, "truth", "picture_reason", "target_right", "references_right",
           "consensus_right"]


def versions(panel: Panel, pictures: Pictures, arms: list[tuple[Pictures, pd.DataFrame]], search: Search, exact: Drawing | None,
             folder: Path, verifier: VLM | None = None) -> pd.DataFrame:
    """The question of each probe with a drawn picture, put to the panel about other versions of this picture (COLUMNS).

    `arms` are the pictures and probes of auditors (`arms.auditor_arm`) about `pictures`. One row per probe and version:
      original    the picture that the drawn one was made from
      drawn       the probe itself
      other seed  a pipeline's picture of the same text by another seed; of disagreements whose picture passed the check
      re-encoded  the drawn picture as JPEG and back; of the same
      exact       the same text drawn by `exact` (see `counterfactuals.exact`), where a pipeline drew the probe's picture
    New pictures are stored in `folder` (`image`; null, with the reason in picture_reason, where none came). What a server's error
    or a limit kept from being checked is left out, and so is the answer to what it kept from being judged. target_right and
    references_right compare an answer with the truth or, where nothing is known about the picture, with the consensus;
    they are null where there is neither or no answer. consensus_right is null without a truth.
    """
    rows, images = [], []
    for drawn, probes in arms:
        for table, seen in _versions_of(pictures, drawn, probes.reset_index(drop=True), search, exact, folder, verifier):
            rows.append(table)
            images += seen
    if not rows or not sum(map(len, rows)):
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(rows, ignore_index=True)
    asked = np.flatnonzero((table["version"] != DRAWN) & table["image"].notna())
    judged = judge(panel, [images[i] for i in asked], table.loc[asked, "question"].tolist(), [None] * len(asked), desc="pairs")
    judged.loc[judged["target_missing"].notna(), "target_answer"] = None
    for column in ANSWERS:
        table[column] = table[column].astype(object)
        table.loc[asked, column] = pd.Series(judged[column].tolist(), index=asked, dtype=object)
    unchecked = table["picture_reason"].isin([NOT_ASKED, UNVERIFIED])
    return _compared(table[~unchecked].reset_index(drop=True))


def _versions_of(pictures: Pictures, drawn: Pictures, probes: pd.DataFrame, search: Search, exact: Drawing | None, folder: Path,
                 verifier: VLM | None) -> list[tuple[pd.DataFrame, list[Image.Image | None]]]:
    """The versions of one arm's probes, still to be judged, each with its pictures."""
    asked = (probes["image"] != probes["source_image"]) & ~probes["invalid_reason"].isin(COUNTED)
    rows = np.flatnonzero(asked)
    again = np.flatnonzero(asked & probes["disagrees"].astype(bool) & probes["valid"])  # valid: the picture passed the check
    found = [_version(probes, rows, ORIGINAL, pictures.take(rows), probes["source_image"][rows]),
             _version(probes, rows, DRAWN, drawn.take(rows), probes["image"][rows], probes["picture_reason"][rows],
                      probes.loc[rows, ANSWERS])]
    if search.drawing.drawer == "diffusion":
        seed = stream(search.drawing_seed, OTHER_SEED)
        found.append(_redrawn(probes, again, OTHER_SEED, pictures, search.drawing, seed, folder, verifier))
    copies, files = drawn.take(again), [_name(folder, probes, i, "re-encoded.jpg") for i in again]
    for image, file in zip(copies.images, files, strict=True):
        image.convert("RGB").save(folder.parent / file, quality=JPEG_QUALITY)
    copies = Pictures(copies.names, stored(folder.parent, files), copies.truth)
    found.append(_version(probes, again, RE_ENCODED, copies, files))
    if search.drawing.drawer == "diffusion" and exact:
        found.append(_redrawn(probes, rows, EXACT, pictures, exact, 0, folder, None))
    return found


def _redrawn(probes: pd.DataFrame, rows: np.ndarray, version: str, pictures: Pictures, drawing: Drawing, seed: int, folder: Path,
             verifier: VLM | None) -> tuple[pd.DataFrame, list[Image.Image | None]]:
    """A version that is drawn anew from the texts of these probes."""
    some, originals = probes.loc[rows], pictures.take(rows)
    kinds, texts = some["kind"].tolist(), drawing_texts(some, [True] * len(rows))
    drawn, undrawn = draw(drawing, originals, kinds, texts, seed, version)
    check = checked(drawing, originals, drawn, kinds, texts, verifier, version)
    rest = f"{version.replace(' ', '-')}.png"
    files = [None if u else _name(folder, probes, i, rest) for i, u in zip(rows, undrawn, strict=True)]
    for image, file in zip(drawn.images, files, strict=True):
        if file:
            image.save(folder.parent / file)
    reasons = [(NOT_FOLLOWED if version == EXACT else u) if u else r for u, r in zip(undrawn, check.reasons, strict=True)]
    return _version(probes, rows, version, check.pictures, files, reasons)


def _name(folder: Path, probes: pd.DataFrame, row: int, rest: str) -> str:
    return f"{folder.name}/{Path(probes['image'][row]).stem}-{rest}"


def _version(probes: pd.DataFrame, rows: np.ndarray, version: str, pictures: Pictures, files, reasons=None,
             answers: pd.DataFrame | None = None) -> tuple[pd.DataFrame, list[Image.Image | None]]:
    """The rows of one version: `pictures` are what the probes `rows` ask about here, stored at `files`."""
    table = probes.loc[rows, OF_THE_PROBE].reset_index(drop=True).assign(version=version)
    table["image"] = pd.Series(list(files), dtype=object)
    for column in ANSWERS:
        table[column] = pd.Series([None] * len(rows) if answers is None else answers[column].tolist(), dtype=object)
    known = pictures.truth
    table["truth"] = pd.Series([known.right_answer(i, q) if known else None for i, q in table["question"].items()], dtype=object)
    table["picture_reason"] = pd.Series([None] * len(rows) if reasons is None else list(reasons), dtype=object)
    table["by_consensus"] = [known is None or not (known.complete and known.knows(i)) for i in range(len(rows))]
    return table, [image if file else None for image, file in zip(pictures.images, table["image"], strict=True)]


def _compared(table: pd.DataFrame) -> pd.DataFrame:
    """The answers of judged versions compared with the truth, or else with the consensus."""
    right = [t if isinstance(t, str) else c if b else None for t, c, b in
             table[["truth", "consensus", "by_consensus"]].itertuples(index=False)]
    known = [isinstance(t, str) for t in table["truth"]]
    answers = [None if a is None else list(a) for a in table["reference_answers"]]
    table["disagrees"] = pd.Series([bool(d) for d in table["disagrees"]], dtype=bool)
    table["target_right"] = pd.Series([  # without a truth the panel's judge has compared it with the consensus
        _right(a, r) if k or a is None or r is None else not d for a, r, k, d in
        zip(table["target_answer"], right, known, table["disagrees"], strict=True)], dtype=object)
    table["references_right"] = pd.Series([
        None if given is None else [_right(a, r) for a in given] for given, r in zip(answers, right, strict=True)], dtype=object)
    table["consensus_right"] = pd.Series([
        _right(c, t) if k else None for c, t, k in zip(table["consensus"], table["truth"], known, strict=True)], dtype=object)
    return table[COLUMNS]


def _right(answer: str | None, right: str | None) -> bool | None:
    return None if answer is None or right is None else same_answer(answer, right)


def _kinds(table: pd.DataFrame):
    """(auditor, kind, rows) for each auditor in order, its kinds together ("all") first."""
    for auditor, rows in table.groupby("auditor", sort=False):
        yield auditor, "all", rows
        for kind, part in rows.groupby("kind"):
            yield auditor, kind, part


def _share(successes: pd.Series, clusters: pd.Series, name: str) -> dict[str, float]:
    """A share with its 95 % interval clustered by picture, as columns."""
    return dict(zip((name, "ci_low", "ci_high"), clustered_proportion(tally(successes, clusters)), strict=True))


def flips(versions: pd.DataFrame, members: list[str]) -> pd.DataFrame:
    """How often each member (`members`: the target, then the references in order) is right about the original picture and wrong
    about the drawn one, while all others are right about both.

    Pairs count where the drawn picture passed the check and the member answered both times: n_right_right, n_right_wrong (the
    flips), n_wrong_right, n_wrong_wrong. One row per auditor, kind and member: these counts, the share of flips among the pairs
    that are right on the original, with its interval, and p of the exact two-sided McNemar test (1.0 where no pair differs).
    """
    rows, passed = [], versions[(versions["version"] == DRAWN) & versions["picture_reason"].isna()]
    before = versions[versions["version"] == ORIGINAL].set_index("probe_id")
    for auditor, kind, after in _kinds(passed):
        old, new = _rights(before.loc[after["probe_id"]], members), _rights(after.set_index("probe_id"), members)
        for member in members:
            others = [name for name in members if name != member]
            kept = old[others].eq(True).all(axis=1) & new[others].eq(True).all(axis=1) & old[member].notna() & new[member].notna()
            a, b = old.loc[kept, member].astype(bool), new.loc[kept, member].astype(bool)
            counts = dict(n_right_right=a & b, n_right_wrong=a & ~b, n_wrong_right=~a & b, n_wrong_wrong=~a & ~b)
            pictures = after.set_index("probe_id")["source_image"][kept]
            rows.append(dict(auditor=auditor, kind=kind, member=member, pairs=int(kept.sum()))
                        | {name: int(these.sum()) for name, these in counts.items()}
                        | _share(~b[a], pictures[a], "flips") | dict(p=mcnemar_p(a, b) if (a != b).any() else 1.0))
    return pd.DataFrame(rows)


def _rights(rows: pd.DataFrame, members: list[str]) -> pd.DataFrame:
    """Whether each member is right (True, False, None), one column per member, by probe."""
    given = [[t, *(r if r is not None else [None] * (len(members) - 1))] for t, r in
             rows[["target_right", "references_right"]].itertuples(index=False)]
    return pd.DataFrame(given, columns=members, index=rows.index, dtype=object)


def survival(versions: pd.DataFrame) -> pd.DataFrame:
    """Whether disagreements on drawn pictures that passed the check are still there by another seed and re-encoded.

    One row per auditor, kind and version: `disagreements`, as many as were drawn again; `rejected`, without a picture or with
    one that fails the check; `asked`, all others that the target answered; `survived`, which disagree again; their share of the
    asked with its interval.
    """
    rows = []
    for version in (OTHER_SEED, RE_ENCODED):
        for auditor, kind, part in _kinds(versions[versions["version"] == version]):
            shown = part["picture_reason"].isna()
            asked = part[shown & part["target_answer"].notna()]
            again = asked["disagrees"].astype(bool)
            counts = dict(disagreements=len(part), rejected=int((~shown).sum()), asked=len(asked), survived=int(again.sum()))
            rows.append(dict(auditor=auditor, kind=kind, version=version) | counts
                        | _share(again, asked["source_image"], "survival"))
    return pd.DataFrame(rows)


def drawer_fault(probes: pd.DataFrame, versions: pd.DataFrame) -> pd.DataFrame:
    """How much of the success of drawn probes is the drawer's fault: the same texts and questions, with and without the check of
    the picture, and with the pictures that an exact drawer makes of the same texts.

    A success is a disagreement in which the target is wrong (by the truth or, where nothing is known about the picture, by the
    consensus). One row per auditor, kind and measure, with `successes` out of `n` and their share with its interval:
      disagrees  of all drawn probes, the disagreements: what counts as a success where there is neither a truth nor a check
      unchecked  of all drawn probes, whatever the picture shows
      checked    the same, but a probe that is not valid is no success
      exact      the same probes about the exact picture; no success where the exact drawer cannot follow the text
      fault      of the unchecked successes, those that the check takes away
    """
    drawn = versions[versions["version"] == DRAWN].merge(probes[["probe_id", "valid"]], on="probe_id")
    drawn["disagrees"] = drawn["disagrees"].astype(bool)
    drawn["unchecked"] = drawn["disagrees"] & drawn["target_right"].eq(False)
    drawn["checked"] = drawn["unchecked"] & drawn["valid"].astype(bool)
    made = versions[versions["version"] == EXACT].set_index("probe_id")
    if len(made):
        failed = made["disagrees"].astype(bool) & made["target_right"].eq(False) & made["picture_reason"].isna()
        drawn["exact"] = drawn["probe_id"].map(failed)
    rows = []
    for auditor, kind, part in _kinds(drawn):
        wrong = part[part["unchecked"]]
        names = [name for name in ("disagrees", "unchecked", "checked", "exact") if name in part]
        measured = {name: (part, part[name].astype(bool)) for name in names}
        for name, (of, success) in (measured | {"fault": (wrong, ~wrong["checked"])}).items():
            rows.append(dict(auditor=auditor, kind=kind, measure=name, n=len(of), successes=int(success.sum()))
                        | _share(success, of["source_image"], "share"))
    return pd.DataFrame(rows)
