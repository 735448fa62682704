"""Time the course's own sample run on a share of its images, and scale it to the whole.

The sample trains ten epochs on train1, tests the network after each, turns it into a memristive one
and tests that with stock MemTorch. What is timed here does the same steps in the same way, with the
notebook's data and network; reading the data is left out. Started by `make bench`, with nothing
beside it; the last line that it prints is JSON.
"""

import argparse
import copy
import itertools
import json
import time

import memtorch
import torch
from memtorch.bh.nonideality.NonIdeality import NonIdeality, apply_nonidealities
from memtorch.map.Parameter import naive_map
from memtorch.mn.Module import patch_model
from torch import nn

from .definitions import load_notebook

EPOCHS, BATCH = 10, 32
WARM_UP = 1  # batches that come before the timed ones


def balanced(labels, is_red):
    """Indices as in the sample: of each colour the rarer label is repeated, from its first image
    on, until both are as frequent; red ones first."""
    parts = []
    for colour in (True, False):
        here = torch.nonzero(is_red == colour).flatten()
        both = [here[labels[here] == label] for label in (0, 1)]
        rare, frequent = sorted(both, key=len)
        again = torch.arange(len(frequent) - len(rare)) % len(rare)
        parts += [here, rare[again]]
    return torch.cat(parts)


def loader_of(environment):
    """The sample's loader: balanced, pixels from 0 to 255, shuffled batches of 32."""
    rows = balanced(environment.labels, environment.is_red)
    pairs = list(zip(environment.images[rows].float(), environment.labels[rows], strict=True))
    return torch.utils.data.DataLoader(pairs, batch_size=BATCH, shuffle=True)


def time_share(step, loader, batches):
    """Return how many images of a loader were timed, and the seconds that all would take."""
    started = images = 0
    for number, (inputs, labels) in enumerate(itertools.islice(loader, WARM_UP + batches)):
        if number == WARM_UP:
            started = time.perf_counter()
        step(inputs, labels)
        images += len(labels) if number >= WARM_UP else 0
    taken = time.perf_counter() - started
    return images, taken * len(loader.dataset) / images


def training_step(network):
    """One step of the sample's training."""
    loss_of, optimiser = nn.CrossEntropyLoss(), torch.optim.SGD(network.parameters(), lr=0.001)

    def step(images, labels):
        optimiser.zero_grad()
        loss_of(network(images), labels).backward()
        optimiser.step()

    return step


def testing_step(network):
    """One step of the sample's test, which keeps gradients as well."""

    def step(images, labels):
        return torch.sum(torch.argmax(network(images), dim=1) == labels)

    return step


def converted(network):
    """The sample's memristive network, with none of its devices stuck."""
    patched = patch_model(
        copy.deepcopy(network),
        memristor_model=memtorch.bh.memristor.VTEAM,
        memristor_model_params={"time_series_resolution": 1e-10, "r_off": 5e7, "r_on": 1.4e4},
        module_parameters_to_patch=[nn.Linear, nn.Conv2d],
        mapping_routine=naive_map,
        transistor=True,
        programming_routine=None,
        scheme=memtorch.bh.Scheme.DoubleColumn,
        tile_shape=(128, 128),
        max_input_voltage=0.3,
        ADC_resolution=8,
        ADC_overflow_rate=0.0,
        quant_method="linear",
    )
    proportions = {f"{kind}_proportion": 0.0 for kind in ("lrs", "hrs", "electroform")}
    patched = apply_nonidealities(patched, non_idealities=[NonIdeality.DeviceFaults], **proportions)
    patched.tune_()
    return patched


def measure(train, test, network, train_batches, test_batches):
    """The record: images of the sample's run and those of them that were timed, seconds scaled."""
    learned, epoch = time_share(training_step(network), train, train_batches)
    answered, software = time_share(testing_step(network), test, train_batches)
    started = time.perf_counter()
    memristive = converted(network)
    converting = time.perf_counter() - started
    asked, hardware = time_share(testing_step(memristive), test, test_batches)
    return {
        "train_images": EPOCHS * len(train.dataset),
        "train_images_timed": learned,
        "software_images": EPOCHS * len(test.dataset),
        "software_images_timed": answered,
        "test_images": len(test.dataset),
        "test_images_timed": asked,
        "train_seconds": EPOCHS * epoch,
        "software_seconds": EPOCHS * software,
        "convert_seconds": converting,
        "test_seconds": hardware,
        "seconds": EPOCHS * (epoch + software) + converting + hardware,
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train-batches", type=int, default=200, help="about a fifth of an epoch")
    parser.add_argument("--test-batches", type=int, default=3)
    shares = parser.parse_args()
    notebook = load_notebook()
    torch.manual_seed(0)
    environments = notebook.make_environments(*notebook.load_mnist(), 0)
    loaders = [loader_of(environments[name]) for name in ("train1", "test")]
    print(json.dumps(measure(*loaders, notebook.CNN(), **vars(shares))))


if __name__ == "__main__":
    main()
