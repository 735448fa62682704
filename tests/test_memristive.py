"""The memristive network against MemTorch's own arithmetic, on networks small enough for it."""

import copy
import dataclasses
import functools
import itertools
import operator
import random
import sys
import time

import memtorch
import numpy as np
import pytest
import torch
from conftest import rng_states
from memtorch.bh.crossbar.Tile import gen_tiles
from memtorch.bh.nonideality.DeviceFaults import apply_device_faults as memtorch_faults
from memtorch.mn.Module import patch_model
from torch import nn

R_ON, R_OFF = 1.4e4, 5e7
LAYERS = (memtorch.mn.Conv2d, memtorch.mn.Linear)
STOCK = {layer: layer.forward for layer in LAYERS}


# Tiny networks for images [N, 2, 6, 6]


class Attributes(nn.Module):
    """Layers as attributes: padding, a stride, layers with and without bias."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        self.fc1 = nn.Linear(16, 9, bias=False)
        self.fc2 = nn.Linear(9, 3)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def nested():
    """Layers within Sequential within Sequential, unequal padding, outputs of both signs."""
    conv = nn.Conv2d(2, 5, 2, stride=2, padding=(1, 0))
    head = nn.Sequential(nn.Flatten(), nn.Linear(60, 7), nn.Tanh(), nn.Linear(7, 3, bias=False))
    return nn.Sequential(conv, nn.Tanh(), head)


NETWORKS = {"attributes": Attributes, "nested": nested}


def network(name):
    """One of the tiny networks, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NETWORKS[name]()


def pictures(n=5, seed=0):
    """n images [2, 6, 6] with values in [0, 1], zero in places as a digit is."""
    images = torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    return images * (images > 0.2)


# MemTorch by itself


def layers_of(model):
    """The memristive layers of a model."""
    return [m for m in model.modules() if isinstance(m, LAYERS)]


def crossbars_of(model):
    """The crossbars of a model, with the rows and columns that hold weights."""
    return [crossbar for layer in layers_of(model) for crossbar in layer.crossbars]


def bare_patch(model, tile_shape, **settings):
    """MemTorch's own conversion of a copy of a model."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return patch_model(
            copy.deepcopy(model),
            memristor_model=memtorch.bh.memristor.VTEAM,
            memristor_model_params={"time_series_resolution": 1e-10, "r_off": R_OFF, "r_on": R_ON},
            module_parameters_to_patch=[nn.Linear, nn.Conv2d],
            tile_shape=tile_shape,
            verbose=False,
            **settings,
        )


def gain(weight):
    """What turns a layer's current into its output: the largest weight over the conductances."""
    return weight.abs().max().item() / (1 / R_ON - 1 / R_OFF)


def line(slope, intercept):
    """An output transform such as tune_ makes."""
    return lambda x: x * slope + intercept


@functools.cache
def _patched(name, tile_shape):
    """A tiny network after MemTorch's conversion, and the conductances it has then."""
    model = bare_patch(network(name), tile_shape)
    for layer in layers_of(model):
        layer.transform_output = line(gain(layer.weight), 0.01)
    return model, [crossbar.conductance_matrix.clone() for crossbar in crossbars_of(model)]


def patched(name, tile_shape, bits=8, overflow=0.0, voltage=0.3, force=False, faults=None):
    """A tiny network converted by MemTorch alone, under the given settings."""
    model, conductances = _patched(name, tile_shape)
    for crossbar, g in zip(crossbars_of(model), conductances, strict=True):
        crossbar.conductance_matrix = g.clone()
    for layer in layers_of(model):
        layer.quant_method, layer.ADC_resolution = ("linear" if bits else None), bits
        layer.ADC_overflow_rate, layer.max_input_voltage = overflow, voltage
        layer.scaling_routine_params = {"force_scale": force}
        if faults:
            state = np.random.get_state()
            np.random.seed(3)
            memtorch_faults(layer, *faults, 0.0)
            np.random.set_state(state)
    return model


def batches(images):
    """All images at once, then each by itself."""
    return [images, *images.split(1)]


def run(model, images):
    """The model's outputs for all images at once and for each by itself."""
    with torch.no_grad():
        return [model(batch) for batch in batches(images)]


def relative_error(output, reference):
    """The norm of the difference over the norm of the reference."""
    return ((output - reference).norm() / reference.norm()).item()


