"""Pictures by name."""

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from auditdm_lib.audit import pictures
from auditdm_lib.audit.pictures import load_pictures, save_pictures


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        Image.new("RGB", (20 + i, 10), (i * 40, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_testbed_pictures_know_their_world_and_splits_differ():
    audit, probe = load_pictures("testbed", 5, 0), load_pictures("testbed", 5, 0, split="probe")
    assert len(audit) == 5 and audit.images[0].size == (48, 48) and audit.truth is not None
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(audit.images, probe.images, strict=True))


def test_a_folder_gives_its_pictures_and_gives_them_again_when_it_has_too_few(folder):
    found = load_pictures(str(folder), 7, 0)
    assert len(found) == 7 == len(set(found.names)) and found.truth is None
    assert {n.split("#")[0] for n in found.names} == {"0.png", "1.png", "2.png"}
    assert found.names == load_pictures(str(folder), 7, 0).names


def test_a_data_set_gives_its_image_column(folder, tmp_path, monkeypatch):
    data = Dataset.from_dict({"label": [1, 2], "photo": [Image.open(folder / "0.png"), Image.open(folder / "1.png")]})
    monkeypatch.setattr(pictures, "load_dataset", lambda name, split: data)
    found = load_pictures("datasets:shop/photos", 2, 0)
    assert sorted(image.size for image in found.images) == [(20, 10), (21, 10)]


def test_a_data_set_without_pictures_is_refused(monkeypatch):
    monkeypatch.setattr(pictures, "load_dataset", lambda name, split: Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(ValueError, match="no image column"):
        load_pictures("datasets:shop/words", 2, 0)


def test_missing_and_empty_folders_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="set `pictures`"):
        load_pictures(str(tmp_path / "nowhere"), 1, 0)
    with pytest.raises(ValueError, match="holds no picture"):
        load_pictures(str(tmp_path), 1, 0)


def test_a_picture_larger_than_the_bound_is_refused_before_it_is_decoded(folder, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="make it smaller"):
        load_pictures(str(folder), 1, 0)


def test_saved_pictures_come_back_as_they_were(tmp_path):
    found = load_pictures("testbed", 3, 0)
    files = save_pictures(found, tmp_path / "images")
    assert all((np.asarray(Image.open(tmp_path / f)) == np.asarray(i)).all() for f, i in zip(files, found.images, strict=True))
