"""Bad input to the public functions: each gets an error of the right type that says what was
expected, before any work is done; damaged and foreign files are refused and nothing is executed."""

import pickle
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from conftest import AS_NOTEBOOK, NOTEBOOK, Evil
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
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a network in sight\n"),
    "bit flipped in a weight": flip_a_weight,
    "a layer missing": rewrite(lambda state: {k: v for k, v in state.items() if "fc2" not in k}),
    "a layer too many": rewrite(lambda state: state | {"fc3.bias": torch.zeros(2)}),
    "another shape": rewrite(lambda state: state | {"fc2.weight": torch.zeros(3, 64)}),
    "not finite": rewrite(lambda state: state | {"fc2.bias": torch.tensor([0.0, NAN])}),
    "foreign dictionary": lambda path: torch.save({"weights": torch.zeros(3)}, path),
    "bare tensor": lambda path: torch.save(torch.zeros(3), path),
    "a whole network": lambda path: torch.save(nn.Linear(2, 2), path),
    "torch file with a malicious pickle": lambda path: torch.save(Evil(path.parent / "x"), path),
    "malicious pickle": lambda path: path.write_bytes(pickle.dumps(Evil(path.parent / "x"))),
}


@pytest.fixture
def checkpoint(nb, tmp_path):
    """The file of an untrained network, `net`, below tmp_path."""
    torch.manual_seed(0)
    path = tmp_path / "checkpoints" / "net.pt"
    nb.save_tensors(nb.CNN().state_dict(), path)
    return path


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints_are_refused(nb, tmp_path, checkpoint, damage):
    """The error names file, network and cure; nothing is executed, changed or left behind."""
    assert isinstance(nb.load_network("net", root=tmp_path), nb.CNN)
    DAMAGE[damage](checkpoint)
    bad = checkpoint.read_bytes()
    with pytest.raises(RuntimeError, match=r"net\.pt is damaged, or not a state_dict of CNN.*Dele"):
        nb.load_network("net", root=tmp_path)
    assert checkpoint.read_bytes() == bad and list(checkpoint.parent.iterdir()) == [checkpoint]


def test_missing_checkpoints_and_unknown_networks_are_named(nb, tmp_path, checkpoint):
    """What is missing, and which networks there are."""
    with pytest.raises(FileNotFoundError, match=r"other\.pt does not exist. Run the notebook"):
        nb.load_network("other", root=tmp_path)
    with pytest.raises(ValueError, match=r"'RNN', expected one of CNN, SampleCNN"):
        nb.load_network("net", "RNN", root=tmp_path)
    with pytest.raises(RuntimeError, match="not a state_dict of BiasFreeCNN"):
        nb.load_network("net", "BiasFreeCNN", root=tmp_path)


SAVE = """
torch.manual_seed(0)
save_tensors(CNN().state_dict(), sys.argv[2])
"""


def test_the_same_tensors_give_the_same_bytes(nb, tmp_path, checkpoint):
    """In another process, under another name."""
    other = tmp_path / "another name.pt"
    command = [sys.executable, "-c", AS_NOTEBOOK + SAVE, NOTEBOOK, other]
    subprocess.run(list(map(str, command)), check=True)
    assert other.read_bytes() == checkpoint.read_bytes()
    nb.save_tensors({"x": torch.ones(1)}, other)
    assert other.read_bytes() != checkpoint.read_bytes()


# Images


BAD_IMAGES = {
    "none": torch.zeros(0, 3, 28, 28),
    "one image without a batch": torch.zeros(3, 28, 28),
    "grey": torch.zeros(2, 1, 28, 28),
    "large": torch.zeros(2, 3, 32, 32),
    "whole numbers": torch.zeros(2, 3, 28, 28, dtype=torch.int64),
    "bool": torch.zeros(2, 3, 28, 28, dtype=torch.bool),
    "NaN": torch.zeros(2, 3, 28, 28).index_fill(3, torch.tensor(0), NAN),
    "infinite": torch.full((2, 3, 28, 28), float("inf")),
    "negative": torch.full((2, 3, 28, 28), -0.01),
    "pixels in 0..255 as floats": torch.full((2, 3, 28, 28), 255.0),
}