def assert_same(outputs, references, bits):
    """The contract's sameness: float32 rounding, or with an ADC bitwise but for a rare code."""
    different = total = 0
    for output, reference in zip(outputs, references, strict=True):
        assert output.shape == reference.shape and output.dtype == reference.dtype
        if not bits:
            assert relative_error(output, reference) <= 1e-5
            continue
        rows = (output != reference).flatten(1).any(1)
        different, total = different + int(rows.sum()), total + len(rows)
        step = 2 ** (2 - bits) * reference.abs().max()
        assert (output - reference).abs().max() <= step
    assert different <= max(1, total // 200), f"{different} of {total} images differ"


def is_stock(model):
    """Whether every memristive layer of a model runs MemTorch's own forward, unhooked."""
    layers = layers_of(model)
    forwards = [getattr(layer.forward, "__func__", None) for layer in layers]
    hooks = [hook for m in layers for hook in (*m._forward_hooks, *m._forward_pre_hooks)]
    return forwards == [STOCK[type(m)] for m in layers] and not hooks


# fast_crossbars


def some_settings(n):
    """n different settings, drawn from the product of all that the contract allows."""
    draw, chosen = random.Random(0), []
    while len(chosen) < n:
        setting = {
            "bits": draw.choice([None, 4, 6, 8]),
            "overflow": draw.choice([0.0, 0.02, 0.1]),
            "voltage": draw.choice([None, 0.3, 1.0]),
            "force": draw.choice([False, True]),
            "faults": draw.choice([None, (0.1, 0.0), (0.0, 0.2), (0.15, 0.1)]),
        }
        if setting not in chosen:
            chosen.append(setting)
    return chosen


def label(value):
    """A short name of a setting or a tile for pytest."""
    if isinstance(value, dict):
        return "-".join(f"{k}={v}" for k, v in value.items()).replace(" ", "")
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("setting", some_settings(16), ids=label)
@pytest.mark.parametrize("tile_shape", [None, (8, 8), (16, 4), (5, 7)], ids=label)
@pytest.mark.parametrize("name", NETWORKS)
def test_fast_crossbars_computes_memtorchs_numbers(nb, name, tile_shape, setting):
    """The same outputs, for a batch and for single images, under any mix of settings."""
    model, images = patched(name, tile_shape, **setting), pictures()
    references = run(model, images)
    with nb.fast_crossbars(model):
        outputs = run(model, images)
    assert_same(outputs, references, setting["bits"])


@pytest.mark.parametrize(
    "setting",
    [{}, {"bits": None}, {"bits": 6, "faults": (0.05, 0.05)}, {"overflow": 0.02, "bits": 4}],
    ids=label,
)
def test_fast_crossbars_on_the_assignments_tile(nb, setting):
    """Tiles of 128 x 128, most of each empty (and, with faults, conducting)."""
    model, images = patched("attributes", (128, 128), **setting), pictures()
    references = run(model, images)
    with nb.fast_crossbars(model):
        assert_same(run(model, images), references, setting.get("bits", 8))


def test_fast_crossbars_on_a_single_column(nb):
    """A scheme of one array instead of a pair."""
    settings = {"quant_method": "linear", "ADC_resolution": 8, "max_input_voltage": 0.3}
    scheme = memtorch.bh.Scheme.SingleColumn
    model = bare_patch(network("attributes"), (8, 8), scheme=scheme, **settings)
    for layer in layers_of(model):  # or the biases would drown the currents
        layer.transform_output = line(gain(layer.weight), 0.01)
    references = run(model, pictures())
    with nb.fast_crossbars(model):
        assert_same(run(model, pictures()), references, 8)


def test_fast_crossbars_on_many_images(nb):
    """Of 400 images at most 2 differ, by a step of the ADC, and no prediction does."""
    model, images = patched("nested", (8, 8)), pictures(400)
    with torch.no_grad():
        reference = model(images)
        with nb.fast_crossbars(model):
            output = model(images)
    assert_same([output], [reference], 8)
    assert torch.equal(output.argmax(1), reference.argmax(1))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("overflow", [0.0, 0.1])
@pytest.mark.parametrize("tile_shape", [None, (8, 8), (16, 1), (5, 7)], ids=label)
def test_fast_crossbars_where_sums_are_exact(nb, tile_shape, overflow, bits):
    """Conductances and inputs are small integers times a power of two: every bit must agree.

    Half-way codes, rows of equal currents, rows without current and saturation are frequent.
    """
    conv, linear = nn.Conv2d(2, 5, 3, padding=1), nn.Linear(72, 9)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(-4, 5, (8, 2, 6, 6), generator=draw).float()
    images[0], images[1, :, :3] = 0, 0
    for layer in (nn.Sequential(conv), nn.Sequential(nn.Flatten(), linear)):
        settings = {"ADC_resolution": bits, "ADC_overflow_rate": overflow, "quant_method": "linear"}
        model = bare_patch(layer, tile_shape, **settings)
        for crossbar in crossbars_of(model):
            g = torch.randint(0, 4, crossbar.conductance_matrix.shape, generator=draw)
            crossbar.conductance_matrix = g * 2.0**-18
        references = run(model, images)
        with nb.fast_crossbars(model):
            outputs = run(model, images)
        assert all(map(torch.equal, outputs, references))


def count_stock_calls(monkeypatch):
    """A list that grows whenever MemTorch's own tiled arithmetic runs."""
    calls = []
    for name in ("memtorch.mn.Conv2d", "memtorch.mn.Linear"):
        module = sys.modules[name]

        def counted(*args, original=module.tiled_inference, **kwargs):
            calls.append(1)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, "tiled_inference", counted)
    return calls


def test_stock_forward_rests_inside_and_returns_after(nb, monkeypatch):
    """Inside, MemTorch's tiles are not called; after, they are, and nothing is left behind."""
    model, images = patched("attributes", (8, 8)), pictures()
    before = run(model, images)
    calls = count_stock_calls(monkeypatch)
    with nb.fast_crossbars(model):
        run(model, images)
        assert not calls
    assert is_stock(model)
    assert all(map(torch.equal, run(model, images), before)) and calls


def test_stock_forward_returns_after_an_exception(nb):
    """An error inside leaves by itself, and the stock forward is back."""
    model, images = patched("nested", (8, 8)), pictures()
    with pytest.raises(ZeroDivisionError), nb.fast_crossbars(model):
        run(model, images)
        raise ZeroDivisionError
    assert is_stock(model)


def test_contexts_nest(nb, monkeypatch):
    """A second context on the same or another model ends without ending the first."""
    model, images = patched("attributes", (8, 8)), pictures()
    other = patched("nested", (8, 8))
    reference = run(model, images)
    calls = count_stock_calls(monkeypatch)
    with nb.fast_crossbars(model):
        with nb.fast_crossbars(model), nb.fast_crossbars(other):
            assert_same(run(model, images), reference, 8)
            run(other, images)
        assert is_stock(other)
        assert_same(run(model, images), reference, 8)
        assert not calls
    assert is_stock(model)


@pytest.mark.parametrize("tile_shape", [None, (8, 8)], ids=label)
def test_changed_conductances_are_respected(nb, tile_shape):
    """Between contexts and inside one, replaced or changed in place."""
    images = pictures()

    def replace(crossbar):
        crossbar.conductance_matrix = crossbar.conductance_matrix.flip(-1)

    def in_place(crossbar):
        crossbar.conductance_matrix[..., ::3] = 1 / R_ON

    def through_data(crossbar):
        crossbar.conductance_matrix.data.mul_(0.5)

    for change in (replace, in_place, through_data):
        model = patched("nested", tile_shape)
        with nb.fast_crossbars(model):
            first = run(model, images)
            change(crossbars_of(model)[0])
            inside = run(model, images)
        with nb.fast_crossbars(model):
            between = run(model, images)
        stock = run(model, images)
        assert relative_error(first[0], stock[0]) > 1e-3, change
        assert_same(inside, stock, 8)
        assert_same(between, stock, 8)


def test_changed_settings_are_respected(nb):
    """Inside a context: the output transform, the bias, the ADC, the voltage, legacy mode."""

    def legacy(layer):
        layer.forward_legacy_enabled = True

    def transform(layer):
        layer.transform_output = lambda x: x * 1e3

    def bias(layer):
        layer.bias.data.add_(0.7)

    def bits(layer):
        layer.ADC_resolution = 3

    def voltage(layer):
        layer.max_input_voltage = 0.1

    for change in (legacy, transform, bias, bits, voltage):
        model, images = copy.deepcopy(patched("attributes", (8, 8))), pictures()
        with nb.fast_crossbars(model):
            first = run(model, images)
            change(model.fc2)
            inside = run(model, images)
        stock = run(model, images)
        assert relative_error(first[0], stock[0]) > 1e-3, change
        assert_same(inside, stock, 8)


