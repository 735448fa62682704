"""Bad input to the hardware's public functions: each gets an error of the right type that names
what was expected, before any work is done and without changing a model."""

import dataclasses
import functools
import itertools

import pytest
import torch
from torch import nn

NAN, INFINITE = float("nan"), float("inf")


@functools.cache
def _small(nb):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 2))
    return net, nb.to_memristive(net, nb.MemristorConfig(tile_shape=(4, 4)))


@pytest.fixture
def small(nb):
    """A software network of one layer, and its chip."""
    net, chip = _small(nb)
    return net, nb.copy_memristive(chip)


def test_no_field_of_a_record_is_left_unchecked(nb):
    """Whichever field holds nonsense, no record is made."""
    for kind in (nb.MemristorConfig, nb.Wear):
        names = [f.name for f in dataclasses.fields(kind) if not isinstance(f.default, bool)]
        assert len(names) > 6 and kind() == kind()
        for name in names:
            for value in (NAN, INFINITE, -INFINITE, -1, "many"):
                with pytest.raises((ValueError, TypeError)):
                    kind(**{name: value})


CONFIGS = [
    ({"r_on": 5e7}, "r_on < r_off"),
    ({"r_on": 6e7}, "r_on < r_off"),
    ({"r_on": 0.0}, "r_on < r_off"),
    ({"r_off": 1.4e4}, "r_on < r_off"),
    ({"tile_shape": (0, 128)}, "tile_shape"),
    ({"tile_shape": (128,)}, "tile_shape"),
    ({"tile_shape": (12.5, 8)}, "tile_shape"),
    ({"tile_shape": 4}, "tile_shape"),
    ({"tile_shape": "44"}, "tile_shape"),
    ({"adc_resolution": 1}, "adc_resolution"),
    ({"adc_resolution": 33}, "adc_resolution"),
    ({"adc_resolution": 8.0}, "adc_resolution"),
    ({"adc_resolution": True}, "adc_resolution"),
    ({"adc_overflow_rate": 1.1}, "adc_overflow_rate"),
    ({"max_input_voltage": 0.0}, "max_input_voltage"),
    ({"memristor": "Miracle"}, "memristor"),
    ({"scheme": "SingleColumn"}, "scheme"),
    ({"quant_method": "log"}, "quant_method"),
]


def test_impossible_hardware_is_refused(nb):
    """A value that MemTorch would crash on or silently misread; the edges are allowed."""
    for field, named in CONFIGS:
        with pytest.raises(ValueError, match=f"impossible hardware: .*{named}"):
            nb.MemristorConfig(**field)
    for edge in (
        {"adc_resolution": 2},
        {"adc_resolution": 32},
        {"tile_shape": (1, 1)},
        {"tile_shape": None, "adc_resolution": None, "max_input_voltage": None},
    ):
        assert dataclasses.asdict(nb.MemristorConfig(**edge)).items() >= edge.items()


WEARS = [
    ({"low": -0.1}, "low"),
    ({"high": 1.1}, "high"),
    ({"low": 0.6, "high": 0.6}, "together"),
    ({"groups": (("diagonals", 0.1, "low"),)}, "groups of rows, columns or squares"),
    ({"groups": (("rows", 1.1, "low"),)}, "share"),
    ({"groups": (("rows", NAN, "low"),)}, "share"),
    ({"groups": (("rows", 0.1, "middle"),)}, "low or high"),
    ({"programming": (0.1,)}, "programming"),
    ({"programming": (0.1, -0.1)}, "programming"),
    ({"programming": (NAN, 0.1)}, "programming"),
    ({"hours": -1}, "hours"),
    ({"read_noise": INFINITE}, "read_noise"),
    ({"ohms": NAN}, "ohms"),
    ({"converters": 1}, "converters"),
    ({"converters": 8.0}, "converters"),
    ({"converters": True}, "converters"),
]


def test_impossible_wear_is_refused(nb):
    """Before any chip is worn; the edges are allowed."""
    for field, named in WEARS:
        with pytest.raises(ValueError, match=f"impossible wear: .*{named}"):
            nb.Wear(**field)
    edges = {"low": 0.5, "high": 0.5, "groups": (("squares", 1, "high"),), "converters": 2}
    assert dataclasses.asdict(nb.Wear(**edges)).items() >= edges.items()


