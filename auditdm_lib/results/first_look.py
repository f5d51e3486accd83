"""What `00_start_here` shows: one vote on one picture, a group of questions with its rewards and advantages, and what the tracked
reference run found."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.audit.auditor import Search, judge_proposed, propose
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.audit.probes import overall
from auditdm_lib.models.vlm import VLM
from auditdm_lib.shown import drawable

REFERENCE = paths.ROOT / "figures" / "reference"
GROUP = 8  # questions about one picture, few enough to be counted by hand
USUAL = 0.3  # share of the questions with a reward in the group that is shown: one in which some have it and most do not
EPSILON = 1e-4  # of Equation 2, as in TRL
STYLE = {"font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 11, "text.parse_math": False, "figure.dpi": 100,
         "savefig.dpi": 110, "figure.constrained_layout.use": True}


def telling(answers: pd.DataFrame) -> int:
    """The row of a question on which the target disagrees with the references, the first one; without any, the first row."""
    return int(answers["disagrees"].to_numpy(bool).argmax())


def ballot(probe: pd.Series) -> pd.DataFrame:
    """Who answered what to one question, the consensus, and what Equation 1 makes of it: who, says."""
    rows = [(f"reference {k}", vote) for k, vote in enumerate(probe["reference_answers"], 1)]
    rows += [("consensus of the references", probe["consensus"] if isinstance(probe["consensus"], str) else "none"),
             ("target", probe["target_answer"]), ("s, Equation 1", f"{int(probe['disagrees'])}")]
    return pd.DataFrame(rows, columns=["who", "says"]).fillna("no answer")


def fig_vote(picture: Image.Image, seen: Image.Image, probe: pd.Series) -> Figure:
    """A picture, drawn for people and as the models have seen it, a question, and the members' answers beside it: the target's in
    bold red where it disagrees."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.6))
        left, middle, right = figure.subplots(1, 3, width_ratios=[1, 0.3, 1.4])
        left.imshow(picture, interpolation="nearest")
        middle.imshow(seen, interpolation="nearest")
        middle.set_title("as the models\nsee it", fontsize=8)
        for axis in (left, middle, right):
            axis.axis("off")
        right.text(0, 0.95, drawable(probe["question"], 90), fontsize=13, fontweight="bold", wrap=True, va="top")
        for place, row in enumerate(ballot(probe).itertuples()):
            wrong = probe["disagrees"] and row.who in ("target", "s, Equation 1")
            y = 0.7 - 0.13 * place
            right.text(0, y, row.who, color="firebrick" if wrong else "black", fontweight="bold" if wrong else "normal")
            right.text(0.62, y, drawable(row.says, 40), color="firebrick" if wrong else "black",
                       fontweight="bold" if wrong else "normal")
    return figure


def group(panel: Panel, auditor: VLM, pictures: Pictures, search: Search, seed: int) -> tuple[int, pd.DataFrame]:
    """GROUP questions about one picture, sampled from the auditor, with the members' answers, the reward (Equation 1) and the
    advantage (Equation 2). The picture, given by its place, is the first whose share of rewards comes nearest to USUAL.
    """
    rows = np.repeat(np.arange(len(pictures)), GROUP)
    about = pictures.take(rows)
    table, _ = propose(auditor, about, ["question"] * len(rows), search, seed)
    table = judge_proposed(panel, about, table).assign(picture=rows)
    table["reward"] = table["disagrees"].astype(float)
    chosen = int((table.groupby("picture")["reward"].mean() - USUAL).abs().idxmin())
    asked = table[table["picture"] == chosen].reset_index(drop=True)
    return chosen, asked.assign(advantage=advantages(asked["reward"].to_numpy()))[
        ["question", "target_answer", "reference_answers", "consensus", "invalid_reason", "reward", "advantage"]]


def advantages(rewards: np.ndarray) -> np.ndarray:
    """Equation 2 for the rewards (G,) of one group: each reward less their mean, over their standard deviation plus EPSILON.

    The standard deviation is that of a sample (divided by G - 1), as in TRL; the paper does not say. Example:
    advantages(np.array([1.0, 0.0])) gives 0.7070 and -0.7070.
    """
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + EPSILON)


def by_hand(rewards: np.ndarray) -> str:
    """Equation 2 with the numbers of one group of rewards of 0 and 1 in it, as Markdown with LaTeX."""
    n, ones, mean, std = len(rewards), int(rewards.sum()), rewards.mean(), rewards.std(ddof=1)
    lines = [rf"\operatorname{{mean}}(s) &= \frac{{{ones}}}{{{n}}} = {mean:.3f} \\",
             rf"\operatorname{{std}}(s) &= \sqrt{{\frac{{{ones}\,(1 - {mean:.3f})^2 + {n - ones}\,(0 - {mean:.3f})^2}}"
             rf"{{{n - 1}}}}} = {std:.3f} \\"]
    for score in sorted(set(rewards.tolist()), reverse=True):
        lines.append(rf"A_k &= \frac{{{score:.0f} - {mean:.3f}}}{{{std:.3f} + {EPSILON}}} = "
                     rf"{(score - mean) / (std + EPSILON):+.3f} && \text{{where }} s_k = {score:.0f} \\")
    return "$$\\begin{aligned}\n" + "\n".join(lines) + "\n\\end{aligned}$$"


def reference_findings(folder: Path = REFERENCE) -> pd.DataFrame:
    """What the tracked reference run found, from its files: question, answer. All are testbed results of one seed."""
    search = overall(pd.read_csv(folder / "search.csv")).set_index("auditor")
    tested, recovered = pd.read_csv(folder / "confirmation.csv"), pd.read_csv(folder / "recovered.csv")
    scores = pd.read_csv(folder / "table_scores.csv").set_index("model")["gap-items"]
    found = [(f"How often does a question show a failure: {words}?",
              f"{row.success:.0%} ({row.ci_low:.0%} to {row.ci_high:.0%})") for words, row in (
        ("asked at random", search.loc["random"]), ("by the untrained auditor", search.loc["prompt_only"]),
        ("by the trained auditor", search.loc["trained"]))]
    confirmed = int((tested["verdict"] == "confirmed").sum())
    found += [("How many failure types were found, and how many did fresh pictures confirm?", f"{len(tested)}, {confirmed}"),
              ("How many of the planted gaps do the confirmed types recover?",
               f"{int(recovered['recovered'].sum())} of {len(recovered)}"),
              *((f"How many held-out questions inside the gaps are answered rightly by {words}?", f"{scores[model]} %")
                for words, model in (("the target", "target"),
                                     ("the rectified target, which learned from its failures", "rectified"),
                                     ("the control, which learned from as many random questions", "control")))]
    return pd.DataFrame(found, columns=["question", "answer"])