def test_copy_made_inside_is_its_own_model(nb):
    """A copy made inside a context computes with its own conductances, inside and after."""
    model, images = patched("attributes", (8, 8)), pictures()
    with nb.fast_crossbars(model):
        twin = copy.deepcopy(model)
        for crossbar in crossbars_of(twin)[::2]:
            crossbar.conductance_matrix = crossbar.conductance_matrix.flip(-1)
        inside = run(twin, images)
    after = run(twin, images)
    for layer, original in zip(layers_of(model), layers_of(twin), strict=True):
        for to, source in zip(layer.crossbars, original.crossbars, strict=True):
            to.conductance_matrix = source.conductance_matrix.clone()
    reference = run(model, images)
    assert_same(inside, reference, 8)
    assert_same(after, reference, 8)


def set_attribute(**attributes):
    """A patched single layer whose attributes are then set."""

    def build():
        model = bare_patch(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()), (8, 8))
        for name, value in attributes.items():
            setattr(model[0], name, value)
        return model

    return build


def patch_layer(layer, **settings):
    """A patched single layer, converted with the given settings."""
    return lambda: bare_patch(nn.Sequential(layer, nn.Flatten()), (8, 8), **settings)


UNSUPPORTED = {
    "log": patch_layer(nn.Conv2d(2, 3, 3), quant_method="log", ADC_resolution=8),
    "transistor": set_attribute(transistor=False, source_resistance=5.0, line_resistance=5.0),
    "non_?linear": set_attribute(non_linear=True),
    "dilation": patch_layer(nn.Conv2d(2, 3, 3, dilation=2)),
    "groups": lambda: bare_patch(
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 3, groups=3)), (8, 8)
    ),
    "kernel": patch_layer(nn.Conv2d(2, 3, (3, 2))),
    "stride": patch_layer(nn.Conv2d(2, 3, 2, stride=(1, 2))),
}


@pytest.mark.parametrize("setting", UNSUPPORTED)
def test_unsupported_setting_is_named(nb, setting):
    """What would not be MemTorch's number is refused by name, and the model stays stock."""
    model = UNSUPPORTED[setting]()
    with pytest.raises(NotImplementedError, match=f"(?i){setting}"):
        with nb.fast_crossbars(model):
            run(model, pictures())
    assert is_stock(model)


@pytest.mark.parametrize("tile_shape", [None, (8, 8)], ids=label)
def test_any_scaling_routine_is_reproduced_or_refused(nb, tile_shape):
    """A routine of the user's own: its numbers, or a refusal that names it."""

    def by_sum(module, voltages):
        return voltages / (1 + voltages.sum()) + 0.01

    model, images = patched("attributes", tile_shape), pictures()
    for layer in layers_of(model):
        layer.scaling_routine, layer.scaling_routine_params = by_sum, {}
    try:
        reference = run(model, images)
        with nb.fast_crossbars(model):
            outputs = run(model, images)
        assert_same(outputs, reference, 8)
    except NotImplementedError as error:
        assert "scaling" in str(error)
    finally:
        for layer in layers_of(model):
            layer.scaling_routine = memtorch.map.Input.naive_scale


# MemristorConfig


def test_config_defaults_are_the_assignments(nb):
    """The sample's numbers, and the input scale restored."""
    config = nb.MemristorConfig()
    given = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    expected = {
        "r_on": 1.4e4,
        "r_off": 5e7,
        "tile_shape": (128, 128),
        "adc_resolution": 8,
        "max_input_voltage": 0.3,
        "restore_scale": True,
    }
    assert {name: given[name] for name in expected} == expected
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.r_on = 1.0
    assert hash(config) == hash(nb.MemristorConfig()) and config == nb.MemristorConfig()


@pytest.mark.parametrize(
    "field",
    [
        {"r_on": 5e7},
        {"r_on": 6e7},
        {"r_on": 0.0},
        {"r_on": -1.0},
        {"r_off": 1.4e4},
        {"r_off": float("nan")},
        {"r_on": float("nan")},
        {"tile_shape": (0, 128)},
        {"tile_shape": (128, -1)},
        {"tile_shape": (128,)},
        {"tile_shape": (12.5, 8)},
        {"adc_resolution": 1},
        {"adc_resolution": 0},
        {"adc_resolution": -8},
        {"adc_resolution": 7.5},
        {"max_input_voltage": -0.3},
        {"max_input_voltage": 0.0},
        {"max_input_voltage": float("nan")},
    ],
    ids=label,
)
def test_impossible_config_is_refused(nb, field):
    """A value that MemTorch would crash on or silently misread is a ValueError."""
    with pytest.raises(ValueError):
        nb.MemristorConfig(**field)


# to_memristive


def convert(nb, model, tile_shape=(8, 8), **settings):
    """to_memristive with a tile small enough for a test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nb.to_memristive(model, nb.MemristorConfig(tile_shape=tile_shape, **settings))


@functools.cache
def converted(nb, name, tile_shape=(8, 8), **settings):
    """A converted tiny network. For reading only."""
    return convert(nb, network(name), tile_shape, **settings)


def test_conversion_follows_the_config(nb):
    """The layers, the devices, the scheme and the quantiser are those asked for."""
    model = convert(nb, network("attributes"), r_on=2e4, r_off=1e6, adc_resolution=6)
    assert len(layers_of(model)) == 4
    for layer in layers_of(model):
        assert layer.scheme == memtorch.bh.Scheme.DoubleColumn and len(layer.crossbars) == 2
        assert (layer.quant_method, layer.ADC_resolution) == ("linear", 6)
        assert not layer.forward_legacy_enabled
        for crossbar in layer.crossbars:
            device = crossbar.devices.flat[0]
            assert type(device) is memtorch.bh.memristor.VTEAM
            assert (device.r_on, device.r_off) == (2e4, 1e6)
            g = crossbar.conductance_matrix
            assert g.shape[1:] == (8, 8)
            assert g.min().item() == pytest.approx(1 / 1e6)
            assert torch.equal(torch.tensor(crossbar.g_np(crossbar.devices)).float(), g)
        largest = max(crossbar.conductance_matrix.max() for crossbar in layer.crossbars)
        assert largest.item() == pytest.approx(1 / 2e4)


def test_conversion_leaves_the_argument_alone(nb):
    """Weights bitwise, types, mode and gradients stay; no memory is shared with the result."""
    net = network("nested").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    types = [type(m) for m in net.modules()]
    model = convert(nb, net)
    for layer in layers_of(model):
        layer.weight.data.zero_()
        if layer.bias is not None:
            layer.bias.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [type(m) for m in net.modules()] == types
    assert net.training and all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("tile_shape", [None, (8, 8), (16, 4)], ids=label)
@pytest.mark.parametrize("name", NETWORKS)
def test_without_adc_it_is_the_software_network(nb, name, tile_shape):
    """Logits to relative 1e-5, whatever else is in the batch, and for a black image too."""
    net, images = network(name), pictures()
    images[1] = 0
    model = converted(nb, name, tile_shape, adc_resolution=None)
    together, *single = run(model, images)
    software = run(net, images)[0]
    for output, reference in zip(together, software, strict=True):
        assert relative_error(output, reference) <= 1e-5
    torch.testing.assert_close(torch.cat(single), together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 255.0])
def test_restored_scale_holds_for_any_input_size(nb, scale):
    """Inputs far below and far above the largest voltage come back at their own scale."""
    images = pictures() * scale
    model = converted(nb, "attributes", (8, 8), adc_resolution=None)
    reference = run(network("attributes"), images)[0]
    assert relative_error(run(model, images)[0], reference) <= 1e-5


def test_restored_scale_beats_the_samples_conversion(nb):
    """With 8 bits: within 2% of software; the sample's conversion is far from it."""
    net, images = network("attributes"), pictures(20)
    software, errors = run(net, images)[0], {}
    for restore in (True, False):
        outputs = run(converted(nb, "attributes", (8, 8), restore_scale=restore), images)
        errors[restore] = relative_error(outputs[0], software)
        if restore:
            torch.testing.assert_close(torch.cat(outputs[1:]), outputs[0], rtol=1e-5, atol=1e-6)
    assert errors[True] < 0.02 and errors[False] > 0.3, errors


