"""Made-up stage results with the schemas of a real run, for tests of the analysis. No model runs.

The gaps are other ones than those of the shipped target, so that nothing here can be tuned on it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from auditdm_lib import stats
from auditdm_lib.audit import pairs
from auditdm_lib.results import artefacts
from auditdm_lib.taxonomy import cluster, confirm, grading, names

NOUNS = "umbrella star anchor heart cloud sun envelope scissors gear flag cup snowman".split()
COLOURS = "red green blue yellow purple orange pink grey brown black".split()
FORMS = {
    "colour": "what colour is the {noun}?", "size": "is the {noun} small or large?", "row": "which row is the {noun} in?",
    "count_all": "how many things are there?", "exists": "is there a {colour} {noun}?", "digit": "what digit is there?",
    "above": "is the {noun} above the {other}?", "background": "what is the background?"}
ANSWERS = {
    "colour": COLOURS, "size": ["small", "large"], "row": ["top", "middle", "bottom"],
    "count_all": ["one", "two", "three", "four", "five"], "exists": ["yes", "no"],
    "digit": ["zero", "one", "two", "three", "four", "eight", "nine"], "above": ["yes", "no"],
    "background": ["sky", "sand", "grass"]}
GAPS = {  # name -> skill, {right answer: what the target says}, fixed slots
    "orange is red": ("colour", {"orange": "red"}, {}),
    "large looks small": ("size", {"large": "small"}, {}),
    "top is called bottom": ("row", {"top": "bottom"}, {}),
    "three or more are two": ("count_all", {"three": "two", "four": "two", "five": "two"}, {}),
    "yellow things are imagined": ("exists", {"no": "yes"}, {"colour": "yellow"}),
    "hearts are overlooked": ("exists", {"yes": "no"}, {"noun": "heart"}),
    "above is swapped": ("above", {"yes": "no", "no": "yes"}, {}),
    "eight is three": ("digit", {"eight": "three"}, {}),
    "sand is grass": ("background", {"sand": "grass"}, {})}


def ask(rng: np.random.Generator, skill: str, **slots: str) -> str:
    noun, other = rng.choice(NOUNS, 2, replace=False)
    return FORMS[skill].format(**(dict(noun=noun, other=other, colour=rng.choice(COLOURS)) | slots))


def failures(n: int, seed: int = 0, noise: float = 0.08, gaps: tuple[str, ...] = tuple(GAPS)) -> pd.DataFrame:
    """`n` failures, a share `noise` of them outside any gap: probe_id, texts, skill, gap (None outside)."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        if rng.random() < noise:
            gap, skill, slots = None, str(rng.choice(list(ANSWERS))), {}
            right, wrong = map(str, rng.choice(ANSWERS[skill], 2, replace=False))
        else:
            gap = str(rng.choice(list(gaps)))
            skill, says, slots = GAPS[gap]
            right = str(rng.choice(list(says)))
            wrong = says[right]
        rows.append((f"trained-0-{i:05d}", f"images/{i % 20:02d}.png", ask(rng, skill, **slots), right, wrong, skill, gap))
    columns = ["probe_id", "image", "question", "consensus", "target_answer", "skill", "gap"]
    table = pd.DataFrame(rows, columns=columns).astype({"gap": object})
    return table.assign(source_image=table["image"], auditor="trained")


def search() -> pd.DataFrame:
    """search.csv of a run that went well."""
    rows = []
    for auditor, kind, found, gaps, training in [
            ("random", "question", 190, 9, 0),
            ("prompt_only", "all", 214, 9, 0), ("prompt_only", "question", 220, 9, 0), ("prompt_only", "regeneration", 150, 9, 0),
            ("prompt_only", "edit", 180, 9, 0), ("trained", "all", 850, 8, 20000), ("trained", "question", 870, 8, 20000),
            ("trained", "regeneration", 500, 8, 20000), ("trained", "edit", 700, 8, 20000),
            ("best_of_8", "question", 620, 9, 0)]:
        rows.append(dict(
            auditor=auditor, kind=kind, attempts=1000, consensus_asked=1000, invalid=30, no_consensus=20, disagrees=found + 10,
            verified_failures=found, success=found / 1000, ci_low=stats.wilson(found, 1000)[0],
            ci_high=stats.wilson(found, 1000)[1], ceiling=0.97 if kind in ("question", "all") else None, probing_calls=1000,
            training_calls=training, gaps_found=gaps, label_noise=3,
            disagreements_known=found + 10, disagrees_low=stats.wilson(found + 10, 1000)[0],
            disagrees_high=stats.wilson(found + 10, 1000)[1], consensus_probes=960, consensus_answerable=955))
    return pd.DataFrame(rows)


