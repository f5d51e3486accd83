"""Names and descriptions of failure types in plain words, derived by counting the texts of their members."""

from collections import Counter

import pandas as pd

from auditdm_lib.shown import one_line, shorten
from auditdm_lib.taxonomy.cluster import GAP_MARK, as_text, key, main_rows, split_words
from auditdm_lib.taxonomy.skills import NONE, foreign

CATEGORY_COLUMNS = ["category", "skill", "name", "description", "size", "share", "example_probe_ids", "example_question",
                    "example_consensus", "example_target"]
TRUE_OF = 0.8  # share of the members of which a name has to be true
MOST_ANSWERS, LISTED = 4, 0.1  # right answers that a name lists, and share of the members that each stands for
VARIOUS = "various wrong answers"


def categories(clustered: pd.DataFrame, verified: bool = True) -> pd.DataFrame:
    """One row per failure type, largest first, with CATEGORY_COLUMNS: the skill, a name in plain words, a description, size,
    share of all counted failures (0-1), the ids of up to five examples (the first ones in the table, separated by spaces) and
    the texts of the first example; and by_<auditor>, the failures of each auditor that is not counted.

    Counted are the failures of the main auditor (`cluster.main_rows`). Where nothing verified the failures, the description
    calls them suspicions.
    """
    clustered = clustered.assign(question=clustered["question"].map(as_text), main=main_rows(clustered), **{
        name: one_wording(clustered[name]) for name in ("consensus", "target_answer")})
    total, table = int(clustered["main"].sum()), []
    others = sorted(set(clustered.loc[~clustered["main"], "auditor"])) if "auditor" in clustered else []
    for category, members in clustered[clustered["category"] >= 0].groupby("category", sort=True):
        rows = members[members["main"]]
        pairs = Counter(zip(rows["consensus"], rows["target_answer"], strict=True)).most_common(3)
        usual = rows[(rows["consensus"] == pairs[0][0][0]) & (rows["target_answer"] == pairs[0][0][1])]
        first = usual.iloc[0]
        answers = ", ".join(f"“{_short(a)}” answered “{_short(b)}” ({n})" for (a, b), n in pairs)
        skill = members["skill"].iloc[0]
        table.append((
            category, skill, name_of(rows),
            f"{len(rows)} of {total} {'failures' if verified else 'suspicions'} are about {skill}, such as "
            f"“{_common_form(rows['question'])}”; "
            f"{'right and wrong answers' if verified else 'the references and the target'}: {answers}. "
            f"For instance “{_short(first['question'], 120)}”.",
            len(rows), len(rows) / total, " ".join(usual["probe_id"].head(5)),
            first["question"], first["consensus"], first["target_answer"],
            *[int((members["auditor"] == auditor).sum()) for auditor in others]))
    table = pd.DataFrame(table, columns=CATEGORY_COLUMNS + [f"by_{auditor}" for auditor in others])
    repeated = table.groupby("name").cumcount()  # two types may get the same name; names are made unique
    table["name"] += [f" ({n + 1})" if n else "" for n in repeated]
    return table


def one_wording(answers: pd.Series) -> pd.Series:
    """Answers that are the same (`cluster.key`) in one wording: the most frequent, then the shortest, then the first."""
    answers, wordings = answers.map(as_text), {}
    forms = {text: key(text) for text in answers.unique()}
    for text, n in answers.value_counts().items():
        wordings[forms[text]] = min(wordings.get(forms[text], (0,)), (-n, len(text), text))
    return answers.map(lambda text: wordings[forms[text]][2])


def name_of(rows: pd.DataFrame) -> str:
    """The name of a type with these members (skill, consensus, target_answer in one wording; condition if they have one): the
    skill, the condition, and the most telling of `statements` that is true of at least TRUE_OF of them."""
    first = rows.iloc[0]
    condition = f" (“{first['condition']}”)" if first.get("condition") else ""
    return f"{first['skill']}{condition}: {next(text for text, true in statements(rows) if true.mean() >= TRUE_OF)}"


def statements(rows: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """What a name may say of an error, most telling first, and of which members (rows: consensus, target_answer) it is true.

    For example "purple said as blue", "yes and no swapped", "three, four or five said as two", "said as two".
    """
    right, wrong = (rows[name].map(lambda text: _short(text.lower())) for name in ("consensus", "target_answer"))
    pairs = Counter(zip(right, wrong, strict=True))
    (a, b), n = min(pairs.items(), key=lambda item: (-item[1], item[0]))
    one = (right == a) & (wrong == b)
    both = one | (right == b) & (wrong == a)
    counts = Counter(right[wrong == b])
    least = max(2, LISTED * len(rows))
    listed = [text for text in sorted(counts, key=lambda text: (-counts[text], text)) if counts[text] >= least][:MOST_ANSWERS]
    found = [(" and ".join(sorted((a, b), reverse=True)) + " swapped", both)] if pairs[b, a] >= 0.2 * n and a != b else []
    if listed:
        some = ", ".join(listed[:-1]) + " or " + listed[-1] if len(listed) > 1 else listed[0]
        found.append((f"{some} said as {b}", (wrong == b) & right.isin(listed)))
    return [*found, (f"said as {b}", wrong == b), (VARIOUS, pd.Series(True, rows.index))]


def _short(text: str, most: int = 40) -> str:
    return shorten(one_line(text), most) or "(nothing)"


def _common_form(questions: pd.Series) -> str:
    # For the most common length, word by word: a word shared by 80 % of the questions is kept, others become one "…".
    split = [split_words(question) for question in questions]
    length = min(Counter(map(len, split)).items(), key=lambda item: (-item[1], item[0]))[0]
    split = [words for words in split if len(words) == length]
    form = []
    for place in zip(*split, strict=True):
        word, n = Counter(place).most_common(1)[0]
        word = word if n >= 0.8 * len(split) else GAP_MARK
        if word != GAP_MARK or form[-1:] != [GAP_MARK]:
            form.append(word)
    if set(form) <= {GAP_MARK}:  # nothing in common: use the most common question
        return _short(questions.mode().iloc[0], 80)
    return _short(" ".join(form), 80) + "?"


def unread(clustered: pd.DataFrame) -> str:
    """A sentence on the counted failures that fit no skill since hardly a word of them is known; "" if there is none."""
    rows = clustered.loc[main_rows(clustered) & (clustered["skill"] == NONE), "question"]
    n = int(foreign(rows.map(as_text).tolist()).sum())
    return (f"In {n} of the questions hardly a word is known, so that no skill fits: for other languages than English set the "
            "parameter `encoder` to a multilingual sentence encoder.") if n else ""