@pytest.mark.parametrize("name", NETWORKS)
def test_without_restored_scale_it_is_the_samples_conversion(nb, name):
    """patch_model and tune_: the same conductances, regression and outputs."""
    model = converted(nb, name, (8, 8), restore_scale=False)
    sample = bare_patch(
        network(name),
        (8, 8),
        max_input_voltage=0.3,
        ADC_resolution=8,
        ADC_overflow_rate=0.0,
        quant_method="linear",
    )
    for layer, other in zip(layers_of(sample), layers_of(model), strict=True):
        if other.bias is None:  # MemTorch gives a Conv2d without bias a random one
            layer.bias = None
    sample.tune_()
    for ours, theirs in zip(layers_of(model), layers_of(sample), strict=True):
        for a, b in zip(ours.crossbars, theirs.crossbars, strict=True):
            assert torch.equal(a.conductance_matrix, b.conductance_matrix)
        at = torch.tensor([0.0, 1.0])  # the tuned line, read at two points
        (a, b), (c, d) = ours.transform_output(at).tolist(), theirs.transform_output(at).tolist()
        assert b - a == pytest.approx(d - c, rel=0.05)
        theirs.transform_output = ours.transform_output
    assert all(map(torch.equal, run(model, pictures()), run(sample, pictures())))


@pytest.mark.parametrize("restore_scale", [True, False])
@pytest.mark.parametrize("adc_resolution", [None, 8])
@pytest.mark.parametrize("tile_shape", [None, (8, 8)], ids=label)
def test_fast_crossbars_on_a_converted_network(nb, tile_shape, adc_resolution, restore_scale):
    """What to_memristive makes computes the same inside fast_crossbars, tuned and scaled."""
    settings = {"adc_resolution": adc_resolution, "restore_scale": restore_scale}
    model, images = converted(nb, "attributes", tile_shape, **settings), pictures()
    references = run(model, images)
    with nb.fast_crossbars(model):
        assert_same(run(model, images), references, adc_resolution)


# apply_device_faults


def cells_in_use(crossbar):
    """Which cells hold weights: MemTorch's own tiling of a matrix of ones."""
    ones = torch.ones(crossbar.rows, crossbar.columns)
    if crossbar.tile_shape is not None:
        ones, _ = gen_tiles(ones, crossbar.tile_shape)
    return ones.bool()


@functools.cache
def halfway(nb, tile_shape):
    """A converted network whose every cell, padding too, conducts half of the largest."""
    model = convert(nb, network("attributes"), tile_shape)
    for crossbar in crossbars_of(model):
        crossbar.conductance_matrix.fill_(0.5 / R_ON)
    return model


def stuck(model):
    """For each crossbar, which cells conduct 1/r_on, which 1/r_off, and which half."""
    gs = [crossbar.conductance_matrix.double() for crossbar in crossbars_of(model)]
    levels = [torch.tensor(level).double() for level in (1 / R_ON, 1 / R_OFF, 0.5 / R_ON)]
    return [[torch.isclose(g, level, rtol=1e-5, atol=0) for level in levels] for g in gs]


def conductances(model):
    """A copy of every conductance of a model."""
    return [crossbar.conductance_matrix.clone() for crossbar in crossbars_of(model)]


@pytest.mark.parametrize("tile_shape", [None, (8, 8), (16, 4)], ids=label)
@pytest.mark.parametrize(("lrs", "hrs"), [(0.1, 0), (0, 0.3), (0.2, 0.1), (0.6, 0.4), (1, 0)])
def test_faults_hit_exactly_the_cells_promised(nb, tile_shape, lrs, hrs):
    """In each crossbar round(p * cells in use) cells stick at each level, and no other moves."""
    model = halfway(nb, tile_shape)
    before, states = conductances(model), rng_states()
    faulty = nb.apply_device_faults(model, lrs, hrs, seed=0)
    assert rng_states() == states
    assert all(map(torch.equal, conductances(model), before))
    for crossbar, (low, high, half) in zip(crossbars_of(faulty), stuck(faulty), strict=True):
        cells = crossbar.rows * crossbar.columns
        assert (low | high | half).all()
        assert not (low | high)[~cells_in_use(crossbar)].any()
        assert low.sum() == round(lrs * cells) and high.sum() == round(hrs * cells)


def test_every_cell_can_stick_in_two_halves(nb):
    """Half low and half high leaves no cell, also where a half is no whole number of cells."""
    model = convert(nb, nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), (8, 8))
    for crossbar in crossbars_of(model):
        crossbar.conductance_matrix.fill_(0.5 / R_ON)
    faulty = nb.apply_device_faults(model, 0.5, 0.5, seed=0)
    for crossbar, (low, high, _) in zip(crossbars_of(faulty), stuck(faulty), strict=True):
        assert sorted((low.sum().item(), high.sum().item())) == [13, 14]
        assert not (low | high)[~cells_in_use(crossbar)].any()


def test_faults_are_seeded_and_differ_between_crossbars(nb):
    """The same seed sticks the same cells, another seed others; a pair does not stick alike."""
    model = halfway(nb, (8, 8))
    first, again, other = (nb.apply_device_faults(model, 0.2, 0.1, seed=s) for s in (0, 0, 1))
    assert all(map(torch.equal, conductances(first), conductances(again)))
    assert not any(map(torch.equal, conductances(first), conductances(other)))
    g = conductances(first)
    assert not any(map(torch.equal, g[::2], g[1::2]))