SUCCESS = {  # auditor -> kind of probe -> its share of verified failures
    "random": {"question": 0.19}, "prompt_only": {"question": 0.2, "regeneration": 0.15, "edit": 0.18},
    "trained": {"question": 0.97, "regeneration": 0.6, "edit": 0.85}}


def arms(n: int = 1000, seed: int = 0) -> pd.DataFrame:
    """probes.parquet of three arms on the same `n` pictures: seven questions in ten, then edits, then drawn captions."""
    rng, tables = np.random.default_rng(seed), []
    kinds = np.repeat(["question", "edit", "regeneration"], [7 * n // 10, n // 5, n // 10])
    reasons = np.array([None, "a thing is missing", "a colour", "a thing too many"], object)
    for auditor, success in SUCCESS.items():
        kind = kinds if len(success) > 1 else np.repeat("question", n)
        failed = rng.random(n) < pd.Series(kind).map(success)
        answer = np.where(failed, "blue", "red")
        drawn = kind != "question"
        reason = np.where(drawn, reasons[np.where(np.arange(n) % 8, 0, 1 + np.arange(n) // 8 % 3)], None)
        accepted = np.array([r is None for r in reason])
        tables.append(pd.DataFrame(dict(
            probe_id=[f"{auditor}-0-{i:05d}" for i in range(n)], auditor=auditor, kind=kind, question="what colour is it?",
            image=[f"images/{auditor}-{i:05d}.png" if d else f"images/{i:05d}.png" for i, d in enumerate(drawn)],
            source_image=[f"images/{i:05d}.png" for i in range(n)],
            caption=np.where(kind == "regeneration", "a red umbrella in the middle, a blue sun at the top", None),
            edit=np.where(kind == "edit", [f"make the {NOUNS[i % 12]} {COLOURS[i % 10]}" for i in range(n)], None),
            target_answer=answer, consensus="red", truth="red",
            reference_answers=[["red", "red"]] * n, in_full=True, disagrees=failed, valid=accepted,
            picture_reason=reason, invalid_reason=None,
            verified_failure=(failed & accepted).astype(object))))
    return pd.concat(tables, ignore_index=True)


def versions(probes: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """versions.parquet of the drawn probes in a table like `arms`: most failures are flips, and most survive."""
    rng, rows = np.random.default_rng(seed), []

    def add(probe, version, wrong, reason, image, **more):
        rows.append({name: getattr(probe, name) for name in pairs.OF_THE_PROBE} | dict(
            version=version, image=image, target_answer="blue" if wrong else "red", reference_answers=["red", "red"],
            consensus="red", disagrees=wrong, truth="red", picture_reason=reason, target_right=not wrong,
            references_right=[True, True], consensus_right=True) | more)
    asked = probes[(probes["image"] != probes["source_image"]) & probes["auditor"].isin(["prompt_only", "trained"])]
    for probe in asked.itertuples():
        wrong, reason = probe.target_answer == "blue", None if pd.isna(probe.picture_reason) else probe.picture_reason
        add(probe, pairs.ORIGINAL, bool(rng.random() < 0.2), None, probe.source_image)
        add(probe, pairs.DRAWN, wrong, reason, probe.image)
        if wrong and reason is None:
            add(probe, pairs.OTHER_SEED, bool(rng.random() < 0.95), None, probe.image)
            add(probe, pairs.RE_ENCODED, bool(rng.random() < 0.98), None, probe.image)
        add(probe, pairs.EXACT, wrong and bool(reason is None or rng.random() < 0.5), None, probe.image)
    return pd.DataFrame(rows, columns=pairs.COLUMNS)


def drawn(probes: pd.DataFrame) -> dict[str, pd.DataFrame | str]:
    """What a run has of pairs when a diffusion pipeline drew."""
    table = versions(probes)
    success = [dict(auditor=auditor, pairing=pairing, attempts=900, disagrees=400, verified_failures=390, verifiable=900,
                    success=390 / 900, ci_low=0.4, ci_high=0.47) for auditor in ("prompt_only", "trained") for pairing in "ab"]
    return dict(versions=table, flips=pairs.flips(table, ["target", "reference_1", "reference_2"]), drawer="diffusion",
                survival=pairs.survival(table), faults=pairs.drawer_fault(probes, table), pairings=pd.DataFrame(success))


def confirmation(categories: pd.DataFrame, probes: int = 20) -> pd.DataFrame:
    """confirmation.parquet: of each failure type the target fails most fresh probes, but of the last, none of which was seen."""
    rows = []
    for one in categories.itertuples():
        n = 0 if one.category == len(categories) - 1 else probes
        rows.append(dict(category=one.category, name=one.name, skill=one.skill, probes=n, target_wrong=n * 9 // 10,
                         rate=0.9 if n else np.nan, ci_low=0.7, ci_high=0.97, reference_wrong=n // 20, reference_rate=0.025,
                         p_value=1e-6 if n else 1.0, q_value=1e-5 if n else 1.0, verdict="confirmed" if n else "underpowered",
                         needed=None if n else 9, not_seen=1, corrected_rate=0.9, corrected_low=0.7, corrected_high=0.97))
    return pd.DataFrame(rows, columns=confirm.CONFIRMATION_COLUMNS)


def items(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """items.parquet: `n` items a suite, right with a chance that depends on model, skill and gap."""
    rng, skills = np.random.default_rng(seed), list(FORMS)
    gap_of = {skill: gap for gap, (skill, *_) in GAPS.items()}
    base = []
    for suite in ["vqav2-mini", "gqa-mini", "okvqa-mini", "pope-mini", "gap-items"]:
        for i in range(n):
            skill = skills[i % len(skills)]
            gap = gap_of[skill] if suite == "gap-items" or i % 6 == 0 else None
            base.append((suite, f"{suite}-{i:04d}", skill, gap, rng.random(), rng.random()))
    base = pd.DataFrame(base, columns=["suite", "item", "skill", "gap", "luck", "own_luck"]).astype({"gap": object})
    chance = {"target": (0.97, 0.05), "rectified": (0.972, 0.9), "control": (0.965, 0.3), "reference_1": (0.93, 0.93),
              "reference_2": (0.96, 0.96)}
    tables = []
    for model, (outside, inside) in chance.items():
        right = base["luck"] < np.where(base["gap"].isna(), outside, inside)
        if model.startswith("reference"):  # errors of their own
            right = base["own_luck"] < np.where(base["skill"] == "size", 0.7, outside)
        tables.append(base.assign(model=model, correct=right, score=right.astype(float), answer="x", group=base["item"],
                                  metric="exact_match"))
    return pd.concat(tables, ignore_index=True)[
        ["model", "suite", "item", "group", "metric", "score", "correct", "answer", "skill", "gap"]]


def history() -> pd.DataFrame:
    """history.csv: two rounds of imitation, then GRPO."""
    rng, steps = np.random.default_rng(0), np.arange(1, 51)
    imitation = pd.DataFrame(dict(phase="imitation", step=[1, 2], kind="all", reward=[0.2, 0.6], disagrees=[0.2, 0.6],
                                  invalid=[0.03, 0.05], no_consensus=[0.1, 0.05], distinct=[0.4, 0.35],
                                  target_calls=[4400, 8700]))
    grpo = pd.DataFrame(dict(
        phase="grpo", step=steps, kind=np.where(steps % 5, "question", "edit"),
        reward=0.5 + 0.2 * steps / 50, disagrees=0.65 + 0.2 * steps / 50 + 0.03 * rng.normal(size=50), reward_std=0.4,
        frac_reward_zero_std=0.1, entropy=2.0, invalid=0.02, no_consensus=0.03, distinct=0.5, target_calls=steps * 128))
    return pd.concat([imitation, grpo], ignore_index=True)


@dataclass(frozen=True)
class Run:
    """The artefacts in memory, and the folder of pictures that they name."""

    artefacts: artefacts.Artefacts
    pictures: Path

    def altered(self, **tables) -> artefacts.Artefacts:
        return replace(self.artefacts, **tables)


def unverified(run: Run, agree: float = 0.8, checked: int = 0) -> artefacts.Artefacts:
    """The run on pictures whose truth nobody knows: suspicions, held-out questions, and references that agree on a share `agree`
    of the probes. Of the failures `checked` were verified by chance."""
    made = run.artefacts
    blank = ("verified_failures", "success", "ci_low", "ci_high", "label_noise", "disagreements_known", "consensus_answerable",
             "gaps_found", "ceiling")
    none = np.arange(len(made.probes)) * 7919 % 1000 >= 1000 * agree
    probes = made.probes.assign(truth=None, verified_failure=None, consensus=made.probes["consensus"].where(~none, None),
                                disagrees=made.probes["disagrees"] & ~none)
    known = pd.Series([True] * checked + [None] * (len(made.failures) - checked), dtype=object)
    asked = made.items[made.items["suite"].isin(["vqav2-mini", "gqa-mini"]) & ~made.items["model"].str.startswith("reference")]
    suite = asked["suite"].map({"vqav2-mini": "held-out", "gqa-mini": "held-out-failures"})
    counts = dict(pictures=50, asked=500, without_consensus=90, unanswered=10, scored=400)
    return run.altered(
        probes=probes, search=made.search.assign(**dict.fromkeys(blank, np.nan)), hits=None, gaps=None, agreement=None,
        categories=names.categories(made.failures, verified=False), failures=made.failures.assign(verified_failure=known),
        items=asked.assign(suite=suite, metric="agreement", skill=None, gap=None, group="p" + asked["item"].str[-2:]),
        held_out=pd.DataFrame([dict(suite=name) | counts for name in ("held-out", "held-out-failures")]))


def make_run(folder: Path, n: int = 600) -> Run:
    """Write pictures below `folder` and make every table that a run of the testbed has, clusters included."""
    found = failures(n)
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate(found["image"].unique()):
        pixels = np.random.default_rng(i).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(folder / name)
    probes = found.assign(kind="question", disagrees=True, valid=True, truth=found["consensus"], verified_failure=True,
                          picture_reason=None, invalid_reason=None, reference_answers=[[c, c] for c in found["consensus"]])
    asked = arms()
    shown, files = pd.unique(asked[["image", "source_image"]].to_numpy().ravel()), list((folder / "images").iterdir())
    for i, name in enumerate(shown):
        (folder / name).write_bytes(files[i % len(files)].read_bytes())
    clustered = cluster.cluster(cluster.select_failures(probes))
    clustered = clustered.merge(probes[["probe_id", "reference_answers", "verified_failure"]], on="probe_id")
    gaps, agreement = grading.grade(clustered, found[["probe_id", "gap"]])
    hits = pd.DataFrame([dict(auditor=a, gap=g, hits=h) for a in ("random", "prompt_only", "trained")
                         for g, h in zip(GAPS, [30, 25, 20, 15, 10, 8, 6, 2, 0], strict=True)])
    types = names.categories(clustered)
    return Run(artefacts.Artefacts(
        history=history(), probes=asked, search=search(), hits=hits, failures=clustered,
        categories=types, confirmation=confirmation(types), gaps=gaps, agreement=agreement, items=items(),
        **drawn(asked)), folder)


def ablation() -> pd.DataFrame:
    """ablation.csv, with the paper's gains of RefCOCO where it prints them."""
    rows = []
    for k, arm in enumerate(("question", "regeneration", "edit", "all")):
        for i, (measure, benchmark) in enumerate([("gqa-mini", "GQA"), ("refcoco-mini", "RefCOCO"), ("ai2d-mini", "AI2D"),
                                                  ("mean of all suites", None), ("gap-items", None)]):
            gain = 3.0 * k + 10.0 * i - 4
            paper = np.nan if benchmark is None or (benchmark == "RefCOCO" and k < 2) else 0.4 + k
            rows.append((arm, measure, gain, gain - 2, gain + 2, benchmark, paper, 1000, 300))
    return pd.DataFrame(rows, columns=["arm", "measure", "gain", "ci_low", "ci_high", "paper_benchmark", "paper_gain", "examples",
                                       "failures"])
