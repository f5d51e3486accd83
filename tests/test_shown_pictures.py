"""Pictures as people are shown them: drawn large only where the source gives the very picture that the models saw."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from auditdm_lib.audit.pairs import EXACT
from auditdm_lib.protocols import supplier
from auditdm_lib.results.shown_pictures import LARGE, Shown, enlarged, opened, seen

COMMAND = "make it foggy"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Three pictures of the testbed as stage 02 stores them, one drawn after the first exactly and one by something else."""
    folder, source = tmp_path_factory.mktemp("02_probes"), supplier("pictures", "testbed")
    (folder / "images").mkdir()
    _, images, truth = source.supply_pictures(3, "probe", 5)
    exact, _, refused = source.draw(truth.take([0]), images[:1], ["edit"], [COMMAND])
    assert not refused[0]
    for i, image in enumerate(images):
        image.save(folder / f"images/{i:05d}.png")
    exact[0].save(folder / "images/exact-00000.png")
    other = Image.fromarray(255 - np.asarray(exact[0]))
    other.save(folder / "images/trained-00000.png")
    probes = pd.DataFrame(dict(
        probe_id=list("abcd"), kind=["question"] * 3 + ["edit"], edit=[None] * 3 + [COMMAND], caption=None,
        source_image=[f"images/{i:05d}.png" for i in (0, 1, 2, 0)],
        image=[f"images/{i:05d}.png" for i in range(3)] + ["images/trained-00000.png"]))
    versions = pd.DataFrame([dict(probe_id="d", version=EXACT, image="images/exact-00000.png")])
    return folder, probes, versions


def test_a_picture_of_the_testbed_is_drawn_large_from_the_same_scene(stored):
    folder, probes, versions = stored
    people = Shown(folder, "testbed", 5, probes, versions)
    for name in ("images/00001.png", "images/exact-00000.png"):
        large = people.open(name)
        assert large.size == (LARGE, LARGE) and people.is_large(name)
        small = np.asarray(large.resize((48, 48), Image.Resampling.BOX), float)
        assert np.abs(small - np.asarray(seen(folder / name), float)).mean() < 6  # of 255: edges lie between pixels


def test_a_picture_drawn_by_something_else_is_shown_as_the_models_saw_it(stored):
    folder, probes, versions = stored
    people = Shown(folder, "testbed", 5, probes, versions)
    name = "images/trained-00000.png"
    assert not people.is_large(name) and np.array_equal(people.open(name), seen(folder / name))


def test_pictures_of_another_seed_or_source_are_shown_as_they_are(stored, tmp_path):
    folder, probes, _ = stored
    assert not Shown(folder, "testbed", 6, probes).is_large("images/00001.png")
    for source in ("easy-vqa", "my/photographs", "datasets:org/name"):
        people = Shown(folder, source, 5, probes)
        assert np.array_equal(people.open("images/00001.png"), seen(folder / "images/00001.png"))


def test_a_folder_alone_gives_the_files(stored):
    folder, _, _ = stored
    assert np.array_equal(opened(folder, "images/00002.png"), seen(folder / "images/00002.png"))


def test_pictures_of_a_source_are_enlarged_where_it_draws_them_itself():
    _, images, truth = supplier("pictures", "testbed").supply_pictures(2, "probe", 3)
    large = enlarged("testbed", images[1], truth, 1)
    assert large.size == (LARGE, LARGE) and enlarged("testbed", images[0], truth, 1) is images[0]  # not the scene of this one
    assert enlarged("testbed", images[1], None, 1) is images[1] and enlarged("some/folder", images[1], truth, 1) is images[1]
