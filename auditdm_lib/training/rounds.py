"""Bootstrapping in rounds, the paper's way without labels: rectify, audit what came of it, rectify again.

The first round learns from stages 02 and 03. Each further one refreshes the auditor against the new target (self-imitation, as in
stage 01), lets the untrained auditor, the refreshed one and its checkpoint ask about new pictures, adds what they found to the
examples and goes on fine-tuning. It ends when the validation score no longer rises. The rounds ask about pictures as they are:
nothing is drawn. How many pictures and checkpoints the paper takes it does not say; ours are our choice.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from datasets import Dataset, Image, concatenate_datasets

from auditdm_lib.audit.arms import auditor_arm
from auditdm_lib.audit.auditor import Search, stream
from auditdm_lib.audit.panel import Panel, agreement, members
from auditdm_lib.audit.pictures import Pictures, identity, save_pictures, stored
from auditdm_lib.models.vlm import load_vlm
from auditdm_lib.run import manifest
from auditdm_lib.stats import clustered_proportion, tally
from auditdm_lib.training.cards import data_card
from auditdm_lib.training.imitation import ImitationSettings, self_imitation
from auditdm_lib.training.rectify import to_dataset
from auditdm_lib.training.rectify_sets import kept_aside, training_sets, weights_of
from auditdm_lib.training.trainings import askings, claim, described, load_table, save_table

UNTRAINED, TRAINED = "prompt_only", "trained"  # names of auditors in the probe table
SCORED = ("random", UNTRAINED, TRAINED)  # auditors of stage 02 whose questions about the kept pictures make the score
COLUMNS = ["round", "examples", "failures", "probes", "found", "success", "success_low", "success_high", "questions", "before",
           "after", "after_low", "after_high", "taken"]


@dataclass(frozen=True)
class Round:
    """A round of rectification: the model that came of it, the auditor that was used, what was learned and what was found.

    `data` are the examples, of which there are so many of each of `kinds`, and so many `failures` of this round's audit.
    `probes` are the probes of its audit, `types` its failures by category (None without an audit of its own), and `kept` the
    questions that score it (file, question, answer, picture, and `right`: whether its own model gives the answer); `before` is
    the share (0-1) that the model before it had right.
    """

    number: int
    model: Path
    auditor: Path
    data: Dataset
    kinds: dict[str, int]
    failures: int
    history: pd.DataFrame
    probes: pd.DataFrame
    types: pd.DataFrame | None
    kept: pd.DataFrame
    before: float

    @property
    def after(self) -> float:
        """The share of the kept questions (0-1) on which its model gives the consensus."""
        return float(self.kept["right"].mean())

    @property
    def better(self) -> bool:
        """Whether the validation score has risen in this round."""
        return self.after > self.before


@dataclass(frozen=True)
class Bootstrap:
    """What all rounds after the first have in common.

    `panel` has the references, the rule and the judge. `supply(n, seed, split=...)` gives new pictures, of which `pictures`
    refresh the auditor (by `search` and `imitation`) and `probes` are asked about at `temperature` by each auditor.
    `group(failures)` adds the column `category`, and `tune(model, examples, out, work=..., data=...)` fine-tunes
    (`rectify.finetune`).
    """

    panel: Panel
    untrained: str | Path
    search: Search
    imitation: ImitationSettings
    supply: Callable[..., Pictures]
    pictures: int
    probes: int
    temperature: float
    group: Callable[[pd.DataFrame], pd.DataFrame]
    tune: Callable[..., pd.DataFrame]
    failure_share: float
    category_weights: str
    seed: int


def questions_to_score(probes: pd.DataFrame, images: Path, seed: int, auditors: tuple[str, ...] = SCORED) -> pd.DataFrame:
    """The probes with a consensus about the pictures that are kept from the training, each question once: file, question, answer,
    picture (its file), right (whether the audited target gave the consensus)."""
    rows = probes[kept_aside(probes, images, seed) & probes["consensus"].notna() & probes["picture_reason"].isna()
                  & probes["auditor"].isin(auditors)].sort_values("probe_id").drop_duplicates(["image", "question"])
    return pd.DataFrame(dict(file=[str(images / name) for name in rows["image"]], question=rows["question"].to_numpy(object),
                             answer=rows["consensus"].to_numpy(object), right=~rows["disagrees"].to_numpy(bool),
                             picture=[str(images / name) for name in rows["source_image"]]))


def scored(number: int, model: Path, kept: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """The kept questions with `right` for a round's model; as they are where nothing was learned and there is none."""
    if not model.exists():
        return kept
    given = agreement(load_vlm(model), f"model of round {number}", stored(Path(), kept["file"].tolist()),
                      kept["question"].tolist(), kept["answer"].tolist(), panel.llm)
    return kept.assign(right=given["agrees"].to_numpy())


