"""The report's answers in sentences: what was audited, what is wrong with the target, how sure that is, what it would cost to
know more, what to train on. Texts are plain; whoever shows them escapes them.
"""

from typing import NamedTuple

import pandas as pd

from auditdm_lib.audit.probes import attempted, overall
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.results import findings, measures
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.results.data_card import model_name
from auditdm_lib.results.findings import counted
from auditdm_lib.shown import one_line, shorten
from auditdm_lib.stats import wilson
from auditdm_lib.taxonomy.confirm import CONFIRMED, LEVEL, UNDERPOWERED

BY_CHANCE = ("random", "prompt_only")  # auditors that do not look for failures: they tell how often one is met
STRONG, SURE = 0.95, 0.8  # a skill is strong if this share of its items is right and the interval begins at SURE (our choice)
LISTED = 6  # strong skills, or skills to train on, that are named
LONGEST = 160  # characters of a text of a model
CALLED = {"random": "random questions", "prompt_only": "the untrained auditor", "trained": "the trained auditor"}


class Strong(NamedTuple):
    """A skill that the target has: items of the held-out suites that it has right, and all of them."""

    skill: str
    right: int
    items: int


def said(text: object, most: int = LONGEST) -> str:
    """A text by a model as one short line, without what could turn it round."""
    return shorten(one_line(text), most)


def percent(k: int, n: int) -> str:
    """'90 %'; with a decimal where it would else be called none or all of them though it is not."""
    share = 100 * k / n
    return f"{share:.1f}\u00a0%" if 0 < k < n and round(share) in (0, 100) else f"{share:.0f}\u00a0%"


def with_interval(k: int, n: int) -> str:
    """'27 of 30 (90 %, 95 % interval 74 to 97 %)'."""
    low, high = wilson(k, n)
    return f"{k:,} of {n:,} ({percent(k, n)}, 95\u00a0% interval {100 * low:.0f} to {100 * high:.0f}\u00a0%)"


def listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]


def types(run: Artefacts) -> pd.DataFrame:
    """The failure types with the columns of their confirmation (`verdict` is null where nothing was asked again) and `met`, their
    failures among the probes of BY_CHANCE: the confirmed ones first, then those that are met most often."""
    table = run.categories.assign(met=[_met(run, category) for category in run.categories["category"]])
    if run.confirmation is None:
        table = table.assign(verdict=None, probes=0, target_wrong=0, ci_low=0.0)
    else:
        table = table.merge(run.confirmation.drop(columns=["name", "skill"]), "left", "category", validate="1:1")
    table = table.assign(sure=table["verdict"].eq(CONFIRMED))
    return table.sort_values(["sure", "met", "ci_low", "category"], ascending=[False, False, False, True], ignore_index=True)


def _met(run: Artefacts, category: int) -> int:
    mine = run.failures[run.failures["category"] == category]
    return int(mine["auditor"].isin(BY_CHANCE).sum())


def audited(run: Artefacts) -> list[str]:
    """What was audited: the models, the pictures, and how many questions were put."""
    key = run.records.get("02_probes", {}).get("key", {}).get("parameters", {})
    target, references = key.get("target"), key.get("references", [])
    members = len(run.probes["reference_answers"].iloc[0]) if len(run.probes) else len(references)
    whom = f"The target {_file(target)}" if target else "The target"
    against = f" ({listed([_file(name) for name in references])})" if references else ""
    asked = [f"{whom} was compared with {counted(members, 'reference')}{against} on "
             f"{counted(len(attempted(run.probes)), 'probe')}, that is questions about {_pictures(run)}."]
    asked.append("The consensus of the references stands for the right answer; " + (
        "the truth about these pictures is known as well, so each failure named here is checked." if run.verified else
        "nobody has said whether it is right."))
    return asked


def _file(name: str) -> str:
    return f"“{said(model_name(name).rpartition('/')[2] or name, 60)}”"


