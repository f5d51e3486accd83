"""The controls of `notebooks/explore_failures.ipynb`: ipywidgets in front of the functions of `explore`.

Each class holds its controls as attributes and their arrangement as `box`. A fault that a user can mend is shown as a sentence.
"""

import html
import io
import subprocess
import threading
from collections.abc import Callable
from functools import wraps

import ipywidgets as widgets

from auditdm_lib import paths
from auditdm_lib.audit.files import read
from auditdm_lib.results import explore
from auditdm_lib.run import manifest, params
from auditdm_lib.taxonomy import edits

WIDE = widgets.Layout(width="640px", max_width="98%")
NARROW = widgets.Layout(width="310px", max_width="98%")
LOG_LINES = 12
ALL = ""  # in the place of a type: every probe


def told(method: Callable) -> Callable:
    """A callback whose faults are shown in the `status` of its object: ipywidgets would hide them in a log."""
    @wraps(method)
    def safe(self, *event):
        self.status.value = ""
        try:
            method(self, *event)
        except (manifest.Stop, ValueError, OSError, RuntimeError, LookupError) as error:
            self.status.value = f"<p role='alert' style='color:var(--jp-error-color0,firebrick)'>{html.escape(str(error))}</p>"
    return safe


class Browser:
    """Failure types and probes of a run: choose a type, an auditor, an outcome and words, and step through the probes."""

    def __init__(self, run: explore.Run):
        self.run, self.rows = run, run.probes
        self.type = widgets.Dropdown(description="type", layout=WIDE)
        self.auditor, self.kind = (widgets.Dropdown(description=name, layout=NARROW, options=[
            ("any", ""), *((value, value) for value in sorted(set(run.probes[name])))]) for name in ("auditor", "kind"))
        self.outcome = widgets.Dropdown(description="outcome", layout=NARROW, options=list(explore.OUTCOMES))
        self.words = widgets.Text(description="words", placeholder="in the question or an answer", layout=NARROW)
        self.place = widgets.BoundedIntText(description="probe", min=1, max=1, value=1, layout=widgets.Layout(width="160px"))
        self.back, self.on = widgets.Button(description="previous"), widgets.Button(description="next")
        self.count, self.card, self.status = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.name_types()
        for control in (self.type, self.auditor, self.kind, self.outcome, self.words):
            control.observe(self.choose, "value")
        self.place.observe(self.show, "value")
        self.back.on_click(lambda _: self.step(-1))
        self.on.on_click(lambda _: self.step(1))
        self.choose()
        self.box = widgets.VBox([self.type, widgets.HBox([self.auditor, self.kind], layout=_wrap()),
                                 widgets.HBox([self.outcome, self.words], layout=_wrap()),
                                 widgets.HBox([self.place, self.back, self.on, self.count], layout=_wrap()),
                                 self.card, self.status])

    def name_types(self) -> None:
        """Offer the types as they are now, and stay at the chosen one if it is still there."""
        table, chosen = self.run.types, self.type.value
        options = [("all probes", ALL), *((label(row), row.category) for row in table.itertuples()), ("in no type", -1)]
        self.type.options = options
        self.type.value = chosen if chosen in [value for _, value in options] else ALL

    @property
    def probe(self):
        """The row of the probe that is shown, None where no probe fits."""
        return self.rows.iloc[self.place.value - 1] if len(self.rows) else None

    @told
    def choose(self, *_) -> None:
        """Take up the chosen probes and show the first of them."""
        self.rows = explore.choose(self.run, self.type.value, self.auditor.value, self.kind.value, self.outcome.value,
                                   self.words.value)
        self.count.value = f"of {len(self.rows):,}" if len(self.rows) else "no probe fits"
        self.place.max = max(len(self.rows), 1)
        if self.place.value != 1:
            self.place.value = 1  # shows it
        else:
            self.show()

    @told
    def show(self, *_) -> None:
        """Show the probe whose number is set."""
        self.card.value = explore.card(self.run, self.probe) if len(self.rows) else ""

    def step(self, by: int) -> None:
        """Go on, or back, by so many probes, from the last to the first."""
        self.place.value = (self.place.value - 1 + by) % max(len(self.rows), 1) + 1


