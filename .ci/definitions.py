"""The notebook's definitions as a module, for the tests and for .ci/speed.py."""

import json
import linecache
import sys
import types
from pathlib import Path


def load_notebook(path, tags=("parameters", "definitions")):
    """Execute the cells of a notebook that carry one of the tags, as one fresh module."""
    path = Path(path)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    module = types.ModuleType(f"notebook_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up here
    for index, cell in enumerate(cells):
        if cell["cell_type"] != "code" or not set(tags) & set(cell["metadata"].get("tags", ())):
            continue
        source, name = "".join(cell["source"]), f"<{path.name} cell {index}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
    return module
