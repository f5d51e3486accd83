"""report.md: what the target is strong at and weak at, how sure that is, and what to train on, in plain sentences.

All texts that models wrote are cut and made inert, so that none of them acts as markup.
"""

import pandas as pd

from auditdm_lib.audit.probes import attempted
from auditdm_lib.shown import inert, one_line, shorten
from auditdm_lib.stats import wilson
from auditdm_lib.taxonomy import naming
from auditdm_lib.taxonomy.cluster import SMALLEST
from auditdm_lib.taxonomy.confirm import CONFIRMED, LEVEL, UNDERPOWERED
from auditdm_lib.taxonomy.names import unread

LONGEST = 120  # characters of a text of a model
EXAMPLES = 3  # failures shown of a confirmed type
STRONG = 0.1  # a skill is strong if at most this share of its probes differs, by the upper end of the interval (our choice)
MOST_STRONG = 10  # strong skills that are listed
UNTRAINED = ("random", "prompt_only")  # auditors that do not look for failures, so that their probes tell how often one is met


def asked_by_chance(probes: pd.DataFrame, skills: list[str]) -> pd.DataFrame:
    """How often the target differs from the consensus by skill, where no auditor was looking for it: skill, probes, disagrees.

    `probes` is probes.parquet and `skills` the skill of each of its rows ("" for none). Attempted probes of UNTRAINED auditors
    with a consensus count, each pair of picture and question once.
    """
    rows = attempted(probes.assign(skill=skills))
    rows = rows[rows["auditor"].isin(UNTRAINED) & rows["consensus"].notna() & rows["picture_reason"].isna()]
    rows = rows[rows["skill"] != ""].drop_duplicates(["image", "question"]).astype({"disagrees": bool})
    return rows.groupby("skill", sort=True)["disagrees"].agg(probes="size", disagrees="sum").reset_index()


def written(clustered: pd.DataFrame, table: pd.DataFrame, confirmation: pd.DataFrame | None, probes: pd.DataFrame,
            verified: bool = True) -> str:
    """The report in Markdown, for any number of failures and types.

    `clustered` and `table` are of `cluster` and `names.categories`, `confirmation` is confirmation.parquet (None where stage 03
    asked no fresh probes), `probes` is `asked_by_chance`. Where nothing was `verified`, failures are called suspicions.
    """
    words = Words(verified)
    types = table.merge(_facts(confirmation), "left", "category", validate="1:1")
    weak = types[types["verdict"].eq(CONFIRMED)].sort_values(["ci_low", "category"], ascending=[False, True])
    strong = _strong(probes)
    parts = ["# Failure types" if verified else "# Types of suspicion", *_opening(clustered, types, weak, strong, words)]
    parts += ["## Strong at", *_strong_at(strong, weak, probes)]
    if len(types):
        parts += ["## Weak at", *_weak_at(clustered, types, weak, confirmation is not None, words)]
        parts += ["## How sure this is", *_how_sure(clustered, types, confirmation is not None, words)]
        parts += ["## What to train on", *_advice(types, weak, confirmation is not None, words)]
    return "\n\n".join(parts) + "\n"


class Words:
    """What a disagreement and the two answers are called: failures where a truth verified them, else suspicions."""

    def __init__(self, verified: bool):
        self.one, self.many = ("failure", "failures") if verified else ("suspicion", "suspicions")
        self.right = "right is" if verified else "the references say"
        self.wrong = "is wrong in" if verified else "differs from its references in"
        self.so, self.verified = "wrong" if verified else "different", verified


def said(text: object) -> str:
    """A model's text as one short line of inert Markdown."""
    return inert(shorten(one_line(text), LONGEST))


def counted(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def share(k: int, n: int) -> str:
    """'27 of 30 (90 %, 95 % interval 74 to 97 %)'."""
    low, high = wilson(k, n)
    return f"{k:,} of {n:,} ({100 * k / n:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %)"


def listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]


def _facts(confirmation: pd.DataFrame | None) -> pd.DataFrame:
    columns = ["category", "probes", "target_wrong", "ci_low", "reference_rate", "verdict", "needed", "not_seen",
               "corrected_rate", "corrected_low", "corrected_high"]
    if confirmation is None:
        return pd.DataFrame(columns=columns).astype({"category": int})
    return confirmation[columns]


