"""Loading and saving pictures. A source is a supplier that knows the truth, a folder of image files, or a data set.

A user's pictures are told apart by their pixels: copies are one picture, and the splits share none.
"""

import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from auditdm_lib.audit.files import OpenedWhenNeeded, Unreadable, pixel_hash, read
from auditdm_lib.audit.known import KnownAnswers
from auditdm_lib.audit.sources import Source, source_of
from auditdm_lib.protocols import SUPPLIERS, Truth, supplier
from auditdm_lib.run.params import BadParameters

TURN = ("audit", "probe", "test", "audit", "probe", "audit", "probe", "audit", "test", "audit")  # 5 : 3 : 2
WHOLE = 200  # files; of larger sources only as many are read as are needed
AT_ONCE = 16  # files that are read ahead
THREADS = min(8, os.cpu_count() or 1)  # each holds one decoded file, of at most MAX_PIXELS
LEFT_ASIDE = ("hidden", "a linked folder", "of another kind", "a folder that is named like a picture", "a copy of another",
              "without a question and an answer")  # left out, but no fault of a picture
GENERIC_QUESTIONS = (  # asked by the random arm where the truth of the pictures is unknown
    "what is in the picture?", "what colour is the largest object?", "how many objects are there?", "is there a person?",
    "is there any text?", "what is in the background?", "where is the main object?", "is it day or night?",
    "what is the main object made of?", "is there an animal?", "what is on the left?", "what is on the right?")


@dataclass(frozen=True)
class Pictures:
    """A list of RGB pictures with names, and an object that knows the truth about them (None if it is unknown).

    A picture that comes again has the same name and is the same object. `again` are the arguments of `load_again`, which loads
    them in another process (None for pictures that `load_pictures` did not load).
    """

    names: list[str]
    images: list[Image.Image]
    truth: Truth | None = None
    again: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int]) -> "Pictures":
        """Some of the pictures, in the order of `rows`."""
        truth = self.truth.take(rows) if self.truth else None
        again = self.again and self.again | {"rows": [self.again["rows"][i] for i in rows]}
        return Pictures([self.names[i] for i in rows], [self.images[i] for i in rows], truth, again)

    def random_question(self, i: int, rng: random.Random) -> str:
        """A random question about picture i: an answerable one where the truth is known, else a generic one."""
        return self.truth.random_question(i, rng) if self.truth else rng.choice(GENERIC_QUESTIONS)


def identity(pictures: Pictures, n: int = 64) -> list[str]:
    """What tells a list of pictures from another, for resuming a training: all names, and the pixels of the first `n`."""
    return pictures.names + [pixel_hash(picture) for picture in pictures.images[:n]]


