"""What a run found as a task of lmms-eval, which its own harness runs and which needs nothing of this kit."""

import json
import re
from pathlib import Path

from auditdm_lib import __version__, paths
from auditdm_lib.results import data_card
from auditdm_lib.results.found import Found, write_parquet
from auditdm_lib.run import manifest, reach

CHAT_WORDS = "\nAnswer the question using a single word or phrase."  # as `models.asking.CHAT` puts a question
ANSWER_TOKENS = 64  # likewise
TASK = """# Written by the AuditDM kit: what its run RUN found. See README.md.
task: NAME
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: FILES
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
process_results: !function utils.process_results
metric_list:
- metric: consensus_match
  aggregation: !function utils.mean
  higher_is_better: true
score_key: score
cluster_key: picture
generation_kwargs:
  max_new_tokens: TOKENS
  temperature: 0
  do_sample: false
lmms_eval_specific_kwargs:
  default:
    pre_prompt: ""
    post_prompt: WORDS
metadata:
  version: 1.0
"""
UTILS = '''"""How lmms-eval asks and judges the probes of this folder. Written by the AuditDM kit, which it does not need."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from PACKAGE.answers import same_answer  # noqa: E402
from PACKAGE.replies import short_answer  # noqa: E402


def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    words = lmms_eval_specific_kwargs or {}
    return words.get("pre_prompt", "") + doc["question"] + words.get("post_prompt", "")


def process_results(doc, results):
    """Whether the short answer in the reply is the consensus of the references, by the kit's normalised match."""
    right = same_answer(short_answer(results[0], doc["question"]), doc["answer"])
    return {"consensus_match": {"score": float(right), "picture": doc["source_image"], "probe_id": doc["probe_id"],
                                "failure_type": doc["failure_type"]}}


def mean(items):
    return sum(item["score"] for item in items) / len(items)
'''
HOW_TO_RUN = """
## Running it with lmms-eval

    python -m lmms_eval --model MODEL --model_args ARGUMENTS --include_path THIS_FOLDER --tasks NAME

`consensus_match` is the share of probes that the model answers as the references do, by the same normalised match as in the
audit, after the short answer was taken out of the reply as there. By construction the audited target, asked as in the audit,
has 0, and a reference that voted has 1. `stderr_clustered` clusters by source picture; with `--log_samples --output_path OUT`
the logged samples name the failure type of each probe. The words around the question stand in the YAML file (`pre_prompt`,
`post_prompt`). Tried with lmms-eval 0.7.3, which looks for the data beside the YAML file; start an older one in this folder.
"""


def write_task(found: Found, out: Path) -> None:
    """Write the data set into a folder with its card and what lmms-eval needs to run it: a YAML file, utils.py, and the kit's
    match of answers, copied."""
    files, package, name = write_parquet(found, out), write_match(out), task_name(found.run)
    given = dict(RUN=found.run, NAME=name, FILES=json.dumps(files), TOKENS=str(ANSWER_TOKENS), WORDS=json.dumps(CHAT_WORDS))
    texts = {f"{name}.yaml": re.sub("|".join(given), lambda word: given[word[0]], TASK),
             "utils.py": UTILS.replace("PACKAGE", package),
             "README.md": data_card.card(found, HOW_TO_RUN.replace("NAME", name))}
    for file, text in texts.items():
        (out / file).write_text(text, encoding="utf-8", newline="\n")


def task_name(run: str) -> str:
    """The name of the lmms-eval task of a run: auditdm_<run>, in the letters of a Python name."""
    return "auditdm_" + re.sub(r"\W+", "_", run, flags=re.ASCII).strip("_").lower()


def write_match(out: Path) -> str:
    """Copy the modules that take a short answer out of a reply and compare two, as a package; its name.

    They use only Python's own library. Its name holds a digest of them, so that the tasks of two versions of the kit can be run
    by one process.
    """
    files = reach.sources(["import auditdm_lib.answers", "import auditdm_lib.replies"])
    package = f"auditdm_match_{manifest.digest(files)[:8]}"
    (out / package).mkdir()
    for file in files:
        text = "" if file == "__init__.py" else (paths.LIBRARY / file).read_text(encoding="utf-8")
        note = f"# From the AuditDM kit {__version__}, Apache-2.0.\n"
        (out / package / file).write_text(note + text.replace(paths.LIBRARY.name, package), encoding="utf-8", newline="\n")
    return package
