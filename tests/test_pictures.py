"""Pictures by name, and the pictures of a user: each of `cases/pictures.md` that concerns files."""

import copy
import io
import os
import random
import struct
import sys
import zlib

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill import PapermillExecutionError
from PIL import Image, ImageDraw, features

from auditdm_lib import paths
from auditdm_lib.audit import files, pictures, sources
from auditdm_lib.audit.pictures import Pictures, load_pictures, save_pictures
from auditdm_lib.run import executor, params, stage

SPLITS = ("audit", "probe", "test")


def drawing(seed: int, size=(24, 16), mode="RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    drawing(seed).save(file, "png")
    return file.getvalue()


def fill(folder, n: int):
    folder.mkdir(exist_ok=True)
    for i in range(n):
        drawing(i).save(folder / f"{i:03d}.png")
    return folder


def all_pictures(source, n=100) -> dict[str, Image.Image]:
    """Every picture of a source by its name, whichever split it is in."""
    found = {}
    for split in SPLITS:
        try:
            loaded = load_pictures(str(source), n, 0, split)
        except ValueError as error:
            assert "too few for the split" in str(error)
        else:
            found |= dict(zip(loaded.names, loaded.images, strict=True))
    return found


def alone(folder, name: str, save) -> Image.Image:
    """The picture that comes of one file, written by `save(path)`."""
    folder.mkdir(exist_ok=True)
    save(folder / name)
    return load_pictures(str(folder), 1, 0).images[0]


def test_testbed_pictures_know_their_world_and_splits_differ():
    audit, probe = load_pictures("testbed", 5, 0), load_pictures("testbed", 5, 0, split="probe")
    assert len(audit) == 5 and audit.images[0].size == (48, 48) and audit.truth is not None
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(audit.images, probe.images, strict=True))


# Which pictures

def test_a_folder_gives_its_pictures_and_gives_them_again_when_it_has_too_few(tmp_path):
    found = load_pictures(str(fill(tmp_path, 10)), 12, 0)
    assert len(found) == 12 and found.truth is None
    assert len(set(found.names)) == 5 and found.names[:5] == found.names[5:10]
    assert found.names == load_pictures(str(tmp_path), 12, 0).names != load_pictures(str(tmp_path), 12, 1).names


