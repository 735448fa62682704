"""The notebook's definitions, for the tests and for the scripts that time it."""

import json
import linecache
import sys
import types
from pathlib import Path

from .files import NOTEBOOK

TAGS = {"parameters", "definitions"}


def execute_definitions(path, namespace, beginning=""):
    """Execute a notebook's cells of these tags, or those `beginning` so, in a namespace; tracebacks
    show their lines."""
    path = Path(path)
    for index, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source, name = "".join(cell["source"]), f"<{path.name} cell {index}>"
        if cell["cell_type"] != "code" or not source.startswith(beginning):
            continue
        if not TAGS & set(cell["metadata"].get("tags", ())):
            continue
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec", dont_inherit=True), namespace)


def load_notebook(path=NOTEBOOK):
    """The definitions as one fresh module."""
    module = types.ModuleType(f"notebook_{Path(path).stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up here
    execute_definitions(path, module.__dict__)
    return module