class Editor:
    """Veto, rename, merge and split the types that a Browser shows; each change is written to the run's folder at once."""

    def __init__(self, browser: Browser):
        self.browser = browser
        self.veto, self.rename, self.merge, self.undo = (widgets.Button(description=words, layout=widgets.Layout(width="auto"))
                                                         for words in ("leave this type out", "rename it", "merge it with",
                                                                       "undo all changes"))
        self.name = widgets.Text(description="new name", layout=WIDE)
        self.others = widgets.SelectMultiple(description="others", rows=6, layout=WIDE)
        self.status, self.changes = widgets.HTML(), widgets.HTML()
        for button, method in ((self.veto, self.on_veto), (self.rename, self.on_rename), (self.merge, self.on_merge),
                               (self.undo, self.on_undo)):
            button.on_click(method)
        self.show()
        self.box = widgets.VBox([widgets.HBox([self.veto, self.undo], layout=_wrap()), widgets.HBox([self.name, self.rename],
                                 layout=_wrap()), widgets.HBox([self.others, self.merge], layout=_wrap()), self.changes,
                                 self.status])

    def chosen(self) -> int:
        """The type that the browser shows. Raises ValueError where it shows none."""
        if self.browser.type.value in (ALL, -1):
            raise ValueError("Choose a type above first.")
        return self.browser.type.value

    @told
    def on_veto(self, _) -> None:
        self.save(edits.veto(self.browser.run.edits, self.chosen()))

    @told
    def on_rename(self, _) -> None:
        self.save(edits.rename(self.browser.run.edits, self.chosen(), self.name.value))
        self.name.value = ""

    @told
    def on_merge(self, _) -> None:
        self.save(edits.merge(self.browser.run.edits, [self.chosen(), *self.others.value]))

    @told
    def on_undo(self, _) -> None:
        self.save(edits.none(self.browser.run.found.categories))

    def save(self, changes: edits.Edits) -> None:
        """Write the changes, and show the types as they are now."""
        self.browser.run = self.browser.run.changed(changes)
        self.browser.name_types()
        self.browser.choose()
        self.show()

    def show(self) -> None:
        """Say what has been changed, and how the later stages take it up."""
        run = self.browser.run
        self.others.options = [(label(row), row.category) for row in run.types.itertuples()]
        e, names = run.edits, run.found.categories.set_index("category")["name"]
        lines = [f"left out: {explore.safe(names[number])}" for number in e.veto]
        lines += [f"renamed: {explore.safe(names[one])} is now {explore.safe(name)}" for one, name in e.rename.items()]
        lines += [f"merged: {'; '.join(explore.safe(names[one]) for one in group)}" for group in e.merge]
        then = (f"<p>Kept in <code>{explore.safe(manifest.shown(run.file))}</code>. To use the changes, repeat the run's "
                f"command with <code>{explore.safe(explore.again(run))}</code>.</p>")
        self.changes.value = f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>{then}" if lines else (
            "<p>Nothing has been changed.</p>")


class Asker:
    """Ask models of a run, or any other, anything about the picture that a Browser shows or about a picture of one's own."""

    def __init__(self, browser: Browser):
        self.browser, self.known = browser, explore.models(browser.run)
        panel = [name for name in self.known if name not in ("rectified", "control")]
        self.models = widgets.SelectMultiple(description="models", options=list(self.known), value=panel, layout=NARROW,
                                             rows=len(self.known))
        self.other = widgets.Text(description="another", placeholder="a model's folder or hub id", layout=NARROW)
        self.question = widgets.Text(description="question", layout=WIDE, placeholder="what would you like to ask?")
        self.upload = widgets.FileUpload(description="a picture of your own", accept="image/*", multiple=False,
                                         layout=widgets.Layout(width="auto"))
        self.own = widgets.Checkbox(description="ask about my picture", value=False, indent=False)
        self.ask = widgets.Button(description="ask", button_style="primary")
        self.answer, self.status = widgets.HTML(), widgets.HTML()
        self.ask.on_click(self.on_ask)
        self.upload.observe(lambda _: setattr(self.own, "value", True), "value")
        self.box = widgets.VBox([widgets.HBox([self.models, self.other], layout=_wrap()),
                                 widgets.HBox([self.upload, self.own], layout=_wrap()),
                                 widgets.HBox([self.question, self.ask], layout=_wrap()), self.answer, self.status])

    def picture(self):
        """The picture that is asked about. Raises ValueError where there is none or it cannot be read."""
        if self.own.value:
            if not self.upload.value:
                raise ValueError("Choose a picture of your own first.")
            return read(bytes(self.upload.value[0]["content"]))
        if self.browser.probe is None:
            raise ValueError("No probe is shown above, so there is no picture to ask about.")
        return read(self.browser.run.folder / "02_probes" / self.browser.probe["image"])

    @told
    def on_ask(self, _) -> None:
        named = {name: self.known[name] for name in self.models.value}
        if other := self.other.value.strip():
            if fault := params.model_fault(other):
                raise ValueError(f"{other}: {fault}")
            named[other] = other
        self.answer.value, picture = "asking ...", self.picture()
        try:
            said = explore.ask(self.browser.run, named, picture, self.question.value)
        except Exception:
            self.answer.value = ""
            raise
        rows = [(row.model, row.answer, "" if row.answer == row.reply else f"said: {row.reply}") for row in said.itertuples()]
        shown = explore.figure(picture, "asked about this picture")
        self.answer.value = (f"<div style='display:flex;flex-wrap:wrap;gap:16px'>{shown}<div>{explore.answers_table(rows)}"
                             f"<p>{explore.safe(explore.vote(said))}</p></div></div>")


