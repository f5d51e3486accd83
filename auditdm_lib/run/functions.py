"""A function of one's own, named `module:function`: where its source is, what is wrong with it, and what identifies it.

The module is a file below the repository or on PYTHONPATH, and is not imported here.
"""

import ast
import re
import sys
from pathlib import Path

from auditdm_lib import paths
from auditdm_lib.run import manifest, reach

NAME = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)")


def source_of(name: str) -> Path | None:
    """The file of the module that `name` begins with, or None."""
    part = Path(*name.partition(":")[0].split("."))
    places = [Path(folder or ".") / part for folder in (str(paths.ROOT), *sys.path)]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def fault(name: str) -> str | None:
    """What is wrong with the name of a function, as far as its source shows it, or None."""
    named = NAME.fullmatch(name)
    if not named:
        return f"{name!r} does not name a function: write module:function, such as my_rewards:short_questions."
    file = source_of(name)
    if file is None:
        return (f"there is no module {named['module']}: put {named['module'].replace('.', '/')}.py into the repository, or its "
                "folder on PYTHONPATH.")
    try:
        defined = {node.name for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.FunctionDef)}
    except (SyntaxError, ValueError) as error:
        return f"{file} is no Python source ({error}): correct it."
    if named["function"] not in defined:
        return f"{file} defines no function {named['function']}: it defines {', '.join(sorted(defined)) or 'none'}."
    return None


def digest(name: str) -> str | None:
    """A hash of the module's source and of what of the library it imports, but of no other modules; None if it is not there."""
    file = source_of(name) if NAME.fullmatch(name) else None
    if file is None:
        return None
    source = file.read_text(encoding="utf-8")
    return manifest.digest({"source": source, "library": reach.sources([source])})