def test_every_cell_is_equally_likely_to_stick(nb):
    """Over 200 seeds each cell sticks as often as promised, within five standard errors."""
    model = convert(nb, nn.Sequential(nn.Flatten(), nn.Linear(5, 4)), (4, 4))
    for crossbar in crossbars_of(model):
        crossbar.conductance_matrix.fill_(0.5 / R_ON)
    counts = [[0.0, 0.0], [0.0, 0.0]]
    for seed in range(200):
        for i, levels in enumerate(stuck(nb.apply_device_faults(model, 0.25, 0.2, seed=seed))):
            for j in range(2):
                counts[i][j] = counts[i][j] + levels[j].double()
    for crossbar, pair in zip(crossbars_of(model), counts, strict=True):
        for count, p in zip(pair, (0.25, 0.2), strict=True):
            rate = count[cells_in_use(crossbar)] / 200
            assert (rate - p).abs().max() < 5 * (p * (1 - p) / 200) ** 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_no_faults_change_nothing(nb, name):
    """Zero proportions leave every conductance and every output bitwise as it was."""
    model = converted(nb, name)
    copied = nb.apply_device_faults(model, 0.0, 0.0, seed=0)
    assert copied is not model
    assert all(map(torch.equal, conductances(copied), conductances(model)))
    assert all(map(torch.equal, run(copied, pictures()), run(model, pictures())))


@pytest.mark.parametrize(
    ("lrs", "hrs"),
    [(-0.1, 0), (0, -0.1), (1.1, 0), (0, 1.1), (0.6, 0.5), (float("nan"), 0), (0, float("nan"))],
)
def test_impossible_proportions_are_refused(nb, lrs, hrs):
    """Proportions lie in [0, 1], and so does their sum."""
    with pytest.raises(ValueError):
        nb.apply_device_faults(converted(nb, "attributes"), lrs, hrs, seed=0)


@pytest.mark.parametrize("restore_scale", [True, False])
def test_faulty_copy_computes_with_its_faults(nb, restore_scale):
    """Its outputs are what MemTorch makes of its conductances; the original's do not move."""
    model = converted(nb, "attributes", (8, 8), restore_scale=restore_scale)
    images, before, kept = pictures(), run(model, pictures()), conductances(model)
    twice = faulty = nb.apply_device_faults(model, 0.1, 0.05, seed=0)
    for seed in (1, 2):
        twice = nb.apply_device_faults(twice, 0.1, 0.05, seed=seed)
    reference = run(faulty, images)
    assert relative_error(reference[0], before[0]) > 0.01
    assert relative_error(run(twice, images)[0], reference[0]) > 0.01
    with nb.fast_crossbars(faulty):
        assert_same(run(faulty, images), reference, 8)
    assert all(map(torch.equal, conductances(model), kept))
    assert all(map(torch.equal, run(model, images), before))


def test_faults_applied_inside_fast_crossbars(nb):
    """A copy made while the original is fast gives its own numbers, inside and after."""
    model, images = converted(nb, "attributes"), pictures()
    expected = run(nb.apply_device_faults(model, 0.1, 0.05, seed=0), images)
    with nb.fast_crossbars(model):
        faulty = nb.apply_device_faults(model, 0.1, 0.05, seed=0)
        inside = run(faulty, images)
    assert_same(inside, expected, 8)
    assert_same(run(faulty, images), expected, 8)


@pytest.mark.parametrize(("lrs", "hrs"), [(1, 0), (0, 1), (0.5, 0.5)])
@pytest.mark.parametrize("restore_scale", [True, False])
def test_a_wholly_stuck_network_stays_finite(nb, lrs, hrs, restore_scale):
    """Even where no current is left to divide by, logits are finite, fast or stock."""
    model = converted(nb, "attributes", (8, 8), restore_scale=restore_scale)
    faulty = nb.apply_device_faults(model, lrs, hrs, seed=0)
    reference = run(faulty, pictures())
    assert all(output.isfinite().all() for output in reference)
    with nb.fast_crossbars(faulty):
        assert_same(run(faulty, pictures()), reference, 8)


def test_the_copys_methods_are_its_own(nb):
    """tune_ and forward_legacy of the copy act on the copy, not on the original."""
    model, images = converted(nb, "attributes"), pictures()
    before = run(model, images)
    faulty = nb.apply_device_faults(model, 0.1, 0.0, seed=0)
    assert faulty.tune_.__self__ is faulty and faulty.forward_legacy.__self__ is faulty
    faulty.forward_legacy(True)
    software = run(network("attributes"), images)
    assert relative_error(run(faulty, images)[0], software[0]) < 1e-6
    assert all(map(torch.equal, run(model, images), before))


def test_only_one_layer_breaks_where_it_is_named(nb):
    """The named layer's cells stick as in a wholly broken chip of none other; others stay."""
    model = halfway(nb, (8, 8))
    faulty = nb.apply_device_faults(model, 0.3, 0.0, seed=0, only="fc1")
    for name, layer in faulty.named_modules():
        if hasattr(layer, "crossbars"):
            same = [
                torch.equal(a.conductance_matrix, b.conductance_matrix)
                for a, b in zip(layer.crossbars, model.get_submodule(name).crossbars, strict=True)
            ]
            assert same == [name != "fc1"] * 2
    with pytest.raises(ValueError, match=r"only is 'fc3'.*conv1, conv2, fc1, fc2"):
        nb.apply_device_faults(model, 0.3, 0.0, seed=0, only="fc3")


# Wear


def test_states_by_hand(nb):
    """Four levels between 1 and 7 are 1, 3, 5 and 7; two levels at least."""
    values = torch.tensor([0.0, 1.4, 1.9, 2.1, 4.4, 6.1, 9.0])
    assert nb.nearest_states(values, 4, 1.0, 7.0).tolist() == [1, 1, 1, 3, 5, 7, 7]
    with pytest.raises(ValueError, match="at least 2"):
        nb.nearest_states(values, 1, 1.0, 7.0)


@pytest.mark.parametrize(
    "wear", [{"states": 3}, {"spread": 0.2}, {"hours": 100.0}, {"low": 0.1, "high": 0.1}], ids=str
)
def test_wear_works_on_a_copy_and_is_seeded(nb, wear):
    """Only cells that hold weights change, the same for the same seed; the original stays."""
    model = halfway(nb, (8, 8))
    before, states = conductances(model), rng_states()
    first, again = (nb.worn(model, nb.Wear(**wear), seed=3) for _ in range(2))
    assert all(map(torch.equal, conductances(model), before)) and rng_states() == states
    assert all(map(torch.equal, conductances(first), conductances(again)))
    for crossbar, old in zip(crossbars_of(first), before, strict=True):
        changed = crossbar.conductance_matrix != old
        assert changed.any() and not changed[~cells_in_use(crossbar)].any()
    assert all(map(torch.equal, conductances(nb.worn(model, nb.Wear(), seed=3)), before))