class Planter:
    """Plant a gap into a model of the testbed and audit it, each in a process of its own; what they print is shown."""

    def __init__(self, profile: str, run: str, model: str, gap: str):
        self.profile, self.name = profile, run
        self.model = widgets.Text(description="model", value=model, layout=WIDE)
        self.gap = widgets.Text(description="gap", value=gap, layout=WIDE)
        self.go, self.stop = widgets.Button(description="plant and audit", button_style="primary"), widgets.Button(
            description="stop", disabled=True)
        self.log, self.status, self.found = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.lines, self.process, self.thread, self.stopped = [], None, None, False
        self.go.on_click(self.on_go)
        self.stop.on_click(self.on_stop)
        self.box = widgets.VBox([self.model, self.gap, widgets.HBox([self.go, self.stop], layout=_wrap()), self.log, self.found,
                                 self.status])

    def commands(self) -> list[list[str]]:
        """What is run, one after the other. The planted model's folder has the first number that is free."""
        made = paths.HOME / "models"
        number = next(n for n in range(1, 10_000) if not (made / f"{self.name}-{n}").exists())
        out, run = made / f"{self.name}-{number}", f"{self.name}-{number}"
        self.run = run
        return [explore.planting(self.model.value, self.gap.value, out), explore.auditing(run, out, self.profile)]

    @told
    def on_go(self, _) -> None:
        self.lines, self.log.value, self.found.value, self.stopped = [], "", "", False
        self.go.disabled, self.stop.disabled = True, False
        self.thread = threading.Thread(target=self.work, args=(self.commands(),), daemon=True)
        self.thread.start()

    def on_stop(self, _) -> None:
        """End what runs; its finished stages are kept."""
        self.stopped = True
        if self.process:
            self.process.terminate()

    def work(self, commands: list[list[str]]) -> None:
        """Run the commands and show what they print, then the failure types that were found."""
        code = 0
        for words in commands:
            if code == 0 and not self.stopped:
                self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=paths.ROOT)
                for line in io.TextIOWrapper(self.process.stdout, "utf-8", "replace", newline=""):
                    self.say(line)
                code = self.process.wait()
        self.finished(code)

    def say(self, line: str) -> None:
        """Show one more line of the log, in the place of the last one if that ended in "\\r", as a progress bar's lines do."""
        if self.lines and self.lines[-1].endswith("\r"):
            self.lines.pop()
        self.lines.append(line)
        shown = [html.escape(line.strip()) for line in self.lines if line.strip()][-LOG_LINES:]
        self.log.value = f"<pre aria-live='polite'>{chr(10).join(shown)}</pre>"

    @told
    def finished(self, code: int) -> None:
        """Show what was found, or why nothing was."""
        self.go.disabled, self.stop.disabled = False, True
        if self.stopped or code:
            raise ValueError("Stopped." if self.stopped else "It did not finish; the lines above say why.")
        run = explore.load(self.run)
        rows = [(label(row), row.example_question, f"“{row.example_consensus}” answered “{row.example_target}”")
                for row in run.types.itertuples()]
        self.found.value = (f"<p>Run <code>{explore.safe(self.run)}</code>: {len(rows)} failure types. Is the planted gap "
                            f"among them? To look into them: <code>Browser(explore.load({self.run!r})).box</code></p>"
                            f"{explore.answers_table(rows)}")


def label(row) -> str:
    """A failure type in a list: its name, how many failures it has, and what stage 03 confirmed."""
    rate = f", {row.rate:.0%} wrong on fresh pictures" if row.rate is not None and row.rate == row.rate else ""
    return f"{row.name} ({row.size} failures, {row.verdict}{rate})"


def _wrap() -> widgets.Layout:
    return widgets.Layout(flex_flow="row wrap")
