"""The testbed in words: captions, what is refused, and edits."""

import random
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditdm_lib.testbed.language import (
    EDITS,
    PLACES,
    Refusal,
    apply_edit,
    caption,
    noun_phrase,
    parse_caption,
    place,
    reference,
    sample_edit,
)
from auditdm_lib.testbed.scenes import (
    DETAILS,
    KINDS,
    MATERIALS,
    NEIGHBOURS,
    SHAPES,
    Scene,
    Thing,
    faults,
    sample_scenes,
    scans_of,
    sizes_of,
)

STAR = Thing("star", "red", "large", 0, material="striped", covers="right", dx=0.05, dy=-0.02)
CUP = Thing("cup", "blue", "large", 1, dx=0.01, dy=0.03)
SMALL_STAR = Thing("star", "blue", "small", 4, dx=-0.04)
DIGIT = Thing("digit", "black", "large", 6, detail="seven", scan=scans_of("test", "seven")[0])
CLOCK = Thing("clock", "blue", "large", 8, detail="three")
SCENE = Scene("grey", (STAR, CUP, SMALL_STAR, DIGIT, CLOCK), "rainy")


def drawn(scene: Scene) -> list[tuple]:
    """All that is drawn, also what does not count when scenes are compared."""
    return [(t, t.dx, t.dy, t.scan) for t in scene.things]


def scenes(n: int, seed: str = "language") -> list[Scene]:
    return sample_scenes(n, "train", seed)


def test_a_caption_says_all_that_is_in_the_scene():
    assert caption(SCENE) == (
        "on grey in the rain: a large red striped star top left over its right neighbour, a large blue cup top centre, "
        "a small blue star middle centre, a large black digit seven bottom left, a large blue clock at three bottom right")
    assert caption(Scene("mint", (), "foggy")) == "on mint in the fog: nothing"


@pytest.mark.parametrize(("thing", "words"), [
    (Thing("arrow", "green", "small", 3, "up"), "a small green arrow pointing up middle left"),
    (Thing("person", "pink", "large", 2, "running"), "a large pink person running top right"),
    (Thing("word", "blue", "large", 2, "tea"), "a large blue word saying tea top right"),
    (Thing("sign", "red", "large", 5, "no entry"), "a large red sign meaning no entry middle right"),
    (Thing("chart", "black", "large", 7, "two four one"), "a large black chart with bars two four one bottom centre"),
    (Thing("face", "yellow", "large", 7, "happy"), "a large yellow face looking happy bottom centre"),
    (Thing("bead", "red", "tiny", 7), "a tiny red bead bottom centre"),
    (Thing("star", "red", "large", 8, covers="above"), "a large red star bottom right over its upper neighbour"),
])
def test_each_kind_says_what_it_shows(thing, words):
    assert noun_phrase(thing) == words


def test_captions_of_ten_thousand_scenes_parse_back():
    wrong = [caption(scene) for scene in scenes(10_000) if parse_caption(caption(scene)) != scene]
    assert wrong == []


def test_captions_that_differ_are_of_scenes_that_differ():
    sampled = scenes(10_000)
    assert len({caption(scene) for scene in sampled}) == len(set(sampled))


def proper_scene(rng: random.Random) -> Scene:
    """Any proper scene, from none to nine things, also those that sampling makes seldom; coverings are frequent."""
    scene = Scene(rng.choice(("white", "grey", "mint")), (), rng.choice(("fair", "rainy", "snowy", "foggy")))
    things = []
    for cell in sorted(rng.sample(range(9), rng.randrange(10))):
        kind = rng.choice(KINDS if rng.random() < 0.5 else ("star", "square", "moon"))
        things.append(Thing(
            kind, rng.choice(("red", "orange", "black")), rng.choice((*sizes_of(kind), sizes_of(kind)[-1])), cell,
            detail=rng.choice(DETAILS.get(kind, ("",))), material=rng.choice(MATERIALS) if kind in SHAPES else "plain"))
    scene = replace(scene, things=tuple(things))
    for i, direction in product(range(len(things)), rng.sample(tuple(NEIGHBOURS), 4)):
        covering = replace(scene.things[i], covers=direction)
        if not faults(larger := replace(scene, things=(*scene.things[:i], covering, *scene.things[i + 1:]))):
            scene = larger
    return scene


