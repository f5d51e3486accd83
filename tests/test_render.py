"""Drawing scenes."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from auditdm_lib.testbed.render import bounding_box, render
from auditdm_lib.testbed.scenes import (
    BACKGROUNDS,
    COLOURS,
    COVERABLE,
    DETAILS,
    DIGIT,
    KINDS,
    MATERIALS,
    NEIGHBOURS,
    SHAPES,
    WEATHERS,
    Scene,
    Thing,
    faults,
    sample_scenes,
    scans_of,
    sizes_of,
)


def pixels(scene: Scene, size: int = 48) -> np.ndarray:
    return np.asarray(render(scene, size)).astype(int)


def near(picture: np.ndarray, colour: tuple, distance: int = 40) -> np.ndarray:
    return np.abs(picture - colour).max(-1) < distance


def looks(colour: str = "red", cell: int = 4) -> list[Thing]:
    """Every kind in every size, detail and material."""
    def scan(kind: str, detail: str) -> int | None:
        return scans_of("train", detail)[0] if kind == DIGIT else None
    return [Thing(kind, colour, size, cell, detail, material, scan=scan(kind, detail))
            for kind in KINDS for size in sizes_of(kind) for detail in DETAILS.get(kind, ("",))
            for material in (MATERIALS if kind in SHAPES else ("plain",))]


def name(thing: Thing) -> str:
    return " ".join(filter(None, (thing.size, thing.material, thing.kind, thing.detail)))


def test_the_same_seed_draws_the_same_pixels():
    first, second = (np.stack([render(s) for s in sample_scenes(20, "train", 7)]) for _ in range(2))
    assert (first == second).all() and (first != np.stack([render(s) for s in sample_scenes(20, "train", 8)])).any()


@pytest.mark.parametrize("colour", COLOURS)
def test_a_thing_is_drawn_in_its_colour_and_in_its_cell(colour):
    for thing in looks(colour):
        picture = pixels(Scene("white", (thing,)))
        inked = np.abs(picture - BACKGROUNDS["white"]).sum(-1) > 60
        assert inked.sum() > 12 and inked.sum() == inked[15:33, 15:33].sum(), name(thing)
        assert near(picture, COLOURS[colour], 70).sum() > 5, f"a {colour} {name(thing)} has hardly any {colour}"
        others = [other for other in COLOURS if other != colour and near(picture, COLOURS[other], 25).sum() > 3]
        assert set(others) <= {"black"}, f"a {colour} {name(thing)} has {others} in it"  # black ink on light colours


def test_kinds_details_sizes_and_materials_differ_in_their_pixels():
    things = looks("black")
    drawn = np.stack([pixels(Scene("white", (t,))) for t in things])
    for i, thing in enumerate(things):
        apart = np.abs(drawn[i + 1:] - drawn[i]).mean((1, 2, 3))
        alike = [name(other) for other, far in zip(things[i + 1:], apart, strict=True) if far < 0.5]
        assert not alike, f"{name(thing)} looks like {alike}"


def test_a_thing_is_drawn_where_it_sits_although_equal_things_may_sit_elsewhere():
    one, other = (Thing("star", "red", "small", 4, dx=dx) for dx in (-0.08, 0.08))
    assert one == other and (pixels(Scene("mint", (one,))) != pixels(Scene("mint", (other,)))).any()


def test_a_digit_without_a_scan_is_refused_with_the_remedy():
    with pytest.raises(AssertionError, match="pose"):
        render(Scene("mint", (Thing(DIGIT, "red", "large", 0, "seven"),)))


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(ValueError, match="'zebra'"):
        render(Scene("mint", (Thing("zebra", "red", "large", 0),)))


def test_larger_pictures_show_the_same():
    for scene in sample_scenes(60, "train", 1):
        reduced = np.asarray(render(scene, 192).reduce(4)).astype(int)
        assert np.abs(reduced - pixels(scene)).mean() < 6  # thin lines and edges fall between pixels at 48


@pytest.mark.parametrize("cell", [0, 4, 8])
@pytest.mark.parametrize("jitter", [-0.08, 0.08])
def test_the_bounding_box_is_where_the_pixels_are(cell, jitter):
    for thing in looks("blue", cell):
        scene = Scene("white", (replace(thing, dx=jitter, dy=jitter / 2),))
        inked = np.abs(pixels(scene, 192) - BACKGROUNDS["white"]).sum(-1) > 170  # half of blue on white
        rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 192
        box = bounding_box(scene.things[0], scene)
        assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
        assert np.abs(seen - box).max() < 1.2 / 48, name(thing)  # about one pixel of the models' picture


def covering_pairs() -> list[tuple[Scene, Thing, Thing]]:
    pairs = []
    for i, kind in enumerate(SHAPES):
        for j, back in enumerate(COVERABLE):
            if back != kind:
                direction = tuple(NEIGHBOURS)[(i + j) % 4]
                rows, columns = NEIGHBOURS[direction]
                front = Thing(kind, "blue", "large", 4, covers=direction, dx=0.08, dy=-0.08)
                hidden = Thing(back, "red", "large", 4 + 3 * rows + columns, dx=-0.08, dy=0.08)
                pairs.append((Scene("white", tuple(sorted((front, hidden), key=lambda t: t.cell))), front, hidden))
    return pairs


def test_a_covered_thing_is_hidden_by_a_quarter_or_so_and_stays_next_to_what_covers_it():
    shares = []
    for scene, front, hidden in covering_pairs():
        assert faults(scene) == []
        x1, y1, x2, y2 = bounding_box(front, scene)
        u1, v1, u2, v2 = bounding_box(hidden, scene)
        assert x1 < u2 and u1 < x2 and y1 < v2 and v1 < y2, f"{front.kind} and {hidden.kind} do not meet"
        rows, columns = NEIGHBOURS[front.covers]
        assert columns * (u1 + u2 - x1 - x2) / 2 + rows * (v1 + v2 - y1 - y2) / 2 > 0.06, "the two have changed places"
        alone = Scene("white", (hidden,))
        shares.append(1 - near(pixels(scene, 192), COLOURS["red"]).sum() / near(pixels(alone, 192), COLOURS["red"]).sum())
    assert 0.18 < np.mean(shares) < 0.3 and min(shares) > 0.08 and max(shares) < 0.35, (min(shares), np.mean(shares), max(shares))


@pytest.mark.parametrize("direction", NEIGHBOURS)
def test_covered_things_are_told_apart(direction):
    rows, columns = NEIGHBOURS[direction]
    for front in ("square", "triangle"):
        drawn = {}
        for back in COVERABLE:
            if back != front:
                things = Thing(front, "blue", "large", 4, covers=direction), Thing(back, "red", "large", 4 + 3 * rows + columns)
                drawn[back] = pixels(Scene("white", tuple(sorted(things, key=lambda t: t.cell))))
        for one, other in itertools.combinations(drawn, 2):  # wherever the front thing stands
            apart = min((np.abs(np.roll(drawn[one], shift, (0, 1)) - drawn[other]).max(-1) > 90).sum()
                        for shift in itertools.product((-1, 0, 1), repeat=2))
            assert apart >= 15, f"{one} and {other} {direction} of a {front} that covers them differ in {apart} pixels"


def test_a_thousand_scenes_a_second_are_drawn_on_one_core():
    scenes = sample_scenes(1500, "train", 0)
    for scene in scenes[:500]:
        render(scene)  # draws the sprites that later scenes share
    before = time.process_time()
    for scene in scenes[500:]:
        render(scene)
    assert time.process_time() - before < 1  # measured: 0.15 to 0.3 seconds for the thousand


def test_what_covers_is_drawn_whole_with_an_edge_around_it():
    for scene, front, _ in covering_pairs():
        alone, both = near(pixels(Scene("white", (replace(front, covers=""),)), 192), COLOURS["blue"]), pixels(scene, 192)
        assert abs(near(both, COLOURS["blue"]).sum() - alone.sum()) <= 0.05 * alone.sum()  # edges fall between pixels
        x1, y1, x2, y2 = (round(192 * v) for v in bounding_box(front, scene))
        around = both[max(y1, 0):y2, max(x1, 0):x2]
        blue, red = near(around, COLOURS["blue"]), near(around, COLOURS["red"])
        assert not (blue[1:] & red[:-1]).any() and not (blue[:, 1:] & red[:, :-1]).any(), "the two touch"


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_weathers_differ_on_every_background_and_leave_the_things_alone(background):
    empty = [pixels(Scene(background, (), weather)) for weather in WEATHERS]
    for i, one in enumerate(empty):
        for other in empty[i + 1:]:
            assert (np.abs(one - other).max(-1) > 12).mean() > 0.1
    for scene in sample_scenes(30, "train", 3):
        fair, *rest = (pixels(replace(scene, background=background, weather=weather)) for weather in WEATHERS)
        for thing in scene.things:
            wholly = (fair == COLOURS[thing.colour]).all(-1)
            assert all((np.abs(picture - fair)[wholly] <= 5).all() for picture in rest)  # a smooth mask may be 98 % opaque


def test_no_weather_hides_what_colour_the_background_is():
    for background in BACKGROUNDS:
        for weather in WEATHERS:
            mean = pixels(Scene(background, (), weather)).mean((0, 1))
            assert min(BACKGROUNDS, key=lambda b: np.abs(mean - BACKGROUNDS[b]).sum()) == background, (background, weather)


@pytest.mark.parametrize("word", DETAILS["word"])
def test_a_word_has_the_same_sharp_letters_wherever_it_stands(word):
    cuts = []
    for cell in range(9):
        for jitter in (-0.08, 0.0, 0.08):
            scene = Scene("mint", (Thing("word", "purple", "large", cell, word, dx=jitter, dy=jitter),))
            x1, y1, x2, y2 = (round(48 * v) for v in bounding_box(scene.things[0], scene))
            cuts.append(pixels(scene)[y1:y2, x1:x2])
    assert cuts[0].shape == (13, 17, 3) and all((cut == cuts[0]).all() for cut in cuts)
