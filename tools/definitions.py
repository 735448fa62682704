"""The notebook's definitions, for the tests and for the scripts that time it."""

import json
import linecache
import sys
import types
from pathlib import Path

from .files import NOTEBOOK

TAGS = {"parameters", "definitions"}


def execute_definitions(path, namespace, cells=None):
    """Execute a notebook's cells of these tags, or those among its first `cells`, in a namespace;
    tracebacks show their lines."""
    path = Path(path)
    for index, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"][:cells]):
        if cell["cell_type"] != "code" or not TAGS & set(cell["metadata"].get("tags", ())):
            continue
        source, name = "".join(cell["source"]), f"<{path.name} cell {index}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec", dont_inherit=True), namespace)


def load_notebook(path=NOTEBOOK):
    """The definitions as one fresh module."""
    module = types.ModuleType(f"notebook_{Path(path).stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up here
    execute_definitions(path, module.__dict__)
    return module
