"""Time stock MemTorch, fast_crossbars and the plain CNN on the same images, in this process.

Executes the notebook's definitions and prints what its `compare_speed` finds, as JSON, for a whole
chip and for one with 5% of its devices stuck. Started by .ci/bench.py, with .venv's Python.
"""

import argparse
import json
import linecache
import sys
import types
from pathlib import Path

import torch

NOTEBOOK = Path(__file__).resolve().parent.parent / "coloredmnist.ipynb"


def definitions(path):
    """Return the notebook's tagged cells, executed as one module."""
    module = types.ModuleType("coloredmnist")
    sys.modules[module.__name__] = module
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if {"parameters", "definitions"} & set(cell["metadata"].get("tags", ())):
            source, name = "".join(cell["source"]), f"<{path.name} cell {number}>"
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
            exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
    return module


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    count = parser.parse_args().images
    notebook = definitions(NOTEBOOK)
    torch.manual_seed(0)
    shapes = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8)
    images = notebook.paint(shapes, torch.arange(count) % 2 == 0).float() / 255
    network = notebook.CNN().eval()
    whole = notebook.to_memristive(network, notebook.MemristorConfig())
    chips = {
        "whole": whole,
        "5% stuck": notebook.apply_device_faults(whole, 0.05, 0.0, seed=0),
        "5% stuck, idle cells too": notebook.stuck_anywhere(whole, 0.05, seed=0),
    }
    print(json.dumps({k: notebook.compare_speed(network, c, images) for k, c in chips.items()}))


if __name__ == "__main__":
    main()