def test_the_scenes_of_these_tests_are_proper_and_many_have_coverings():
    made = [proper_scene(random.Random(i)) for i in range(1000)]
    assert not any(map(faults, made)) and sum(any(t.covers for t in scene.things) for scene in made) > 200


@given(st.integers(0, 10**9))
@settings(max_examples=2000, deadline=None)
def test_any_proper_scene_is_read_back_in_any_order_case_and_spacing(seed):
    rng = random.Random(seed)
    scene = proper_scene(rng)
    assert parse_caption(caption(scene)) == scene
    head, _, rest = caption(scene).partition(": ")
    pieces = rest.split(", ")
    rng.shuffle(pieces)
    text = f"{head} :  {' , '.join(pieces)}".replace(" a ", rng.choice((" an ", "  A ", " ")))
    assert parse_caption(rng.choice((text, text.upper(), text.title() + ".  "))) == scene


@pytest.mark.parametrize("text", [
    "on grey in the rain: a large blue cup in the top centre, and a small black digit 7 at the bottom-left",
    "On gray in the rain: a blue large cup top center, a black small digit seven bottom left.",
    "on a grey background in the rain: LARGE blue cup top middle AND small black digit seven bottom left",
    "on grey in the rain: the small black digit seven in the bottom left; the large blue cup top centre,",
])
def test_people_may_say_it_in_their_way(text):
    things = (Thing("cup", "blue", "large", 1), Thing("digit", "black", "small", 6, "seven"))
    assert parse_caption(text) == Scene("grey", things, "rainy")


def test_size_may_be_left_out_where_there_is_no_choice():
    assert parse_caption("on mint: a red clock at 12 top left, a blue bead bottom left") == Scene("mint", (
        Thing("clock", "red", "large", 0, "twelve"), Thing("bead", "blue", "tiny", 6)))


@pytest.mark.parametrize(("text", "reason"), [
    ("a large red star top left", "no background: begin with 'on white:'"),
    ("on pink: a large red star top left", "no background"),
    ("on mint in the hail: a large red star top left", "with weather as in 'on mint in the rain:'"),
    ("on mint:", "no things: name them, or say 'on mint: nothing'"),
    ("on mint: a large cup top left, a red star",
     "thing 2, 'a red star': no size; say small or large; no place; say one of top left,"),
    ("on mint: a large cup top left, a red star", "thing 1, 'a large cup top left': no colour; say one of red,"),
    ("on mint: a large red clock top left", "not said what it shows; say 'clock at ...' with one of one, two,"),
    ("on mint: a large red clock at thirteen top left", "'at thirteen top left' is not understood after 'clock'; say 'at ...'"),
    ("on mint: a large red star at three top left", "'at three top left' is not understood after 'star'; say a place"),
    ("on mint: a large red blue star top left", "both red and blue; say one"),
    ("on mint: a large red strar top left", "'strar' is no size, colour, material or kind of thing; did you mean 'star'?"),
    ("on mint: a large red", "no kind of thing"),
    ("on mint: a small red clock at three top left", "no clock can be small"),
    ("on mint: a large red striped cup top left", "no cup can be striped"),
    ("on mint: a large red star top left, a large red cup top left", "two things in one place"),
    ("on mint: a large red star top left over its right neighbour", "the star covers nothing that it can cover"),
    ("on mint: nothing, a large red star top left", "thing 1, 'nothing'"),
])
def test_a_caption_is_refused_with_what_is_wrong_and_where(text, reason):
    refusal = parse_caption(text)
    assert isinstance(refusal, Refusal) and reason in refusal.reason


