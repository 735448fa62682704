"""Time stock MemTorch, fast_crossbars and the plain CNN on the same images, in this process.

Executes the notebook's definitions and prints what its `compare_speed` finds, as JSON, for a whole
chip and for one of which 5% of the devices that hold weights are stuck. Started by `make bench`.
"""

import argparse
import json

import torch

from .definitions import load_notebook


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    count = parser.parse_args().images
    notebook = load_notebook()
    torch.set_num_threads(1)  # as in workers
    torch.manual_seed(0)
    shapes = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8)
    images = notebook.paint(shapes, torch.arange(count) % 2 == 0).float() / 255
    network = notebook.CNN().eval()
    whole = notebook.to_memristive(network, notebook.MemristorConfig())
    chips = {
        "whole": whole,
        "5% stuck": notebook.apply_device_faults(whole, 0.05, 0.0, seed=0),
    }
    print(json.dumps({k: notebook.compare_speed(network, c, images) for k, c in chips.items()}))


if __name__ == "__main__":
    main()