@pytest.mark.parametrize("images", BAD_IMAGES.values(), ids=list(BAD_IMAGES))
@pytest.mark.parametrize("function", ["predict", "predict_both", "predict_do"])
def test_impossible_images_are_refused(nb, function, images):
    """Before the model is asked."""
    never = nn.Module()
    with pytest.raises(ValueError, match="images: expected"):
        getattr(nb, function)(never, images)


def test_images_are_tensors(nb):
    """An array is not taken for one; the edges of [0, 1] are allowed."""
    with pytest.raises(TypeError, match=r"expected a torch.Tensor, got ndarray"):
        nb.predict(nb.CNN(), np.zeros((2, 3, 28, 28), np.float32))
    edges = torch.zeros(2, 3, 28, 28)
    edges[:, 0] = 1
    assert nb.predict(nb.CNN(), edges).shape == (2, 2)


@pytest.mark.parametrize("p_red", [-0.1, 1.1, NAN])
def test_impossible_probabilities_of_red_are_refused(nb, environments, p_red):
    """By the average over colours and by the measure."""
    few, answers = environments["test"].first(2), torch.full((2, 2), 0.5)
    for function in (
        lambda: nb.predict_do(nb.CNN(), few.images, p_red),
        lambda: nb.measure(answers, answers, few, p_red),
    ):
        with pytest.raises(ValueError, match=r"p_red is .*, expected a number in \[0, 1\]"):
            function()


# Data


@pytest.mark.parametrize(
    "change",
    [
        {"images": torch.zeros(4, 3, 28, 28)},
        {"labels": torch.zeros(4, dtype=torch.int32)},
        {"is_red": torch.zeros(4, dtype=torch.int64)},
        {"labels": torch.zeros(3, dtype=torch.int64)},
        {"is_red": torch.zeros(5, dtype=torch.bool)},
    ],
    ids="float-images short-labels number-colours few-labels many-colours".split(),
)
def test_impossible_environments_are_refused(nb, change):
    """Types and lengths are those of the contract."""
    good = {
        "images": torch.zeros(4, 3, 28, 28, dtype=torch.uint8),
        "labels": torch.zeros(4, dtype=torch.int64),
        "is_red": torch.zeros(4, dtype=torch.bool),
    }
    assert len(nb.Environment(**good)) == 4
    with pytest.raises(ValueError, match="expected uint8, int64 and bool of one length"):
        nb.Environment(**good | change)


@pytest.mark.parametrize(
    "is_red",
    [torch.zeros(2, dtype=bool), torch.zeros(3, 1, dtype=bool), torch.zeros(3)],
    ids=["few", "column", "numbers"],
)
def test_colours_that_do_not_fit_are_refused(nb, is_red):
    """One truth value for each shape."""
    with pytest.raises(ValueError, match=r"is_red: expected bool \[3\]"):
        nb.paint(torch.zeros(3, 28, 28), is_red)


@pytest.mark.parametrize("noise", [-0.1, 1.1, "3/2"])
def test_impossible_colour_noise_is_refused(nb, noise):
    """Probabilities would become negative."""
    with pytest.raises(ValueError, match="a colour noise is"):
        nb.generator_joint([0.2, noise])


def test_no_environments_have_no_joint_distribution(nb):
    """An empty table would add up to nothing."""
    with pytest.raises(ValueError, match="colour_noises: expected one for each environment"):
        nb.generator_joint([])


@pytest.mark.parametrize("colour", [7, -1, 0.5, NAN])
def test_colours_are_two(nb, colour):
    """Anything else would count as red."""
    labels = torch.tensor([0, 1, 0, 1])
    assert nb.backdoor_weights(labels, torch.tensor([0.0, 0, 1, 1])).tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="is_red: expected only 0 and 1"):
        nb.backdoor_weights(labels, torch.tensor([0, 0, 1, colour]))


@pytest.mark.parametrize(
    ("share", "seed"), [(-0.1, 0), (1.1, 0), (NAN, 0), (0.1, -1), (0.1, 0.5), (0.1, True)]
)
def test_impossible_holding_out_is_refused(nb, environments, share, seed):
    """A share is a proportion, a seed a whole number."""
    with pytest.raises(ValueError, match="expected"):
        nb.hold_out({"train1": environments["train1"].first(10)}, share, seed)