def edited(thing: Thing, **fields) -> Scene:
    things = [replace(t, **fields) if t is thing else t for t in SCENE.things]
    return replace(SCENE, things=tuple(sorted(things, key=lambda t: t.cell)))


@pytest.mark.parametrize(("command", "expected"), [
    ("make the red star green", edited(STAR, colour="green")),
    ("make the star in the middle centre large", edited(SMALL_STAR, size="large")),
    ("make the small star dotted", edited(SMALL_STAR, material="dotted")),
    ("make the striped star plain", edited(STAR, material="plain")),
    ("set the clock to five", edited(CLOCK, detail="five")),
    ("Set the CLOCK at three to 5.", edited(CLOCK, detail="five")),
    ("change the digit to two", edited(DIGIT, detail="two", scan=None)),
    ("make digit seven pink", edited(DIGIT, colour="pink")),
    ("move the clock to the middle right", edited(CLOCK, cell=5)),
    ("replace the clock with an anchor", edited(CLOCK, kind="anchor", detail="")),
    ("replace the clock with a green heart", edited(CLOCK, kind="heart", detail="", colour="green")),
    ("replace the digit with a small red clock at two", Refusal("no clock can be small")),
    ("replace the small star with a person waving", edited(SMALL_STAR, kind="person", detail="waving", size="large")),
    ("change the background to mint", replace(SCENE, background="mint")),
    ("make it fair", replace(SCENE, weather="fair")),
    ("remove the digit", replace(SCENE, things=(STAR, CUP, SMALL_STAR, CLOCK))),
    ("add a tiny red bead in the top right",
     replace(SCENE, things=(STAR, CUP, Thing("bead", "red", "tiny", 2), SMALL_STAR, DIGIT, CLOCK))),
])
def test_a_command_changes_what_it_says_and_nothing_else(command, expected):
    assert apply_edit(SCENE, command) == expected


@pytest.mark.parametrize(("thing", "command", "detail"), [
    (Thing("arrow", "red", "small", 0, "left"), "turn the arrow in the top left down", "down"),
    (Thing("person", "red", "large", 0, "waving"), "let the person be running", "running"),
    (Thing("face", "red", "large", 0, "happy"), "make the face sad", "sad"),
    (Thing("word", "red", "large", 0, "bus"), "change the word to tea", "tea"),
    (Thing("sign", "red", "large", 0, "danger"), "change the sign to no entry", "no entry"),
    (Thing("chart", "red", "large", 0, "one one two"), "change the chart to two four one", "two four one"),
])
def test_what_a_thing_shows_can_be_changed(thing, command, detail):
    assert apply_edit(Scene("mint", (thing,)), command) == Scene("mint", (replace(thing, detail=detail),))


def test_a_chart_can_be_replaced_by_a_chart():
    chart = Thing("chart", "red", "large", 0, "one one two")
    edited = apply_edit(Scene("mint", (chart,)), "replace the chart with bars one one two with a chart with bars four one one")
    assert edited == Scene("mint", (replace(chart, detail="four one one"),))


@pytest.mark.parametrize("command", [
    "make the cup red",  # as the star is
    "make the cup small",
    "make the red star hollow",
    "remove the cup",
    "move the cup to the bottom centre",
    "move the red star to the middle left",
    "replace the cup with a digit two",
    "replace the red star with a cloud",
])
def test_a_covering_that_an_edit_makes_impossible_ends(command):
    after = apply_edit(SCENE, command)
    assert not faults(after) and not any(t.covers for t in after.things)


def test_a_thing_that_is_moved_does_not_go_on_to_cover_another():
    anchor = Thing("anchor", "green", "large", 5)
    after = apply_edit(Scene("mint", (STAR, CUP, anchor)), "move the star to the middle centre")
    assert after == Scene("mint", (CUP, replace(STAR, cell=4, covers=""), anchor))