def test_an_unknown_repair_is_named(nb):
    """And the known ones are listed."""
    with pytest.raises(ValueError, match=r"'prayer', expected one of nothing, gain"):
        nb.repaired(halfway(nb, (8, 8)), None, None, None, "prayer")


@pytest.mark.parametrize(
    "wear",
    [
        {"low": -0.1},
        {"high": 1.1},
        {"low": 0.6, "high": 0.6},
        {"low": float("nan")},
        {"states": 1},
        {"states": 2.5},
        {"spread": -1},
        {"hours": -1},
        {"hours": float("nan")},
    ],
    ids=str,
)
def test_impossible_wear_is_refused(nb, wear):
    """Before any chip is worn."""
    with pytest.raises(ValueError, match="impossible wear"):
        nb.Wear(**wear)


@pytest.mark.parametrize("seed", [-1, 1.5, True, None])
def test_impossible_seeds_are_refused(nb, seed):
    """By both functions that break chips."""
    model = halfway(nb, (8, 8))
    for function in (
        lambda: nb.worn(model, nb.Wear(), seed),
        lambda: nb.apply_device_faults(model, 0.1, 0.0, seed),
    ):
        with pytest.raises(ValueError, match="expected a whole number >= 0"):
            function()


@pytest.mark.parametrize(
    ("wear", "varies"),
    [({}, False), ({"states": 4}, False), ({"hours": 1e-4}, False)]
    + [({k: 0.1}, True) for k in ("low", "high", "spread", "hours")],
    ids=str,
)
def test_wear_varies_where_two_seeds_make_two_chips(nb, wear, varies):
    """`varies` says what two seeds do."""
    model, wear = halfway(nb, (8, 8)), nb.Wear(**wear)
    one, other = (conductances(nb.worn(model, wear, seed)) for seed in (0, 1))
    assert wear.varies == varies == (not all(map(torch.equal, one, other)))


def test_wear_follows_its_laws(nb):
    """Levels, the spread's standard deviation and drift's median are what Wear says."""
    model = convert(nb, nn.Sequential(nn.Flatten(), nn.Linear(72, 60)), (128, 128))
    for crossbar in crossbars_of(model):
        crossbar.conductance_matrix.fill_(0.4 / R_ON)

    def ratios(**wear):
        chip = nb.worn(model, nb.Wear(**wear), seed=0)
        values = [c.conductance_matrix[cells_in_use(c)] for c in crossbars_of(chip)]
        return torch.cat(values).double() * R_ON / 0.4

    levels = ratios(states=3)  # 1/r_off, their middle, 1/r_on
    assert torch.allclose(levels, torch.tensor((0.5 + 0.5 * R_ON / R_OFF) / 0.4).double())
    assert ratios(spread=0.3).log().std().item() == pytest.approx(0.3, rel=0.03)
    drifted = ratios(hours=10.0)  # 36,000 times the second at which drift starts
    assert drifted.median().item() == pytest.approx(36_000**-0.05, rel=0.01)
    assert drifted.log().std().item() == pytest.approx(0.02 * np.log(36_000), rel=0.05)


# Repairs


def test_compensation_by_hand(nb):
    """One weight of a pair each: stuck low, stuck high, stuck twice, out of reach; a healthy device
    that differs from its plan is no fault."""
    model = convert(nb, nn.Sequential(nn.Flatten(), nn.Linear(72, 4, bias=False)), None)
    positive, negative = crossbars_of(model)
    for crossbar in (positive, negative):
        crossbar.conductance_matrix.fill_(1 / R_OFF)
    g = 1 / R_ON
    positive.conductance_matrix[0] = torch.tensor([0.6 * g, 0.6 * g, 0.6 * g, 0.6 * g])
    chip = nb.copy_memristive(model)
    plus, minus = (crossbar.conductance_matrix for crossbar in crossbars_of(chip))
    for crossbar, stuck_columns in zip(crossbars_of(chip), ([0, 1, 3], [2, 3]), strict=True):
        crossbar.fault_map[0, stuck_columns] = True
    plus[1, 0] = 0.3 * g  # written inexactly, not stuck
    plus[0, 0] = g  # too much: the other takes g - .6 g
    plus[0, 1] = 1 / R_OFF  # nothing left: the other would have to be negative
    minus[0, 2] = g  # takes all: the healthy one can only give g
    plus[0, 3], minus[0, 3] = g, g  # both stuck: nothing to be done
    nb.compensate(chip, model)
    assert torch.allclose(plus[0], torch.tensor([g, 1 / R_OFF, g, g]))
    assert torch.allclose(minus[0], torch.tensor([0.4 * g + 1 / R_OFF, 1 / R_OFF, g, g]))
    assert torch.equal(plus[2:], positive.conductance_matrix[2:])
    assert plus[1, 0] == torch.tensor(0.3 * g) and minus[1, 0] == torch.tensor(1 / R_OFF)


@pytest.mark.parametrize("tile_shape", [None, (8, 8), (16, 4)], ids=label)
def test_the_fault_map_says_which_devices_are_stuck(nb, tile_shape):
    """Low and high faults, a second round of faults as well; the original has none."""
    model = halfway(nb, tile_shape)
    once = nb.apply_device_faults(model, 0.1, 0.1, seed=0)
    twice = nb.apply_device_faults(once, 0.2, 0.0, seed=1)
    for original, first, second in zip(*map(crossbars_of, (model, once, twice)), strict=True):
        assert torch.equal(
            nb.fault_map(first), first.conductance_matrix != original.conductance_matrix
        )
        assert torch.equal(
            nb.fault_map(second), second.conductance_matrix != original.conductance_matrix
        )
        assert not nb.fault_map(original).any()


def left_over(nb, chip, model):
    """The squared error of the differences that a chip holds after `compensate`, in units of
    1 / R_ON, for each layer and each row of its matrix."""
    chip = nb.copy_memristive(chip)
    nb.compensate(chip, model)
    errors = []
    for layer, plan in zip(layers_of(chip), layers_of(model), strict=True):
        held, wanted = (
            operator.sub(*(c.conductance_matrix.reshape(-1)[nb.weight_cells(c)] for c in arrays))
            for arrays in (layer.crossbars, plan.crossbars)
        )
        errors.append(((held - wanted) * R_ON).square().view(layer.crossbars[0].rows, -1).sum(1))
    return errors