def _pictures(run: Artefacts) -> str:
    key = run.records.get("02_probes", {}).get("key", {}).get("parameters", {})
    of = f" of “{said(model_name(key['pictures']), 60)}”" if "pictures" in key else ""
    probes = attempted(run.probes)
    drawn = probes.loc[probes["image"] != probes["source_image"], "image"].nunique()
    more = f" and {counted(drawn, 'picture')} drawn from them" if drawn else ""
    return counted(probes["source_image"].nunique(), "picture") + of + more


def wrong(run: Artefacts) -> list[str]:
    """At most three sentences: the types, how often they are met, and what small edits or held-out suites show."""
    name, table = findings.words(run), types(run)
    if table.empty:
        return [f"No {name['type']} was found in {counted(len(attempted(run.probes)), 'probe')}."]
    sure = table[table["sure"]]
    first = sure if len(sure) else table
    does = "gives a wrong answer" if run.verified else "differs from its references"
    kind = f"{counted(len(first), 'kind')} of question" + ("" if len(sure) else " that the search met")
    most = listed([f"“{said(row.name)}”" for row in first.head(3).itertuples()])
    sentences = [f"The target {does} again and again on {kind}; those that random questions and the untrained auditor met most "
                 f"often are {most}."]
    return sentences + _met_by_chance(run, sure) + (_outside(run) or _edits(run))


def _met_by_chance(run: Artefacts, sure: pd.DataFrame) -> list[str]:
    """How often people who do not look for failures would meet one, and the share of the confirmed types in them."""
    search = overall(run.search).set_index("auditor")
    auditor = next((name for name in BY_CHANCE if name in search.index), None)
    if auditor is None:
        return []
    row = search.loc[[auditor]]
    rate = measures.rates(row, run.verified)[0]
    if pd.isna(rate.value):
        return []
    asked = "random questions" if auditor == "random" else "questions by the untrained auditor"
    does = "answers wrongly" if run.verified else "differs from its references on"
    text = f"Of {asked} it {does} {rate.value:.1f} % ({rate.low:.1f} to {rate.high:.1f})"
    mine = run.failures[run.failures["auditor"] == auditor]
    if len(sure) and len(mine):
        share = mine["category"].isin(sure["category"]).sum()
        text += f", and {percent(share, len(mine))} of these are of the confirmed {findings.words(run)['types']}"
    return [text + "."]


def _edits(run: Artefacts) -> list[str]:
    rows = findings.having(run.flips, kind="edit", member="target", auditor="trained")
    before, after, both = ("is right", "wrong", "are right") if run.verified else ("gives their answer", "another", "agree")
    return [f"Small edits of a picture tip it over: in {row.n_right_wrong:,} of {counted(row.pairs, 'pair')} it {before} before "
            f"the edit and {after} after it, while its references {both} both times." for row in rows if row.pairs]


def _outside(run: Artefacts) -> list[str]:
    if not run.suites_scored:
        return []
    mine = measures.suite_average(run.items, "target")
    others = [measures.suite_average(run.items, name).value for name in run.items["model"].unique()
              if name.startswith("reference")]
    if pd.isna(mine.value) or not others:
        return []
    suites = [name for name in run.items["suite"].unique() if name != GAP_ITEMS]
    return [f"On {counted(len(suites), 'held-out suite')} it scores {mine.value:.1f} % on average ({mine.low:.1f} to "
            f"{mine.high:.1f}), its references {listed([f'{value:.1f} %' for value in others])}."]


def strong(run: Artefacts) -> list[Strong]:
    """The skills that the target has, by its answers to the held-out suites, the surest first. A share of right items makes a
    skill strong, and not the mere number of items; where no truth verified anything there are none."""
    mine = run.items[(run.items["model"] == "target") & (run.items["suite"] != GAP_ITEMS)]
    if not run.verified or not run.suites_scored or "skill" not in mine or mine["skill"].isna().all():
        return []
    marks = mine.groupby("skill")["correct"].agg(["sum", "size"]).astype(int)
    rows = [Strong(str(skill).replace("_", " "), k, n) for skill, k, n in marks.itertuples()
            if k / n >= STRONG and wilson(k, n)[0] >= SURE]
    return sorted(rows, key=lambda row: (-row.right / row.items, -row.items, row.skill))


