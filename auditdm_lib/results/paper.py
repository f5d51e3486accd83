"""The paper's figures and tables, drawn from the numbers that it prints: no run is needed, and no model is loaded.

`python -m auditdm_lib.results.paper` writes `figures/paper/`: figures as PDF and PNG, tables as CSV and LaTeX.
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from auditdm_lib import paths
from auditdm_lib.results import paper_figures, paper_tables
from auditdm_lib.results.folder import write_folder
from auditdm_lib.results.paper_diagram import fig3_architecture
from auditdm_lib.results.paper_style import how_sure, rows_of, save
from auditdm_lib.run import manifest

NAME = "paper"  # the folder below figures/
COLUMNS = ["item", "series", "category", "value", "unit", "source", "confidence"]


def read(file: Path = paths.PAPER_VALUES) -> pd.DataFrame:
    """The paper's numbers. Raises Stop where the file is missing or lacks a column."""
    try:
        values = pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise manifest.Stop(f"{file.name} cannot be read ({error}): restore it from the repository.") from error
    if missing := [name for name in COLUMNS if name not in values]:
        raise manifest.Stop(f"{file.name} lacks the columns {', '.join(missing)}: restore it from the repository.")
    return values


def all_figures(values: pd.DataFrame) -> dict[str, Figure]:
    """All figures by file name."""
    drawn = {"fig2_averages": paper_figures.fig2_averages(values), "fig3_architecture": fig3_architecture(),
             "fig_ablation": paper_figures.fig_ablation(values), "fig_search_success": paper_figures.fig_search_success(values)}
    shares = rows_of(values, "fig4_failure_share")
    note = "A share, not a rate: the two models add up to the whole, however rare a type is."
    drawn["fig4_failure_types"] = paper_figures.fig4_failure_types(shares, ("PaliGemma2-3B", "PaliGemma2-28B"),
                                                                   f"{how_sure(shares)} {note}")
    for family, (item, _) in paper_figures.FAMILIES.items():
        rows = rows_of(values, item).set_index("series")
        rows = pd.concat([rows.loc[[name]] for name in paper_figures.by_size(rows.index)]).reset_index()
        drawn[f"fig_radar_{family.lower()}"] = paper_figures.fig_radar(rows, f"{family} on eight benchmarks", how_sure(rows))
    return drawn


def write(file: Path = paths.PAPER_VALUES) -> Path:
    """Write `figures/paper/` with its manifest; the folder. Raises Stop as `read` and where a number lacks."""
    values = read(file)
    drawn, made = all_figures(values), paper_tables.all_tables(values)

    def fill(out: Path) -> None:
        for name, figure in drawn.items():
            save(figure, out, name)
        for name, (table, caption) in made.items():
            paper_tables.write(table, caption, out, name)
    return write_folder(NAME, {file.name: manifest.hash_file(file)}, fill)


def main() -> None:
    try:
        folder = write()
    except manifest.Stop as problem:
        sys.exit(str(problem))
    files = sorted(file.name for file in folder.iterdir() if file.suffix in (".pdf", ".tex"))
    print(f"As printed in the paper, without a run: {', '.join(Path(name).stem for name in files)}.")
    print(f"Figures (PDF, PNG) and tables (CSV, LaTeX): {folder}")


if __name__ == "__main__":
    main()
