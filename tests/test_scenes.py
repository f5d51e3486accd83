"""Scenes: proper, the same for the same seed, and in one split only."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditdm_lib.testbed.scenes import (
    DETAILS,
    KINDS,
    SPLITS,
    Scene,
    Thing,
    digit_scans,
    faults,
    neighbour,
    pose,
    sample_scenes,
    scans_of,
    split_of,
)


@given(st.integers(0, 10**9), st.sampled_from(tuple(SPLITS)))
@settings(max_examples=300, deadline=None)
def test_every_sampled_scene_is_proper_and_of_its_split(seed, split):
    scene = sample_scenes(1, split, seed)[0]
    assert faults(scene) == [] and split_of(scene) == split
    assert all(t.scan in scans_of(split, t.detail) for t in scene.things if t.kind == "digit")


def test_every_kind_detail_and_weather_is_shown_and_things_cover_one_another():
    scenes = sample_scenes(4000, "train", 0)
    assert {t.kind for s in scenes for t in s.things} == set(KINDS)
    shown = {(t.kind, t.detail) for s in scenes for t in s.things if t.kind not in ("chart",)}
    assert {(kind, d) for kind, details in DETAILS.items() if kind != "chart" for d in details} <= shown
    assert {s.weather for s in scenes} == {"fair", "rainy", "snowy", "foggy"} and any(t.covers for s in scenes for t in s.things)


def test_splits_share_no_scan_and_no_scene():
    scans = [set(scans_of(split)) for split in SPLITS]
    assert sum(map(len, scans)) == len(set().union(*scans)) == len(digit_scans()[1])
    scenes = [set(sample_scenes(1500, split, 0)) for split in SPLITS]
    assert sum(map(len, scenes)) == len(set().union(*scenes))


def test_placing_a_scene_anew_changes_how_it_is_drawn_and_not_what_it_is():
    scene = next(s for s in sample_scenes(50, "train", 0) if any(t.kind == "digit" for t in s.things))
    again = pose(scene, random.Random(1), "test")
    assert again == scene and split_of(again) == split_of(scene)
    assert [t.dx for t in again.things] != [t.dx for t in scene.things]
    assert all(t.scan in scans_of("test", t.detail) for t in again.things if t.kind == "digit")


STAR, HEART = Thing("star", "red", "large", 3, covers="right"), Thing("heart", "blue", "large", 4)


@pytest.mark.parametrize(("things", "fault"), [
    ((replace(STAR, covers=""), replace(HEART, cell=3)), "two things in one place"),
    ((HEART, replace(STAR, covers="")), "out of the order"),
    ((Thing("clock", "red", "large", 0, "noon"),), "no clock can show 'noon'"),
    ((Thing("clock", "red", "small", 0, "one"),), "no clock can be small"),
    ((replace(HEART, material="striped"),), "no heart can be striped"),
    ((replace(HEART, colour="beige"),), "colour 'beige' is unknown"),
    ((replace(HEART, kind="unicorn"),), "kind 'unicorn' is unknown"),
    ((replace(HEART, cell=9),), "outside the nine places"),
    ((STAR,), "covers nothing"),
    ((STAR, replace(HEART, size="small")), "covers nothing"),
    ((STAR, replace(HEART, kind="circle", covers="right"), Thing("cup", "pink", "large", 5)), "part of a pile"),
    ((STAR, HEART, Thing("circle", "pink", "large", 5, covers="left")), "covered twice"),
])
def test_what_this_world_cannot_show_is_named(things, fault):
    assert faults(Scene("mint", (STAR, HEART))) == []
    assert any(fault in text for text in faults(Scene("mint", things)))


def test_an_unknown_background_or_weather_is_named():
    assert faults(Scene("lava", (), "hail")) == ["background 'lava' is unknown", "weather 'hail' is unknown"]


def test_cells_beyond_the_edge_are_none():
    assert [neighbour(0, d) for d in ("left", "right", "above", "below")] == [None, 1, None, 3]
    assert [neighbour(8, d) for d in ("left", "right", "above", "below")] == [7, None, 5, None]


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="train, validation, audit, probe, test"):
        sample_scenes(1, "dev", 0)