@pytest.mark.parametrize("n", [3, 14, 200, 450])  # 450: more than are read as a whole
def test_no_picture_is_in_two_splits_and_none_is_lost(tmp_path, n):
    fill(tmp_path, n)
    parts = [set(load_pictures(str(tmp_path), n, 0, split).names) for split in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == n and all(parts)
    assert n < 100 or all(abs(len(part) / n - share) < 0.1 for part, share in zip(parts, (0.5, 0.3, 0.2), strict=True))


def test_of_a_large_folder_only_as_many_files_are_read_as_are_needed(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(pictures, "read", lambda entry: opened.append(entry) or files.read(entry))
    few = load_pictures(str(fill(tmp_path, 450)), 10, 0, "probe")
    assert len(few) == 10 and len(opened) < 150
    assert few.names == load_pictures(str(tmp_path), 450, 0, "probe").names[:10]


@pytest.mark.parametrize("n", [20, 450])
def test_the_same_pixels_in_other_files_are_one_picture(tmp_path, n, capsys):
    fill(tmp_path / "a", n)
    for i in range(n):
        drawing(i).save(tmp_path / f"copy {i:03d}.bmp")
    parts = [load_pictures(str(tmp_path), 2 * n, 0, split) for split in SPLITS]
    shown = [{image.tobytes() for image in part.images} for part in parts]
    assert sum(map(len, shown)) == len(set.union(*shown)) == n
    assert f"a copy of another: {n}" in capsys.readouterr().out


def test_of_one_picture_there_is_one_source_picture_however_many_probes(tmp_path):
    found = load_pictures(str(fill(tmp_path / "one", 1)), 120, 0)
    saved = save_pictures(found, tmp_path / "images")
    assert len(found) == 120 and set(found.names) == {"000.png"} and set(saved) == {"images/00000.png"}
    assert os.listdir(tmp_path / "images") == ["00000.png"]


@pytest.mark.parametrize(("n", "split"), [(1, "probe"), (2, "test")])
def test_too_few_pictures_for_a_split_are_one_sentence(tmp_path, n, split):
    with pytest.raises(ValueError, match=f"holds {n} different pictures?, too few for the split '{split}'") as fault:
        load_pictures(str(fill(tmp_path, n)), 5, 0, split)
    assert "\n" not in str(fault.value)


def test_missing_and_empty_folders_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="set `pictures`"):
        load_pictures(str(tmp_path / "nowhere"), 1, 0)
    with pytest.raises(ValueError, match="holds no picture"):
        load_pictures(str(tmp_path), 1, 0)


# How a file is seen

@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tags_turn_the_picture_upright_by_every_road(tmp_path, suffix, orientation):
    upright = drawing(1).resize((48, 32), Image.Resampling.NEAREST)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that the camera's sensor stands for
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    tag = Image.Exif()
    tag[0x0112] = orientation
    lossless = dict(quality=100, lossless=True) if suffix == "webp" else dict(quality=100, subsampling=0)
    folder = tmp_path / "pictures"
    seen = alone(folder, f"a.{suffix}", lambda path: stored.save(path, exif=tag, **lossless))
    assert seen.size == (48, 32)
    assert np.abs(np.asarray(seen, int) - np.asarray(upright, int)).mean() < 4  # JPEG is not exact
    raw = (folder / f"a.{suffix}").read_bytes()
    features = Features({"image": ImageFeature()})
    for name, cell in (("bytes", {"bytes": raw, "path": None}), ("path", str(folder / f"a.{suffix}"))):
        Dataset.from_dict({"image": [cell]}, features).save_to_disk(tmp_path / name)
        other = load_pictures(f"datasets:{tmp_path / name}", 1, 0).images[0]
        assert other.tobytes() == seen.tobytes()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    seen = alone(tmp_path, f"a.{suffix}", Image.fromarray(grey).save)
    assert seen.mode == "RGB" and (np.asarray(seen)[..., 0].ravel() == np.arange(256)).all()


@pytest.mark.parametrize(("values", "right"), [
    (np.linspace(0, 1, 256, dtype=np.float32), np.arange(256)),
    (np.arange(256, dtype=np.float32), np.arange(256)),
    (np.arange(256, dtype=np.int32), np.arange(256)),
    (np.arange(256, dtype=np.int32) * 257, np.arange(256)),
    (np.full(256, np.nan, np.float32), np.zeros(256)),
    (np.linspace(-5, 0, 256, dtype=np.float32), np.zeros(256))])
def test_fractions_and_large_numbers_are_scaled_too(tmp_path, values, right):
    seen = alone(tmp_path, "a.tiff", Image.fromarray(values.reshape(16, 16)).save)
    assert np.abs(np.asarray(seen)[..., 0].ravel().astype(int) - right).max() <= 1


def transparent(mode: str) -> Image.Image:
    """A black disc on transparent black."""
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((10, 10, 30, 30), fill=(0, 0, 0, 255))
    if mode != "P":
        return image.convert(mode)
    palette = Image.new("P", image.size, 1)  # both colours are black
    palette.putpalette([0, 0, 0, 0, 0, 0] + [0] * 762)
    palette.paste(0, mask=image.getchannel("A"))
    palette.info["transparency"] = 1
    return palette


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("RGBA", "webp")])
def test_transparency_lies_on_white(tmp_path, mode, suffix):
    seen = alone(tmp_path, f"a.{suffix}", lambda path: transparent(mode).save(path, lossless=True))
    assert seen.mode == "RGB" and seen.getpixel((0, 0)) == (255, 255, 255) and seen.getpixel((20, 20)) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    seen = alone(tmp_path, f"a.{suffix}", drawing(2, mode=mode).save)
    assert seen.mode == "RGB" and seen.tobytes() == drawing(2, mode=mode).convert("RGB").tobytes()