def first_round(model: Path, auditor: Path, data: Dataset, examples: pd.DataFrame, history: pd.DataFrame, probes: pd.DataFrame,
                kept: pd.DataFrame, panel: Panel) -> Round:
    """The round that stages 02 and 03 prepared, from its fine-tuned model, the `examples` that it learned and their `data`, and
    `kept`, the `questions_to_score`."""
    kinds, failures = examples["kind"].value_counts().to_dict(), int(examples["failure"].sum())
    return Round(1, model, auditor, data, kinds, failures, history, probes, None, scored(1, model, kept, panel),
                 float(kept["right"].mean()) if len(kept) else float("nan"))


def bootstrap(plan: Bootstrap, first: Round, rounds: int, work: Path) -> list[Round]:
    """Up to `rounds` rounds, the first included, until the validation score no longer rises.

    Everything is stored below `work`, a folder for each round; a call that finds unfinished ones there goes on with them. Raises
    what `imitation.self_imitation` and `rectify.finetune` raise.
    """
    done = [first]
    while len(done) < rounds and done[-1].better:
        done.append(_next(plan, done[-1], work / str(len(done) + 1)))
    return done


def best(done: list[Round]) -> Round:
    """The last round in which the validation score has risen; the first one if it has in none."""
    return [done[0], *(one for one in done[1:] if one.better)][-1]


def _next(plan: Bootstrap, last: Round, folder: Path) -> Round:
    number = last.number + 1
    seed = stream(plan.seed, "round", number)
    panel = replace(plan.panel, target=load_vlm(last.model))
    auditor, *_ = self_imitation(last.auditor, panel, plan.supply(plan.pictures, seed, split="audit"), plan.search,
                                 plan.imitation, seed, folder / "auditor")
    earlier = [path for path in sorted((folder / "auditor").glob("round_*/auditor")) if path != auditor]
    asking = {UNTRAINED: Path(plan.untrained)} | {f"imitation_{i}": path for i, path in enumerate(earlier, 1)}
    probes = _audit(plan, panel, asking | {TRAINED: auditor}, seed, folder / "probes")
    kept = pd.concat([last.kept, questions_to_score(probes, folder / "probes", plan.seed, tuple(set(probes["auditor"])))],
                     ignore_index=True)
    learned = probes[~kept_aside(probes, folder / "probes", plan.seed)]
    failed = learned[learned["disagrees"].astype(bool) & learned["picture_reason"].isna()]
    types = plan.group(failed.drop_duplicates(["image", "question"]).reset_index(drop=True))
    new, _ = training_sets(learned, plan.failure_share, list(asking) + [TRAINED], seed, types=types,
                           weights=weights_of(types, plan.category_weights))
    before, model = float(kept["right"].mean()), last.model
    data, kinds, history = last.data, last.kinds, last.history.iloc[:0]
    if len(new):
        data, model = united(to_dataset(new, folder / "probes"), last.data), folder / "model"
        kinds = new["kind"].value_counts().to_dict() | {"of earlier rounds": len(data) - len(new)}
        history = plan.tune(last.model, data, model, work=folder / "tuning",
                            data=f"of {number} rounds of an audit and what it found")
    return Round(number, model, auditor, data, kinds, int(new["failure"].sum()), history, probes, types,
                 scored(number, model, kept, panel), before)


