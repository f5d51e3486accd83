"""Looking into a finished run: its failure types and probes chosen and searched, a probe as a card, any model asked anything.

`explore_widgets` puts these functions behind the controls of `notebooks/explore_failures.ipynb`.
"""

import base64
import html
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.audit.consensus import consensus, disagrees
from auditdm_lib.audit.files import read
from auditdm_lib.models import placement
from auditdm_lib.models.vlm import VLM, load_vlm, replies, settings
from auditdm_lib.replies import short_answer
from auditdm_lib.results.found import run_folder
from auditdm_lib.run import manifest
from auditdm_lib.shown import one_line, shorten
from auditdm_lib.taxonomy import edits

OUTCOMES = {"the target disagrees": lambda p: p["valid"].astype(bool) & p["disagrees"].astype(bool),
            "all agree": lambda p: p["valid"].astype(bool) & p["consensus"].notna() & ~p["disagrees"].astype(bool),
            "no consensus": lambda p: p["valid"].astype(bool) & p["consensus"].isna(),
            "not a valid question": lambda p: ~p["valid"].astype(bool),
            "any": lambda p: pd.Series(True, p.index)}
SEARCHED = ("probe_id", "question", "caption", "edit", "consensus", "target_answer", "truth")  # where words are sought
WIDE = 320  # pixels at which a picture is shown
LONGEST = 400  # characters of a text that is shown
ASKED = 300  # characters of a question that is put to a model
QUICK = ("regeneration_share=0.0", "edit_share=0.0", "imitation_pictures=2000", "probes_per_auditor=500", "fresh_probes=300")


@dataclass(frozen=True)
class Run:
    """A run whose stages 02 and 03 are finished. `probes` has a column `category`, -1 for a probe that is in no type; `found`
    are the types as stage 03 found them, and `edits` what people changed."""

    name: str
    folder: Path  # runs/<run>
    parameters: dict[str, Any]  # of stage 02
    probes: pd.DataFrame
    found: edits.Types
    edits: edits.Edits

    @property
    def file(self) -> Path:
        """Where the changes to the failure types are kept."""
        return self.folder / edits.NAME

    @property
    def types(self) -> pd.DataFrame:
        """The failure types as edited, largest first: category, name, size, share and, where stage 03 asked again, verdict and
        rate, the target's error rate on fresh pictures."""
        table = edits.types(self.found.categories, self.edits)
        if self.found.confirmation is None:
            return table.assign(verdict="not asked again", rate=None)
        fresh = pd.read_parquet(self.folder / "03_taxonomy" / "fresh.parquet")
        tested = edits.confirmed(self.found.confirmation, fresh, self.found.categories, self.edits)
        return table.merge(tested[["category", "verdict", "rate"]], on="category", validate="one_to_one")

    def changed(self, changes: edits.Edits) -> "Run":
        """The run with other changes, which are written to its file; the file is deleted where nothing is changed any more."""
        if changes:
            edits.save(changes, self.file)
        else:
            self.file.unlink(missing_ok=True)
        return replace(self, edits=changes)


def load(name: str) -> Run:
    """A run by its name below runs/ or by its folder. Raises manifest.Stop where a stage is missing or damaged, or where the
    changes in its folder were made for other types."""
    folder = run_folder(name)
    probes_folder, taxonomy = folder / "02_probes", folder / "03_taxonomy"
    record = manifest.verify(probes_folder, "probes.parquet")
    manifest.verify(taxonomy, "failures.parquet", "categories.parquet")
    found = edits.read(taxonomy)
    probes = pd.read_parquet(probes_folder / "probes.parquet")
    probes = probes.merge(found.failures[["probe_id", "category"]], on="probe_id", how="left", validate="one_to_one")
    probes["category"] = probes["category"].fillna(-1).astype(int)
    file = folder / edits.NAME
    changes = edits.load(file, found.categories) if file.exists() else edits.none(found.categories)
    return Run(folder.name, folder, record["key"]["parameters"], probes, found, changes)


def choose(run: Run, category: int | str = "", auditor: str = "", kind: str = "", outcome: str = "any",
           words: str = "") -> pd.DataFrame:
    """The probes of a failure type (-1: in no type), an auditor and a kind ("" for any of each) with an OUTCOME, in
    which each of the words occurs, in any case, in one of the columns SEARCHED. In the order of the run."""
    rows = edits.apply(run.probes, run.edits)
    kept = OUTCOMES[outcome](rows)
    for column, wanted in (("category", category), ("auditor", auditor), ("kind", kind)):
        if wanted != "":
            kept &= rows[column].eq(wanted)
    rows = rows[kept]
    for word in words.casefold().split():
        hit = [rows[column].astype(str).where(rows[column].notna(), "").str.casefold().str.contains(word, regex=False)
               for column in SEARCHED]
        rows = rows[pd.concat(hit, axis=1).any(axis=1).to_numpy(bool)]
    return rows


def card(run: Run, probe: pd.Series) -> str:
    """One probe as HTML: the picture, beside it the one that was drawn for the probe, the question and every answer. Texts by
    models are shown as texts."""
    pictures = [("the picture", probe["source_image"])]
    if probe["image"] != probe["source_image"]:
        pictures.append((f"drawn for this probe ({probe['kind']})", probe["image"]))
    shown = "".join(figure(read(run.folder / "02_probes" / name), words) for words, name in pictures)
    agreed = probe["consensus"]
    rows = [("target", probe["target_answer"], "disagrees" if probe["disagrees"] else "")]
    rows += [(f"reference {k}", vote, "") for k, vote in enumerate(probe["reference_answers"], 1)]
    rows += [("consensus", agreed, "" if _is_text(agreed) else "none: the references do not agree")]
    rows += [("right answer", probe["truth"], "known to the testbed or data set, for grading only")] if _is_text(
        probe["truth"]) else []
    notes = [(words, probe[column]) for column, words in (
        ("caption", "caption"), ("edit", "edit command"), ("invalid_reason", "not valid"),
        ("picture_reason", "picture left out")) if _is_text(probe[column])]
    lines = "".join(f"<p>{words}: <q>{safe(text)}</q></p>" for words, text in notes)
    return (f"<div style='display:flex;flex-wrap:wrap;gap:16px'>{shown}<div style='min-width:260px;max-width:520px'>"
            f"<p style='font-size:1.15em'><b>{safe(probe['question'])}</b></p>{lines}{answers_table(rows)}"
            f"<p style='opacity:.75'>{safe(probe['probe_id'])}, asked by {safe(probe['auditor'])}</p></div></div>")


