"""The testbed in words: captions of scenes, parsed back into scenes, and commands that edit a scene.

    on grey in the rain: a large red striped star top left over its right neighbour, a large blue cup top centre
    make the red star blue

Parsing is lenient (case, spaces, order, American spelling, numerals). A text that cannot be parsed gives a `Refusal` with the
reason; no text makes a public function raise.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from itertools import combinations

from auditdm_lib.testbed.scenes import (
    BACKGROUNDS,
    COLOURS,
    COLUMNS,
    DETAILS,
    KINDS,
    MATERIALS,
    NUMBERS,
    ROWS,
    SHAPES,
    SIZES,
    WEATHERS,
    Scene,
    Thing,
    can_cover,
    faults,
    sizes_of,
)

SHOWN = {  # how a noun phrase states a thing's detail
    "digit": " {}", "clock": " at {}", "arrow": " pointing {}", "person": " {}", "face": " looking {}", "word": " saying {}",
    "sign": " meaning {}", "chart": " with bars {}",
}
CHANGES = {  # how a sampled command states a new detail; the parser accepts any of the verbs for any thing
    "clock": "set {} to {}", "arrow": "turn {} {}", "person": "let {} be {}", "face": "make {} {}"}
IN_WEATHER = {"": "fair", " in the rain": "rainy", " in the snow": "snowy", " in the fog": "foggy"}
OVER = {"left": "left", "right": "right", "upper": "above", "lower": "below"}  # "over its upper neighbour"
PLACES = {f"{row} {column}": 3 * i + j for i, row in enumerate(ROWS) for j, column in enumerate(COLUMNS)}
ALSO_PLACES = {"top middle": 1, "centre left": 3, "centre": 4, "middle": 4, "centre right": 5, "bottom middle": 7}
EDITS = ("colour", "size", "material", "detail", "remove", "add", "move", "replace", "background", "weather")

_SAME_WORD = {"gray": "grey", "center": "centre", "neighbor": "neighbour", **{str(i): word for i, word in enumerate(NUMBERS)}}
_ADJECTIVES = {
    **dict.fromkeys(COLOURS, "colour"), **dict.fromkeys(SIZES, "size"), **dict.fromkeys(MATERIALS, "material")}


@dataclass(frozen=True)
class Refusal:
    """Why a text could not be parsed or a command not be applied, in words for its author."""

    reason: str


class _Refused(Exception):
    """A text could not be parsed; the public functions turn this into a `Refusal`."""


def _either(words: Iterable[str]) -> str:
    return "(" + "|".join(map(re.escape, words)) + ")"


_PLACE = _either((*PLACES, *ALSO_PLACES))
_HEAD = re.compile(rf"on (?:an? |the )?{_either(BACKGROUNDS)}(?: background)?{_either(IN_WEATHER)}")
_BETWEEN = re.compile(r"[,;]\s*(?:and\s)?|\sand\s", re.IGNORECASE)
_WEATHER_EDIT = re.compile(r"make it (.+)")
_BACKGROUND_EDIT = re.compile(r"(?:make|turn|set|change) the background (?:to )?(.+)")
_REMOVE = re.compile(r"remove (.+)")
_ADD = re.compile(r"add (.+)")
_MOVE = re.compile(r"move (.+) to (?:the )?(.+)")
_REPLACE = re.compile(r"replace (.+?) with (an? .+)")  # the article distinguishes it from a chart "with bars"
_CHANGE = re.compile(
    rf"(?:make|turn|set|change|let) (.+?)(?: to| be)? {_either((*_ADJECTIVES, *(d for ds in DETAILS.values() for d in ds)))}")


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def place(cell: int) -> str:
    """'top left' for cell 0, row by row."""
    return list(PLACES)[cell]


def noun_phrase(thing: Thing, where: bool = True) -> str:
    """'a large red clock at three top left'; if `where` is False, without its place and what it covers."""
    words = [thing.size, thing.colour, *([thing.material] if thing.material != "plain" else []), thing.kind]
    text = f"{article(words[0])} {' '.join(words)}{SHOWN.get(thing.kind, '').format(thing.detail)}"
    if where:
        text += f" {place(thing.cell)}"
        text += next((f" over its {word} neighbour" for word, direction in OVER.items() if direction == thing.covers), "")
    return text


def caption(scene: Scene) -> str:
    """The scene in words: 'on mint in the snow: a small red star top left, ...'; 'on mint: nothing' for an empty scene."""
    weather = next(words for words, weather in IN_WEATHER.items() if weather == scene.weather)
    return f"on {scene.background}{weather}: {', '.join(map(noun_phrase, scene.things)) or 'nothing'}"


def parse_caption(text: str) -> Scene | Refusal:
    """The scene that a caption describes: `parse_caption(caption(scene)) == scene` for every proper scene.

    Things may come in any order. Digits have no scan and things no jitter yet: `pose` adds both.
    """
    head, _, rest = text.partition(":")
    if not (found := _HEAD.fullmatch(_normal(head))):
        return Refusal("no background: begin with 'on white:', 'on grey:' or 'on mint:', with weather as in 'on mint in the "
                       "rain:' (rain, snow or fog)")
    pieces = [piece.strip() for piece in _BETWEEN.split(rest) if _normal(piece)]
    if not pieces:
        return Refusal(f"no things: name them, or say 'on {found[1]}: nothing'")
    things, wrong = [], []
    for i, piece in enumerate(pieces if _normal(rest) != "nothing" else ()):
        try:
            things.append(_thing(_noun(piece)))
        except _Refused as refused:
            wrong.append(f"thing {i + 1}, {piece!r}: {refused}")
    scene = Scene(found[1], tuple(sorted(things, key=lambda t: t.cell)), IN_WEATHER[found[2]])
    wrong = wrong or faults(scene)
    return Refusal("; ".join(wrong)) if wrong else scene


def _normal(text: str) -> str:
    """Lower case, single spaces, one spelling, no full stop."""
    words = text.lower().replace("-", " ").strip().rstrip(".!").split()
    return " ".join(_SAME_WORD.get(word, word) for word in words)


@cache
def _tail(kind: str) -> re.Pattern:
    """What may follow the kind in a noun phrase: its detail, its place, what it covers."""
    shown = SHOWN[kind].format(_either(DETAILS[kind])) if kind in DETAILS else "(.{0})"
    return re.compile(rf"(?:{shown})?(?: (?:in |at )?(?:the )?{_PLACE})?(?: over its {_either(OVER)} neighbour)?")


def _noun(text: str) -> dict:
    """The fields of `Thing` that a noun phrase states, and no others."""
    words = _normal(text).split()
    if words and words[0] in ("a", "an", "the"):
        words = words[1:]
    given = {}
    while words and (field := _ADJECTIVES.get(words[0])):
        if field in given:
            raise _Refused(f"both {given[field]} and {words[0]}; say one")
        given[field] = words.pop(0)
    if not words:
        raise _Refused("no kind of thing; name one, such as star or cup")
    kind, rest = words[0], "".join(f" {word}" for word in words[1:])
    if kind not in KINDS:
        near = get_close_matches(kind, (*KINDS, *_ADJECTIVES), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise _Refused(f"{kind!r} is no size, colour, material or kind of thing{hint}")
    if not (found := _tail(kind).fullmatch(rest)):
        shown = f"{SHOWN[kind].format('...')[1:]!r} ({_options(kind)}) and " if kind in DETAILS else ""
        raise _Refused(f"{rest[1:]!r} is not understood after {kind!r}; say {shown}a place such as 'top left'")
    detail, where, over = found.groups()
    given |= {"kind": kind} | ({"detail": detail} if detail else {}) | ({"covers": OVER[over]} if over else {})
    return given | ({"cell": (PLACES | ALSO_PLACES)[where]} if where else {})


def _options(kind: str) -> str:
    details = DETAILS[kind]
    return ", ".join(details) if len(details) <= 12 else f"{details[0]} to {details[-1]}"


def _thing(given: dict) -> Thing:
    """The thing that a complete noun phrase describes; material may be omitted, and size where the kind has only one."""
    kind, missing = given["kind"], []
    if "size" not in given and len(sizes_of(kind)) == 1:
        given = given | {"size": sizes_of(kind)[0]}
    if "size" not in given:
        missing.append(f"no size; say {' or '.join(sizes_of(kind))}")
    if "colour" not in given:
        missing.append(f"no colour; say one of {', '.join(COLOURS)}")
    if kind in DETAILS and "detail" not in given:
        missing.append(f"not said what it shows; say {kind + SHOWN[kind].format('...')!r} with one of {_options(kind)}")
    if "cell" not in given:
        missing.append(f"no place; say one of {', '.join(PLACES)}")
    if missing:
        raise _Refused("; ".join(missing))
    return Thing(**given)


def apply_edit(scene: Scene, command: str) -> Scene | Refusal:
    """The scene after a command such as 'make the red star blue', 'add a small red heart top left' or 'make it rainy'.

    Any unambiguous phrase refers to a thing ("the small red star", "the star in the top left"). Unedited things keep jitter and
    scan; a covering that the edit makes impossible is dropped. New things are centred in their cell, and new or changed digits
    have no scan: `pose` the scene before drawing it. An edit that changes nothing is refused.
    """
    try:
        edited = _edited(scene, _normal(command))
    except _Refused as refused:
        return Refusal(str(refused))
    if wrong := faults(edited):
        return Refusal("; ".join(wrong))
    return Refusal("that changes nothing: the scene is like that already") if edited == scene else edited


def _edited(scene: Scene, command: str) -> Scene:
    if found := _WEATHER_EDIT.fullmatch(command):
        return replace(scene, weather=_one_of(WEATHERS, "weather", found[1]))
    if found := _BACKGROUND_EDIT.fullmatch(command):
        return replace(scene, background=_one_of(BACKGROUNDS, "background", found[1]))
    if found := _REMOVE.fullmatch(command):
        return _put(scene, _find(scene, found[1]), None)
    if found := _ADD.fullmatch(command):
        return _put(scene, None, _thing(_noun(found[1])))
    if found := _MOVE.fullmatch(command):
        where = _one_of(PLACES | ALSO_PLACES, "place", found[2])
        thing = _find(scene, found[1])
        return _put(scene, thing, _moved(thing, (PLACES | ALSO_PLACES)[where]))
    if found := _REPLACE.fullmatch(command):
        return _replaced(scene, _find(scene, found[1]), _noun(found[2]))
    if found := _CHANGE.fullmatch(command):
        thing, value = _find(scene, found[1]), found[2]
        field = _ADJECTIVES.get(value, "detail")
        if field == "detail" and value not in DETAILS.get(thing.kind, ()):
            raise _Refused(f"{article(thing.kind)} {thing.kind} cannot show {value!r}")
        return _put(scene, thing, _changed(thing, field, value))
    if command.split(" ")[0] in ("make", "turn", "set", "change", "let"):
        raise _Refused(f"{command!r} does not end in a colour, size, material or anything that a thing can show")
    raise _Refused(
        f"{command!r} is no command; say for example 'make the red star blue', 'make the star large', 'set the clock to three', "
        "'remove the cup', 'add a small red heart top left', 'move the star to the bottom right', 'replace the cup with an "
        "anchor', 'change the background to mint' or 'make it rainy'")


def _one_of(words: Iterable[str], what: str, word: str) -> str:
    if word not in words:
        raise _Refused(f"{word!r} is no {what}; say one of {', '.join(words)}")
    return word


def _find(scene: Scene, text: str) -> Thing:
    """The only thing that a phrase refers to."""
    given = _noun(text)
    fits = [t for t in scene.things if all(getattr(t, field) == value for field, value in given.items())]
    if not fits:
        raise _Refused(f"nothing fits {text!r}; there is {', '.join(map(noun_phrase, scene.things)) or 'nothing'}")
    if len(fits) > 1:
        raise _Refused(f"{NUMBERS[len(fits)]} things fit {text!r}; say which by colour, size or place")
    return fits[0]


def _put(scene: Scene, old: Thing | None, new: Thing | None) -> Scene:
    """The scene with `old` replaced by `new` (None: nothing). A covering that is no longer possible is dropped."""
    if new and (taken := scene.at(new.cell)) and taken != old:
        raise _Refused(f"the {place(new.cell)} is taken: there is {noun_phrase(taken, where=False)}")
    things = sorted([t for t in scene.things if t != old] + ([new] if new else []), key=lambda t: t.cell)
    edited = replace(scene, things=tuple(things))

    def settled(t: Thing) -> Thing:
        # A covering that the command itself asks for is not dropped silently: `faults` refuses it.
        asked = t is new and (old is None or t.covers != old.covers)
        return t if asked or not t.covers or can_cover(t, edited.covered(t)) else replace(t, covers="")
    return replace(edited, things=tuple(map(settled, things)))


def _changed(thing: Thing, field: str, value: str) -> Thing:
    return replace(thing, **{field: value}, scan=None if field == "detail" else thing.scan)


def _moved(thing: Thing, cell: int) -> Thing:
    return thing if cell == thing.cell else replace(thing, cell=cell, covers="")


def _size_kept(thing: Thing, kind: str) -> str:
    return thing.size if thing.size in sizes_of(kind) else sizes_of(kind)[0]


def _replaced(scene: Scene, old: Thing, given: dict) -> Scene:
    """`old` replaced by what a noun phrase describes; it keeps its place and, unless stated, colour, size and covering."""
    if given.get("cell", old.cell) != old.cell:
        raise _Refused(f"what replaces the {old.kind} takes its place, {place(old.cell)}; move it with a second command")
    kept = {"colour": old.colour, "size": _size_kept(old, given["kind"]), "cell": old.cell, "covers": old.covers}
    return _put(scene, old, _thing(kept | given))


def reference(scene: Scene, thing: Thing) -> str:
    """The shortest unambiguous phrase for a thing: 'the star', 'the red star', 'the star in the top left'.

    Colour is preferred to size, size to material, and these to the place, which is always unambiguous.
    """
    fields = [f for n in range(4) for f in combinations(("colour", "size", "material"), n)]
    for used in fields:
        if sum(t.kind == thing.kind and all(getattr(t, f) == getattr(thing, f) for f in used) for t in scene.things) == 1:
            words = [getattr(thing, f) for f in ("size", "colour", "material") if f in used]
            return " ".join(["the", *words, thing.kind])
    return f"the {thing.kind} in the {place(thing.cell)}"


def sample_edit(scene: Scene, rng: random.Random, first: str | None = None) -> tuple[str, Scene]:
    """A random command that applies to a proper scene, of the kind `first` where possible, and the resulting scene."""
    kinds = rng.sample(EDITS, len(EDITS))  # not every kind applies to every scene, but the background can always be changed
    if first:
        kinds.insert(0, first)
    return next(sampled for kind in kinds if (sampled := _sample_kind(scene, rng, kind)))


def _sample_kind(scene: Scene, rng: random.Random, edit: str) -> tuple[str, Scene] | None:
    if edit in ("colour", "size", "material", "detail"):
        return _sample_change(scene, rng, edit)
    if edit in ("remove", "add", "move", "replace"):
        return _sample_placing(scene, rng, edit)
    value = rng.choice([v for v in (BACKGROUNDS if edit == "background" else WEATHERS) if v != getattr(scene, edit)])
    command = f"change the background to {value}" if edit == "background" else f"make it {value}"
    return command, replace(scene, **{edit: value})


def _sample_change(scene: Scene, rng: random.Random, field: str) -> tuple[str, Scene] | None:
    """A command that changes one field of one thing; None where no thing has an alternative value."""
    def others(t: Thing) -> list[str]:
        values = {"colour": tuple(COLOURS), "size": sizes_of(t.kind), "material": MATERIALS if t.kind in SHAPES else (),
                  "detail": DETAILS.get(t.kind, ())}[field]
        return [v for v in values if v != getattr(t, field)]
    if not (things := [t for t in scene.things if others(t)]):
        return None
    thing = rng.choice(things)
    value = rng.choice(others(thing))
    form = CHANGES.get(thing.kind, "change {} to {}") if field == "detail" else "make {} {}"
    return form.format(reference(scene, thing), value), _put(scene, thing, _changed(thing, field, value))


def _sample_placing(scene: Scene, rng: random.Random, edit: str) -> tuple[str, Scene] | None:
    """A command that removes, adds, moves or replaces a thing; None where the scene has no thing, or no free cell, for it."""
    free = [cell for cell in range(9) if not scene.at(cell)]
    if not (free if edit == "add" else scene.things) or edit == "move" and not free:
        return None
    old = rng.choice(scene.things) if edit != "add" else None
    if edit == "remove":
        return f"remove {reference(scene, old)}", _put(scene, old, None)
    if edit == "move":
        cell = rng.choice(free)
        return f"move {reference(scene, old)} to the {place(cell)}", _put(scene, old, _moved(old, cell))
    kind = rng.choice([kind for kind in KINDS if not old or kind != old.kind])
    new = Thing(
        kind=kind, colour=rng.choice(tuple(COLOURS)), size=rng.choice(sizes_of(kind)), cell=old.cell if old else rng.choice(free),
        detail=rng.choice(DETAILS[kind]) if kind in DETAILS else "", covers=old.covers if old else "",
        material=rng.choice(MATERIALS) if kind in SHAPES else "plain")
    if edit == "add":
        return f"add {noun_phrase(new)}", _put(scene, None, new)
    if rng.random() < 0.5:  # with colour, size and material stated
        return f"replace {reference(scene, old)} with {noun_phrase(new, where=False)}", _put(scene, old, new)
    new = replace(new, colour=old.colour, size=_size_kept(old, kind), material="plain")
    short = f"{article(kind)} {kind}{SHOWN.get(kind, '').format(new.detail)}"
    return f"replace {reference(scene, old)} with {short}", _put(scene, old, new)
