"""The paper's tables: those with numbers from `values`, figures/paper_values.csv, and two of statements, in this kit's words.

Each table has a caption that says where it comes from, how sure it is, and what is left out because it is not known.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from auditdm_lib.results.paper_figures import ARMS, BASELINE, FAMILIES, WITHOUT_NUMBERS, by_size
from auditdm_lib.results.paper_style import how_sure, rows_of
from auditdm_lib.shown import one_line, write_csv

NOT_STATED = "not stated"
NARROW = "\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"  # LaTeX, for tables as broad as the page
LEFT_OUT = {"Gemma3": ["MME"]}  # of an average: a sum of points, not a percentage
METRICS = {"PaliGemma2": "DocVQA: ANLS; ChartQA: relaxed accuracy, human split; RefCOCO: mean IoU; COCOCap: CIDEr",
           "Gemma3": "MME is a sum of points and stands outside the average"}


def averages(values: pd.DataFrame) -> pd.DataFrame:
    """The average of each model, as Figure 2 prints it and recomputed from the main tables: series, printed, recomputed."""
    printed, rows = rows_of(values, "fig2_average").set_index("series")["value"], []
    for family, (item, _) in FAMILIES.items():
        scores = rows_of(values, item)
        scores = scores[~scores["category"].isin(LEFT_OUT.get(family, []))]
        means = scores.groupby("series")["value"].mean()
        rows += [(series, printed.get(series, np.nan), round(means[series], 2)) for series in by_size(scores["series"])]
    return pd.DataFrame(rows, columns=["series", "printed", "recomputed"])


def main_table(values: pd.DataFrame, family: str) -> tuple[pd.DataFrame, str]:
    """A main table and its caption: the scores of a family's models on eight benchmarks, the average, the gain by AuditDM."""
    rows = rows_of(values, FAMILIES[family][0])
    benchmarks, models = list(dict.fromkeys(rows["category"])), by_size(rows["series"])
    table = rows.pivot(index="series", columns="category", values="value").loc[models, benchmarks]
    table["average"] = averages(values).set_index("series")["recomputed"]
    after = next(name for name in models if "+" in name)
    table.loc["gain by AuditDM"] = (table.loc[after] - table.loc[after.partition(" + ")[0]]).round(2)
    table["confidence"] = _sure(rows).reindex(table.index, fill_value="recomputed")
    counted = len(benchmarks) - len(LEFT_OUT.get(family, []))
    return table.rename_axis("model").reset_index(), (
        f"{family} before and after AuditDM, and larger models. {how_sure(rows)} The average of {counted} and the gains are "
        f"recomputed. {METRICS[family]}.")


