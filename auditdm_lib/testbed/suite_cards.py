"""Suites as data sets that `datasets.load_dataset` reads, each with a card."""

import json
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value
from huggingface_hub import DatasetCard, DatasetCardData

from auditdm_lib.testbed.suites import SUITES, suite_items

TEXT = Value("string")
ITEM = Features({
    "item": TEXT, "image": Image(), "question": TEXT, "answer": TEXT, "answers": List(TEXT), "options": List(TEXT), "group": TEXT,
    "skill": TEXT})
SPLITS = ("train", "validation", "test")
METRICS = {  # of `benchmarks`, in words
    "vqa_accuracy": "VQA accuracy: min(1, n / 3) for n annotators who agree, averaged over leaving each annotator out",
    "exact_match": "accuracy: exact match of the normalised answer, or of the option's letter",
    "anls": "average normalised Levenshtein similarity (ANLS), 0 below 0.5",
    "relaxed_accuracy": "relaxed accuracy: numbers within 5 %, anything else exact",
    "iou": "mean intersection over union of the boxes, 0 where no box can be read",
    "cider_d": "CIDEr-D, from 0 to 10 as in coco-caption (n-grams up to 4, sigma 6, document frequencies of the scored split)",
    "circular": "CircularEval: a question counts where it is right in every rotation of its options",
    "mme": "MME's score, 0 to 200: 100 x (accuracy over questions + accuracy+ over pictures with both questions right)",
    "accuracy": "accuracy, with the F1 of \"yes\" and the share of \"yes\"",
}
COLUMNS = {
    "item": "name of the item", "image": "48 x 48 RGB", "question": "all that the model is shown, options included",
    "answer": "the right answer, a letter where there are options", "answers": "all answers that count, or the references",
    "options": "the options in their order, or nothing", "group": "items that are scored together",
    "skill": "what is asked about"}


def save_suite(name: str, folder: Path, sizes: dict[str, int], seed: int) -> None:
    """Write a suite as a data set with its card: `datasets.load_dataset(str(folder))` reads it back.

    `sizes` gives the number of items of each split, of train, validation and test; no two splits share a scene or a scan of a
    digit. Raises ValueError for another split or an unknown suite.
    """
    if unknown := set(sizes) - set(SPLITS):
        raise ValueError(f"No split {sorted(unknown)[0]!r} in a saved suite; give sizes for some of {', '.join(SPLITS)}.")
    folder, counts = Path(folder), {}
    for split in (split for split in SPLITS if split in sizes):
        items = suite_items(name, sizes[split], seed, split)
        counts[split] = (len(items), items["group"].nunique())
        file = folder / "data" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(items[list(ITEM)].to_dict("list"), features=ITEM).to_parquet(file)
    card(name, counts, items.iloc[0], seed).save(folder / "README.md")


def card(name: str, counts: dict[str, tuple[int, int]], example: dict, seed: int) -> DatasetCard:
    """The card of a suite; `counts` gives items and groups of each split, `example` is one item."""
    suite = SUITES[name]
    task = {"cider_d": "image-to-text", "iou": "object-detection"}.get(suite.metric, "visual-question-answering")
    data = DatasetCardData(
        pretty_name=name, language=["en"], license="apache-2.0", task_categories=[task], source_datasets=["original"],
        annotations_creators=["machine-generated"], tags=["synthetic", "auditdm", "testbed"],
        configs=[dict(config_name="default", data_files=[dict(split=s, path=f"data/{s}-*.parquet") for s in counts])])
    table = "\n".join(f"| {split} | {items:,} | {groups:,} |" for split, (items, groups) in counts.items())
    columns = "\n".join(f"- `{column}`: {meaning}" for column, meaning in COLUMNS.items())
    return DatasetCard(f"""---
{data.to_yaml()}
---
# {name}

A small synthetic suite in the item format of {suite.stands_for}, drawn by the testbed of the AuditDM kit. Scores on it say
nothing about scores on {suite.stands_for}; it is there to exercise an audit, and the metric, end to end.

- **Stands in for**: {suite.stands_for}
- **Departs from it**: {suite.departs}
- **Metric**: {METRICS[suite.metric]}
- **Asks about**: {', '.join(suite.skills)}
- **Made from**: `suite_items({name!r}, n, seed={seed}, split)`; the same seed gives the same items

| split | items | groups |
|---|---|---|
{table}

No two splits share a scene or a scan of a handwritten digit.

## Columns
{columns}

An example:

    question: {json.dumps(example["question"])}
    answer:   {json.dumps(example["answer"])}

## Licence
Apache-2.0, as the kit. The scans of digits are those that scikit-learn bundles (UCI Optical Recognition of Handwritten Digits,
CC BY 4.0); the pictograms are glyphs of DejaVu Sans.
""")