def sure(run: Artefacts) -> list[str]:
    """How sure the result is: what fresh pictures confirmed, and how far the consensus can be trusted."""
    name, said_ = findings.words(run), []
    if run.confirmation is None:
        said_.append(f"Nothing was asked again on fresh pictures, so each {name['type']} may be an accident of the search.")
    else:
        n, held = len(run.confirmation), int((run.confirmation["verdict"] == CONFIRMED).sum())
        said_.append(f"Each {name['type']} was asked again about pictures that no auditor had seen, and {held} of {n} are "
                     "confirmed: there the target alone contradicts the rest significantly more often than one reference "
                     f"alone does (exact test; of the confirmed types at most {100 * LEVEL:.0f} % are expected to be "
                     "chance).")
    said_.append(findings.agreement(run)[0])
    said_ += _consensus_error(run)
    if not run.verified:
        said_.append("The truth is not known: either side may be right.")
    return [*said_, "It is one run with one seed: the intervals are over probes and pictures, not over seeds."]


def _consensus_error(run: Artefacts) -> list[str]:
    search = overall(run.search).set_index("auditor")
    rows = search[(search["disagreements_known"].fillna(0) > 0) & search.index.isin(CALLED)]
    return ["Where the target and the consensus disagree and the right answer is known, the consensus was wrong in "
            + listed([f"{row.label_noise:,.0f} of {row.disagreements_known:,.0f} ({CALLED[auditor]})"
                      for auditor, row in rows.iterrows()]) + "."] if len(rows) else []


def more(run: Artefacts) -> list[str]:
    """What it would cost to know more: new kinds by further probes, and types that were asked too seldom."""
    parts = [findings.cost(run)]
    if run.unseen is not None:
        for row in run.unseen[run.unseen["auditor"].isin(("random", "trained"))].itertuples():
            if row.failures and row.unseen_share > 0:
                parts.append(f"By {CALLED[row.auditor]} about one probe in {1 / row.unseen_share:,.0f} would still show a kind "
                             f"of {findings.words(run)['one']} that the {row.probes:,} so far have not shown: about so many more "
                             f"questions for the next new kind. They have shown {row.kinds:,} kinds, types and lone "
                             f"{findings.words(run)['many']} together; at least {row.unseen_kinds:,.0f} more are estimated to "
                             f"exist ({row.kinds_low:,.0f} to {row.kinds_high:,.0f}), most of them rare.")
    if run.confirmation is not None:
        few = run.confirmation[run.confirmation["verdict"] == UNDERPOWERED]
        known = few["needed"].dropna()
        if len(few):
            parts.append(f"{counted(len(few), 'type')} had too few fresh pictures to tell" + (
                f": about {int(known.sum()):,} suitable ones would do" if len(known) else "")
                + ". Raise fresh_probes and run stage 03 again.")
    return parts


def training(run: Artefacts) -> tuple[str, list[str]]:
    """What to train on: an introduction, and a line for each skill of the confirmed types, the one met most often first."""
    table = types(run)
    sure_ones = table[table["sure"]]
    if sure_ones.empty:
        return findings.advice(run), []
    skills = sure_ones.groupby("skill", sort=False)
    order = sorted(skills, key=lambda pair: (-pair[1]["met"].sum(), -pair[1]["size"].sum(), pair[0]))
    lines = []
    for skill, rows in order[:LISTED]:
        asked = listed([f"“{said(question, 90)}” (answer: “{said(answer, 40)}”)" for question, answer in rows[
            ["example_question", "example_consensus"]].head(2).itertuples(index=False)])
        lines.append(f"{said(skill) or 'other questions'} ({counted(len(rows), 'type')}, "
                     f"{counted(int(rows['size'].sum()), 'example')}), such as {asked}")
    rest = (f" Listed are the {LISTED} skills met most often by chance; {len(order) - LISTED} more have confirmed types."
            if len(order) > LISTED else "")
    intro = (f"On the {sure_ones['size'].sum():,} {findings.words(run)['many']} of the confirmed types that the trained auditor "
             f"found, evenly over the types, mixed with as many questions that it has right, so that little else is lost.{rest}"
             + against_control(run))
    if not run.verified:
        intro += " Only where the references are right, by your own eye."
    return intro, lines