def search_success(values: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The search success of the untrained and the trained auditor in percent, and the table's caption."""
    rows = rows_of(values, "search_success")
    table = pd.DataFrame({"auditor": rows["series"], "search success %": rows["value"], "asked": rows["category"],
                          "confidence": rows["confidence"]})
    return table, (f"Search success: verified failures per attempt, one new pair for each pair of the set. {how_sure(rows)} "
                   "Two strong models, and people where these differ, say what is right. No intervals are printed.")


def ablation(values: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The scores of PaliGemma2-3B (224 px) fine-tuned on each kind of probe (NaN: not known), and the table's caption."""
    rows = rows_of(values, "ablation_paligemma2_3b_224px")
    table = rows.pivot(index="series", columns="category", values="value")
    table = table.reindex([BASELINE, *ARMS])[list(dict.fromkeys(rows["category"]))]
    table["confidence"] = _sure(rows)
    return table.rename_axis("probes").reset_index(), (
        f"Ablation of the kinds of probes, PaliGemma2-3B at 224 px. {how_sure(rows)} What is not known is left empty: "
        f"{int(table.isna().sum().sum())} scores. {WITHOUT_NUMBERS}")


def assumptions() -> tuple[pd.DataFrame, str]:
    """The two assumptions under which a consensus stands for the truth, and the table's caption."""
    table = pd.DataFrame([
        ("answerability", "a question on which the references agree has an answer", NOT_STATED,
         "share of probes with a consensus that have an answer in truth"),
        ("only the target is right: rare", "where target and consensus differ, the target is nearly always wrong", NOT_STATED,
         "share of known disagreements in which the target is right"),
    ], columns=["assumption", "in other words", "measured in the paper", "measured by a run in table_assumptions"])
    return table, ("The assumptions that make a consensus an oracle: as printed in the paper (arXiv 2512.16921), in this kit's "
                   "words (confidence: high). No share measured there is known, so none is given; a run measures both.")


def positioning() -> tuple[pd.DataFrame, str]:
    """What an audit does that a benchmark and an untrained auditor do not, and the table's caption."""
    table = pd.DataFrame([
        ("benchmark", "a fixed set of pictures and questions", "no", "labels of the set", "a score", NOT_STATED, "medium"),
        ("prompt-only auditor", "new questions, captions and edits for any picture", "no", "consensus of references",
         "failures, one pass each", NOT_STATED, "high"),
        ("AuditDM", "new questions, captions and edits for any picture", "yes, by GRPO", "consensus of references",
         "failures, one pass each, in named types", "yes, without annotations", "high"),
    ], columns=["approach", "what is asked", "trained on the target's answers", "what is taken as right", "what comes out",
                "data that rectify the target", "confidence"])
    return table, ("Where AuditDM stands: facts as printed in the paper (arXiv 2512.16921), in this kit's words. It is not the "
                   "paper's own table of related methods, whose rows and columns are not known here and are left out.")


def sources(values: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Where each number was read, and how sure it is, and the table's caption."""
    table = values.groupby(["item", "source", "confidence"], sort=False).size().rename("numbers").reset_index()
    return table, "The numbers as printed in the paper (arXiv 2512.16921): where each was read, and how sure it is."


def all_tables(values: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, str]]:
    """All tables with their captions by file name."""
    mains = {f"table_{family.lower()}": main_table(values, family) for family in FAMILIES}
    return {"table_positioning": positioning(), "table_search_success": search_success(values), **mains,
            "table_ablation": ablation(values), "table_assumptions": assumptions(), "table_sources": sources(values)}


def write(table: pd.DataFrame, caption: str, folder: Path, name: str) -> None:
    """Write `name`.csv and `name`.tex (booktabs; long columns of words in paragraphs). The same table gives the same bytes."""
    write_csv(table, folder / f"{name}.csv")
    words = [not pd.api.types.is_numeric_dtype(table[column]) for column in table]
    wide = sum(table[column].astype(str).str.len().max() for column in table) > 100
    paragraph = rf"p{{{0.9 / max(sum(words), 1):.3f}\linewidth}}" if wide else "l"
    shown = table.map(lambda cell: one_line(cell) if isinstance(cell, str) else cell)
    text = shown.to_latex(index=False, escape=True, na_rep="--", float_format=lambda x: f"{x:.2f}".removesuffix("0"),
                          column_format="".join(paragraph if is_word else "r" for is_word in words), position="t",
                          caption=_escaped(caption), label=f"tab:{name.removeprefix('table_')}")
    if wide or len(table.columns) > 6:  # over both columns of the page, with less room between those of the table
        text = text.replace("{table}", "{table*}").replace(r"\begin{tabular}", NARROW + r"\begin{tabular}")
    (folder / f"{name}.tex").write_text("% needs \\usepackage{booktabs}\n" + text, encoding="utf-8")


def _sure(rows: pd.DataFrame) -> pd.Series:
    """How sure the numbers of each series are, as the file says it."""
    return rows.groupby("series")["confidence"].agg(lambda levels: ", ".join(sorted(set(levels))))


def _escaped(text: str) -> str:
    """A caption for LaTeX; pandas escapes cells alone."""
    return "".join(f"\\{char}" if char in "%&_#$" else char for char in text)