def _audit(plan: Bootstrap, panel: Panel, auditors: dict[str, Path], seed: int, folder: Path) -> pd.DataFrame:
    """The probes of a round: one of each auditor about each of its new pictures, which are saved in folder/images."""
    pictures = plan.supply(plan.probes, seed, split="probe")
    search = replace(plan.search, temperature=plan.temperature)
    claim(folder, __name__, [*members(panel), *auditors.values()], dict(
        rule=panel.rule, asked=askings(panel), pictures=identity(pictures), search=described(search), seed=seed))
    if (probes := load_table(folder / "probes.parquet")) is not None:
        return probes
    shutil.rmtree(folder / "images", ignore_errors=True)
    names = save_pictures(pictures, folder / "images")
    save_table(pd.concat([auditor_arm(path, name, panel, pictures, search, seed, names, folder / "images")[1]
                          for name, path in auditors.items()], ignore_index=True), folder / "probes.parquet")
    return pd.read_parquet(folder / "probes.parquet")  # read back, so that a resumed round sees the same types


def united(new: Dataset, old: Dataset) -> Dataset:
    """Both sets of examples, each question about a picture (by the bytes of its file) once, the new one first."""
    both = concatenate_datasets([new, old])
    plain = both.cast_column("image", Image(decode=False))
    keys = [(manifest.digest(row["image"]["bytes"]), row["question"]) for row in plain]
    return both.select(sorted({key: i for i, key in reversed(list(enumerate(keys)))}.values()))


def table(done: list[Round]) -> pd.DataFrame:
    """rounds.csv, one row a round: COLUMNS.

    `examples` were learned, `failures` of them found in its audit, of which `probes` are those of the trained auditor; `found` of
    these disagree with the consensus, and `success` is the share of verified failures (of disagreements where no truth is known),
    with its 95 % interval by picture. Of the `questions` kept from the training, which grow by those of each audit, the model
    `before` and `after` has so many right (0-1, the latter with its interval). `taken` marks the round whose model is the result.
    """
    rows = []
    for one in done:
        asked = one.probes[one.probes["auditor"] == TRAINED]
        known = asked["verified_failure"].notna().any()
        hit = asked["verified_failure"].eq(True) if known else asked["disagrees"].astype(bool)
        success = clustered_proportion(tally(hit, asked["source_image"]))
        after = clustered_proportion(tally(one.kept["right"], one.kept["picture"]))
        rows.append((one.number, len(one.data), one.failures, len(asked), int(asked["disagrees"].sum()), *success, len(one.kept),
                     one.before, *after, one is best(done)))
    return pd.DataFrame(rows, columns=COLUMNS)


def save_data(data: Dataset, folder: Path, title: str, kinds: dict[str, int]) -> None:
    """Write examples as a `datasets` folder with a card, which counts them by kind."""
    data.save_to_disk(folder)
    how = "The answer is the consensus of the audit's references, or a true answer where the kind says so."
    (folder / "README.md").write_text(data_card(title, how, kinds), encoding="utf-8", newline="\n")


def store(done: list[Round], out: Path) -> None:
    """Copy the rounds to out/rounds/1, 2, ...: history, probes and types of each audit, and model and data, which for the round
    that is taken are out/model and out/data instead."""
    for one in done:
        folder = out / "rounds" / str(one.number)
        folder.mkdir(parents=True)
        one.history.to_csv(folder / "history.csv", index=False)
        if one.types is not None:
            one.probes.to_parquet(folder / "probes.parquet", index=False)
            one.types[["probe_id", "skill", "category"]].to_parquet(folder / "failures.parquet", index=False)
        place = out if one is best(done) else folder
        save_data(one.data, place / "data", f"What round {one.number} of a rectification learned", one.kinds)
        if one.model.exists():
            shutil.copytree(one.model, place / "model")