def test_what_replaces_a_tiny_thing_is_small_where_it_can_be():
    scene = Scene("mint", (Thing("bead", "red", "tiny", 3),))
    assert apply_edit(scene, "replace the bead with a heart") == Scene("mint", (Thing("heart", "red", "small", 3),))
    assert apply_edit(scene, "replace the bead with a face looking sad") == Scene(
        "mint", (Thing("face", "red", "large", 3, detail="sad"),))


@pytest.mark.parametrize("command", [
    "make the cup green", "make the red star dotted", "replace the cup with a horse", "replace the red star with a large circle"])
def test_a_covering_that_stays_possible_stays(command):
    assert apply_edit(SCENE, command).things[0].covers == "right"


@pytest.mark.parametrize(("command", "reason"), [
    ("make the star green", "two things fit 'the star'; say which by colour, size or place"),
    ("remove the anchor", "nothing fits 'the anchor'; there is a large red striped star top left"),
    ("remove it", "'it' is no size, colour, material or kind of thing"),
    ("make the red star red", "changes nothing"),
    ("move the cup to the top centre", "changes nothing"),
    ("move the red star to the top left", "changes nothing"),  # and it covers the cup as before
    ("make it rainy", "changes nothing"),
    ("make it red", "'red' is no weather; say one of fair, rainy"),
    ("change the background to pink", "'pink' is no background; say one of white"),
    ("move the clock to the attic", "'attic' is no place; say one of top left"),
    ("move the clock to the top left", "the top left is taken: there is a large red striped star"),
    ("add a small red heart top left", "the top left is taken"),
    ("add a red heart top right", "no size; say small or large"),
    ("add a small red heart", "no place; say one of top left"),
    ("add a large red heart top right over its left neighbour", "the heart covers nothing that it can cover"),
    ("make the clock small", "no clock can be small"),
    ("make the cup striped", "no cup can be striped"),
    ("set the clock to thirteen", "'set the clock to thirteen' does not end in a colour, size, material or anything that"),
    ("change the digit to twelve", "a digit cannot show 'twelve'"),
    ("make the cup sad", "a cup cannot show 'sad'"),
    ("replace the cup with a clock", "not said what it shows"),
    ("replace the cup with a large red heart top left", "takes its place, top centre"),
    ("paint the cup", "'paint the cup' is no command; say for example 'make the red star blue'"),
    ("", "is no command"),
])
def test_a_command_is_refused_with_the_reason(command, reason):
    refusal = apply_edit(SCENE, command)
    assert isinstance(refusal, Refusal) and reason in refusal.reason


def test_ten_thousand_sampled_commands_do_what_they_must():
    rng = random.Random(0)
    for scene in (*scenes(10_000), Scene("mint", ())):
        command, expected = sample_edit(scene, rng)
        result = apply_edit(scene, command)
        assert result == expected != scene and not faults(expected), (caption(scene), command, result)
        assert [t.scan for t in result.things] == [t.scan for t in expected.things]


@given(st.integers(0, 10**9))
@settings(max_examples=2000, deadline=None)
def test_an_edit_touches_one_thing_or_the_setting_and_else_only_ends_coverings(seed):
    rng = random.Random(seed)
    scene = proper_scene(rng)
    command, expected = sample_edit(scene, rng)
    after = apply_edit(scene, command)
    assert after == expected != scene and not faults(after)
    before, now = ([replace(t, covers="") for t in s.things] for s in (scene, after))
    gone, new = Counter(before) - Counter(now), Counter(now) - Counter(before)
    settings_changed = (after.background != scene.background) + (after.weather != scene.weather)
    # A covering can end only because the edit touched the coverer or what it covered, so something was touched.
    assert max(gone.total(), new.total()) + settings_changed == 1
    assert all(t.covers in ("", old.covers) for t in after.things for old in [scene.at(t.cell)] if old)


