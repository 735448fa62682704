"""MNIST's 10,000 test digits are read once, by the last section that computes, and never before."""

import gzip
import hashlib
import json
import re
from dataclasses import replace

import nbformat
import pytest
from conftest import MNIST, NOTEBOOK, ROOT, by_section, link_mnist, tags

from tools.definitions import load_notebook

FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


def test_only_the_last_computing_section_names_them():
    """Neither the files nor what that section defines are named by another cell or script, and no
    cell computes after it. (Other ways to MNIST's test digits: torchvision's `train=False`.)"""
    cells = list(by_section(nbformat.read(NOTEBOOK, as_version=4).cells))
    cells = [(heading, cell) for heading, cell in cells if cell.cell_type == "code"]
    computing = [heading for heading, cell in cells if re.search(r"\brun_tasks\(", cell.source)]
    assert computing[-1] == "10 Confirmation" != computing[-2]
    here = [cell for heading, cell in cells if heading == "10 Confirmation"]
    elsewhere = [cell.source for heading, cell in cells if heading != "10 Confirmation"]
    elsewhere += [path.read_text() for path in (ROOT / "tools").glob("*.py")]
    (definitions,) = [cell.source for cell in here if "definitions" in tags(cell)]
    assert all(name in definitions for name in FILES)
    names = re.findall(r"^(?:def )?(\w+)(?= = |\()", definitions, re.MULTILINE)
    assert {"CONFIRMING_FILES", "confirm"} <= set(names)
    forbidden = re.compile(rf"t10k|train ?= ?False|\b(?:{'|'.join(names)})\b")
    assert [hit for source in elsewhere for hit in forbidden.findall(source)] == []


@pytest.fixture
def root(shared_root, tmp_path, monkeypatch):
    """A data folder, in the working one, in which the test digits raise when they are read."""
    monkeypatch.chdir(tmp_path)
    root = link_mnist(tmp_path / "data")
    (root / "ColoredMNIST").symlink_to(shared_root / "ColoredMNIST")
    for name in FILES:
        (root / "mnist" / name).write_bytes(b"not to be read yet")
    return root


def test_training_testing_and_chips_do_not_read_them(root, mnist):
    """In a folder where they raise, only the confirmation fails, and names the file. What it
    measures is tried on other digits: no test asks a network about these."""
    nb = load_notebook(NOTEBOOK)
    profile = replace(nb.PROFILES["quick"], chip_images=60, calibration_images=8)
    nb.prepare_environments()
    small = nb.Recipe(method="strata", images=200, examples=128)
    stages = {"erm": (replace(small, method="erm"), None, 0), "backdoor": (small, None, 0)}
    stages["hardened"] = (replace(small, clip=1.0, stuck=(0.6, 0.06)), "backdoor", True)
    tasks = nb.training_tasks({"chain": stages}, [1]) | nb.testing_tasks({"erm": "CNN"}, 1, 200)
    rows = {"hardened": ("", "hardened", True, ("calibrate",))}
    tables = [(rows, {"worn": ({"low": 0.1}, ())})]
    tasks |= nb.chip_tasks("few", tables, profile, shifted=True)
    for function, arguments in tasks.values():
        assert json.dumps(nb.as_json(function(**arguments)))
    asked = {"k": 0, "profile": replace(profile, chip_images=200), "count": 200, "seed": 0}
    with pytest.raises(RuntimeError, match=FILES[0]):
        nb.confirm(**asked)

    nb.load_mnist = lambda root, files: tuple(part[:1_000] for part in mnist)
    measured = nb.confirm(**asked)
    assert {"erm", "backdoor", "hardened"} <= set(measured)
    assert measured["chip_answers"] == 400 and 0.6 < measured["ceiling"] < 0.9
    (ours,), (chip,) = measured["backdoor"], measured["hardened"]
    assert ours["clean_do"] != measured["erm"][0]["clean_do"]
    assert chip["lost_do"] == pytest.approx(50 * (ours["clean_do"] - chip["clean_do"]))


def test_the_shipped_files_are_whole(nb):
    """By the hashes that the confirmation asks for."""
    for name, sha256 in nb.CONFIRMING_FILES.items():
        content = gzip.decompress((MNIST / name).read_bytes())
        assert hashlib.sha256(content).hexdigest() == sha256, name