def against_control(run: Artefacts) -> str:
    """What audited data taught the target beside as many un-audited ones, as a sentence that begins with a space; "" where that
    was not measured."""
    if not run.suites_scored or not {"rectified", "control"} <= set(run.items["model"]):
        return ""
    inside = (run.items["suite"] == GAP_ITEMS).any()
    score, gain = ((measures.gap_score, measures.gap_gain) if inside else (measures.suite_average, measures.average_gain))
    mine, other = (score(run.items, model).value for model in ("rectified", "control"))
    less = gain(run, "rectified", "control")
    did = "better than" if less.low > 0 else "worse than" if less.high < 0 else "neither clearly better nor clearly worse than"
    return (f" Fine-tuned so, the target does {did} after as many questions that no audit selected (the control): {mine:.1f} % "
            f"against {other:.1f} % {'inside the planted gaps' if inside else 'on the suites'}, a difference of "
            f"{less.value:+.1f} points ({less.low:+.1f} to {less.high:+.1f})" + (
                "; so add questions that no audit selected, or train on those alone." if less.high < 0 else "."))


def in_brief(run: Artefacts) -> dict[str, list[str]]:
    """The report beside Figure 1: what the target is strong at, weak at, and what to train on, a line each."""
    sure_ones = types(run)
    sure_ones = sure_ones[sure_ones["sure"]] if sure_ones["sure"].any() else sure_ones
    weak = [f"{said(row.name)}" + (f" ({row.target_wrong:.0f} of {row.probes:.0f} fresh probes)" if row.probes else "")
            for row in sure_ones.head(5).itertuples()]
    if len(sure_ones) > 5:
        weak.append(f"and {len(sure_ones) - 5} more {'confirmed ' if run.confirmation is not None else ''}types")
    intro, lines = training(run)
    first, stop, _ = intro.partition(". ")  # the figure has room for a sentence
    heading = "Weak at" if run.verified else "Differs from the references on"
    known = {"Strong at": [f"{row.skill} ({row.right} of {row.items} held-out items right)" for row in strong(run)[:4]]}
    learn = [first + stop.strip(), *[line.partition(", such as")[0] for line in lines[:3]]]
    return (known if run.verified else {}) | {heading: weak, "To train on": learn}


def models_of(parameters: dict) -> dict[str, str]:
    """The models of a run by their role in Figure 3, from the parameters of its stage 02, each by the last part of its name."""
    def named(name: str) -> str:
        return model_name(name).rpartition("/")[2] or name
    drawn = {"draws": ("regeneration_share", "image_model"), "edits": ("edit_share", "edit_model")}
    models = {"auditor": named(parameters["auditor"]), "target": named(parameters["target"]),
              "references": "\n".join(map(named, parameters["references"]))}
    for role, (share, model) in drawn.items():
        models[role] = ("not in this run" if not parameters[share] else
                        named(parameters[model]) if parameters["drawer"] == "diffusion" else "the renderer")
    return models


def missed(run: Artefacts) -> pd.DataFrame | None:
    """The planted gaps, missed ones first: gap, trained and random (failures found inside), and found: whether a confirmed type
    is about it or, where nothing was asked again, a type of its own. None where no gap was planted."""
    if run.gaps is None or run.hits is None:
        return None
    hits = run.hits.pivot_table(index="gap", columns="auditor", values="hits", aggfunc="sum")
    table = hits.reindex(columns=["trained", "random"]).fillna(0).astype(int).reset_index()
    graded, mark = (run.gaps, "own_category") if run.recovered is None else (run.recovered, "recovered")
    found = graded.set_index("gap")[mark]
    table["found"] = [bool(found.get(gap, False)) for gap in table["gap"]]
    return table.sort_values(["found", "trained", "gap"], ignore_index=True)