def test_untouched_things_stay_as_they_are_drawn():
    after = apply_edit(SCENE, "make the cup green")
    assert drawn(after) == drawn(edited(CUP, colour="green"))
    assert drawn(apply_edit(SCENE, "make the cup red")) == drawn(replace(
        SCENE, things=(replace(STAR, covers=""), replace(CUP, colour="red"), SMALL_STAR, DIGIT, CLOCK)))


def test_a_digit_keeps_its_scan_until_it_is_another_digit():
    assert apply_edit(SCENE, "make the digit pink").things[3].scan == DIGIT.scan
    assert apply_edit(SCENE, "change the digit to two").things[3].scan is None
    assert apply_edit(SCENE, "replace the clock with a digit seven").things[4].scan is None


def test_every_kind_of_edit_is_sampled_and_no_kind_crowds_out_the_rest():
    rng = random.Random(0)
    commands = [sample_edit(scene, rng)[0] for scene in sample_scenes(3000, "train", "edits")]
    first = Counter(command.split()[0] for command in commands)
    assert set(first) == {"make", "turn", "set", "let", "change", "remove", "add", "move", "replace"}
    for verb in ("remove", "add", "move", "replace"):  # each is one kind in ten
        assert 0.7 * 3000 / len(EDITS) < first[verb] < 1.5 * 3000 / len(EDITS)


def test_a_reference_singles_out_its_thing_and_is_no_longer_than_needed():
    assert [reference(SCENE, t) for t in SCENE.things] == ["the red star", "the cup", "the blue star", "the digit", "the clock"]
    twins = Scene("mint", (SMALL_STAR, replace(SMALL_STAR, cell=5), replace(SMALL_STAR, cell=6, material="dotted")))
    assert [reference(twins, t) for t in twins.things] == [
        "the star in the middle centre", "the star in the middle right", "the dotted star"]


def test_the_same_seed_samples_the_same_edits():
    assert sample_edit(SCENE, random.Random("a")) == sample_edit(SCENE, random.Random("a"))


def test_places_are_said_row_by_row():
    assert [place(cell) for cell in range(4)] == ["top left", "top centre", "top right", "middle left"]
    assert all(place(cell) == name for name, cell in PLACES.items())


def assert_read_or_refused(text: str) -> None:
    for result in (parse_caption(text), apply_edit(SCENE, text)):
        assert isinstance(result, Scene) and not faults(result) or isinstance(result, Refusal) and result.reason


@given(st.text(max_size=80))
@settings(max_examples=1000, deadline=None)
def test_no_text_raises(text):
    assert_read_or_refused(text)


def test_ten_thousand_strings_of_any_code_points_raise_nothing():
    rng = random.Random("code points")
    for _ in range(10_000):  # surrogates too: a decoder may leave lone ones
        assert_read_or_refused("".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(30))))


def test_ten_thousand_damaged_captions_and_commands_raise_nothing():
    rng = random.Random("damage")
    read = 0
    for scene in scenes(5_000, "damage"):
        for text in (caption(scene), sample_edit(scene, rng)[0]):
            words = text.split(" ")
            i, j = rng.randrange(len(words)), rng.randrange(len(words))
            damage = rng.randrange(4)
            if damage == 0:
                words[i], words[j] = words[j], words[i]
            elif damage == 1:
                del words[i]
            elif damage == 2:
                words[i] = rng.choice(("", words[j], ":", ",", "\x00", "\u0130", "9", "\ud800", "with", "to the", words[i][::-1]))
            text = " ".join(words)
            cut = rng.randrange(len(text) + 1)
            damaged = text[:cut] + rng.choice(("", " ", "\n", "and", ":", "\u2028")) + text[cut + (damage == 3):]
            assert_read_or_refused(damaged)
            read += isinstance(parse_caption(damaged), Scene)
    assert 0 < read < 5_000  # some damage does no harm and some does