@pytest.mark.parametrize("tile_shape", [None, (5, 4)], ids=label)
def test_rows_are_moved_to_the_best_of_all_orders(nb, tile_shape):
    """On a small layer, against all orders of the rows of each tile, tried one by one."""
    layer = nn.Sequential(nn.Linear(5, 4, bias=False))
    with torch.no_grad():
        layer[0].weight.copy_(torch.randn(4, 5, generator=torch.Generator().manual_seed(3)))
    model = convert(nb, layer, tile_shape)
    chip = nb.apply_device_faults(model, 0.3, 0.1, seed=2)
    moved = nb.copy_memristive(chip)
    nb.rearrange(moved, model)
    cells = nb.weight_cells(crossbars_of(chip)[0]).view(5, 4)
    planned, faulty, stuck = (
        [part.reshape(-1)[cells] for part in parts]
        for parts in (
            conductances(model),
            conductances(chip),
            [nb.fault_map(c) for c in crossbars_of(chip)],
        )
    )
    best = np.inf
    for order in itertools.permutations(range(5)):
        trial = nb.copy_memristive(model)
        for c, plan, now, fault in zip(crossbars_of(trial), planned, faulty, stuck, strict=True):
            lines = torch.tensor(order)
            c.conductance_matrix.view(-1)[cells] = torch.where(fault[lines], now[lines], plan)
            c.fault_map.view(-1)[cells] = fault[lines]
        best = min(best, left_over(nb, trial, model)[0].sum().item())
    before = left_over(nb, chip, model)[0].sum().item()
    assert left_over(nb, moved, model)[0].sum().item() == pytest.approx(best, rel=1e-4)
    assert best < 0.9 * before
    # The same devices are stuck, in another order of lines.
    for old, new in zip(crossbars_of(chip), crossbars_of(moved), strict=True):
        old, new = (nb.fault_map(c).view(-1)[cells] for c in (old, new))
        assert sorted(map(tuple, old.tolist())) == sorted(map(tuple, new.tolist()))


def test_rows_stay_within_their_tile(nb):
    """Faults in the first tile of rows only: the second keeps its plan."""
    model = halfway(nb, (8, 8))
    chip = nb.copy_memristive(model)
    crossbar = chip.fc1.crossbars[0]
    first = nb.weight_cells(crossbar).view(crossbar.rows, crossbar.columns)[:8]
    crossbar.conductance_matrix.view(-1)[first[::2]] = 1 / R_ON
    crossbar.fault_map.view(-1)[first[::2]] = True
    nb.rearrange(chip, model)
    changed = nb.fault_map(crossbar).view(-1)[nb.weight_cells(crossbar)]
    assert changed.view(crossbar.rows, -1)[8:].sum() == 0 and changed.sum() == first[::2].numel()


