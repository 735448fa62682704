"""The notebook as a module, MNIST read without the notebook, and throw-away data folders."""

import gzip
import os
import random
import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from filelock import FileLock

from tools.definitions import load_notebook
from tools.files import NOTEBOOK, ROOT, copy_project

MNIST = ROOT / "data" / "mnist"
MNIST_FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
ENVIRONMENTS = ("train1", "train2", "test")
IS_ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ  # `make test` has two processes for tests
LONG = (
    "browser memristive training interruption commands anywhere cluster data documents demo figures"
).split()  # files that take longest

# For scripts of `python -c`: definitions stand in __main__, as in the notebook itself, from
# where they travel to workers. The first argument is the notebook.
AS_NOTEBOOK = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from tools.definitions import execute_definitions
execute_definitions(sys.argv[1], globals())
"""


def pytest_configure(config):
    """Failures show local variables: many tests loop over inputs, and this names the one."""
    config.option.showlocals = True
    if IS_ONE_OF_SEVERAL:
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Long files come first: then both processes have work until the end."""
    order = {f"test_{name}": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


class Evil:
    """An object whose unpickling leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def tags(cell):
    """The tags of a notebook's cell."""
    return cell.metadata.get("tags", [])


def by_section(cells):
    """(heading of the section that it stands in, cell) of every cell; a cell that begins a section
    belongs to it."""
    heading = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            heading = ([heading, *re.findall(r"^## +(.+)$", cell.source, re.MULTILINE)])[-1]
        yield heading, cell


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def rng_states():
    """The states of the three global generators."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), torch.get_rng_state().tolist(), name, keys.tolist(), rest


@pytest.fixture(scope="session")
def nb():
    """The definitions of coloredmnist.ipynb."""
    return load_notebook(NOTEBOOK)


def idx(name):
    """The payload of a gzipped idx file, read by hand: magic, sizes, bytes."""
    raw = gzip.decompress((MNIST / name).read_bytes())
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)
    return torch.from_numpy(
        np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes).copy()
    )


@pytest.fixture(scope="session")
def mnist():
    """MNIST's training images and digits, read without the notebook."""
    return idx(MNIST_FILES[0]), idx(MNIST_FILES[1]).long()


def link_mnist(root):
    """Make root/mnist, a real folder of links, so that nothing writes to the repository's."""
    (root / "mnist").mkdir(parents=True)
    for name in MNIST_FILES:
        (root / "mnist" / name).symlink_to(MNIST / name)
    return root


@pytest.fixture
def empty_root(tmp_path):
    """A data folder that holds MNIST and nothing else."""
    yield link_mnist(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")


@pytest.fixture(scope="session")
def shared_root(nb, tmp_path_factory):
    """A data folder with the three environments of seed 0. For reading only."""
    root = link_mnist(tmp_path_factory.mktemp("shared") / "data")
    nb.prepare_environments(root, seed=0)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def full_root(shared_root, tmp_path):
    """A data folder with the three environments, of which test.pt is a copy to be damaged."""
    root = link_mnist(tmp_path / "data")
    (root / "ColoredMNIST").mkdir()
    for env, put in zip(ENVIRONMENTS, (os.link, os.link, shutil.copy), strict=True):
        put(*(folder / "ColoredMNIST" / f"{env}.pt" for folder in (shared_root, root)))
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def environments(nb, mnist):
    """The three environments of seed 0."""
    return nb.make_environments(*mnist, 0)


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """The folder of a finished run of the quick profile, in a copy of the project: one for all
    processes. For reading only."""
    own = tmp_path_factory.getbasetemp()
    project = (own.parent if IS_ONE_OF_SEVERAL else own) / "project"
    command = [sys.executable, "-m", "tools.run_notebook", "--root", project, "--profile", "quick"]
    with FileLock(f"{project}.lock"):
        if not (project / "finished").exists():
            copy_project(ROOT, project)
            done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
            (project / "finished").touch()
    return project / "build" / "quick"