def _strong(probes: pd.DataFrame) -> pd.DataFrame:
    """The skills that were asked so often and failed so seldom that the upper end of the interval is at most STRONG."""
    high = [wilson(int(k), int(n))[1] for k, n in zip(probes["disagrees"], probes["probes"], strict=True)]
    rows = probes.assign(high=pd.Series(high, index=probes.index, dtype=float))
    return rows[rows["high"] <= STRONG].sort_values(["high", "skill"])


def _opening(clustered: pd.DataFrame, types: pd.DataFrame, weak: pd.DataFrame, strong: pd.DataFrame, words: Words) -> list[str]:
    parts = []
    if not words.verified:
        parts.append("The truth about these pictures is unknown: the target differs here from the consensus of the references, "
                     "and either may be right.")
    if clustered.empty:
        return [*parts, f"No {words.one} was found: nowhere did the target differ from the consensus."]
    lone, found = int((clustered["category"] < 0).sum()), counted(len(clustered), words.one, words.many)
    foreign = [sentence] if (sentence := unread(clustered)) else []
    if types.empty:
        return [*parts, f"{found}, too few alike to make a type of at least {SMALLEST}.", *foreign]
    text = f"The audit found {found} in {counted(len(types), 'type')}"
    text += f"; {lone:,} {'is' if lone == 1 else 'are'} like too few others to make a type." if lone else "."
    if len(weak):
        worst = listed([f"{said(row.name)} ({100 * row.target_wrong / row.probes:.0f} % of the fresh probes {words.so})"
                        for row in weak.head(3).itertuples()])
        text += f" {counted(len(weak), 'type is', 'types are')} confirmed on fresh pictures, most surely {worst}."
    if len(strong):
        text += f" It is strong at {listed([said(name) for name in strong['skill'].head(3)])}."
    return [*parts, text, *foreign]


def _strong_at(strong: pd.DataFrame, weak: pd.DataFrame, probes: pd.DataFrame) -> list[str]:
    asked = int(probes["probes"].sum())
    if not asked:
        return ["Nothing can be said about this: no question about a known skill was asked without looking for failures."]
    if strong.empty:
        return [f"No skill was asked so often and failed so seldom that, by the upper end of the interval, at most "
                f"{100 * STRONG:.0f} % of its questions may differ ({counted(asked, 'question')} about "
                f"{counted(len(probes), 'skill')})."]
    lines = []
    for row in strong.head(MOST_STRONG).itertuples():
        known = [f"{category + 1}" for category, group in zip(weak["category"], weak["skill"], strict=True)
                 if row.skill in naming.parts(group)]
        differs = share(int(row.disagrees), int(row.probes))
        lines.append(f"- {said(row.skill)}: the target differs from the references in {differs}"
                     + (f"; but see type {listed(known)}" if known else ""))
    more = len(strong) - MOST_STRONG
    return [f"By {counted(asked, 'question')} that were asked without looking for failures:", "\n".join(lines)] + (
        [f"{counted(more, 'further skill is', 'further skills are')} as strong."] if more > 0 else [])


def _weak_at(clustered: pd.DataFrame, types: pd.DataFrame, weak: pd.DataFrame, confirmed: bool, words: Words) -> list[str]:
    parts = []
    for row in weak.itertuples():
        parts += [f"### {row.category + 1}. {said(row.name)}", _rates(row, words), _examples(clustered, row.category, words)]
    rest = types[~types["category"].isin(weak["category"])]
    if confirmed and weak.empty:
        parts.append("No type is confirmed on fresh pictures.")
    if len(rest):
        parts.append(f"{'Not confirmed' if confirmed else 'Types, the largest first; none was asked again on fresh pictures'}:")
        parts.append("\n".join(_unconfirmed(row, words) for row in rest.sort_values("category").itertuples()))
    return parts


def _rates(row: tuple, words: Words) -> str:
    text = (f"On fresh pictures the target {words.wrong} {share(int(row.target_wrong), int(row.probes))}; a reference differs "
            f"from the others in {100 * row.reference_rate:.0f} %.")
    if pd.notna(row.corrected_rate):
        text += (f" Corrected for errors of the consensus it is wrong in {100 * row.corrected_rate:.0f} % (95 % interval "
                 f"{100 * row.corrected_low:.0f} to {100 * row.corrected_high:.0f} %).")
    others = [f"{name.removeprefix('by_').replace('_', ' ')}: {int(getattr(row, name)):,}" for name in row._fields
              if name.startswith("by_") and getattr(row, name)]
    text += f" The search found {counted(row.size, words.one, words.many)} of this type"
    return text + (f" (by other auditors: {', '.join(others)})." if others else ".")


