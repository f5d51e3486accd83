"""Figure 3, the architecture of AuditDM, drawn by code: boxes and arrows are rows of two tables, in inches from the lower left
corner."""

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from auditdm_lib.results.paper_style import PAGE, SMALL, page, styled
from auditdm_lib.shown import drawable

HEIGHT = 4.25
TRAINED, FROZEN, DATA, STEP = "trained", "frozen", "data", "step"
LOOKS = {TRAINED: ("#CDEBDD", 2.0, "-"), FROZEN: ("#E4E4E4", 0.8, "-"), DATA: ("white", 0.8, "--"), STEP: ("#FFF3D6", 0.8, "-")}
PAPER = {"auditor": "Gemma3-4B", "target": "PaliGemma2 or Gemma3", "references": "variants of PaliGemma2\nand Gemma3",
         "draws": "FLUX.1-dev", "edits": "FLUX.1-Kontext-dev"}  # the paper's models by their role
NOTE = ("Parts, equations and models as printed in the paper (arXiv 2512.16921); the drawing is this kit's. Frozen: while the "
        "auditor learns. I_g: the picture drawn from the caption; I_e: the edited one. Not stated there, so left out: the "
        "prompts, the members of the ensemble and when they agree, what judges whether two answers differ, the group's size.")
# name: kind, left, bottom, width, height, heading, text; "{target}" and so on stand for the models
BOXES = {
    "picture": (DATA, 0.08, 2.92, 0.86, 0.62, "picture I", "question Q\nof a data set"),
    "auditor": (TRAINED, 1.26, 2.78, 1.2, 0.9, "auditor A", "{auditor}\nthree prompts"),
    "caption": (DATA, 2.78, 3.62, 1.1, 0.5, "caption C", "with hard elements"),
    "command": (DATA, 2.78, 2.98, 1.1, 0.5, "edit command E", "a precise change"),
    "question": (DATA, 2.78, 2.34, 1.1, 0.5, "question Q*", "about I, I_g or I_e"),
    "draws": (FROZEN, 4.2, 3.62, 1.22, 0.5, "draws picture I_g", "{draws}"),
    "edits": (FROZEN, 4.2, 2.98, 1.22, 0.5, "edits I into I_e", "{edits}"),
    "probe": (DATA, 5.74, 2.34, 1.18, 1.78, "probe", "new question and\nnew picture I*:\n(Q*, I*),\nor (Q*, I),\nor (Q, I*)"),
    "references": (FROZEN, 4.2, 1.3, 1.6, 0.66, "references", "{references}"),
    "target": (FROZEN, 4.2, 0.5, 1.6, 0.5, "target", "{target}"),
    "judge": (STEP, 2.66, 0.86, 1.22, 0.78, "disagreement s", "Equation 1: 1 if the\ntarget differs from\nthe consensus, or 0"),
    "grpo": (STEP, 1.26, 0.86, 1.08, 0.78, "GRPO", "Equation 2: rewards\ncompared within\na group"),
    "failures": (DATA, 0.08, 0.08, 2.26, 0.46, "failures", "named types, data for fine-tuning"),
}
# the corners of each arrow's line, its label and where that stands
ARROWS = [
    ([(0.94, 3.23), (1.26, 3.23)], "", ()),
    ([(2.46, 3.4), (2.62, 3.4), (2.62, 3.87), (2.78, 3.87)], "", ()),
    ([(2.46, 3.23), (2.78, 3.23)], "", ()),
    ([(2.46, 3.06), (2.62, 3.06), (2.62, 2.59), (2.78, 2.59)], "", ()),
    ([(3.88, 3.87), (4.2, 3.87)], "", ()),
    ([(3.88, 3.23), (4.2, 3.23)], "", ()),
    ([(3.88, 2.59), (5.74, 2.59)], "", ()),
    ([(5.42, 3.87), (5.74, 3.87)], "", ()),
    ([(5.42, 3.23), (5.74, 3.23)], "", ()),
    ([(6.33, 2.34), (6.33, 1.63), (5.8, 1.63)], "", ()),
    ([(6.33, 1.63), (6.33, 0.75), (5.8, 0.75)], "", ()),
    ([(4.2, 1.63), (4.04, 1.63), (4.04, 1.4), (3.88, 1.4)], "consensus", (3.86, 1.76)),
    ([(4.2, 0.75), (4.04, 0.75), (4.04, 1.1), (3.88, 1.1)], "answer", (3.86, 0.6)),
    ([(2.66, 1.25), (2.34, 1.25)], "", ()),
    ([(1.8, 1.64), (1.8, 2.78)], "trains", (2.06, 2.2)),
    ([(3.0, 0.86), (3.0, 0.31), (2.34, 0.31)], "where s = 1", (3.4, 0.42)),
    ([(2.34, 0.2), (5.0, 0.2), (5.0, 0.5)], "rectifies, once the audit is done", (3.9, 0.1)),
]


@styled
def fig3_architecture(models: dict[str, str] = PAPER, note: str = NOTE) -> Figure:
    """Figure 3: how a picture becomes a probe, how the disagreement about it trains the auditor, and where the failures go.

    `models` names the auditor, the target, the references, and the models that draw and edit.
    """
    figure = page(HEIGHT, note)
    figure.set_layout_engine("none")
    whole = figure.get_figheight()
    axis = figure.add_axes((0, 1 - HEIGHT / whole, 1, HEIGHT / whole))
    axis.set(xlim=(0, PAGE), ylim=(0, HEIGHT))
    axis.axis("off")
    for corners, label, place in ARROWS:
        axis.plot(*zip(*corners[:-1], strict=True), color="#333333", linewidth=1, solid_capstyle="butt")
        axis.annotate("", corners[-1], corners[-2], arrowprops=dict(arrowstyle="-|>", color="#333333", linewidth=1, shrinkA=0,
                                                                    shrinkB=0, mutation_scale=8))
        if label:
            axis.text(*place, label, ha="center", va="center", fontsize=SMALL)
    for kind, x, y, width, height, heading, text in BOXES.values():
        fill, line, style = LOOKS[kind]
        axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.05", facecolor=fill,
                                      edgecolor="#222222", linewidth=line, linestyle=style))
        body = "\n".join(drawable(part, int(18 * width)) for part in text.format(**models).splitlines())
        middle, tall = x + width / 2, 0.115 * (1 + len(body.splitlines()))
        axis.text(middle, y + height / 2 + tall / 2, heading, ha="center", va="top", fontsize=7.5, fontweight="bold")
        axis.text(middle, y + height / 2 + tall / 2 - 0.13, body, ha="center", va="top", fontsize=SMALL, linespacing=1.05)
    for i, (kind, words) in enumerate({TRAINED: "trained", FROZEN: "frozen", STEP: "computed",
                                       DATA: "text, pictures, data"}.items()):
        fill, line, style = LOOKS[kind]
        x, y = 0.08, 2.3 - 0.16 * i
        axis.add_patch(FancyBboxPatch((x, y), 0.2, 0.1, boxstyle="round,pad=0,rounding_size=0.02", facecolor=fill,
                                      edgecolor="#222222", linewidth=line, linestyle=style))
        axis.text(x + 0.27, y + 0.05, words, va="center", fontsize=SMALL)
    return figure
