"""Bad input to the public functions: each gets an error of the right type that says what was
expected, before any work is done; damaged and foreign files are refused and nothing is executed."""

import itertools
from dataclasses import fields
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from conftest import NOTEBOOK, Evil
from torch import nn

NAN, INFINITE = float("nan"), float("inf")


# Checkpoints


def flip_a_weight(path):
    """Flip the lowest bit of a byte amid the largest tensor."""
    stored = torch.load(path, weights_only=True)["conv2.weight"].numpy().tobytes()
    data = bytearray(path.read_bytes())
    place = data.find(stored)
    assert place > 0
    data[place + len(stored) // 2] ^= 1
    path.write_bytes(data)


def rewrite(change):
    """A damage that stores a changed state_dict."""
    return lambda path: torch.save(change(torch.load(path, weights_only=True)), path)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "bit flipped in a weight": flip_a_weight,
    "a layer missing": rewrite(lambda state: {k: v for k, v in state.items() if "fc2" not in k}),
    "another shape": rewrite(lambda state: state | {"fc2.weight": torch.zeros(3, 64)}),
    "not finite": rewrite(lambda state: state | {"fc2.bias": torch.tensor([0.0, NAN])}),
    "foreign dictionary": lambda path: torch.save({"weights": torch.zeros(3)}, path),
    "a whole network": lambda path: torch.save(nn.Linear(2, 2), path),
    "torch file with a malicious pickle": lambda path: torch.save(Evil(path.parent / "x"), path),
}


@pytest.fixture
def checkpoint(nb, tmp_path):
    """The file of an untrained network, `net`, below tmp_path."""
    torch.manual_seed(0)
    path = tmp_path / "checkpoints" / "net.pt"
    nb.save_tensors(nb.CNN().state_dict(), path)
    return path


def test_damaged_checkpoints_are_refused(nb, tmp_path, checkpoint):
    """The error names file, network and cure; nothing is executed, changed or left behind."""
    good = checkpoint.read_bytes()
    assert isinstance(nb.load_network("net", root=tmp_path), nb.CNN)
    for title, damage in DAMAGE.items():
        checkpoint.write_bytes(good)
        damage(checkpoint)
        bad = checkpoint.read_bytes()
        with pytest.raises(RuntimeError, match=r"(?s)net\.pt.* CNN.*Delete it"):
            nb.load_network("net", root=tmp_path)
            pytest.fail(title)
        assert checkpoint.read_bytes() == bad and list(checkpoint.parent.iterdir()) == [checkpoint]


def test_missing_checkpoints_and_unknown_networks_are_named(nb, tmp_path, checkpoint):
    """What is missing and what to do; which networks there are."""
    with pytest.raises(FileNotFoundError, match=r"other\.pt.*Run the notebook"):
        nb.load_network("other", root=tmp_path)
    with pytest.raises(ValueError, match=r"CNN, SampleCNN, GrayscaleCNN.*'RNN'"):
        nb.load_network("net", "RNN", root=tmp_path)


def test_the_same_tensors_give_the_same_bytes(nb, checkpoint):
    """Under another name too; other tensors do not. (In another process: test_interruption.)"""
    torch.manual_seed(0)
    other = checkpoint.with_name("another name.pt")
    nb.save_tensors(nb.CNN().state_dict(), other)
    assert other.read_bytes() == checkpoint.read_bytes()
    nb.save_tensors({"x": torch.ones(1)}, checkpoint)
    assert other.read_bytes() != checkpoint.read_bytes()


# Images


BAD_IMAGES = {
    "none": torch.zeros(0, 3, 28, 28),
    "one image without a batch": torch.zeros(3, 28, 28),
    "grey": torch.zeros(2, 1, 28, 28),
    "large": torch.zeros(2, 3, 32, 32),
    "channels last": torch.zeros(2, 28, 28, 3),
    "whole numbers": torch.zeros(2, 3, 28, 28, dtype=torch.int64),
    "bool": torch.zeros(2, 3, 28, 28, dtype=torch.bool),
    "NaN": torch.zeros(2, 3, 28, 28).index_fill(3, torch.tensor(0), NAN),
    "infinite": torch.full((2, 3, 28, 28), INFINITE),
    "negative": torch.full((2, 3, 28, 28), -0.01),
    "pixels in 0..255 as floats": torch.full((2, 3, 28, 28), 255.0),
}


def test_impossible_images_are_refused(nb):
    """Before the model is asked; the edges of [0, 1] are allowed. So are probabilities of red."""
    for function in (nb.predict, nb.predict_both, nb.predict_do):
        for title, images in BAD_IMAGES.items():
            with pytest.raises(ValueError, match="images"):
                function(nn.Module(), images)
                pytest.fail(title)
        with pytest.raises(ValueError, match="ndarray"):
            function(nn.Module(), np.zeros((2, 3, 28, 28), np.float32))
    edges = torch.zeros(2, 3, 28, 28)
    edges[:, 0] = 1
    assert nb.predict(nb.CNN(), edges).shape == (2, 2)
    for p_red in (-0.1, 1.1, NAN):
        with pytest.raises(ValueError, match="p_red"):
            nb.predict_do(nb.CNN(), edges, p_red)


# Data


