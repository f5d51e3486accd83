"""Names and descriptions of failure types in plain words, derived by counting the texts of their members."""

import textwrap
from collections import Counter

import pandas as pd

from auditdm_lib.answers import normalise
from auditdm_lib.shown import inert
from auditdm_lib.taxonomy.cluster import GAP_MARK, SMALLEST, split_words

CATEGORY_COLUMNS = ["category", "name", "description", "size", "share", "example_probe_ids", "example_question",
                    "example_consensus", "example_target"]


def categories(clustered: pd.DataFrame, verified: bool = True) -> pd.DataFrame:
    """One row per failure type, largest first, with CATEGORY_COLUMNS: a name in plain words, a description, size, share of
    all failures (0-1), the ids of up to five examples (the first ones in the table, separated by spaces) and the texts of the
    first example. Where nothing verified the failures, the description calls them suspicions."""
    clustered = clustered.assign(**{name: one_wording(clustered[name]) for name in ("consensus", "target_answer")})
    total, table = len(clustered), []
    for category, rows in clustered[clustered["category"] >= 0].groupby("category", sort=True):
        form, error = _common_form(rows["question"]), _error(rows)
        pairs = Counter(zip(rows["consensus"], rows["target_answer"], strict=True)).most_common(3)
        usual = rows[(rows["consensus"] == pairs[0][0][0]) & (rows["target_answer"] == pairs[0][0][1])]
        first = usual.iloc[0]
        answers = ", ".join(f"“{a}” answered “{b}” ({n})" for (a, b), n in pairs)
        table.append((
            category, f"“{form}” {error}",
            f"{len(rows)} of {total} {'failures' if verified else 'suspicions'} ask “{form}” or the like; "
            f"{'right and wrong answers' if verified else 'the references and the target'}: {answers}. "
            f"For instance “{first['question']}”.",
            len(rows), len(rows) / total, " ".join(usual["probe_id"].head(5)),
            first["question"], first["consensus"], first["target_answer"]))
    table = pd.DataFrame(table, columns=CATEGORY_COLUMNS)
    repeated = table.groupby("name").cumcount()  # two types may get the same name; names are made unique
    table["name"] += [f" ({n + 1})" if n else "" for n in repeated]
    return table


def one_wording(answers: pd.Series) -> pd.Series:
    """Answers that are the same (`normalise`) in one wording: the most frequent, then the shortest, then the first."""
    wordings = {}
    for (form, text), n in answers.groupby([answers.map(normalise), answers]).size().items():
        wordings[form] = min(wordings.get(form, (0,)), (-n, len(text), text))
    return answers.map(lambda text: wordings[normalise(text)][2])


def _common_form(questions: pd.Series) -> str:
    # For the most common length, word by word: a word shared by 80 % of the questions is kept, others become one "…".
    split = [split_words(question) for question in questions]
    length = Counter(map(len, split)).most_common(1)[0][0]
    split = [words for words in split if len(words) == length]
    form = []
    for place in zip(*split, strict=True):
        word, n = Counter(place).most_common(1)[0]
        word = word if n >= 0.8 * len(split) else GAP_MARK
        if word != GAP_MARK or form[-1:] != [GAP_MARK]:
            form.append(word)
    if set(form) <= {GAP_MARK}:  # nothing in common: use the most common question
        return textwrap.shorten(questions.mode().iloc[0], 80, placeholder=" …")
    return textwrap.shorten(" ".join(form), 80, placeholder=" …") + "?"


def _error(rows: pd.DataFrame) -> str:
    # For example "purple said as blue", "yes and no swapped", "four or five said as three".
    right, wrong = ([textwrap.shorten(text.lower(), 40, placeholder=" …") or "(nothing)" for text in rows[name]]
                    for name in ("consensus", "target_answer"))
    pairs = Counter(zip(right, wrong, strict=True))
    (right, wrong), n = pairs.most_common(1)[0]
    if pairs[wrong, right] >= 0.2 * n:
        return " and ".join(sorted((right, wrong), reverse=True)) + " swapped"
    also = [a for (a, b), m in pairs.most_common() if b == wrong and m >= 0.05 * len(rows)]
    if len(also) > 4:
        return f"said as {wrong}"
    listed = ", ".join(also[:-1]) + " or " + also[-1] if len(also) > 1 else right
    return f"{listed} said as {wrong}"


def report(clustered: pd.DataFrame, table: pd.DataFrame, verified: bool = True) -> str:
    """The failure types as a Markdown report; it states if there is no failure or no type, and speaks of suspicions where nothing
    was `verified`. No text acts as markup."""
    total, lone = len(clustered), int((clustered["category"] < 0).sum())
    one = "failure" if verified else "suspicion"
    found = f"{total} {one}{'s' if total > 1 else ''}"
    lines = ["# Failure types" if verified else "# Types of suspicion", ""]
    if not verified:
        lines += ["The truth about these pictures is unknown: the target differs here from the consensus of the references, and "
                  "either may be right.", ""]
    if total == 0:
        return "\n".join([*lines, f"No {one} was found: nowhere did the target differ from the consensus.", ""])
    if table.empty:
        lines += [f"{found}, too few alike to make a type of at least {SMALLEST}.", ""]
    else:
        lines += [f"{found}, {len(table)} type{'s' if len(table) > 1 else ''}; {lone} like too few others to make a type.", ""]
    for row in table.itertuples():
        lines += [f"## {row.category + 1}. {inert(row.name)}", "", inert(row.description), ""]
    return "\n".join(lines)