@pytest.mark.parametrize("runs", [[], [0.5, NAN], [0.5, INFINITE]], ids=str)
def test_no_runs_have_no_mean(nb, runs):
    """NaN in results.json would say nothing."""
    with pytest.raises(ValueError, match="at least one number, all finite"):
        nb.summary(runs)


# Records


@pytest.mark.parametrize("kind", ["Recipe", "MemristorConfig", "Wear"])
@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE, -1, "many"], ids=str)
def test_no_field_of_a_record_is_left_unchecked(nb, kind, value):
    """Whichever field holds nonsense, no record is made."""
    kind = getattr(nb, kind)
    names = [field.name for field in fields(kind) if not isinstance(field.default, bool)]
    assert len(names) > 4
    for name in set(names) - {"only"}:  # a layer's name: checked against the model's
        with pytest.raises((ValueError, TypeError)):
            kind(**{name: value})


@pytest.mark.parametrize(
    "environments",
    [(), ("test",), ("train9",), ("train1", "test"), ("train1", "train1"), "train1"],
    ids=str,
)
def test_recipes_are_of_training_environments(nb, environments):
    """The test is none of them, nor is nothing."""
    assert nb.Recipe(environments=("train2",)).environments == ("train2",)
    with pytest.raises(ValueError, match="expected environments train1, train2 or both"):
        nb.Recipe(environments=environments)


@pytest.mark.parametrize("field", [{"tile_shape": 4}, {"tile_shape": "44"}], ids=str)
def test_a_tile_has_two_sides(nb, field):
    """One number is none."""
    with pytest.raises(ValueError, match="two whole numbers >= 1 as tile_shape"):
        nb.MemristorConfig(**field)


@pytest.mark.parametrize("bits", [33, 200, 8.0, True])
def test_impossible_resolutions_are_refused(nb, bits):
    """Steps below float32's smallest would divide by zero."""
    assert nb.MemristorConfig(adc_resolution=32).adc_resolution == 32
    with pytest.raises(ValueError, match="a whole adc_resolution from 2 to 32"):
        nb.MemristorConfig(adc_resolution=bits)


# Training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environments": {}}, r"expected images of \('train1',\), got \[0\]"),
        ({"environments": "empty"}, r"got \[0\]"),
        ({"targets": torch.full((5, 2), 0.5)}, r"targets: expected \[6, 2\], got \[5, 2\]"),
        ({"targets": torch.full((6,), 0.5)}, r"targets: expected \[6, 2\], got \[6\]"),
        ({"targets": torch.full((6, 2), 1.5)}, "targets: expected probabilities"),
        ({"targets": torch.full((6, 2), NAN)}, "targets: expected probabilities"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
    ],
    ids="missing empty few flat large nan negative fraction".split(),
)
def test_impossible_training_is_refused(nb, environments, changes, message):
    """Before a network is made."""
    some = environments["train1"].first(6)
    arguments = {"environments": {"train1": some}, "seed": 0} | changes
    if arguments["environments"] == "empty":
        arguments["environments"] = {"train1": some.first(0)}
    recipe = nb.Recipe(environments=("train1",), images=6, epochs=1)
    with pytest.raises(ValueError, match=message):
        nb.train(recipe, **arguments)


# Figures and intervals


@pytest.mark.parametrize(
    ("share", "count", "z"), [(NAN, 9, 1), (0.5, NAN, 1), (0.5, 0, 1), (0.5, 9, -1), (0.5, 9, NAN)]
)
def test_impossible_intervals_are_refused(nb, share, count, z):
    """Bounds would be turned round, or be no numbers."""
    with pytest.raises(ValueError, match=r"a share in \[0, 1\], count and z > 0"):
        nb.wilson(share, count, z)


@pytest.mark.parametrize("side", [0, 1, -2, 2.5])
def test_impossible_squares_are_refused(nb, side):
    """They would cover nothing."""
    with pytest.raises(ValueError, match=f"side is {side}"):
        nb.occlusion(nn.Module(), torch.zeros(3, 28, 28, dtype=torch.uint8), side)


# Memristors