@pytest.mark.parametrize("suffix", sorted(params.IMAGES))
def test_every_suffix_that_the_parameters_accept_is_read(tmp_path, suffix):
    form = {".jpg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".tif": "tiff"}.get(suffix, suffix[1:])
    if not (form not in ("webp", "avif") or features.check(form)):
        pytest.skip("this Pillow lacks it")
    assert alone(tmp_path, f"a{suffix.upper()}", lambda path: drawing(3).save(path, form)).size == (24, 16)


def test_large_pictures_are_made_smaller_and_bounded_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_SIDE", 100)
    assert alone(tmp_path / "a", "a.png", drawing(1, (300, 150)).save).size == (100, 50)
    assert alone(tmp_path / "b", "a.png", drawing(1, (100, 30)).save).tobytes() == drawing(1, (100, 30)).tobytes()


# What is left out

def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


@pytest.fixture
def messy(tmp_path):
    """A folder as people have them: three pictures, and one of each thing that is none."""
    folder = tmp_path / "photos of mine"
    fill(folder, 2)
    (folder / "sub").mkdir()
    drawing(2).save(folder / "sub" / "x.tiff")
    (folder / ".ipynb_checkpoints").mkdir()
    drawing(7).save(folder / ".ipynb_checkpoints" / "a-checkpoint.png")
    (folder / "._photo.jpg").write_bytes(b"\0\5\26\7")
    (folder / "album.jpg").mkdir()
    (folder / "empty.png").touch()
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>")
    (folder / "drawing.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    noisy = io.BytesIO()
    drawing(9, (200, 200)).save(noisy, "jpeg")
    (folder / "cut.jpg").write_bytes(noisy.getvalue()[:-3000])
    (folder / "e.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_text("no picture")
    (folder / "large.png").write_bytes(bomb(9000, 9000))
    (folder / "bomb.png").write_bytes(bomb(60000, 60000))
    (folder / "broken.png").symlink_to(folder / "nowhere.png")
    fill(tmp_path / "elsewhere", 2)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.timeout(60)
def test_what_is_no_picture_is_counted_with_the_reason(messy, capsys, monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", lambda image, *a, _old=Image.Image.convert: (
        pytest.fail("decoded") if image.width > 8000 else _old(image, *a)))
    assert set(all_pictures(messy)) == {"000.png", "001.png", "sub/x.tiff"}
    said = capsys.readouterr().out
    for words in ("hidden: 2 (._photo.jpg; .ipynb_checkpoints)", "a folder that is named like a picture: 1 (album.jpg)",
                  "empty: 1 (empty.png)", "no picture of a format that is read: 2 (drawing.png; page.jpg)",
                  "damaged: 1 (cut.jpg: OSError: image file is truncated", "of another kind: 2 (e.heic; notes.txt)",
                  "too large: 2 (bomb.png: more than 50,000,000 pixels; make it smaller; large.png: 9000 x 9000 pixels",
                  "a broken link: 1 (broken.png)", "a linked folder: 1 (linked)"):
        assert words in said
    assert not hasattr(os, "mkfifo") or "not a regular file: 1 (pipe.png)" in said


def test_a_folder_of_which_nothing_can_be_read_says_why(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(ValueError, match=r"holds no picture(.|\n)*page.jpg"):
        load_pictures(str(tmp_path), 1, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="names of other bytes than UTF-8 exist there only")
def test_names_of_any_bytes_are_read_and_shown(tmp_path):
    for name in (b"caf\xe9.png", "café.png".encode(), "写真 1.png".encode(), b"caf\\xe9.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(png(sum(name)))
    found = all_pictures(tmp_path)
    assert set(found) == {"caf\\xe9.png", "café.png", "写真 1.png", "caf\\\\xe9.png"}
    assert all(name.encode() for name in found)
    assert params.picture_fault(str(tmp_path)) is None
    assert stage.input_hash(str(tmp_path), "pictures") == stage.input_hash(f"datasets:{tmp_path}::train", "pictures")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged tags
@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=300)
def test_a_damaged_file_gives_a_picture_or_the_reason(seed):
    rng = random.Random(seed)
    form = rng.choice(["png", "jpeg", "webp", "bmp", "gif", "tiff"])
    file = io.BytesIO()
    drawing(seed, (40, 30)).save(file, form)
    raw = bytearray(file.getvalue())
    for _ in range(rng.choice([1, 3, 30])):
        raw[rng.randrange(min(len(raw), rng.choice([40, 4000])))] = rng.randrange(256)
    raw = bytes(raw[:rng.choice([len(raw), rng.randrange(1, len(raw))])])
    try:
        assert files.read(raw).mode == "RGB"
    except files.Unreadable as fault:
        assert "\n" not in str(fault)


# Data sets

def stored(folder, rows, feature=None):
    data = Dataset.from_dict({"label": list(range(len(rows))), "photo": rows},
                             Features({"label": Value("int64"), "photo": feature or ImageFeature()}))
    data.save_to_disk(folder)
    return folder


def test_a_data_set_saved_to_disk_gives_its_pictures_and_says_what_it_leaves_out(tmp_path, capsys):
    rows = [{"bytes": png(i), "path": None} for i in range(4)]
    rows += [None, {"bytes": b"<html>", "path": None}, {"bytes": bomb(9000, 9000), "path": None},
             {"bytes": png(5)[:200], "path": None}]
    folder = stored(tmp_path / "with a space", rows)
    assert params.picture_fault(f"datasets:{folder}") is None
    assert {name.rpartition("-")[2] for name in all_pictures(f"datasets:{folder}")} == {"0", "1", "2", "3"}
    said = capsys.readouterr().out
    for words in ("missing: 1", "no picture of a format that is read: 1", "too large: 1", "damaged: 1"):
        assert words in said


def test_a_column_of_lists_of_pictures_gives_each_of_them(tmp_path):
    rows = [[{"bytes": png(3 * i + k), "path": None} for k in range(i)] for i in range(4)] + [None]
    found = all_pictures(f"datasets:{stored(tmp_path / 'lists', rows, List(ImageFeature()))}")
    assert {name.rpartition("-")[2] for name in found} == {"1.0", "2.0", "2.1", "3.0", "3.1", "3.2"}


@pytest.mark.parametrize("names", [["test"], ["validation", "train"], ["a", "b"]])
def test_the_split_is_the_named_one_or_train_or_the_only_one(tmp_path, names):
    data = {name: Dataset.from_dict({"photo": [{"bytes": png(10 * k + i), "path": None} for i in range(3)]},
                                    Features({"photo": ImageFeature()})) for k, name in enumerate(names)}
    DatasetDict(data).save_to_disk(tmp_path / "d")
    usual = "train" if "train" in names else names[0]
    if names == ["a", "b"]:
        with pytest.raises(ValueError, match="has the splits a, b: name one"):
            load_pictures(f"datasets:{tmp_path / 'd'}", 1, 0)
    else:
        assert len(all_pictures(f"datasets:{tmp_path / 'd'}")) == 3
    named = {image.tobytes() for image in all_pictures(f"datasets:{tmp_path / 'd'}::{usual}").values()}
    assert named == {drawing(10 * names.index(usual) + i).tobytes() for i in range(3)}
    with pytest.raises(ValueError, match="has the splits"):
        load_pictures(f"datasets:{tmp_path / 'd'}::nowhere", 1, 0)


def test_configuration_split_and_column_stand_in_the_name(tmp_path):
    features = Features({"left": ImageFeature(), "right": ImageFeature()})
    lines = ["---", "configs:"]
    for k, name in enumerate(("first", "second")):
        cells = [[{"bytes": png(100 * k + 10 * side + i), "path": None} for i in range(3)] for side in (0, 1)]
        Dataset.from_dict(dict(zip(features, cells, strict=True)), features).to_parquet(tmp_path / name / "test.parquet")
        lines += [f"- config_name: {name}", f"  data_files: {name}/*.parquet"]
    (tmp_path / "README.md").write_text("\n".join([*lines, "---", ""]))
    with pytest.raises(ValueError, match="cannot be loaded .*first.*second.*datasets:NAME:CONFIGURATION"):
        load_pictures(f"datasets:{tmp_path}", 1, 0)
    seen = all_pictures(f"datasets:{tmp_path}:second:train[:2]:right")
    assert {image.tobytes() for image in seen.values()} == {drawing(110).tobytes(), drawing(111).tobytes()}
    with pytest.raises(ValueError, match="no image column 'middle'; it has left, right"):
        load_pictures(f"datasets:{tmp_path}:first::middle", 1, 0)


def test_a_data_set_of_files_is_read_as_a_folder_is(tmp_path, capsys):
    folder = fill(tmp_path / "photos", 12)
    (folder / "cut.png").write_bytes(png(3)[:300])
    (folder / "empty.png").touch()
    by_road = [{image.tobytes() for image in all_pictures(source).values()} for source in (folder, f"datasets:{folder}")]
    assert by_road[0] == by_road[1] and len(by_road[0]) == 12
    assert capsys.readouterr().out.count("damaged: ") == 6


def test_a_local_data_set_means_the_same_from_anywhere(tmp_path, monkeypatch):
    stored(tmp_path / "repository" / "data", [{"bytes": png(1), "path": None}])
    monkeypatch.setattr(paths, "ROOT", tmp_path / "repository")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert len(load_pictures("datasets:data", 1, 0)) == 1


def test_a_data_set_without_pictures_is_refused(tmp_path):
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "words")
    with pytest.raises(ValueError, match="no image column"):
        load_pictures(f"datasets:{tmp_path / 'words'}", 2, 0)


@pytest.mark.parametrize("text", ["a:b:c:d:e", ":x"])
def test_a_name_of_too_many_parts_is_refused_with_the_syntax(text):
    with pytest.raises(ValueError, match="write datasets:NAME"):
        sources.data_set(text)


# In memory only while needed

def test_pictures_are_opened_again_when_they_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "KEPT_BYTES", 5 * 4 * 24 * 16)
    found = load_pictures(str(fill(tmp_path, 60)), 30, 0)
    in_memory = [image._im is not None for image in found.images]
    assert sum(in_memory) <= 5
    assert [image.tobytes() for image in found.images] == [drawing(int(name[:3])).tobytes() for name in found.names]
    assert sum(image._im is not None for image in found.images) <= 5


@pytest.mark.parametrize("use", [
    lambda image: image.convert("RGB"), lambda image: image.copy(), lambda image: image.resize(image.size),
    lambda image: image.crop((0, 0, *image.size)), lambda image: Image.fromarray(np.asarray(image)),
    copy.deepcopy, lambda image: Image.merge("RGB", image.split()),
    lambda image: Dataset.from_dict({"image": [image]})[0]["image"]])
def test_a_picture_that_is_not_in_memory_is_used_like_any_other(tmp_path, use):
    image = load_pictures(str(fill(tmp_path, 1)), 1, 0).images[0]
    image._im = None
    assert use(image).tobytes() == drawing(0).tobytes()
    image._im = None
    image.load()[0, 0]
    file = io.BytesIO()
    image._im = None
    image.save(file, "png")
    assert Image.open(file).tobytes() == drawing(0).tobytes()


def test_a_file_that_changes_while_it_is_used_is_named(tmp_path):
    image = load_pictures(str(fill(tmp_path, 1)), 1, 0).images[0]
    for change in (lambda: drawing(5).save(tmp_path / "000.png"), (tmp_path / "000.png").unlink):
        change()
        image._im = None
        with pytest.raises(files.Unreadable, match="000.png .* is not what it was"):
            image.load()


# Saving

def test_saved_pictures_come_back_as_they_were(tmp_path):
    found = load_pictures("testbed", 3, 0)
    files = save_pictures(found, tmp_path / "images")
    assert all((np.asarray(Image.open(tmp_path / f)) == np.asarray(i)).all() for f, i in zip(files, found.images, strict=True))
    assert files == [f"images/{i:05d}.png" for i in range(3)]


def test_a_picture_that_comes_again_is_stored_once(tmp_path):
    found = load_pictures("testbed", 3, 0)
    again = Pictures(found.names, found.images).take([2, 0, 2, 0, 1])
    assert [name[-9:-4] for name in save_pictures(again, tmp_path / "images")] == ["00000", "00001", "00000", "00001", "00004"]
    assert len(os.listdir(tmp_path / "images")) == 3


def test_pictures_of_a_stage_are_opened_when_needed_and_one_file_is_one_object(tmp_path, monkeypatch):
    saved = save_pictures(load_pictures(str(fill(tmp_path / "a", 10)), 12, 0), tmp_path / "images")
    found = pictures.stored(tmp_path, saved)
    assert len(found) == 12 and len({id(image) for image in found}) == len(set(saved)) == 5
    monkeypatch.setattr(files, "KEPT_BYTES", 0)
    monkeypatch.setattr(files, "KEPT_AT_LEAST", 1)
    found = pictures.stored(tmp_path, saved)
    assert sum(image._im is not None for image in {id(image): image for image in found}.values()) == 1
    for image, name in zip(found, saved, strict=True):
        with Image.open(tmp_path / name) as stored:
            assert image.tobytes() == stored.convert("RGB").tobytes()


def test_a_split_that_would_be_empty_is_noticed_before_any_stage_needs_it(tmp_path, capsys):
    pictures.check_splits(str(fill(tmp_path / "enough", 3)), 0)
    pictures.check_splits("testbed", 0)
    assert capsys.readouterr().out == ""
    fill(tmp_path / "few", 2)
    drawing(0).save(tmp_path / "few" / "copy.bmp")
    with pytest.raises(ValueError, match="holds 2 different pictures, too few for the split 'test'"):
        pictures.check_splits(str(tmp_path / "few"), 0)


def test_pictures_that_cannot_be_read_are_skipped_or_refused_as_the_parameter_says(tmp_path):
    for i in range(6):
        Image.new("RGB", (20 + i, 20), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no picture")
    assert len(load_pictures(str(tmp_path), 2, 0, damaged="refuse")) == 2
    (tmp_path / "page.jpg").write_text("<html>")
    assert len(load_pictures(str(tmp_path), 2, 0)) == 2
    with pytest.raises(ValueError, match="cannot be read: mend or remove them, or set damaged_pictures to skip") as refused:
        load_pictures(str(tmp_path), 2, 0, damaged="refuse")
    assert "page.jpg" in str(refused.value) and "notes.txt" not in str(refused.value)
    # what `auditdm run` makes of a cell that raised it: the sentence alone, no cell and no trace
    cell = PapermillExecutionError(4, 3, "load_pictures(...)", type(refused.value).__name__, str(refused.value), ["Traceback"])
    told = executor.explained(cell, paths.CHAIN[2], {"run": "mine"}, tmp_path)
    assert str(told) == str(refused.value)
