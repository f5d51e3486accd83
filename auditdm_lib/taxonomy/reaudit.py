"""The re-audit of a rectified target: which failure types are fixed, unchanged or newly broken, on pictures that no auditor saw.

Target and rectified target answer the same fresh probes: of each confirmed type (`fresh`), and random questions, which by their
skill show what lies outside the types. They are compared by pairs of answers, as two audits are (`compare`).
"""

import random
from collections.abc import Callable

import pandas as pd

from auditdm_lib.audit.auditor import stream
from auditdm_lib.audit.panel import Panel, agreement, judge
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.models.vlm import VLM
from auditdm_lib.taxonomy.compare import KEY, compared
from auditdm_lib.taxonomy.fresh import Belongs, Writer, add_controls, ask_fresh

BY_CHANCE = 3  # random questions about each picture (our choice)
OUTSIDE = "outside the confirmed types"  # the name of what random questions of a skill show
NAMES = {"probes": "n", "wrong_a": "wrong_before", "rate_a": "before", "low_a": "before_low", "high_a": "before_high",
         "wrong_b": "wrong_after", "rate_b": "after", "low_b": "after_low", "high_b": "after_high"}
COLUMNS = ["category", *KEY, "n", "not_seen", "unanswered", *list(NAMES.values())[1:], "change", "change_low", "change_high",
           "p_value", "q_value", "verdict", "needed"]


def reaudit(panel: Panel, rectified: VLM, pictures: Pictures, clustered: pd.DataFrame, confirmed: pd.DataFrame, belongs: Belongs,
            skill_of: Callable[[list[str]], list[str]], writer: Writer, controls: list[str], seed: int) -> pd.DataFrame:
    """One row with COLUMNS for each confirmed type, and for each skill outside them (category -1).

    `clustered` are the failures of the audit with their category, `confirmed` the confirmed rows of confirmation.parquet, and
    `belongs` and `skill_of` give a question (and its right answer) its category and its skill. A probe counts where all
    references give one answer, once for each type and picture, so that neither model has a say in what is right. Rates are 0-1;
    the verdicts are those of `compare.compared`: a type is `fixed` where its error rate is surely at most half of what it was.
    """
    probes = _probes(panel, pictures, clustered, confirmed, belongs, skill_of, writer, controls, seed)
    images = [pictures.images[row] for row in probes["row"]]
    told = agreement(rectified, "rectified target", images, probes["question"].tolist(), probes["agreed"].tolist(), panel.llm)
    eased = probes["control_question"].notna().to_numpy(bool)
    easy = agreement(rectified, "rectified target", [image for image, asked in zip(images, eased, strict=True) if asked],
                     probes["control_question"][eased].tolist(), probes["control_agreed"][eased].tolist(), panel.llm)
    saw = pd.Series(True, probes.index)
    saw[eased] = easy["agrees"].to_numpy()
    answered = probes.assign(answer_b=told["answer"], wrong_b=~told["agrees"], saw_b=saw)
    outside = answered.loc[answered["category"] < 0, ["category", *KEY]].drop_duplicates().sort_values(KEY)
    types = pd.concat([confirmed[["category", *KEY]].sort_values("category"), outside], ignore_index=True)
    types = types.assign(in_a="", in_b="")
    table = compared(types[[*KEY, "in_a", "in_b"]], answered).rename(columns=NAMES)
    return table.assign(category=types["category"].astype(int))[COLUMNS]


def _probes(panel: Panel, pictures: Pictures, clustered: pd.DataFrame, confirmed: pd.DataFrame, belongs: Belongs,
            skill_of: Callable[[list[str]], list[str]], writer: Writer, controls: list[str], seed: int) -> pd.DataFrame:
    """The probes that count: row (of the picture), question, agreed, category, skill, name, control_question, control_agreed, and
    of the target answer_a, wrong_a, saw_a."""
    kept = set(confirmed["category"])
    fresh = ask_fresh(panel, pictures, clustered[clustered["category"].isin(kept)], belongs, writer, stream("reaudit", seed))
    fresh = fresh[fresh["agreed"].notna() & ~fresh["references_odd"].map(any).astype(bool) & fresh["category"].isin(kept)]
    both = pd.concat([fresh, _by_chance(panel, pictures, belongs, seed)], ignore_index=True)
    both["category"] = both["category"].where(both["category"].isin(kept), -1).astype(int)
    inside, skills = confirmed.set_index("category"), skill_of(both["question"].tolist())
    both["skill"] = [inside.at[c, "skill"] if c in kept else s or "no skill"
                     for c, s in zip(both["category"], skills, strict=True)]
    both["name"] = [inside.at[c, "name"] if c in kept else OUTSIDE for c in both["category"]]
    both = both.drop_duplicates(["row", *KEY]).reset_index(drop=True)
    eased = add_controls(panel, pictures, both.assign(category=0), controls)  # a control question for all
    return both.assign(control_question=eased["control_question"], control_agreed=eased["control_agreed"],
                       answer_a=both["target_answer"], wrong_a=both["target_odd"].astype(bool), saw_a=eased["saw"].ne(False))


def _by_chance(panel: Panel, pictures: Pictures, belongs: Belongs, seed: int) -> pd.DataFrame:
    """BY_CHANCE random questions about each picture, those on which the references agree."""
    rng = random.Random(f"reaudit/{seed}")
    rows = [i for i in range(len(pictures)) for _ in range(BY_CHANCE)]
    asked = [pictures.random_question(i, rng) for i in rows]
    told = judge(panel, [pictures.images[i] for i in rows], asked, [None] * len(asked), desc="random questions")
    told = told.assign(row=rows, question=asked, target_odd=told["disagrees"], agreed=told["consensus"])
    told = told[told["agreed"].notna()].drop_duplicates(["row", "question"]).reset_index(drop=True)
    return told.assign(category=belongs(told["question"].tolist(), told["agreed"].tolist()))[
        ["row", "question", "agreed", "category", "target_answer", "target_odd"]]


def in_words(table: pd.DataFrame) -> str:
    """One paragraph: how many types have which verdict, and which are newly broken."""
    if table.empty:
        return "There is no confirmed type to audit again."
    types, outside = table[table["category"] >= 0], table[table["category"] < 0]
    said = [f"Of {len(types)} confirmed types: " + (", ".join(f"{n} {verdict}" for verdict, n in types["verdict"].value_counts(
        ).items()) or "none") + "."]
    said += [f"Of {len(outside)} skills outside them: " + ", ".join(f"{n} {verdict}" for verdict, n in outside[
        "verdict"].value_counts().items()) + "."] if len(outside) else []
    return " ".join(said)