def test_copies_fill_idle_columns(nb):
    """As many as fit into the tile's width, at most four; one where tiles are narrower or none."""
    chip = converted(nb, "attributes", (8, 8))
    columns = [layer.crossbars[0].columns for layer in layers_of(chip)]
    assert len(set(columns)) > 1
    for width in (8, 16, 100):
        chip = converted(nb, "attributes", (8, width))
        expected = [max(1, min(4, width // count)) for count in columns]
        assert [nb.copies_that_fit(layer) for layer in layers_of(chip)] == expected
    untiled = layers_of(converted(nb, "attributes", None))
    assert {nb.copies_that_fit(layer) for layer in untiled} == {1}
    assignment = nb.to_memristive(nb.CNN(), nb.MemristorConfig())
    assert [nb.copies_that_fit(layer) for layer in layers_of(assignment)] == [4, 2, 2, 4]


def test_a_stuck_device_counts_for_one_of_its_copies(nb):
    """Of two that fit, one stuck counts half, both fully; where none fits, nothing is changed."""
    model = halfway(nb, (8, 16))
    layer = model.fc1
    width = 2 * layer.crossbars[0].columns
    model = halfway(nb, (8, width))
    assert nb.copies_that_fit(model.fc1) == 2
    chip, spares = nb.copy_memristive(model), [nb.copy_memristive(model) for _ in range(3)]
    cells = nb.weight_cells(chip.fc1.crossbars[0])
    before = model.fc1.crossbars[0].conductance_matrix.view(-1)[cells]
    for one in (chip, *spares):
        one.fc1.crossbars[0].conductance_matrix.view(-1)[cells[0]] = 1 / R_ON
    for one in (chip, *spares[1:]):  # of the spare ones, only the first has a part
        one.fc1.crossbars[0].conductance_matrix.view(-1)[cells[1]] = 1 / R_ON
    nb.fill_idle_columns(chip, lambda number: spares[number - 1])
    after = chip.fc1.crossbars[0].conductance_matrix.view(-1)[cells]
    assert after[0].item() == pytest.approx(1 / R_ON)
    assert after[1].item() == pytest.approx((1 / R_ON + before[1].item()) / 2)
    assert torch.equal(after[2:], before[2:])
    alone = nb.copy_memristive(halfway(nb, (8, 2)))
    held = conductances(alone)
    nb.fill_idle_columns(alone, lambda number: pytest.fail("no copy fits"))
    assert all(map(torch.equal, conductances(alone), held))


def test_spare_chips_break_on_their_own(nb):
    """Every spare chip, of every draw and label, has devices of its own stuck; asked for again, it
    is the same."""
    model, wear = halfway(nb, (8, 8)), nb.Wear(low=0.2)
    chips = {
        (label, draw, number): nb.spares(model, wear, label, draw)(number)
        for label, draw, number in itertools.product(("low 20%", "choice"), (0, 1), (1, 2, 3))
    }
    for one, other in itertools.combinations(chips.values(), 2):
        assert not torch.equal(conductances(one)[0], conductances(other)[0])
    again = nb.spares(model, wear, "choice", 1)(3)
    assert all(map(torch.equal, conductances(again), conductances(chips["choice", 1, 3])))


def test_calibration_undoes_a_factor_and_an_offset_for_each_column(nb):
    """Columns whose currents were scaled and shifted answer as before, layer after layer."""
    net = network("attributes")
    chip = nb.to_memristive(net, nb.MemristorConfig(adc_resolution=None, tile_shape=(8, 8)))
    images, before = pictures(60), None
    before = run(chip, images[:5])
    for layer in (chip.conv1, chip.fc2):
        columns = layer.crossbars[0].columns
        factor, offset = torch.linspace(0.5, 2, columns), torch.linspace(-1, 1, columns)
        layer.transform_output = nb.Corrected(layer.transform_output, factor, offset)
    assert relative_error(run(chip, images[:5])[0], before[0]) > 0.1
    nb.calibrate(chip, net, images)
    assert relative_error(run(chip, images[:5])[0], before[0]) < 1e-3
    assert not any(module._forward_hooks for module in (*chip.modules(), *net.modules()))


def test_repairs_ask_the_first_training_images(nb, environments, tmp_path):
    """As many as are wanted, as floats in [0, 1]."""
    first = environments["train1"].first(9)
    nb.save_environment(first, tmp_path / "ColoredMNIST" / "train1.pt", seed=0)
    images = nb.training_images(4, tmp_path)
    assert torch.equal(images, first.images[:4] / 255) and images.max() == 1


def test_points_lost_by_hand(nb):
    """In per cent of the base's images, each chip for itself."""
    chips = {"low": {"map": {"accuracy_all": {"runs": [0.5, 0.7]}}}}
    lost = nb.points_lost(chips, 0.75, "map")["low"]
    assert lost["runs"] == pytest.approx([25, 5]) and lost["n"] == 2
    assert (lost["mean"], lost["sd"]) == pytest.approx((15, 200**0.5))


def test_a_common_gain_undoes_a_common_loss(nb):
    """Conductances that all lost a tenth answer as before."""
    model = converted(nb, "attributes", (8, 8), adc_resolution=None)
    chip = nb.copy_memristive(model)
    for crossbar in crossbars_of(chip):
        crossbar.conductance_matrix.mul_(0.9)
    images = pictures()
    expected = run(model, images)
    assert relative_error(run(chip, images)[0], expected[0]) > 0.01
    nb.regain(chip, model)
    assert relative_error(run(chip, images)[0], expected[0]) < 1e-5


@pytest.mark.parametrize(
    "how",
    [
        "nothing",
        "gain",
        "redundancy",
        "redundancy and calibration",
        "calibration",
        "map",
        "map and rows",
        "map and calibration",
        "map, rows, calibration",
    ],
)
def test_repairs_work_on_a_copy(nb, how):
    """The worn chip and its plan keep their conductances and answers; each
    repair does what its name says."""
    net = network("attributes")
    model, images = converted(nb, "attributes", (8, 16)), pictures(20)
    chip = nb.worn(model, nb.Wear(low=0.1), seed=0)
    before, answers = conductances(chip), run(chip, images)
    spare = nb.spares(model, nb.Wear(low=0.1), "low", 0)
    assert how in nb.REPAIRS
    fixed = nb.repaired(chip, model, net, images, how, spare)
    assert all(map(torch.equal, conductances(chip), before))
    assert all(map(torch.equal, run(chip, images), answers))
    assert (how == "nothing") == all(map(torch.equal, run(fixed, images), answers))
    corrected = {isinstance(layer.transform_output, nb.Corrected) for layer in layers_of(fixed)}
    assert corrected == {"calibration" in how or how == "gain"}
    written = not all(map(torch.equal, conductances(fixed), before))
    assert written == ("map" in how or "redundancy" in how)


# Ranges and layers


def test_fixed_ranges_saturate_and_are_right_below(nb):
    """Within the range of the calibration images the answer is the software's."""
    net = network("attributes")
    chip = nb.to_memristive(net, nb.MemristorConfig(adc_resolution=None, tile_shape=(8, 8)))
    images = pictures()
    nb.fix_ranges(chip, images)
    with torch.no_grad():
        assert relative_error(chip(images), net(images)) < 1e-5
        assert relative_error(chip(images / 7), net(images / 7)) < 1e-5
        assert relative_error(chip(3 * images), net(3 * images)) > 0.05


def test_signals_tell_lost_scale_from_bias(nb):
    """A layer that answers W x / 4 + b has gain 1/4; a right one has gain 1 and no error."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(72, 5))
    chip = nb.to_memristive(net, nb.MemristorConfig(adc_resolution=None, tile_shape=(8, 8)))
    images = pictures()
    wrap = [nn.Sequential(nn.Flatten(), layer[1]) for layer in (net, chip)]
    del wrap[0][0], wrap[1][0]  # only the layer itself is a child
    (row,) = nb.layer_signals(*wrap, images.flatten(1)).values()
    assert row["gain"] == pytest.approx(1, abs=1e-5) and row["error"] < 1e-5
    before = chip[1].transform_output
    chip[1].transform_output = lambda currents: before(currents) / 4
    (row,) = nb.layer_signals(*wrap, images.flatten(1)).values()
    with torch.no_grad():
        signal, out = net[1].weight @ images.flatten(1).T, net(images)
    assert row["gain"] == pytest.approx(0.25, abs=1e-5)
    assert row["error"] == pytest.approx((0.75 * signal.norm() / out.norm()).item(), rel=1e-4)


def test_a_device_switches_both_ways_and_numpy_is_left_alone(nb):
    """Beyond the thresholds resistance moves, up for positive and down for negative voltages;
    below it stays; numpy's error handling is as before."""
    config, start, errors = nb.MemristorConfig(), 1e6, np.geterr()
    ends = {v: nb.device_response(config, np.full(50, v), start)[1] for v in (1.0, -1.0, 0.01)}
    assert ends[1.0] > 1.2 * start and ends[-1.0] < 0.8 * start
    assert ends[0.01] == pytest.approx(start)
    assert np.geterr() == errors
    currents, _ = nb.device_response(config, np.full(1, 0.01), start)
    assert currents[0] == pytest.approx(0.01 / start, rel=1e-3)


def test_a_mended_trap_is_reported(nb, capsys):
    """What no longer holds fails, with the statement; what does is printed."""
    nb.still_so("water is wet", True)
    assert capsys.readouterr().out == "water is wet\n"
    with pytest.raises(AssertionError, match=r"MemTorch has changed.*water is wet"):
        nb.still_so("water is wet", False)


# The assignment's network


def test_the_assignments_network_is_fast_and_the_same(nb):
    """CNN() with the default configuration: MemTorch's numbers, many times faster.

    The promise is 20 times; a machine that does something else meanwhile gets 10.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, images = nb.CNN(), torch.rand(128, 3, 28, 28)
        images[:, 2], images[::2, 0], images[1::2, 1] = 0, 0, 0
        model = nb.to_memristive(net, nb.MemristorConfig())

    def timed(batch):
        began = time.perf_counter()
        with torch.no_grad():
            output = model(batch)
        return (time.perf_counter() - began) / len(batch), output

    draw = torch.Generator().manual_seed(0)
    for proportion in (0.0, 0.03):
        for crossbar in crossbars_of(model):  # padding too, as MemTorch's own faults do
            chosen = torch.rand(crossbar.conductance_matrix.shape, generator=draw) < proportion
            crossbar.conductance_matrix[chosen] = 1 / R_ON
        slow, reference = timed(images[:24])
        with nb.fast_crossbars(model):
            output = timed(images[:24])[1]
            quick = min(timed(images)[0] for _ in range(3))
        assert_same([output], [reference], 8)
        assert torch.equal(output.argmax(1), reference.argmax(1))
        if not proportion:
            assert relative_error(reference, net(images[:24]).detach()) < 0.05
            assert slow > 10 * quick, f"only {slow / quick:.0f} times faster"