def test_impossible_environments_are_refused(nb):
    """Types and lengths are those of the contract."""
    good = {
        "images": torch.zeros(4, 3, 28, 28, dtype=torch.uint8),
        "labels": torch.zeros(4, dtype=torch.int64),
        "is_red": torch.zeros(4, dtype=torch.bool),
    }
    assert len(nb.Environment(**good)) == 4
    for change in (
        {"images": torch.zeros(4, 3, 28, 28)},
        {"labels": torch.zeros(4, dtype=torch.int32)},
        {"is_red": torch.zeros(4, dtype=torch.int64)},
        {"labels": torch.zeros(3, dtype=torch.int64)},
        {"is_red": torch.zeros(5, dtype=torch.bool)},
    ):
        with pytest.raises(ValueError, match="images, labels, is_red"):
            nb.Environment(**good | change)


def test_colours_that_do_not_fit_are_refused(nb):
    """One truth value for each shape."""
    for is_red in (torch.zeros(2, dtype=bool), torch.zeros(3, 1, dtype=bool), torch.zeros(3)):
        with pytest.raises(ValueError, match="is_red"):
            nb.paint(torch.zeros(3, 28, 28), is_red)


def test_impossible_generators_are_refused(nb):
    """Probabilities would become negative; of no environment there is no distribution."""
    for noises, prior in (([0.2, -0.1], "1/2"), (["3/2"], "1/2"), ([0.2], "6/5"), ([], "1/2")):
        with pytest.raises(ValueError, match=r"noise|prior"):
            nb.generator_joint(noises, prior)


def test_impossible_holding_out_is_refused(nb, environments):
    """A share is a proportion, a seed a whole number."""
    some = {"train1": environments["train1"][:10]}
    for share in (-0.1, 1.1, NAN):
        with pytest.raises(ValueError, match="share"):
            nb.hold_out(some, share, 0)
    for seed in (-1, 0.5):
        with pytest.raises(ValueError, match="seed"):
            nb.hold_out(some, 0.1, seed)


def test_no_runs_have_no_mean(nb):
    """NaN in results.json would say nothing."""
    for runs in ([], [0.5, NAN], [0.5, INFINITE]):
        with pytest.raises(ValueError, match="finite"):
            nb.summary(runs)


# Recipes and training


def test_no_field_of_a_recipe_is_left_unchecked(nb):
    """Whichever field holds nonsense, no recipe is made."""
    names = [f.name for f in fields(nb.Recipe) if not isinstance(f.default, bool)]
    assert len(names) > 10
    for name, value in itertools.product(names, (NAN, INFINITE, -INFINITE, -1, "many")):
        with pytest.raises((ValueError, TypeError)):
            nb.Recipe(**{name: value})
            pytest.fail(f"{name}={value}")


def test_impossible_recipes_name_the_field(nb):
    """And what is possible, before any training starts; all that is wrong at once."""
    for changes in (
        {"method": "irmv2"},
        {"network": "ResNet"},
        {"optimiser": "adam"},
        {"examples": 0},
        {"batch_size": 2.5},
        {"images": True},
        {"learning_rate": 0.0},
        {"averaging": 1.0},
        {"flip_rate": 0.5},
        {"smoothing": 0.5},
        {"penalty": -1.0},
        {"stuck": (0.6, 0.5)},
        {"stuck": (0.1,)},
        *(
            {"environments": e}
            for e in ((), ("test",), ("train1", "test"), ("train1",) * 2, "train1")
        ),
    ):
        with pytest.raises(ValueError, match=next(iter(changes))):
            nb.Recipe(**changes)
            pytest.fail(str(changes))
    with pytest.raises(ValueError, match=r"(?s)vrex.*GrayscaleCNN"):
        nb.Recipe(method="irmv2", network="ResNet")
    with pytest.raises(ValueError, match="a clip where devices are stuck"):
        nb.Recipe(stuck=(0.5, 0.5))
    assert nb.Recipe(environments=("train2",), stuck=(0.5, 0.5), clip=1.0).clip == 1.0


def test_impossible_profiles_are_named(nb):
    """With those that there are: the lines of the cell that chooses one."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells]
    (cell,) = [source for source in cells if "profile = PROFILES[PROFILE]" in source]
    choosing = "\n".join(line for line in cell.splitlines() if "PROFILES" in line)
    with pytest.raises(ValueError, match=r"full, paper, quick.*'fast'"):
        exec(choosing, vars(nb) | {"PROFILE": "fast"})
    names = vars(nb) | {"PROFILE": "paper"}
    exec(choosing, names)
    assert names["profile"].networks == 10


def test_impossible_training_is_refused(nb, environments):
    """What does not fit is named."""
    some = environments["train1"][:6]
    recipe, given = nb.Recipe(environments=("train1",), images=6, examples=6), {"train1": some}
    for changed in ({}, {"train1": some[:0]}):
        with pytest.raises(ValueError, match="train1"):
            nb.train(recipe, [changed], [0], device="cpu")
    for seed in (-1, 1.5):
        with pytest.raises(ValueError, match="seed"):
            nb.train(recipe, [given], [seed], device="cpu")


# The machine's record


def test_processor_name(nb, monkeypatch):
    """The first model that the system tells, and always the architecture."""
    told = [
        lambda: "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nmodel name\t: Some CPU\n",
        lambda: "Hardware\t: a board without models\n",
        lambda: Path("no such file").open(),
    ]
    monkeypatch.setattr(nb.Path, "read_text", lambda path, **_: told.pop(0)())
    monkeypatch.setattr(nb.platform, "machine", lambda: "m")
    assert [nb.processor_name() for _ in range(3)] == ["Some CPU @ 2GHz m", "m", "m"]