def answers_table(rows: list[tuple[str, Any, str]]) -> str:
    """Rows (who, answer, remark) as an HTML table; a missing answer is a dash, and a remark that says "disagrees" is red."""
    left, body = "text-align:left;padding-right:12px", ""
    for who, text, note in rows:
        colour = ";color:var(--jp-error-color0,firebrick);font-weight:bold" if note == "disagrees" else ""
        cells = [f"<th scope='row' style='{left}{colour}'>{safe(who)}</th>"]
        cells += [f"<td style='{left}{colour}'>{cell}</td>" for cell in (safe(text) if _is_text(text) else "–", safe(note))]
        body += f"<tr>{''.join(cells)}</tr>"
    return f"<table>{body}</table>"


def figure(picture: Image.Image, words: str) -> str:
    """A picture with a caption as HTML, WIDE pixels wide; a small one with its pixels as squares, as the models saw them."""
    data, small = BytesIO(), picture.width < WIDE
    if not small:
        picture = picture.copy()
        picture.thumbnail((2 * WIDE, 2 * WIDE))
    picture.save(data, "PNG")
    look = "image-rendering:pixelated;" if small else ""
    return (f"<figure style='margin:0'><img alt='{safe(words)}' width='{WIDE}' style='{look}max-width:100%' "
            f"src='data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}'>"
            f"<figcaption>{safe(words)}</figcaption></figure>")


def safe(text: Any) -> str:
    """A text on one line, cut to LONGEST characters, that no browser takes for anything else."""
    return html.escape(shorten(one_line(text), LONGEST))


def models(run: Run) -> dict[str, str]:
    """The models of a run that can be asked, by what they are called: target, references, and those of stage 04 if it ran."""
    named = {"target": run.parameters["target"]}
    named |= {f"reference {k}": name for k, name in enumerate(run.parameters["references"], 1)}
    rectified = run.folder / "04_rectified"
    return named | {name: str(rectified / part) for name, part in (("rectified", "model"), ("control", "control"))
                    if (rectified / part).is_dir()}


def ask(run: Run, named: dict[str, str], picture: Image.Image, question: str) -> pd.DataFrame:
    """What each model (name -> folder or hub id) says to a question about a picture: model, reply, answer (None where the reply
    did not end).

    All are loaded as the run's were; its members are asked as its audit asked them, any other model in its own way. Raises
    ValueError for a question that is empty or longer than ASKED characters, and where a model cannot be loaded.
    """
    question = one_line(question)
    if not question or len(question) > ASKED:
        raise ValueError(f"Write a question of at most {ASKED} characters.")
    if not named:
        raise ValueError("Choose at least one model.")
    p = run.parameters
    asked = dict(zip([p["target"], *p["references"]], settings(
        1 + len(p["references"]), p.get("answer_prompts", ()), p.get("answer_tokens", ())), strict=True))
    placement.place_as(p)
    rows = []
    for name, model in named.items():
        given = replies(_loaded(model, tuple(asked.get(model, {}).items())), [picture], [question]).iloc[0]
        rows.append((name, given["reply"], short_answer(given["reply"], question) if given["ended"] else None))
    return pd.DataFrame(rows, columns=["model", "reply", "answer"])


def vote(said: pd.DataFrame) -> str:
    """What the references among the models that were asked agree on, and whether the target differs, in one sentence."""
    votes = said.loc[said["model"].str.startswith("reference "), "answer"].tolist()
    target = said.loc[said["model"] == "target", "answer"].tolist()
    if not votes or not target:
        return "Ask the target and its references for a vote."
    agreed = consensus(votes)
    if agreed is None:
        return "The references do not agree, so this question says nothing about the target."
    differs = disagrees(target[0], agreed)
    return (f"The references agree on “{one_line(agreed)}”, and the target {'differs: a failure' if differs else 'agrees'}"
            + (", or an error that the references share." if differs else "."))


@lru_cache(maxsize=8)
def _loaded(model: str, asked: tuple) -> VLM:
    return load_vlm(model, dict(asked))


def planting(model: str, gap: str, out: Path) -> list[str]:
    """The command that plants a gap (a YAML mapping) into a testbed model and writes the new one to the folder `out`."""
    return [sys.executable, "-m", "auditdm_lib.run", "testbed", "plant", "--model", model, "--gap", gap, "--out", str(out)]


def auditing(run: str, target: Path, profile: str) -> list[str]:
    """The command that audits a target with the parameters of a profile, questions alone (QUICK), up to its failure types."""
    settings = (f"run={run}", f"target={target}", *QUICK)
    return [sys.executable, "-m", "auditdm_lib.run", "run", profile, "--to", "03", *(
        word for setting in settings for word in ("--set", setting))]


def again(run: Run) -> str:
    """What to add to the command of a run so that its later stages use the changes."""
    inside = run.file.is_relative_to(paths.ROOT)
    return f"--from 04 --set type_edits={(run.file.relative_to(paths.ROOT) if inside else run.file).as_posix()}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
