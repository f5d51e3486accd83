"""report.html: one self-contained page for readers, the answer first. The template escapes all text, since parts of it come from
models."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined
from PIL import Image

from auditdm_lib.audit.probes import overall
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.results import drawn_figures, findings, measures, report_text
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.results.data_card import model_name
from auditdm_lib.results.measures import with_interval
from auditdm_lib.results.report_text import said
from auditdm_lib.results.shown_pictures import Shown, opened, seen
from auditdm_lib.stats import Estimate
from auditdm_lib.taxonomy.confirm import CONFIRMED
from auditdm_lib.taxonomy.reaudit import in_words

TEMPLATE, STYLE = (Path(__file__).with_name(name) for name in ("report.html", "report.css"))
THUMBNAIL = 320  # pixels of a picture's longer side at most
PALETTE = 64  # colours of a drawing
CARDS, EXAMPLES, PAIRS = 30, 3, 4  # failure types shown with pictures, pictures of each, and pairs of pictures
ANSWER = 60  # characters of an answer


def write(run: Artefacts, verdicts: pd.DataFrame, figures: Path, pictures: Path | Shown, note: str) -> Path:
    """Write report.html into the folder `figures`, some of whose PNG files it embeds; `pictures` are those of 02_probes.

    `verdicts` is the claims table, `note` a line that states what kind of result this is. Where no truth verified the failures,
    the page speaks of suspicions, and leads with how often the references agree.
    """
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8"))
    table = verdicts.astype(object).where(verdicts.notna(), None).assign(tone=verdicts["verdict"].str.replace(" ", "-"))
    types, training = report_text.types(run), report_text.training(run)
    best = sorted(int(name.removeprefix("best_of_")) for name in set(run.search["auditor"]) if name.startswith("best_of_"))
    page = template.render(
        style=STYLE.read_text(encoding="utf-8"), note=note, verified=run.verified, words=findings.words(run),
        confirmed=run.confirmation is not None, warning=findings.agreement(run)[1], audited=report_text.audited(run),
        wrong=report_text.wrong(run), strong=report_text.strong(run), sure=report_text.sure(run), more=report_text.more(run),
        training=training, best=best[0] if best else None, against=report_text.against_control(run), numbers=numbers(run),
        **types_shown(run, types, pictures), seen=as_seen(run, types, pictures),
        pairs=findings.pairs(run), flips=flips(run, pictures), drawings=findings.drawings(run), reaudit=reaudit(run),
        again="" if run.reaudit is None else in_words(run.reaudit),
        scores=scores(run), gaps=gaps(run), images={path.stem: data_uri(path) for path in sorted(figures.glob("fig*.png"))},
        claims=table.to_dict("records"), counts=verdicts["verdict"].value_counts().to_dict(), suites=run.suites_scored,
        rectified="rectified" in set(run.items["model"]), caveats=caveats(run), provenance=provenance(run))
    path = figures / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def data_uri(picture: Path) -> str:
    """A PNG file as a data URI, for a `src` attribute."""
    return _uri("png", picture.read_bytes())


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def thumbnail(picture: Image.Image) -> str:
    """A picture as a data URI, at most THUMBNAIL pixels long: a drawing of few colours as PNG, another one as JPEG."""
    if max(picture.size) > THUMBNAIL:
        picture = picture.copy()
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = BytesIO()
    few = picture.quantize(PALETTE, dither=Image.Dither.NONE)
    if max(picture.size) < THUMBNAIL / 4 or _near(few.convert("RGB"), picture):
        (picture if max(picture.size) < THUMBNAIL / 4 else few).save(file, "PNG", optimize=True)
        return _uri("png", file.getvalue())
    picture.save(file, "JPEG", quality=75)
    return _uri("jpeg", file.getvalue())


def _near(a: Image.Image, b: Image.Image) -> bool:
    """Whether two pictures differ by at most 4 of 255 on average, as a drawing and its few colours do."""
    some = [picture.resize((64, 64), Image.Resampling.NEAREST).tobytes() for picture in (a, b)]
    return sum(abs(x - y) for x, y in zip(*some, strict=True)) <= 4 * len(some[0])


def numbers(run: Artefacts) -> list[tuple[str, str]]:
    """The main numbers: (what, value with interval)."""
    rows = []
    search = overall(run.search).set_index("auditor")
    for auditor in [name for name in report_text.CALLED if name in search.index]:
        row = search.loc[auditor]
        called = report_text.CALLED[auditor].removeprefix("the ")
        if pd.notna(row["success"]):
            success = Estimate(row["success"], row["ci_low"], row["ci_high"])
            among = "" if run.verified else f" among the {int(row['verifiable'])} probes whose answer is known"
            rows.append((f"search success, {called}{among}", with_interval(measures.percent(success)) + " %"))
        if not run.verified:
            rate = measures.rates(search.loc[[auditor]], verified=False)[0]
            rows.append((f"disagreements per probe, {called}, not verified", with_interval(rate) + " %"))
    rows.append((f"{findings.words(run)['types']} found", f"{len(run.categories)}"))
    if run.confirmation is not None:
        sure = int((run.confirmation["verdict"] == CONFIRMED).sum())
        rows.append((f"{findings.words(run)['types']} confirmed on fresh pictures", f"{sure} of {len(run.confirmation)}"))
    return rows if run.suites_scored else rows + findings.held_out(run)


def scores(run: Artefacts) -> list[dict]:
    """The averages before and after by model: of the suites, and inside the planted gaps where there are any."""
    if not run.suites_scored:
        return []
    names = {"target": "target", "rectified": "target, rectified", "control": "target, control"}
    inside = (run.items["suite"] == GAP_ITEMS).any()
    return [dict(model=names.get(model, model.replace("_", " ")), suites=with_interval(measures.suite_average(run.items, model)),
                 gaps=with_interval(measures.gap_score(run.items, model)) if inside else "")
            for model in run.items["model"].unique()]


def types_shown(run: Artefacts, types: pd.DataFrame, pictures: Path | Shown) -> dict[str, list[dict]]:
    """The failure types as `cards` with pictures, the confirmed ones or else the first, and the `others` as lines."""
    sure = types[types["sure"]] if types["sure"].any() else types
    shown = sure.head(CARDS)
    others = types[~types["category"].isin(shown["category"])]
    return dict(cards=[_card(run, row, pictures) for row in shown.itertuples()],
                others=[_fact(run, row) | dict(example=_texts(row.example_question, row.example_consensus, row.example_target))
                        for row in others.itertuples()])


def _fact(run: Artefacts, row: tuple) -> dict:
    """What is known of a failure type: name, skill, verdict, its rate on fresh pictures, and how often the search met it."""
    asked, wrong = int(row.probes), int(row.target_wrong)
    fact = dict(name=said(row.name), skill=said(row.skill), verdict=row.verdict or "", rate=None, met=int(row.met),
                size=int(row.size), certainty=_found(run, run.failures[run.failures["category"] == row.category]))
    if asked:
        fact["rate"] = dict(text=report_text.with_interval(wrong, asked), value=100 * wrong / asked, low=100 * row.ci_low,
                            high=100 * row.ci_high, reference=100 * row.reference_rate)
    return fact


def _found(run: Artefacts, rows: pd.DataFrame) -> str:
    """How often a type was found; where no truth verified it, also how sure the references are."""
    if not run.verified:
        return findings.certainty(rows, run)
    by = [(int(rows["auditor"].eq("trained").sum()), "by the trained auditor"),
          (int(rows["auditor"].isin(report_text.BY_CHANCE).sum()), "by random questions and the untrained auditor")]
    by.append((len(rows) - by[0][0] - by[1][0], "by other searches"))
    parts = ", ".join(f"{k:,} {whom}" for k, whom in by if k)
    return (f"{findings.counted(len(rows), 'time')} on {findings.counted(rows['source_image'].nunique(), 'picture')}"
            f"{f' ({parts})' if parts else ''}")


def _card(run: Artefacts, row: tuple, pictures: Path | Shown) -> dict:
    return _fact(run, row) | dict(examples=[
        _texts(p.question, p.consensus, p.target_answer) | _picture(pictures, p.image)
        for p in _examples(run, row.example_probe_ids).head(EXAMPLES).itertuples()])


def _examples(run: Artefacts, ids: str) -> pd.DataFrame:
    """The probes of these ids, those about original pictures first and each question once before any comes twice."""
    rows = run.failures.set_index("probe_id").loc[ids.split()]
    rows = rows.assign(drawn=rows["image"] != rows["source_image"], asked=rows["question"].map(said))
    rows = rows.assign(again=rows.groupby(["drawn", "asked"]).cumcount())
    return rows.sort_values(["drawn", "again"], kind="stable")


def _texts(question: object, consensus: object, answer: object) -> dict:
    return dict(question=said(question), consensus=said(consensus, ANSWER), target=said(answer, ANSWER))


def _picture(pictures: Path | Shown, name: str) -> dict:
    """A thumbnail, and whether it is what the models saw in their few pixels."""
    picture = opened(pictures, name)
    return dict(picture=thumbnail(picture), coarse=max(picture.size) < THUMBNAIL / 2, width=picture.width, height=picture.height)


def as_seen(run: Artefacts, types: pd.DataFrame, pictures: Path | Shown) -> dict | None:
    """The first picture that is shown larger than the models saw it, both ways; None where there is none."""
    if not isinstance(pictures, Shown) or types.empty:
        return None
    probes = _examples(run, types["example_probe_ids"].iloc[0])
    name = next((image for image in probes["image"] if pictures.is_large(image)), None)
    if name is None:
        return None
    small = seen(pictures.folder / name)
    return dict(large=thumbnail(pictures.open(name)), small=thumbnail(small), width=small.width, height=small.height)


def flips(run: Artefacts, pictures: Path | Shown) -> list[dict]:
    """Edits after which the target alone is wrong: command, question, and the answers to both pictures."""
    if run.versions is None:
        return []
    rows = drawn_figures.flipped_pairs(run.versions, run.probes, 0, PAIRS)
    return [dict(command=said(row["text"]), question=said(row["question"]), before=_side(row, "", pictures),
                 after=_side(row, "_new", pictures)) for _, row in rows.iterrows()]


def _side(row: pd.Series, end: str, pictures: Path | Shown) -> dict:
    return _texts(row["question"], row[f"consensus{end}"], row[f"target_answer{end}"]) | _picture(pictures, row[f"image{end}"])


def reaudit(run: Artefacts) -> list[dict]:
    """The rectified target by failure type and, outside the types, by skill; [] where it was not asked again."""
    if run.reaudit is None:
        return []

    def share(row: tuple, name: str, sign: str = "", unit: str = " %") -> str:
        rates = [100 * getattr(row, column) for column in (name, f"{name}_low", f"{name}_high")]
        return "" if pd.isna(rates[0]) else "{:{s}.0f}{unit} ({:{s}.0f} to {:{s}.0f})".format(*rates, s=sign, unit=unit)
    return [dict(name=said(row.name if row.category >= 0 else f"{row.skill}, {row.name}"), n=int(row.n), verdict=row.verdict,
                 before=share(row, "before"), after=share(row, "after"), change=share(row, "change", "+", ""))
            for row in run.reaudit.itertuples()]


def gaps(run: Artefacts) -> dict | None:
    """The planted gaps with what the audit made of them, missed ones first; None where none was planted."""
    table = report_text.missed(run)
    if table is None:
        return None
    return dict(rows=table.to_dict("records"), found=int(table["found"].sum()), all=len(table), again=run.recovered is not None)


def caveats(run: Artefacts) -> list[str]:
    """How this result can mislead, with the numbers of this run where they are known."""
    words = ["This is one run with one seed. The intervals are over items and probes; they do not cover other training seeds.",
             ("Here the truth is known, and only what is wrong by it is called a failure. On data without a truth an error "
              "that all references share would count against the target." if run.verified else
              "The consensus of the references replaces the truth. An error that all references share counts as a "
              f"{findings.words(run)['one']} of the target.")]
    search = overall(run.search).set_index("auditor")
    if not run.verified:
        words.append("The truth about these pictures is not known in full, so a disagreement is a suspicion and may be the "
                     "references' error.")
    if "trained" in search.index:
        words.append(f"The training of the trained auditor has used {int(search.loc['trained', 'training_calls']):,} calls of "
                     "the target in addition; the untrained auditor has used none.")
    words.append(f"The number of {findings.words(run)['many']} of a type says how hard the auditors looked for it, not how often "
                 "people meet it.")
    words.append(f"{findings.words(run)['types'].capitalize()} are clusters of texts. They are named after their most common "
                 "question and answers" + (", and were not asked again on fresh pictures." if run.confirmation is None else "."))
    if not run.suites_scored:
        words.append("Agreement with the references says how alike two models are, not who is right: a model that has learned "
                     "their errors agrees more.")
    if run.hits is not None:
        words.append("The target's gaps were planted, so they are systematic and separate. The weaknesses of a real model may be "
                     "neither. The paper's values are shown for orientation only: they are for other models and pictures.")
    return words


def provenance(run: Artefacts) -> list[tuple[str, str]]:
    """What made this result: models and pictures with the beginning of their digests, seed, code, packages, processor; [] where
    no stage left a record."""
    record = run.records.get("02_probes")
    if record is None:
        return []
    values, digests, machine = record["key"]["parameters"], record["key"]["inputs"], record["environment"]

    def named(parameter: str, value: str) -> str:
        digest = digests.get(f"{parameter}: {value}")
        return model_name(value) + (f" ({digest[:12]})" if digest else "")
    rows = [("run and seed", f"{values['run']}, seed {values['seed']}"), ("target", named("target", values["target"])),
            *[(f"reference {i}", named("references", value)) for i, value in enumerate(values["references"], 1)],
            ("auditor before its training", named("auditor", values["auditor"])),
            ("pictures", named("pictures", values["pictures"])), ("drawer of pictures", run.drawer),
            ("consensus rule", values["consensus_rule"])]
    rows += [(f"files of {name}", made["outputs_digest"][:12]) for name, made in run.records.items()]
    versions = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "transformers", "trl")
                         if machine["packages"].get(name))
    commit = (machine["git_commit"] or "unknown")[:12] + (" with changes" if machine["git_dirty"] else "")
    return rows + [("code of stage 02, git commit", commit), ("packages", f"Python {machine['python']}, {versions}"),
                   ("processor", machine["processor"] or "unknown")]