@pytest.mark.parametrize("bits", [0, 1, 7.5, 33, NAN])
def test_an_adc_has_whole_bits(nb, bits):
    """At least two, for one bit has no step."""
    with pytest.raises(ValueError, match=f"bits is {bits}"):
        nb.adc(torch.rand(2, 3), bits)


def test_models_without_weights_are_refused(nb):
    """There would be nothing to map."""
    with pytest.raises(ValueError, match="linear or convolutional layers, got none"):
        nb.to_memristive(nn.Sequential(nn.ReLU()), nb.MemristorConfig())


def test_impossible_models_are_refused(nb):
    """A chip is not converted again, a diverged network not at all, software has no devices."""
    small = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    chip = nb.to_memristive(small, nb.MemristorConfig(tile_shape=(4, 4)))
    with pytest.raises(ValueError, match="memristive already"):
        nb.to_memristive(chip, nb.MemristorConfig())
    with pytest.raises(ValueError, match="without memristive layers"):
        nb.apply_device_faults(small, 0.1, 0.0, seed=0)
    with pytest.raises(ValueError, match="without memristive layers"):
        nb.worn(small, nb.Wear(low=0.1), seed=0)
    small[1].weight.data[0, 0] = NAN
    with pytest.raises(ValueError, match="finite weights"):
        nb.to_memristive(small, nb.MemristorConfig())


@pytest.mark.parametrize(
    "images", [torch.zeros(0, 4), torch.full((2, 4), NAN)], ids=["none", "nan"]
)
def test_chips_are_not_fitted_to_nothing(nb, images):
    """Calibration and fixed ranges need images of numbers."""
    small = nn.Sequential(nn.Linear(4, 2))
    chip = nb.to_memristive(small, nb.MemristorConfig(tile_shape=(4, 4)))
    for function in (
        lambda: nb.calibrate(chip, small, images),
        lambda: nb.fix_ranges(chip, images),
    ):
        with pytest.raises(ValueError, match="images: expected at least one, of finite numbers"):
            function()


@pytest.mark.parametrize(
    "images",
    [torch.zeros(0, 4), torch.full((2, 4), NAN), torch.tensor([[0.1, 0.2, INFINITE, 0.3]])],
    ids=["none", "nan", "infinite"],
)
def test_chips_are_not_asked_about_nothing(nb, images):
    """Inside `fast_crossbars`; afterwards the model is MemTorch's own again."""
    small = nn.Sequential(nn.Linear(4, 2))
    chip = nb.to_memristive(small, nb.MemristorConfig(tile_shape=(4, 4)))
    with (
        pytest.raises(ValueError, match="images: expected at least one, of finite numbers"),
        nb.fast_crossbars(chip),
    ):
        chip(images)
    assert not chip._forward_pre_hooks and "forward" not in vars(chip[0])


@pytest.mark.parametrize(
    ("states", "lowest", "highest", "message"),
    [
        (1, 0.0, 1.0, "states is 1"),
        (2.5, 0.0, 1.0, "states is 2.5"),
        (INFINITE, 0.0, 1.0, "states is inf"),
        (4, 1.0, 0.0, "lowest < highest, got 1.0 and 0.0"),
        (4, 1.0, 1.0, "lowest < highest"),
        (4, NAN, 1.0, "lowest < highest"),
        (4, 0.0, INFINITE, "lowest < highest"),
    ],
)
def test_impossible_levels_are_refused(nb, states, lowest, highest, message):
    """At least two of them, rising."""
    with pytest.raises(ValueError, match=message):
        nb.nearest_states(torch.rand(3), states, lowest, highest)


# The machine's record


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (
            "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nmodel name\t: Some CPU\n",
            "Some CPU @ 2GHz m",
        ),
        ("Hardware\t: a board without models\n", "m"),
        (None, "m"),
    ],
)
def test_processor_name(nb, monkeypatch, told, name):
    """The first model that the system tells, and always the architecture."""

    def read_text(path, **_):
        if told is None:
            raise FileNotFoundError(path)
        return told

    monkeypatch.setattr(nb.Path, "read_text", read_text)
    monkeypatch.setattr(nb.platform, "machine", lambda: "m")
    assert nb.processor_name() == name