def _examples(clustered: pd.DataFrame, category: int, words: Words) -> str:
    same = ["consensus", "target_answer"]
    rows = clustered.loc[clustered["category"] == category, ["question", *same]].map(said)
    rows = rows.sort_values(["question", *same]).drop_duplicates("question")
    alike = rows.groupby(same, sort=False)["question"]  # one of each error first, the most frequent error before the others
    rows = rows.assign(turn=alike.cumcount(), rarity=-alike.transform("size")).sort_values(["turn", "rarity", *same, "question"])
    return "\n".join(f"- “{r.question}”: {words.right} “{r.consensus}”, the target says “{r.target_answer}”"
                     for r in rows.head(EXAMPLES).itertuples())


def _unconfirmed(row: tuple, words: Words) -> str:
    text = f"- {row.category + 1}. {said(row.name)}: {counted(row.size, words.one, words.many)} in the search"
    if pd.isna(row.verdict):
        return f"{text}, for instance “{said(row.example_question)}”"
    tried = f"{share(int(row.target_wrong), int(row.probes))} of the fresh probes" if row.probes else "no fresh probe"
    if row.verdict != UNDERPOWERED:
        return f"{text}; {tried}, not more than its references"
    return f"{text}; {tried}, too few to tell" + ("" if pd.isna(row.needed) else f": about {int(row.needed):,} would do")


def _how_sure(clustered: pd.DataFrame, types: pd.DataFrame, confirmed: bool, words: Words) -> list[str]:
    parts = []
    if confirmed:
        counts = types["verdict"].value_counts()
        n, open_types = int(counts.get(CONFIRMED, 0)), int(counts.get(UNDERPOWERED, 0))
        parts.append(f"Each type was asked again about pictures that no auditor had seen. It is confirmed if the target is alone "
                     f"with its answer more often than a reference is: of {counted(len(types), 'type')} {n} are, "
                     f"{len(types) - n - open_types} are not, and of {open_types} too few probes could be made. Of the confirmed "
                     f"ones at most {100 * LEVEL:.0f} % are expected to be chance.")
        if blind := int(types["not_seen"].sum()):
            parts.append(f"{counted(blind, 'probe does', 'probes do')} not count, since there the target missed an easy question "
                         "about the picture.")
    else:
        parts.append("Nothing here was asked again on fresh pictures, so each type may be an accident of the search. Run stage "
                     "03 with fresh_probes above 0 to confirm them.")
    if confirmed and not words.verified:
        parts.append("Confirmed means different from the references: nobody has said who is right.")
    parts.append(f"The number of {words.many} of a type says how hard the auditors looked for it, not how often people meet it. "
                 "Where all references share an error, a target that is right counts as wrong.")
    return parts


def _advice(types: pd.DataFrame, weak: pd.DataFrame, confirmed: bool, words: Words) -> list[str]:
    check = "" if words.verified else " Where the references are right, by your own eye:"
    if weak.empty:
        return ["Nothing is confirmed, so there is nothing to train on yet: " + (
            "ask more fresh probes (fresh_probes), or search longer." if confirmed else "confirm the types first.")]
    lines = []
    skills = weak.groupby("skill", sort=False)
    for skill, rows in sorted(skills, key=lambda pair: (-pair[1]["size"].sum(), pair[0])):
        asked = listed([f"“{said(question)}” (answer: “{said(answer)}”)" for question, answer in rows[
            ["example_question", "example_consensus"]].head(EXAMPLES).itertuples(index=False)])
        part = round(100 * rows["size"].sum() / types["size"].sum())
        lines.append(f"{len(lines) + 1}. {said(skill) or 'other questions'}: {counted(len(rows), 'confirmed type')}, "
                     f"{f'{part} %' if part else 'less than 1 %'} of the {words.many} in types; questions such as {asked}")
    return [f"On examples of the confirmed types, the skill with most {words.many} first, with what the target is strong at "
            f"mixed in so that it is not lost.{check}", "\n".join(lines)]
