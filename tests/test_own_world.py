"""The three example rows of CONTRIBUTING.md are appended to their tables, and the new things are in the world."""

import os
import re
import shutil
import subprocess
import sys

from auditdm_lib import paths

CHECK = r"""
import random
from auditdm_lib.testbed.dataset import skill_census
from auditdm_lib.testbed.language import apply_edit, caption, parse_caption
from auditdm_lib.testbed.questions import sample_answerable
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import PICTOGRAMS, Scene, Thing, sample_scenes
from auditdm_lib.testbed.skills import answer
from auditdm_lib.testbed.sprites import _glyph
from auditdm_lib.testbed.suites import suite_items

scene = Scene("mint", (Thing("key", "red", "large", 4),))
missing, key = (_glyph(character, 50, 11).tobytes() for character in ("\U0010ffff", PICTOGRAMS["key"]))
assert missing != key, "the font has no such glyph"
assert (220, 40, 40) in {colour for _, colour in render(scene).getcolors(9999)}, "the key is not drawn"
assert answer(scene, "what colour is the key?") == "red" and answer(scene, "how many keys are there?") == "one"
assert parse_caption(caption(scene)) == scene and apply_edit(scene, "remove the key").things == ()
assert any(t.kind == "key" for s in sample_scenes(500, "train", 0) for t in s.things)
assert answer(scene, "what is in the very middle?") == "key"
census = skill_census(300).set_index("skill")
assert census.loc["middle", "asked"] == 300 and census.loc["middle", "entropy"] > 1
items = suite_items("middle-mini", 20, 0)
assert len(items) == 20 and set(items["skill"]) == {"middle", "colour"} and items["options"].notna().all()
"""


def test_the_example_rows_add_a_pictogram_a_skill_and_a_suite(tmp_path):
    package = tmp_path / "auditdm_lib"
    shutil.copytree(paths.ROOT / "auditdm_lib", package, ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    text = (paths.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n# (auditdm_lib/\S+), ([A-Z]+): .*\n((?:    .*\n)+)```", text)
    assert [name for _, name, _ in blocks] == ["PICTOGRAMS", "SKILLS", "SUITES"]
    for file, name, row in blocks:
        source = (tmp_path / file).read_text(encoding="utf-8")
        assert len(re.findall(rf"^{name} = ", source, re.MULTILINE)) == 1
        table = re.compile(rf"^({name} = .*?\n)([)}}])", re.MULTILINE | re.DOTALL)
        source = table.sub(lambda found, row=row: found[1] + row + found[2], source, count=1)
        (tmp_path / file).write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", CHECK], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
