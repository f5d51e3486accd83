"""What people change in the failure types of stage 03: types left out, renamed or merged. All changes stand in one YAML file.

The file names the types that it was made for, so that it is never applied to others: `categories` numbers them anew whenever
the failures change. Stages read it where the parameter `type_edits` names it; nothing is changed in the folder of stage 03.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from auditdm_lib import paths
from auditdm_lib.run import manifest
from auditdm_lib.shown import one_line
from auditdm_lib.taxonomy.confirm import confirmation

NAME = "edits.yaml"  # below runs/<run>/
LONGEST_NAME = 120  # characters of a type's new name
HEAD = ("# Changes by people to the failure types of stage 03, written by notebooks/explore_failures.ipynb.\n"
        "# veto: types to leave out; rename: {type: new name}; merge: lists of types, each joined into its first one.\n")


@dataclass(frozen=True)
class Edits:
    """Changes to failure types, which are named by their number (`category`). `made_for` is `fingerprint` of these types."""

    made_for: str
    veto: tuple[int, ...] = ()
    rename: dict[int, str] = field(default_factory=dict)
    merge: tuple[tuple[int, ...], ...] = ()  # each joined into its first, which is the largest

    def __bool__(self) -> bool:
        return bool(self.veto or self.rename or self.merge)


def fingerprint(types: pd.DataFrame) -> str:
    """What tells failure types from others: a digest of their numbers, names and sizes (categories.parquet)."""
    return manifest.digest([[int(row.category), row.name, int(row.size)] for row in
                            types[["category", "name", "size"]].itertuples(index=False, name="Type")])


def none(types: pd.DataFrame) -> Edits:
    """No changes to these types."""
    return Edits(fingerprint(types))


def veto(edits: Edits, category: int) -> Edits:
    """The edits with one more type left out, or with it back among the types if it was left out."""
    kept = set(edits.veto) ^ {category}
    return replace(edits, veto=tuple(sorted(kept)))


def rename(edits: Edits, category: int, name: str) -> Edits:
    """The edits with a new name for a type; "" gives it back its own. Raises ValueError for one that is too long."""
    name = one_line(name).strip()
    if len(name) > LONGEST_NAME:
        raise ValueError(f"The name has {len(name)} characters; give one of at most {LONGEST_NAME}.")
    others = {number: text for number, text in edits.rename.items() if number != category}
    return replace(edits, rename=others | ({category: name} if name else {}))


def merge(edits: Edits, categories: list[int]) -> Edits:
    """The edits with these types joined, and with those that were joined with one of them before. Raises ValueError for fewer
    than two."""
    if len(set(categories)) < 2:
        raise ValueError("Choose at least two types to merge.")
    touched = [group for group in edits.merge if set(group) & set(categories)]
    joined = tuple(sorted(set(categories).union(*touched)))
    return replace(edits, merge=tuple(sorted([joined, *(group for group in edits.merge if group not in touched)])))


def split(edits: Edits, category: int) -> Edits:
    """The edits with the types that were merged with this one by themselves again."""
    return replace(edits, merge=tuple(group for group in edits.merge if category not in group))


def save(edits: Edits, file: Path) -> None:
    """Write the edits, whole or not at all; a file of an earlier time is replaced."""
    record = {"made_for": edits.made_for, "veto": list(edits.veto), "rename": dict(sorted(edits.rename.items())),
              "merge": [list(group) for group in edits.merge]}
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(HEAD + yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=10_000), encoding="utf-8")
    os.replace(partial, file)


def load(file: Path, types: pd.DataFrame) -> Edits:
    """The edits of a file. Raises manifest.Stop where they are not of the form that `save` writes, or were made for other types
    than these (categories.parquet), or name one that is not there."""
    try:
        record = yaml.safe_load(file.read_text(encoding="utf-8"))
        edits = Edits(record["made_for"], tuple(record["veto"]), dict(record["rename"]), tuple(map(tuple, record["merge"])))
        whole = [*edits.veto, *edits.rename, *(number for group in edits.merge for number in group)]
        sound = (len(record) == 4 and all(type(number) is int for number in whole)
                 and all(isinstance(name, str) and name for name in edits.rename.values())
                 and all(len(group) > 1 for group in edits.merge)
                 and len({number for group in edits.merge for number in group}) == sum(map(len, edits.merge)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        sound = False
    if not sound:
        raise manifest.Stop(f"{manifest.shown(file)} does not hold changes to failure types in the form that "
                            "explore_failures.ipynb writes: mend it, or delete it and make the changes again.")
    if edits.made_for != fingerprint(types) or set(whole) - set(types["category"]):
        raise manifest.Stop(f"{manifest.shown(file)} was made for other failure types than those that stage 03 has found now: "
                            "make the changes again in explore_failures.ipynb, or leave out type_edits.")
    return edits


def apply(rows: pd.DataFrame, edits: Edits) -> pd.DataFrame:
    """Rows with a column `category` (failures.parquet, fresh.parquet) with the types as edited: those of a merged type have its
    number, those of a type that was left out -1, as what is in no type."""
    into = {number: group[0] for group in edits.merge for number in group}
    merged = rows["category"].map(lambda number: into.get(number, number)).astype(rows["category"].dtype)
    return rows.assign(category=merged.mask(merged.isin(edits.veto), -1))


def types(table: pd.DataFrame, edits: Edits) -> pd.DataFrame:
    """The failure types (categories.parquet) as edited, largest first.

    A merged type has the sums of its parts' sizes and shares, and the rest of its largest part. It is left out if that is.
    """
    moved = apply(table, edits)
    sums = [name for name in table if name in ("size", "share") or name.startswith("by_")]
    kept = moved[moved["category"] >= 0]
    parts = kept.groupby("category", sort=False)
    joined = parts.first().assign(**{name: parts[name].sum() for name in sums}).reset_index()[list(table)]
    joined["name"] = [edits.rename.get(row.category, row.name) for row in
                      joined[["category", "name"]].itertuples(index=False, name="Type")]
    return joined.sort_values("size", ascending=False, kind="stable", ignore_index=True)


def confirmed(table: pd.DataFrame, fresh: pd.DataFrame, found: pd.DataFrame, edits: Edits) -> pd.DataFrame:
    """The confirmation (confirmation.parquet) of the types as edited; `fresh` is fresh.parquet, `found` categories.parquet.

    A merged type is tested anew, on one probe a picture, at the false discovery rate over all types that are left. The others
    keep their verdict: to leave a type out makes no other one surer.
    """
    left = types(found, edits)
    references = len(fresh["references_odd"].iloc[0]) if len(fresh) else 1
    once = apply(fresh, edits).drop_duplicates(["category", "picture"]) if edits.merge else apply(fresh, edits)
    again = confirmation(once, left, {}, references).set_index("category")
    merged = {group[0] for group in edits.merge}
    old = table.set_index("category")
    rows = [(again if number in merged else old).loc[[number]] for number in left["category"]]
    result = pd.concat(rows).reset_index() if rows else table.iloc[:0]
    return result.assign(name=left["name"].to_numpy())[list(table)].astype({"needed": table["needed"].dtype})


def edited(result: Any, taxonomy: Path, file: str) -> Any:
    """The artefacts of a run (a dataclass with `failures`, `categories` and `confirmation`) with the changes of a file; ""
    gives them as they are. `taxonomy` is the folder of stage 03. Raises manifest.Stop as `load` does."""
    if not file:
        return result
    edits = load(paths.place(file), result.categories)
    tested = result.confirmation
    if tested is not None:
        tested = confirmed(tested, pd.read_parquet(taxonomy / "fresh.parquet"), result.categories, edits)
    return replace(result, failures=apply(result.failures, edits), categories=types(result.categories, edits),
                   confirmation=tested)


@dataclass(frozen=True)
class Types:
    """What stage 03 says of a run's failure types: failures.parquet, categories.parquet and, where it was asked for,
    confirmation.parquet."""

    failures: pd.DataFrame
    categories: pd.DataFrame
    confirmation: pd.DataFrame | None


def read(taxonomy: Path, file: str = "") -> Types:
    """The failure types in the folder of stage 03, with the changes of a file ("" for none). Raises as `load` does."""
    tested = taxonomy / "confirmation.parquet"
    found = Types(pd.read_parquet(taxonomy / "failures.parquet"), pd.read_parquet(taxonomy / "categories.parquet"),
                  pd.read_parquet(tested) if tested.exists() else None)
    return edited(found, taxonomy, file)