def load_pictures(source: str, n: int, seed: int, split: str = "audit", damaged: str = "skip") -> Pictures:
    """`n` pictures of a split ("audit", "probe" or "test") from a supplier ("testbed"), a folder, or a data set
    ("datasets:NAME", see `sources.SYNTAX`).

    No two splits of a folder or data set share a picture. A split is shuffled by `seed`; if it holds fewer than `n` pictures,
    they come again, in the same order. Each is opened when it is needed (`files.OpenedWhenNeeded`). What could not be used is
    printed with the reason; with `damaged` "refuse", pictures that cannot be read are an error. Raises FileNotFoundError or
    ValueError with the remedy, BadParameters (which is one) where the pictures themselves will not do.
    """
    again = dict(source=source, n=n, seed=seed, split=split, damaged=damaged, rows=list(range(n)))
    if source in SUPPLIERS["pictures"]:
        return Pictures(*supplier("pictures", source).supply_pictures(n, split, seed), again)
    found = source_of(source)
    chosen = _in_split(found, n, seed, split)
    if damaged == "refuse" and (faults := [(why, what) for why, what in found.left_out if why not in LEFT_ASIDE]):
        raise BadParameters("\n".join([f"{found.label} holds pictures that cannot be read: mend or remove them, or set "
                                       "damaged_pictures to skip.", *left_out_lines(faults, named=10)]))
    times = -(-n // len(chosen))
    print(f"{found.label}: {len(chosen)} different picture{'s' * (len(chosen) > 1)} of the split {split!r}"
          + (f", too few for {n}, so each comes up to {times} times" if times > 1 else ""))
    print(*left_out_lines(found.left_out), sep="\n", end="\n" if found.left_out else "")
    rows = [chosen[i % len(chosen)] for i in range(n)]
    truth = KnownAnswers([asked for *_, asked in rows]) if found.asked else None
    return Pictures([name for name, *_ in rows], [picture for _, picture, _ in rows], truth, again)


def load_again(rows: list[int], **how) -> Pictures:
    """The pictures that were taken as `rows` of what `load_pictures` loaded with the arguments `how` (`Pictures.again`)."""
    return load_pictures(**how).take(rows)


def _in_split(source: Source, n: int, seed: int, split: str) -> list[tuple[str, Image.Image, list]]:
    """At most `n` different pictures of a split, each with its name and what is asked about it; adds to `source.left_out`.

    Pixels decide which split a picture belongs to: in a small source by their turn among all, so that no split is empty, and
    in a large one by their hash alone, so that not all of it has to be read.
    """
    order, rng = list(range(len(source.names))), random.Random(f"pictures/{seed}")
    whole = len(order) <= WHOLE
    if not whole:
        rng.shuffle(order)
    different, members = {}, []
    for i, pixels, picture in _readable(source, order):
        asked = source.asked(i) if source.asked else []
        if source.asked and not asked:
            source.left_out.append(("without a question and an answer", source.names[i]))
            continue
        if pixels in different:
            different[pixels][2].extend(asked)  # a data set may have a row for each question about a picture
            if not source.asked:
                source.left_out.append(("a copy of another", source.names[i]))
            continue
        different[pixels] = source.names[i], picture, list(asked)
        if not whole and TURN[int(pixels, 16) % len(TURN)] == split:
            members.append(different[pixels])
            if len(members) == n:
                break
    if not different:
        raise BadParameters("\n".join([f"{source.label} holds no picture that can be read; add some or set `pictures`.",
                                       *left_out_lines(source.left_out)]))
    if whole:
        members = [different[pixels] for k, pixels in enumerate(sorted(different)) if TURN[k % len(TURN)] == split]
        members.sort(key=lambda member: member[0])
        rng.shuffle(members)
    if not members:
        raise BadParameters(f"{source.label} holds {len(different)} different picture{'s' * (len(different) > 1)}, too few for "
                            f"the split {split!r}: the splits {', '.join(sorted(set(TURN)))} share none, so add some.")
    return members[:n]


def _readable(source: Source, order: list[int]) -> Iterator[tuple[int, str, Image.Image]]:
    """Place, pixel hash and picture of each that can be read; the others are added to `source.left_out`."""
    with ThreadPoolExecutor(THREADS) as pool, tqdm(total=len(order), desc="pictures", disable=len(order) < 200) as bar:
        for start in range(0, len(order), AT_ONCE):
            part = order[start:start + AT_ONCE]
            for i, found in zip(part, pool.map(_attempt, [source.get(i) for i in part]), strict=True):
                bar.update()
                if isinstance(found, Unreadable):
                    source.left_out.append((found.kind, ": ".join(filter(None, [source.names[i], found.detail]))))
                else:
                    yield i, found[0], OpenedWhenNeeded(found[1], partial(_again, source, i, found[0]))


def _attempt(entry: Path | bytes | None) -> tuple[str, Image.Image] | Unreadable:
    try:
        picture = read(entry)
    except Unreadable as fault:
        return fault
    return pixel_hash(picture), picture


def _again(source: Source, i: int, pixels: str) -> Image.Image:
    found = _attempt(source.get(i))
    if isinstance(found, Unreadable) or found[0] != pixels:
        raise Unreadable("changed", f"{source.names[i]} in {source.label} is not what it was when the stage began")
    return found[1]


def left_out_lines(left_out: Iterable[tuple[str, str]], named: int = 3) -> list[str]:
    """A line for each reason to leave pictures out: how many there were, and the first of them."""
    lines, left_out = [], list(left_out)
    for why, n in Counter(why for why, _ in left_out).items():
        first = [what for other, what in left_out if other == why][:named]
        lines.append(f"  left out, {why}: {n} ({'; '.join(first)}{' ...' if n > named else ''})")
    return lines


def save_pictures(pictures: Pictures, folder: Path) -> list[str]:
    """Write each different picture as PNG once; returns the file of every one, relative to the folder's parent, in order."""
    folder.mkdir()
    files = {}
    for i, image in enumerate(pictures.images):
        if id(image) not in files:
            files[id(image)] = f"{folder.name}/{i:05d}.png"
            image.save(folder.parent / files[id(image)])
    return [files[id(image)] for image in pictures.images]


def save_drawn(drawn: Pictures, pictures: Pictures, names: list[str], folder: Path, auditor: str) -> list[str]:
    """Save the pictures of `drawn` that differ from their original in `pictures`, stored at `names`; the paths of all."""
    files = list(names)
    for i, (new, old) in enumerate(zip(drawn.images, pictures.images, strict=True)):
        if new is not old:
            files[i] = f"{folder.name}/{auditor}-{i:05d}.png"
            new.save(folder.parent / files[i])
    return files


def stored(folder: Path, files: Sequence[str]) -> list[Image.Image]:
    """The pictures that stage 02 saved as `files` below `folder`, each opened when it is needed; a file that comes again is the
    same object."""
    found = {name: OpenedWhenNeeded(read(folder / name), partial(read, folder / name)) for name in dict.fromkeys(files)}
    return [found[name] for name in files]


def check_splits(source: str, seed: int) -> None:
    """Raise ValueError if a split of the user's pictures would be empty, which a later stage would notice too late."""
    if source not in SUPPLIERS["pictures"]:
        with contextlib.redirect_stdout(None):  # what is left out is said by the stage's own call
            for split in sorted(set(TURN)):
                load_pictures(source, 1, seed, split)
