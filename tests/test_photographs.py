"""All stages on photographs and drawings, with models of other classes, no line of stage code changed.

A minute or two: seven kernels start, which is what it takes to run the notebooks as a user would.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import tiny_models
import yaml
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from auditdm_lib import paths
from auditdm_lib.audit.pictures import GENERIC_QUESTIONS, load_pictures
from auditdm_lib.run import manifest

PICTURES = 30
WORDS = ("yes", "red", "two", "cat", "left", "sky", "blue", "star")
SMALL = {"imitation_pictures": 24, "imitation_rounds": 1, "imitation_steps": 4, "grpo_pictures": 4,
         "grpo_steps": 2, "group_size": 4, "groups_per_step": 2, "probes_per_auditor": 20, "regeneration_share": 0.0,
         "edit_share": 0.0, "gallery": 10, "failure_share": 0.9, "rectify_steps": 2, "rectify_batch": 4, "items_per_suite": 30}


def draw(folder):
    """Two photographs, and drawings of several shapes, sizes and formats."""
    for name, pixels in zip(("china.jpg", "flower.jpg"), load_sample_images().images, strict=True):
        Image.fromarray(pixels).resize((200, 133)).save(folder / name)
    for i in range(PICTURES - 2):
        picture = Image.new(("RGB", "L", "RGBA")[i % 3], (60 + 9 * i, 330 - 9 * i), "white")
        ImageDraw.Draw(picture).ellipse((5, 5, 20 + 3 * i, 40), fill="black")
        picture.save(folder / f"drawing{i:02d}.png")
    (folder / "copies").mkdir()
    for name in ("china.jpg", "drawing01.png", "drawing02.png"):
        shutil.copy(folder / name, folder / "copies" / name)
    (folder / "._china.jpg").write_bytes(b"no picture")
    (folder / "page.png").write_text("<html>")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run's folder after all stages: target Idefics3, the one reference LLaVA-OneVision."""
    home = tmp_path_factory.mktemp("home")
    (home / "pictures").mkdir()
    draw(home / "pictures")
    seen = load_pictures(str(home / "pictures"), len(GENERIC_QUESTIONS), 0).images
    target, reference = (
        str(tiny_models.in_few_words(build(home / name, layers=2, scale=1.0), seen, GENERIC_QUESTIONS, WORDS, seed))
        for seed, (name, build) in enumerate([("target", tiny_models.idefics3), ("reference", tiny_models.llava_onevision)]))
    profile = {"run": "photographs", "threads": 1, "pictures": str(home / "pictures"), "target": target,
               "references": [reference], **SMALL}
    (home / "photographs.yaml").write_text(yaml.safe_dump(profile))
    done = subprocess.run([sys.executable, "-m", "auditdm_lib.run", "run", str(home / "photographs.yaml")],
                          env=os.environ | {"AUDITDM_HOME": str(home)}, cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return home / "runs" / "photographs"


def test_every_auditor_asks_about_every_picture(run):
    probes = pd.read_parquet(run / "02_probes" / "probes.parquet")
    assert probes["auditor"].value_counts().to_dict() == {"random": 20, "prompt_only": 20, "trained": 20, "best_of_8": 16}
    assert {name for name in probes["image"] if not (run / "02_probes" / name).is_file()} == set()
    with Image.open(run / "02_probes" / probes["image"].iloc[0]) as picture:
        assert picture.mode == "RGB"


def pixels_of(run, split):
    return {image.tobytes() for image in load_pictures(str(run.parents[1] / "pictures"), 100, 0, split).images}


def test_no_probed_picture_was_trained_on_and_each_is_stored_once(run):
    stored = [Image.open(path).tobytes() for path in (run / "02_probes" / "images").iterdir()]
    assert len(stored) == len(set(stored)) == PICTURES * 3 // 10 and set(stored) == pixels_of(run, "probe")
    trained = pd.read_parquet(run / "01_auditor" / "completions" / "imitation.parquet")["picture"]
    assert trained.nunique() == PICTURES // 2 and not set(stored) & pixels_of(run, "audit")


def test_what_is_left_out_is_said_before_a_model_is_loaded(run):
    for name in ("01_train_auditor", "02_generate_probes"):
        cells = json.loads((run / "executed" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        said = "".join("".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", []))
        assert "left out, hidden: 1 (._china.jpg)" in said and "left out, a copy of another: 3" in said
        assert "left out, no picture of a format that is read: 1 (page.png)" in said
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        source = next(source for source in sources if "load_pictures(" in source)
        assert source.index("load_pictures(") < source.index("load_panel(")


def test_pictures_that_nothing_can_draw_anew_are_refused_before_any_model_is_loaded(run):
    profile = yaml.safe_load((run.parents[1] / "photographs.yaml").read_text()) | {"run": "other", "edit_share": 0.2}
    (run.parents[1] / "other.yaml").write_text(yaml.safe_dump(profile))
    done = subprocess.run(
        [sys.executable, "-m", "auditdm_lib.run", "run", str(run.parents[1] / "other.yaml"), "--only", "01"],
        env=os.environ | {"AUDITDM_HOME": str(run.parents[1])}, cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode and "edit draws the pictures of 'testbed' only: name a pipeline for" in done.stdout + done.stderr


def test_models_answered_and_disagreed(run):
    # two random models of different classes agree on next to nothing
    probes = pd.read_parquet(run / "02_probes" / "probes.parquet")
    asked = probes[probes["invalid_reason"].isna()]
    assert len(asked) >= 20 and asked["target_answer"].notna().all()
    assert asked["disagrees"].mean() > 0.5
    assert asked["target_answer"].nunique() > 3


def test_nothing_is_verified_without_truth(run):
    probes = pd.read_parquet(run / "02_probes" / "probes.parquet")
    assert probes["truth"].isna().all() and probes["verified_failure"].isna().all()
    assert not (run / "02_probes" / "grading.parquet").exists()
    search = pd.read_csv(run / "02_probes" / "search.csv")
    assert search["success"].isna().all() and (search["disagrees"] > 0).any()


def test_failures_are_clustered_without_a_world(run):
    failures = pd.read_parquet(run / "03_taxonomy" / "failures.parquet")
    categories = pd.read_csv(run / "03_taxonomy" / "categories.csv")
    assert len(failures) > 0 and set(failures["category"]) - {-1} == set(categories["category"])
    assert not (run / "03_taxonomy" / "grading.csv").exists()


def test_models_are_scored_on_held_out_pictures_against_the_references(run):
    scores = pd.read_parquet(run / "05_scores" / "items.parquet")
    assert set(scores["metric"]) == {"agreement"} and set(scores["model"]) == {"target", "rectified", "control"}
    counts = pd.read_csv(run / "05_scores" / "held_out.csv").set_index("suite")
    assert counts.index[0] == "held-out" and (counts["asked"] >= counts["scored"]).all()
    unseen = load_pictures(str(run.parents[1] / "pictures"), 100, 0, "test")
    assert set(scores["group"]) <= set(unseen.names) and counts["pictures"].max() <= len(set(unseen.names)) == PICTURES // 5
    assert not pixels_of(run, "test") & (pixels_of(run, "probe") | pixels_of(run, "audit"))


def test_the_page_and_the_claims_say_only_what_was_asked(run):
    folder = run.parents[1] / "figures" / "photographs"
    claims = pd.read_csv(folder / "claims.csv")
    assert set(claims["verdict"]) == {"not tested"} and claims["reads"].str.contains(": ").all()
    page = (folder / "report.html").read_text(encoding="utf-8").partition('<h2 id="claims">')[0].partition("</style>")[2]
    assert "There is one reference" in page and "suspicion" in page and "held-out questions" in page
    assert not re.search("(?i)fail|weak at|average score|cannot do", page)
    assert not (folder / "fig2_averages.png").exists() and (folder / "fig_held_out.png").exists()
    words = (run / "03_taxonomy" / "report.md").read_text(encoding="utf-8")
    assert "suspicion" in words and "failure" not in words.lower()


def test_stages_are_sealed(run):
    for step in paths.CHAIN[:-1]:
        assert manifest.verify(run / step.folder)["outputs"]