def test_impossible_faults_are_refused(nb, small):
    """Proportions lie in [0, 1], and so does their sum; seeds are whole numbers, wherever chips are
    broken."""
    chip = small[1]
    for lrs, hrs in ((-0.1, 0), (0, -0.1), (1.1, 0), (0, 1.1), (0.6, 0.5), (NAN, 0), (0, NAN)):
        with pytest.raises(ValueError, match=r"lrs.*hrs.*together <= 1"):
            nb.apply_device_faults(chip, lrs, hrs, seed=0)
    for seed in (-1, 1.5, True, None):
        for function in (
            lambda seed=seed: nb.worn(chip, nb.Wear(), seed),
            lambda seed=seed: nb.apply_device_faults(chip, 0.1, 0.0, seed),
        ):
            with pytest.raises(ValueError, match=r"seed: expected a whole number >= 0"):
                function()


def test_an_adc_has_whole_bits(nb, small):
    """At least two, for one bit has no step; a layer's are named as such, before and inside."""
    for bits in (0, 1, 7.5, 33, NAN, -8, None):
        with pytest.raises(ValueError, match=f"impossible bits: .*from 2 to 32; got {bits}"):
            nb.adc(torch.rand(2, 3), bits)
        chip = nb.copy_memristive(small[1])
        chip[0].ADC_resolution = bits
        with pytest.raises(NotImplementedError, match="ADC_resolution"), nb.fast_crossbars(chip):
            pytest.fail("entered")


def test_wires_have_a_resistance(nb):
    """Without any, conductances are what they are; the cure is not to ask."""
    for ohms in (0, -1.0, NAN, INFINITE):
        with pytest.raises(ValueError, match=r"impossible wire: .*finite resistance > 0"):
            nb.effective_conductances(torch.rand(3, 2), ohms)


def test_impossible_models_are_refused(nb, small):
    """A chip is not converted again, a diverged network not at all, nor one without weights;
    software has no devices."""
    net, chip = small
    with pytest.raises(ValueError, match="memristive already"):
        nb.to_memristive(chip, nb.MemristorConfig())
    with pytest.raises(ValueError, match="linear or convolutional layers"):
        nb.to_memristive(nn.Sequential(nn.ReLU()), nb.MemristorConfig())
    with pytest.raises(ValueError, match="expected memristive layers"):
        nb.apply_device_faults(net, 0.1, 0.0, seed=0)
    for value in (NAN, INFINITE):
        bad = nn.Sequential(nn.Linear(4, 2))
        bad[0].weight.data[0, 0] = value
        with pytest.raises(ValueError, match="finite weights"):
            nb.to_memristive(bad, nb.MemristorConfig())


def test_unknown_cures_are_named(nb, small):
    """With those that there are, before the chip is worn."""
    net, chip = small
    with pytest.raises(ValueError, match=r"copies, columns, map, gain, calibrate, second.*prayer"):
        nb.cured(chip, net, nb.Wear(), 0, ("map", "prayer"), torch.rand(3, 4))
    with pytest.raises(ValueError, match="prayer"):
        nb.cured(chip, net, nb.Wear(), 0, ("second", "prayer"), torch.rand(3, 4))


def test_chips_are_asked_about_something(nb, small):
    """By `fast_crossbars`, by calibration, by ranges and by the look at signals; afterwards models
    are as before."""
    net, chip = small
    fresh = torch.rand(3, 4)
    with torch.no_grad():
        before = chip(fresh)

    def ask(images):
        with nb.fast_crossbars(chip):
            chip(images)

    functions = (
        ask,
        lambda images: nb.calibrate(chip, net, images),
        lambda images: nb.fix_ranges(chip, nb.copy_memristive(chip), images, 8),
        lambda images: nb.layer_gains(net, chip, images),
    )
    nothing = torch.zeros(0, 4), torch.full((2, 4), NAN), torch.tensor([[0.1, 0.2, INFINITE, 0.3]])
    for function, images in itertools.product(functions, nothing):
        with pytest.raises(ValueError, match="images: expected at least one, of finite numbers"):
            function(images)
        assert not any((*m._forward_hooks, *m._forward_pre_hooks) for m in (chip, chip[0], net[0]))
        assert "forward" not in vars(chip[0])
        with torch.no_grad():
            assert torch.equal(chip(fresh), before)
