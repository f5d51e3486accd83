"""The catalogue of skills: what questions about pictures are about, each with a sentence and example questions.

The paper names fifteen failure types and does not state how it found them; the catalogue (`skills.yaml`) is our choice.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from auditdm_lib.shown import one_line
from auditdm_lib.taxonomy.words import split_words, stems

SHIPPED = Path(__file__).with_name("skills.yaml")


@dataclass(frozen=True)
class Skill:
    """One row of the catalogue: a short name, a sentence that says what it is, and example questions."""

    name: str
    about: str
    examples: tuple[str, ...]


def catalogue(extra: Path | None = None) -> dict[str, Skill]:
    """The shipped skills by name, extended or overridden by a user's YAML file of the same form.

    The file maps the name of a skill to `about`, a sentence, and `examples`, a list of questions; a name without a value takes
    a shipped skill away. Raises ValueError with the remedy if it is written otherwise.
    """
    found = dict(shipped())
    if extra is not None:
        plain = {name.lower(): name for name in found}
        for name, skill in _read(Path(extra)).items():
            if plain.get(name.lower(), name) != name:
                raise ValueError(f"{extra}: the skill {name!r} differs from the shipped {plain[name.lower()]!r} in its "
                                 "capitals alone: write it as the shipped one to override it, or give it another name.")
            if skill is None and name not in found:
                raise ValueError(f"{extra} takes the skill {name!r} away, which the catalogue does not have: correct its name, "
                                 "or give it 'about' and 'examples'.")
            found.pop(name, None)
            if skill is not None:
                found[name] = skill
    if not found:
        raise ValueError(f"{extra} takes all skills away: leave at least one in the catalogue.")
    return found


@cache
def shipped() -> dict[str, Skill]:
    return _read(SHIPPED)


def _parsed(text: str) -> object:
    """YAML of plain data, in which no mapping has one key twice (PyYAML would keep the last). Raises yaml.YAMLError."""
    root = yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    todo, met = [root] if root else [], set()
    while todo:
        node = todo.pop()
        if id(node) in met or not isinstance(node.value, list):  # an alias leads to a node again
            continue
        met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.YAMLError(f"{key.value!r} stands in it twice, again in line {key.start_mark.line + 1}: leave one "
                                         "of them, or give it another name.")
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
                todo.append(value)
        else:
            todo += node.value
    return yaml.constructor.SafeConstructor().construct_document(root) if root else None


def _read(path: Path) -> dict[str, Skill | None]:
    try:
        rows = _parsed(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as a catalogue of skills: {one_line(error)}") from None
    if not isinstance(rows, dict):
        raise ValueError(f"{path} is no catalogue of skills: write 'name: {{about: a sentence, examples: [a question, ...]}}'.")
    skills, plain = {}, {}
    for name, row in rows.items():
        if not isinstance(name, str) or not name.strip() or not (row is None or _is_skill(row)):
            raise ValueError(f"{path}: the skill {name!r} needs a name, 'about' (a sentence) and 'examples' (a list of "
                             "questions), all of them texts with words: put numbers and yes or no into quotation marks.")
        if name.strip().startswith("“"):
            raise ValueError(f"{path}: the skill {name!r} looks like one that is found openly: leave out its quotation mark.")
        twin = plain.setdefault(name.strip().lower(), name)
        if twin != name:
            raise ValueError(f"{path}: the skills {twin!r} and {name!r} differ in capitals and spaces alone: leave one.")
        skills[name.strip()] = row and Skill(name.strip(), row["about"], tuple(row["examples"]))
    return skills


def _is_skill(row: object) -> bool:
    if not isinstance(row, dict) or set(row) != {"about", "examples"} or not isinstance(row["examples"], list):
        return False
    texts = (row["about"], *row["examples"])
    return bool(row["examples"]) and all(isinstance(text, str) and split_words(text) for text in texts)


@cache
def word_rates(*skills: Skill) -> dict[str, float]:
    """The share of some skills' examples that contain each word (a stem)."""
    texts = [text for skill in skills for text in skill.examples]
    return {word: n / len(texts) for word, n in Counter(word for text in texts for word in set(stems(text))).items()}
