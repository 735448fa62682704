"""The memristive networks: MemTorch's own arithmetic, circuits solved by hand, laws written out."""

import copy
import dataclasses
import functools
import itertools
import math
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from fractions import Fraction

import memtorch
import memtorch_bindings
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import rng_states
from memtorch.bh.crossbar.Tile import gen_tiles
from memtorch.bh.nonideality.DeviceFaults import apply_device_faults as memtorch_faults
from memtorch.mn.Module import patch_model
from torch import nn

R_ON, R_OFF = 1.4e4, 5e7
LOWEST, HIGHEST = 1 / R_OFF, 1 / R_ON
MONTH = 720  # hours
LAYERS = (memtorch.mn.Conv2d, memtorch.mn.Linear)
STOCK = {layer: layer.forward for layer in LAYERS}
TILES = [None, (8, 8), (16, 4), (5, 7), (128, 128)]


# Tiny networks for images [N, 2, 6, 6]

KINDS = {
    "signed": lambda: [
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(3, 4, 3, stride=2, bias=False),
        nn.Flatten(),
        nn.Linear(16, 9, bias=False),
        nn.ReLU(),
        nn.Linear(9, 3),
    ],
    "wide": lambda: [
        nn.Conv2d(2, 17, 2, stride=2, padding=(1, 0)),
        nn.ReLU(),
        nn.Sequential(nn.Flatten(), nn.Linear(204, 7)),
    ],
    "one column": lambda: [nn.Conv2d(2, 1, 5), nn.Flatten(), nn.Linear(4, 1)],
}


def small(kind="signed"):
    """One of the tiny networks, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(*KINDS[kind]())


def linear(rows, columns, seed=0, bias=False):
    """A network of one linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(rows, columns, bias=bias))


def pictures(n=5, seed=0):
    """n images [2, 6, 6] with values in [0, 1], zero in places; the second is black."""
    images = torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    images *= images > 0.2
    images[1] = 0
    images[::3, 1] = 0
    return images


def layers_of(model):
    """The memristive layers."""
    return [m for m in model.modules() if isinstance(m, LAYERS)]


def arrays_of(model):
    """The arrays of all layers."""
    return [array for layer in layers_of(model) for array in layer.crossbars]


def conductances(model):
    """A copy of every conductance of a model."""
    return [array.conductance_matrix.clone() for array in arrays_of(model)]


def in_use(array, values=None):
    """An array's conductances (or `values` of that shape) where weights are, [rows, columns]: read
    through MemTorch's own tiling of the numbers of the cells."""
    cells = torch.arange(array.rows * array.columns).view(array.rows, array.columns) + 1.0
    if array.tile_shape is not None:
        cells, _ = gen_tiles(cells, array.tile_shape)
    values = array.conductance_matrix if values is None else values
    order = cells[cells > 0].argsort()
    return values[cells > 0][order].view(array.rows, array.columns)


def relative_error(output, reference):
    """The norm of the difference over the norm of the reference."""
    return ((output - reference).norm() / reference.norm()).item()


def assert_same(output, reference, bits):
    """The contract's sameness: float32 rounding, or with an ADC bitwise but for a rare code."""
    assert output.shape == reference.shape and output.dtype == reference.dtype
    if not bits:
        assert (output - reference).norm() <= 1e-5 * reference.norm()
        return
    different = (output != reference).flatten(1).any(1).sum().item()
    assert different <= max(1, len(reference) // 200), f"{different} of {len(reference)} differ"
    assert (output - reference).abs().max() <= 2 ** (2 - bits) * reference.abs().max()


@torch.no_grad()
def ask(model, images):
    """A model's answers in its own way."""
    return model(images)


@torch.no_grad()
def fast(nb, model, images):
    """A model's answers inside the context."""
    with nb.fast_crossbars(model):
        return model(images)


def is_bare(model):
    """Whether every layer runs MemTorch's own forward and nothing is hooked anywhere."""
    hooks = [h for m in model.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
    forwards = [getattr(layer.forward, "__func__", None) for layer in layers_of(model)]
    return not hooks and forwards == [STOCK[type(layer)] for layer in layers_of(model)]


@functools.cache
def _converted(nb, kind, **settings):
    return nb.to_memristive(small(kind), nb.MemristorConfig(**settings))


def converted(nb, kind="signed", tile_shape=(8, 8), **settings):
    """A converted tiny network of which every conductance is as after conversion."""
    return nb.copy_memristive(_converted(nb, kind, tile_shape=tile_shape, **settings))


# MemTorch by itself


@functools.cache
def _patched(kind, tile_shape, scheme):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = patch_model(
            small(kind),
            memristor_model=memtorch.bh.memristor.VTEAM,
            memristor_model_params={"time_series_resolution": 1e-10, "r_off": R_OFF, "r_on": R_ON},
            module_parameters_to_patch=[nn.Linear, nn.Conv2d],
            tile_shape=tile_shape,
            scheme=memtorch.bh.Scheme[scheme],
            verbose=False,
        )
    return model, conductances(model), [layer.bias for layer in layers_of(model)]


def patched(
    kind="signed", tile_shape=(8, 8), bits=8, overflow=0.0, voltage=0.3, faults=None,
    scheme="DoubleColumn", force=False,
):  # fmt: skip
    """A tiny network converted by MemTorch alone, with outputs of a useful size."""
    model, kept, biases = _patched(kind, tile_shape, scheme)
    for array, values in zip(arrays_of(model), kept, strict=True):
        array.conductance_matrix = values.clone()
    for layer, bias in zip(layers_of(model), biases, strict=True):
        gain = torch.tensor(layer.weight.abs().max().item() * R_ON)
        layer.transform_output, layer.bias = functools.partial(torch.mul, gain), bias
        layer.quant_method, layer.ADC_resolution = ("linear" if bits else None), bits
        layer.ADC_overflow_rate, layer.max_input_voltage = overflow, voltage
        layer.scaling_routine = memtorch.map.Input.naive_scale
        layer.scaling_routine_params = {"force_scale": force}
        layer.forward_legacy_enabled = False
        layer.__dict__.pop("adc_range", None)
        if faults:
            state = np.random.get_state()
            np.random.seed(3)
            memtorch_faults(layer, *faults, 0.0)
            np.random.set_state(state)
    return model


@pytest.fixture(autouse=True)
def one_thread():
    """Torch with one thread, as in the notebook's workers; small products are faster so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# fast_crossbars: the same numbers as MemTorch's


def settings():
    """Bits, overflow rate, voltage, faults anywhere in the tiles, forced scaling."""
    yield from itertools.product((None, 2, 8, 16), (0.0,), (0.3,), (None, (0.1, 0.0)), (False,))
    for overflowing in ((4, 0.02, None), (4, 0.1, 1.0), (8, 0.02, 1.0), (8, 0.1, None)):
        for faults in (None, (0.15, 0.1)):
            yield *overflowing, faults, False
    yield 8, 0.0, 1.0, None, True


@pytest.mark.parametrize("tile_shape", TILES, ids=str)
def test_fast_crossbars_computes_memtorchs_numbers(nb, tile_shape):
    """Under all settings, for a batch, for one image alone, and where a channel is empty."""
    large = tile_shape == (128, 128)  # for which MemTorch takes long
    for kind, setting in itertools.product(["wide"] if large else KINDS, settings()):
        model = patched(kind, tile_shape, *setting[:4], force=setting[4])
        images = pictures() + 0.05 * setting[4]  # MemTorch's forced scale of black is no number
        together, alone = ask(model, images), ask(model, images[2:3])
        empty = ask(model, images[:1])  # nothing in the last channel
        assert together.isfinite().all() and together.abs().max() > 0
        assert_same(fast(nb, model, images), together, setting[0])
        assert_same(fast(nb, model, images[2:3]), alone, setting[0])
        assert_same(fast(nb, model, images[:1]), empty, setting[0])


def test_fast_crossbars_on_one_array_instead_of_a_pair(nb):
    """Outputs without bias, which would drown them."""
    for bits in (None, 8):
        model = patched(bits=bits, scheme="SingleColumn")
        assert_same(fast(nb, model, pictures()), ask(model, pictures()), bits)


def test_fast_crossbars_on_many_images(nb):
    """Of 400 at most 2 differ, by a step of the ADC, and no prediction does."""
    model, images = patched("wide"), pictures(400)
    output, reference = fast(nb, model, images), ask(model, images)
    assert_same(output, reference, 8)
    assert torch.equal(output.argmax(1), reference.argmax(1))


def test_fast_crossbars_where_sums_are_exact(nb):
    """Small integers times a power of two: every bit must agree. Half-way codes, rows of equal
    currents or of none, and saturation are frequent."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(-4, 5, (9, 2, 6, 6), generator=draw).float()
    images[0], images[1, :, :3] = 0, 0
    tiles = (None, (8, 8), (16, 1), (5, 7))
    for kind, tile_shape, bits, over in itertools.product(KINDS, tiles, (2, 8), (0.0, 0.1)):
        model = patched(kind, tile_shape, bits, over, voltage=None)
        for array in arrays_of(model):
            g = torch.randint(0, 4, array.conductance_matrix.shape, generator=draw)
            array.conductance_matrix = g * 2.0**-18
        last = layers_of(model)[-1]
        last.transform_output, last.bias = (lambda currents: currents), None
        flat = torch.randint(-4, 5, (6, last.in_features), generator=draw).float()
        assert torch.equal(fast(nb, model[0], images), ask(model[0], images))
        assert torch.equal(fast(nb, last, flat), ask(last, flat))


def test_compiled_and_plain_agree(nb, monkeypatch):
    """With MemTorch's range and a fixed one, on any number of threads; small blocks change none
    but rare codes."""
    images, forward = pictures(40), nb.fast_forward

    def in_small_blocks(layer, inputs):
        return forward(layer, inputs, block=2000)

    ranges = ((3, 1e-5), (8, None))
    for kind, tile, (bits, adc_range) in itertools.product(KINDS, (None, (8, 8)), ranges):
        model, answers = patched(kind, tile, bits, faults=(0.1, 0.1)), []
        for layer in layers_of(model):
            layer.adc_range = adc_range
        for threads in (1, 2):
            torch.set_num_threads(threads)
            answers.append(fast(nb, model, images))
            for name, value in (("compiled_adc", None), ("fast_forward", in_small_blocks)):
                with monkeypatch.context() as patch:
                    patch.setattr(nb, name, value)
                    answers.append(fast(nb, model, images))
            assert torch.get_num_threads() == threads
        one, plain, blocks, two, plain_too, blocks_too = answers
        assert torch.equal(one, two) and torch.equal(one, plain) and torch.equal(one, plain_too)
        assert_same(blocks, one, bits)
        assert_same(blocks_too, one, bits)


def test_ranges_next_to_powers_of_two(nb):
    """Loop, compiled loop, plain and MemTorch agree where C's float log2 rounds."""
    centres = np.float32(2.0) ** np.arange(-38, 8, dtype=np.float32)
    near = (centres.view(np.int32)[:, None] + np.arange(-3, 40)).astype(np.int32)
    near = near.view(np.float32).flatten()
    currents = torch.from_numpy(np.stack([near, -near / 3, 0.7 * near, 0 * near], 1))
    for bits in (2, 8, 24, 32):
        plain = nb.adc(currents, bits)
        stock = [
            memtorch.bh.Quantize.quantize(row, bits, quant_method="linear") for row in currents[::7]
        ]
        assert torch.equal(plain[::7], torch.stack(stock))
        for loop in {nb.compiled_adc or nb.adc_loop, nb.adc_loop}:
            total = np.empty((len(currents), 1, 4), np.float32)
            with np.errstate(all="ignore"):
                loop(currents.numpy()[None, None, :, None], bits, False, 0.0, total)
            assert torch.equal(torch.from_numpy(total[:, 0]), plain)


def test_any_scaling_routine_is_reproduced_or_refused(nb):
    """A routine of the user's own: its numbers, or a refusal that names it."""

    def by_sum(module, voltages):
        return voltages / (1 + voltages.sum()) + 0.01

    for tile_shape in (None, (8, 8)):
        model = patched(tile_shape=tile_shape)
        for layer in layers_of(model):
            layer.scaling_routine, layer.scaling_routine_params = by_sum, {}
        reference = ask(model, pictures())
        try:
            assert_same(fast(nb, model, pictures()), reference, 8)
        except NotImplementedError as error:
            assert "scaling" in str(error)


UNSUPPORTED = {
    "quant_method": {"quant_method": "log"},
    "ADC_resolution": {"ADC_resolution": 33},
    "transistor=False": {"transistor": False},
    "NonLinear": {"non_linear": True},
    "use_bindings": {"use_bindings": False},
    "dilation": {"dilation": (2, 2)},
    "groups": {"groups": 3},
    "padding": {"padding": "same"},
    "kernels": {"kernel_size": (3, 2)},
    "strides": {"stride": (1, 2)},
}


def test_unsupported_settings_are_named(nb):
    """What would not be MemTorch's number is refused, at the entrance or inside; nothing stays
    behind, not on the layers before it either."""
    for named, inside in itertools.product(UNSUPPORTED, (False, True)):
        model = nb.copy_memristive(patched())
        with pytest.raises(NotImplementedError, match=named):
            if not inside:
                vars(layers_of(model)[1]).update(UNSUPPORTED[named])
            with nb.fast_crossbars(model):
                vars(layers_of(model)[1]).update(UNSUPPORTED[named])
                model(pictures())
        assert is_bare(model)


CHANGES = {
    "conductances replaced": lambda a, _: setattr(
        a, "conductance_matrix", a.conductance_matrix.flip(-1)
    ),
    "conductances in place": lambda a, _: a.conductance_matrix[..., ::3].fill_(HIGHEST),
    "output": lambda _, layer: setattr(layer, "transform_output", lambda x: x * 1e3),
    "bias": lambda _, layer: layer.bias.data.add_(0.7),
    "bits": lambda _, layer: setattr(layer, "ADC_resolution", 3),
    "voltage": lambda _, layer: setattr(layer, "max_input_voltage", 0.1),
    "legacy": lambda _, layer: setattr(layer, "forward_legacy_enabled", True),
}


def test_changes_inside_and_between_contexts_are_respected(nb):
    """Of conductances, of the ADC, of everything that MemTorch itself asks at each call."""
    images = pictures()
    for name, change in CHANGES.items():
        model = copy.deepcopy(patched())
        with nb.fast_crossbars(model):
            first = ask(model, images)
            change(arrays_of(model)[-2], layers_of(model)[-1])
            inside = ask(model, images)
        stock = ask(model, images)
        assert relative_error(first, stock) > 1e-3, name
        assert_same(inside, stock, 8)
        assert_same(fast(nb, model, images), stock, 8)


def test_contexts_nest_and_leave_memtorchs_forward(nb, monkeypatch):
    """Inside, MemTorch's tiles are never asked; an inner context does not end the outer one."""
    model, other, images = patched(), patched("wide"), pictures()
    before, calls = ask(model, images), []
    for layer in LAYERS:
        module = sys.modules[layer.__module__]

        def counted(*args, original=module.tiled_inference, **kwargs):
            calls.append(1)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, "tiled_inference", counted)
    with nb.fast_crossbars(model):
        with nb.fast_crossbars(model), nb.fast_crossbars(other):
            ask(other, images)
        assert is_bare(other)
        assert_same(ask(model, images), before, 8)
        assert not calls
    assert is_bare(model)
    assert torch.equal(ask(model, images), before) and calls


def test_what_raises_leaves_nothing_behind(nb):
    """In the body, in a bad batch, within a thread; and hooks of whatever looks into a model."""
    torch.set_num_threads(2)
    chip, images = converted(nb), pictures(600)
    expected, network = ask(chip, images[:5]), small()
    with pytest.raises(ZeroDivisionError), nb.fast_crossbars(chip):
        ask(chip, images)
        raise ZeroDivisionError
    assert is_bare(chip)
    many = torch.rand(600, 3, 6, 6)  # of another depth: raises within a thread
    for wrong in (many, images[:0], images * torch.nan, images / 0):
        for way in (
            lambda wrong=wrong: fast(nb, chip, wrong),
            lambda wrong=wrong: nb.calibrate(chip, network, wrong),
            lambda wrong=wrong: nb.fix_ranges(nb.copy_memristive(chip), chip, wrong, 8),
            lambda wrong=wrong: nb.layer_gains(network, chip, wrong),
        ):
            with pytest.raises((ValueError, RuntimeError)):
                way()
            assert is_bare(chip) and is_bare(network)
    assert torch.get_num_threads() == 2
    assert torch.equal(ask(chip, images[:5]), expected)


def test_a_scale_that_an_exception_left_behind_does_no_harm(nb):
    """A forward is cut off between encoding and restoring; the next answers are right."""
    for voltage in (0.3, None):
        chip = converted(nb, max_input_voltage=voltage)
        expected = ask(chip, pictures())
        for way in (ask, functools.partial(fast, nb)):
            layers_of(chip)[0].scaling_routine(layers_of(chip)[0], 7 * pictures()[0])
            assert_same(way(chip, pictures()), expected, 8)


def test_two_threads_ask_two_copies(nb):
    """Each gets what it would get alone, by both ways and whatever torch's own threads are: copies
    share nothing that an answer needs."""
    chips = [nb.apply_device_faults(converted(nb), 0.1, 0.0, seed) for seed in (0, 1)]
    inputs = [pictures(40, seed) * (1 + 9 * seed) for seed in (0, 1)]
    barrier = threading.Barrier(2)

    def questions(number):
        barrier.wait()
        return [ask(chips[number], inputs[number][i : i + 20]) for i in (0, 20) * asked]

    ways = (1, nb.fast_crossbars, 30), (2, nb.fast_crossbars, 30), (2, nullcontext, 2)
    for threads, context, asked in ways:
        torch.set_num_threads(threads)
        with context(chips[0]), context(chips[1]):
            expected = [[ask(chips[k], inputs[k][i : i + 20]) for i in (0, 20)] for k in (0, 1)]
            with ThreadPoolExecutor(2) as pool:
                answers = list(pool.map(questions, (0, 1)))
        assert not torch.equal(expected[0][0], expected[1][0])
        for found, right in zip(answers, expected, strict=True):
            assert all(map(torch.equal, found, right * asked))


@pytest.mark.slow
def test_the_assignments_network(nb, assignment):
    """Whole, with stuck devices that hold weights, and with any stuck by MemTorch."""
    _, model = assignment
    images = torch.rand(8, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    images[:, 2], images[::2, 0], images[1::2, 1] = 0, 0, 0
    anywhere, draw = nb.copy_memristive(model), torch.Generator().manual_seed(0)
    for array in arrays_of(anywhere):
        stuck = torch.rand(array.conductance_matrix.shape, generator=draw) < 0.03
        array.conductance_matrix[stuck] = HIGHEST
    for chip in (model, nb.apply_device_faults(model, 0.05, 0.0, seed=0), anywhere):
        output, reference = fast(nb, chip, images), ask(chip, images)
        assert_same(output, reference, 8)
        assert torch.equal(output.argmax(1), reference.argmax(1))


# Conversion


@pytest.fixture(scope="session")
def assignment(nb):
    """The assignment's network, untrained, and its conversion. For reading only."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nb.CNN()
    return network, nb.to_memristive(network, nb.MemristorConfig())


def test_the_config_is_the_assignments(nb):
    """The sample's numbers, and the input's scale restored; frozen and hashable."""
    config = nb.MemristorConfig()
    hardware = dict(memristor="VTEAM", r_on=R_ON, r_off=R_OFF, max_input_voltage=0.3)
    mapping = dict(scheme="DoubleColumn", balanced=False, tile_shape=(128, 128), restore_scale=True)
    converter = dict(adc_resolution=8, adc_overflow_rate=0.0, quant_method="linear")
    assert dataclasses.asdict(config) == hardware | mapping | converter
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.r_on = 1.0
    assert hash(config) == hash(nb.MemristorConfig())


def test_conversion_follows_the_config(nb):
    """The devices, the scheme and the quantiser are those asked for; devices tell the same
    conductances as the matrix."""
    config = nb.MemristorConfig(r_on=2e4, r_off=1e6, adc_resolution=6, tile_shape=(8, 8))
    model = nb.to_memristive(small(), config)
    assert [type(layer) for layer in layers_of(model)] == [LAYERS[0]] * 2 + [LAYERS[1]] * 2
    assert list(nb.memristive_layers(model).values()) == ["0", "2", "4", "6"]
    for layer in layers_of(model):
        assert layer.scheme == memtorch.bh.Scheme.DoubleColumn and len(layer.crossbars) == 2
        assert (layer.quant_method, layer.ADC_resolution) == ("linear", 6)
        for array in layer.crossbars:
            device, values = array.devices.flat[0], array.conductance_matrix
            assert (type(device).__name__, device.r_on, device.r_off) == ("VTEAM", 2e4, 1e6)
            assert values.shape[1:] == (8, 8) and values.min().item() == pytest.approx(1e-6)
            assert torch.equal(torch.tensor(array.g_np(array.devices)).float(), values)
        largest = max(array.conductance_matrix.max() for array in layer.crossbars)
        assert largest.item() == pytest.approx(1 / 2e4)


def test_conversion_leaves_the_argument_alone(nb):
    """Weights bitwise, types, mode and gradients stay; no memory is shared with the result;
    numpy's errors are as before."""
    net, errors = small().train(), np.geterr()
    before = copy.deepcopy(net.state_dict())
    model = nb.to_memristive(net, nb.MemristorConfig(tile_shape=(8, 8), restore_scale=False))
    assert np.geterr() == errors
    for parameter in model.parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [type(m) for m in net.modules()] == [type(m) for m in small().modules()]
    assert net.training and all(p.requires_grad for p in net.parameters())


def test_without_adc_it_is_the_software_network(nb):
    """Each image to 1e-5 whatever else is in the batch, be inputs small or large, or all black."""
    asked = KINDS, (None, (8, 8), (16, 4)), (False, True), (1e-3, 1.0, 255.0)
    for kind, tile_shape, balanced, scale in itertools.product(*asked):
        images = pictures() * scale
        images[2] /= 1000
        chip = converted(nb, kind, tile_shape, balanced=balanced, adc_resolution=None)
        for batch in (images, images.flip(0), images[2:3]):
            for output, expected in zip(ask(chip, batch), ask(small(kind), batch), strict=True):
                assert relative_error(output, expected) <= 2e-5


def test_a_restored_scale_beats_the_samples_conversion(nb):
    """With 8 bits: within 2% of software; the sample's conversion is far from it."""
    images, errors = pictures(20), {}
    for restore in (True, False):
        chip = converted(nb, restore_scale=restore)
        errors[restore] = relative_error(ask(chip, images), ask(small(), images))
    assert errors[True] < 0.02 and errors[False] > 0.2, errors


def test_without_restored_scale_it_is_the_samples_conversion(nb):
    """patch_model and tune_: the same conductances, regression and outputs."""
    chip = converted(nb, restore_scale=False)
    sample = patched(force=False)
    for layer, ours in zip(layers_of(sample), layers_of(chip), strict=True):
        if ours.bias is None:  # MemTorch gives a Conv2d without bias a random one
            layer.bias = None
        layer.transform_output = lambda currents: currents
    sample.tune_()
    for ours, theirs in zip(layers_of(chip), layers_of(sample), strict=True):
        for a, b in zip(ours.crossbars, theirs.crossbars, strict=True):
            assert torch.equal(a.conductance_matrix, b.conductance_matrix)
        at = torch.tensor([0.0, 1.0])  # the tuned line, read at two points
        (a, b), (c, d) = ours.transform_output(at).tolist(), theirs.transform_output(at).tolist()
        assert b - a == pytest.approx(d - c, rel=0.1)
        theirs.transform_output = ours.transform_output
    assert torch.equal(ask(chip, pictures()), ask(sample, pictures()))


def test_tuning_starts_from_nothing_and_obeys_its_seed(nb):
    """Twice is as once; another seed gives another line; no generator moves."""
    chip, lines = converted(nb, restore_scale=False), []
    states = rng_states()
    for seed in (3, 3, 4):
        nb.tune(chip, seed)
        lines.append([layer.transform_output(torch.ones(1)).item() for layer in layers_of(chip)])
    assert lines[0] == lines[1] != lines[2] and rng_states() == states and is_bare(chip)


def test_what_is_left_of_a_signal(nb):
    """A layer that answers W x / 4 + b has gain 1/4, a right one 1, whatever the bias."""
    net = small()
    net[0].bias.data += 5
    chip = nb.to_memristive(net, nb.MemristorConfig(tile_shape=(8, 8), adc_resolution=None))
    assert list(nb.layer_gains(net, chip, pictures()).values()) == pytest.approx([1] * 4, abs=1e-5)
    before = layers_of(chip)[0].transform_output
    layers_of(chip)[0].transform_output = lambda currents: before(currents) / 4
    gains = nb.layer_gains(net, chip, pictures())
    assert gains["0"] == pytest.approx(0.25, abs=1e-5)


# Balanced pairs, and pairs that break in training as on a chip


def test_balanced_pairs_differ_as_others_do_around_the_middle(nb):
    """For each weight the difference of MemTorch's own mapping; the mean is the middle of the
    range; nothing leaves the range."""
    pairs = [converted(nb, balanced=balanced) for balanced in (False, True)]
    for plain, balanced in zip(*map(layers_of, pairs), strict=True):
        (a, b), (c, d) = ([in_use(x).double() for x in m.crossbars] for m in (plain, balanced))
        torch.testing.assert_close(c - d, a - b, rtol=0, atol=1e-6 * HIGHEST)
        torch.testing.assert_close((c + d) / 2, torch.full_like(c, (LOWEST + HIGHEST) / 2))
        assert min(c.min(), d.min()) > 0 and max(c.max(), d.max()) <= HIGHEST * (1 + 1e-6)


def test_pairs_in_training_are_those_on_a_chip(nb):
    """Devices stuck in both ways make the same weights in training and in balanced pairs."""
    net = linear(20, 10)
    weight, largest = net[0].weight.data, net[0].weight.abs().max()
    config = nb.MemristorConfig(tile_shape=(8, 4), balanced=True)
    (layer,) = layers_of(nb.to_memristive(net, config))
    fates = torch.rand(2, *weight.shape, generator=torch.Generator().manual_seed(0))
    broken = []
    for array, fate in zip(layer.crossbars, fates, strict=True):
        values = in_use(array)
        values[fate.T < 0.2] = HIGHEST
        values[fate.T > 0.9] = LOWEST
        broken.append(values)
    found = nb.with_stuck_pairs(weight, largest, fates, (0.2, 0.1))
    expected = (broken[0] - broken[1]).T * largest / (HIGHEST - LOWEST)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert 0.4 < (found - weight).abs().gt(1e-6).double().mean() / (1 - 0.7**2) <= 1.1


def test_gradients_flow_through_healthy_devices_only(nb):
    """A balanced weight of which one device is stuck moves by half, both by nothing."""
    weight = torch.full((4,), 0.5, requires_grad=True)
    fates = torch.tensor([[0.5, 0.1, 0.5, 0.1], [0.5, 0.5, 0.95, 0.95]])
    nb.with_stuck_pairs(weight, torch.tensor(1.0), fates, (0.2, 0.1)).sum().backward()
    assert weight.grad.tolist() == [1, 0.5, 0.5, 0]


# Devices


def test_one_device_for_all_cells_changes_no_conductance(nb):
    """What inference reads is the same as with a device for each cell."""
    for balanced in (False, True):
        config = nb.MemristorConfig(tile_shape=(8, 4), balanced=balanced)
        pair = (nb.to_memristive(linear(20, 10), config, own_devices=own) for own in (True, False))
        for own, shared in zip(*(layers_of(chip)[0].crossbars for chip in pair), strict=True):
            assert torch.equal(own.conductance_matrix, shared.conductance_matrix)
            assert len({id(device) for device in own.devices.flat}) == own.devices.size
            assert len({id(device) for device in shared.devices.flat}) == 1


def test_reading_moves_nothing(nb):
    """A device of the configuration keeps its state at .3 V, of either sign; with MemTorch's own
    thresholds the same read erases it. Beyond the thresholds it can be written both ways."""
    config, errors, start = nb.MemristorConfig(), np.geterr(), 1e6
    stock = vars(memtorch.bh.memristor.VTEAM())
    stock = {k: stock[k] for k in ("v_on", "v_off", "k_on", "k_off", "alpha_on", "alpha_off")}
    for voltage in (config.max_input_voltage, -config.max_input_voltage):
        assert nb.read_again(config, voltage, 200, start) == pytest.approx(start, rel=1e-9)
    assert nb.read_again(config, config.max_input_voltage, 200, start, **stock) > 10 * start
    assert nb.read_again(config, 1.5, 10, start) > 2 * start
    assert nb.read_again(config, -2.5, 10, start) < start / 2
    assert np.geterr() == errors
    device = layers_of(converted(nb))[0].crossbars[0].devices.flat[0]
    assert device.v_off >= config.max_input_voltage and device.v_on <= -config.max_input_voltage


# Chips


def test_copies_share_nothing_that_a_chip_owns(nb):
    """What is done to one of three does not reach the others: conductances, ranges, outputs,
    methods, and hooks."""
    model = converted(nb)
    one, other = nb.copy_memristive(model), nb.copy_memristive(model)
    before, images = conductances(model), pictures()
    answers = ask(model, images)
    for layer in layers_of(one):
        layer.adc_range, layer.ADC_resolution = 1.0, 3
        layer.transform_output = lambda currents: 0 * currents
        layer.register_forward_hook(lambda *_: pytest.fail("a hook of another chip"))
        for array in layer.crossbars:
            array.conductance_matrix.fill_(HIGHEST)
    one.register_forward_pre_hook(lambda *_: pytest.fail("a hook of another chip"))
    for chip in (model, other, nb.copy_memristive(one)):
        assert is_bare(chip)
    for chip in (model, other):
        assert all(map(torch.equal, conductances(chip), before))
        assert torch.equal(ask(chip, images), answers)
        assert_same(fast(nb, chip, images), answers, 8)
    assert other.tune_.__self__ is other and other.forward_legacy.__self__ is other
    other.forward_legacy(True)
    assert relative_error(ask(other, images), ask(small(), images)) < 1e-6
    assert torch.equal(ask(model, images), answers)


def test_a_copy_made_inside_the_context_is_its_own(nb):
    """By deepcopy, by copy_memristive, or as a broken chip: its own numbers, inside and after."""
    model, images = converted(nb), pictures()
    for make in (
        copy.deepcopy,
        nb.copy_memristive,
        functools.partial(nb.apply_device_faults, lrs=0.1, hrs=0.05, seed=0),
    ):
        with nb.fast_crossbars(model):
            twin = make(model)
            for array in arrays_of(twin)[::2]:
                array.conductance_matrix = array.conductance_matrix.flip(-1)
            inside = ask(twin, images)
        outside = make(model)
        for array, same in zip(arrays_of(outside), conductances(twin), strict=True):
            array.conductance_matrix = same
        assert_same(inside, ask(outside, images), 8)
        assert_same(ask(twin, images), ask(outside, images), 8)


def test_cells_that_hold_weights(nb):
    """In MemTorch's own tiling, in the order of rows and columns; what is written there is read,
    and nothing else changes; tiles cover it."""
    chips = [(tile_shape, converted(nb, "wide", tile_shape)) for tile_shape in TILES]
    for tile_shape, layer in ((shape, layer) for shape, chip in chips for layer in layers_of(chip)):
        for array, read in zip(layer.crossbars, nb.conductances_of(layer), strict=True):
            assert torch.equal(read, in_use(array))
        values, before = torch.rand(read.shape).expand(2, -1, -1), conductances(layer)
        nb.write(layer, values)
        assert torch.equal(nb.conductances_of(layer), values)
        for array, old in zip(layer.crossbars, before, strict=True):
            changed = array.conductance_matrix != old
            assert changed.sum() == in_use(array, changed).sum() == read.numel()
        height, width = tile_shape or read.shape
        tiles, covered = nb.tiles_of(layer, values), torch.zeros(read.shape)
        for tile in nb.tiles_of(layer, covered):
            assert tile.shape[0] <= height and tile.shape[1] <= width
            tile += 1
        assert torch.equal(covered, torch.ones(read.shape))
        assert len(tiles) == -(-len(read) // height) * -(-read.shape[1] // width)


def halfway(nb, tile_shape=(8, 8), kind="signed"):
    """A converted network whose every device, idle ones too, conducts half of the largest."""
    model = converted(nb, kind, tile_shape)
    for array in arrays_of(model):
        array.conductance_matrix.fill_(0.5 * HIGHEST)
    return model


def stuck(model):
    """For each array which devices conduct most, and which least."""
    values = [array.conductance_matrix for array in arrays_of(model)]
    return [(v > 0.99 * HIGHEST, v < 1.01 * LOWEST) for v in values]


def test_faults_hit_exactly_the_cells_promised(nb):
    """In each array round(p * cells in use) stick at each level and no other moves; the argument
    and the global generators are untouched; idle devices are not counted."""
    for tile_shape in (None, (8, 8), (16, 4)):
        model = halfway(nb, tile_shape)
        before, states = conductances(model), rng_states()
        for lrs, hrs in ((0.1, 0), (0, 0.3), (0.2, 0.1), (0.6, 0.4), (0.5, 0.5), (1, 0), (0, 0)):
            chip = nb.apply_device_faults(model, lrs, hrs, seed=0)
            for array, old, (low, high) in zip(arrays_of(chip), before, stuck(chip), strict=True):
                cells = array.rows * array.columns
                assert torch.equal(array.conductance_matrix != old, low | high)
                used = in_use(array, low).sum().item(), in_use(array, high).sum().item()
                assert used == (low.sum().item(), high.sum().item())
                if lrs + hrs == 1:  # none escapes, also where a half is no whole number of cells
                    assert sum(used) == cells and abs(used[0] - lrs * cells) <= 0.5
                else:
                    assert used == (round(lrs * cells), round(hrs * cells))
        assert rng_states() == states
        assert all(map(torch.equal, conductances(model), before))


def test_at_higher_rates_the_same_devices_break_and_more(nb):
    """Singly, in rows, columns and squares."""
    model, kinds = halfway(nb, (16, 16), "wide"), (None, "rows", "columns", "squares")
    for kind, at in itertools.product(kinds, ("low", "high")):
        wears = [{"groups": ((kind, p, at),)} if kind else {at: p} for p in (0.0, 0.05, 0.2, 0.5)]
        chips = [nb.worn(model, nb.Wear(**wear), seed=5) for wear in wears]
        maps = [[low | high for low, high in stuck(chip)] for chip in chips]
        for fewer, more in itertools.pairwise(maps):
            assert not any((a & ~b).any() for a, b in zip(fewer, more, strict=True))
            assert sum(a.sum() for a in fewer) < sum(b.sum() for b in more)


FULL_WEAR = {
    "low": 0.1,
    "high": 0.15,
    "programming": (0.05, 0.02),
    "hours": 10.0,
    "groups": (("rows", 0.1, "low"), ("squares", 0.05, "high"), ("columns", 0.1, "high")),
}


def test_no_kind_of_wear_moves_another(nb):
    """A chip's stuck devices are those of each kind alone, together; its healthy devices are what
    the other kinds alone make of them."""
    model = halfway(nb, (16, 16), "wide")
    whole = nb.worn(model, nb.Wear(**FULL_WEAR), seed=1)
    alone = [{"low": 0.1}, {"high": 0.15}, *({"groups": (g,)} for g in FULL_WEAR["groups"])]
    maps = [stuck(nb.worn(model, nb.Wear(**wear), seed=1)) for wear in alone]
    written = {name: FULL_WEAR[name] for name in ("programming", "hours")}
    written = nb.worn(model, nb.Wear(**written), seed=1)
    for array, sound, *parts in zip(arrays_of(whole), arrays_of(written), *maps, strict=True):
        parts = [low | high for low, high in parts]
        assert all(part.any() for part in parts)
        together = functools.reduce(torch.logical_or, parts)
        values, others = array.conductance_matrix, sound.conductance_matrix
        assert torch.equal((values > 0.99 * HIGHEST) | (values < 1.01 * LOWEST), together)
        assert torch.equal(values[~together], others[~together])


def test_the_seed_decides_all(nb):
    """The same seed, the same chip; another seed, another; no two arrays break alike, nor the two
    of a pair."""
    model = halfway(nb, (16, 16), "wide")
    before, states, wear = conductances(model), rng_states(), nb.Wear(**FULL_WEAR)
    first, again, other = (conductances(nb.worn(model, wear, seed)) for seed in (3, 3, 4))
    assert all(map(torch.equal, first, again)) and not any(map(torch.equal, first, other))
    assert all(map(torch.equal, conductances(model), before)) and rng_states() == states
    positive, negative = (nb.worn(model, nb.Wear(low=0.2), 3)[0].crossbars[i] for i in (0, 1))
    assert not torch.equal(positive.conductance_matrix, negative.conductance_matrix)
    for array, old in zip(arrays_of(nb.worn(model, wear, 3)), before, strict=True):
        changed = array.conductance_matrix != old
        assert in_use(array, changed).sum() == changed.sum() > 0  # idle devices keep theirs
    nothing = conductances(nb.worn(model, nb.Wear(), 3))
    assert all(map(torch.equal, nothing, before))


def test_every_device_is_equally_likely_to_stick(nb):
    """Over 200 seeds each sticks as often as promised, within five standard errors."""
    config = nb.MemristorConfig(tile_shape=(4, 4))
    model = nb.copy_memristive(nb.to_memristive(linear(5, 4), config))
    for array in arrays_of(model):
        array.conductance_matrix.fill_(0.5 * HIGHEST)
    counts = np.zeros((2, 2, 5, 4))
    for seed in range(200):
        chip = nb.apply_device_faults(model, 0.25, 0.2, seed=seed)
        for i, levels in enumerate(stuck(chip)):
            for j, level in enumerate(levels):
                counts[i, j] += in_use(arrays_of(chip)[i], level).numpy()
    for j, p in enumerate((0.25, 0.2)):
        assert np.abs(counts[:, j] / 200 - p).max() < 5 * (p * (1 - p) / 200) ** 0.5


def test_a_broken_chip_computes_with_its_faults(nb):
    """One more round changes more; answers are what MemTorch makes of the conductances, finite even
    where every device is stuck."""
    for restore in (True, False):
        model, images = converted(nb, restore_scale=restore), pictures()
        once = nb.apply_device_faults(model, 0.1, 0.1, seed=0)
        twice = nb.apply_device_faults(once, 0.2, 0.0, seed=1)
        answers = [ask(chip, images) for chip in (model, once, twice)]
        assert relative_error(answers[1], answers[0]) > 0.01
        assert relative_error(answers[2], answers[1]) > 0.01
        for lrs in (0, 0.5, 1):
            chip = nb.apply_device_faults(model, lrs, 1 - lrs, seed=0)
            assert ask(chip, images).isfinite().all()
            assert_same(fast(nb, chip, images), ask(chip, images), 8)


# Devices that are stuck together


def test_lines_of_a_tile_are_stuck_as_a_whole(nb):
    """In rows and columns: all of a tile's line or none, as often as promised; another tile's
    line at the same place has a fate of its own."""
    for tile_shape in ((8, 6), None):
        shape = (20, 15)
        height, width = tile_shape or shape
        rates, independent = {"rows": [], "columns": []}, {"rows": False, "columns": False}
        for seed, kind in itertools.product(range(120), rates):
            found = nb.stuck_group(shape, tile_shape, kind, 0.2, np.random.default_rng(seed))
            assert found.shape == shape and found.dtype == bool
            tiles = [
                found[r : r + height, c : c + width]
                for r, c in itertools.product(range(0, 20, height), range(0, 15, width))
            ]
            along = 1 if kind == "rows" else 0
            for tile in tiles:
                whole, some = tile.all(along), tile.any(along)
                assert np.array_equal(whole, some)
                rates[kind] += list(whole)
            same = [t.any(along) for t in tiles if t.shape == tiles[0].shape]
            independent[kind] |= any(not np.array_equal(same[0], s) for s in same[1:])
        for lines in rates.values():
            assert np.mean(lines) == pytest.approx(0.2, abs=4 * (0.16 / len(lines)) ** 0.5)
        assert all(independent.values()) == (tile_shape is not None)


def test_squares_are_stuck_until_the_share_is_reached(nb):
    """The union of squares of 5 x 5, cut off at the edges; not less than the share, and less
    without the last one."""
    for seed, share in itertools.product(range(10), (0.0, 0.01, 0.2, 0.6)):
        found = nb.stuck_group((40, 30), (16, 16), "squares", share, np.random.default_rng(seed))
        assert share <= found.mean() <= share + 25 / 1200
        covered = np.zeros_like(found)
        for top, left in itertools.product(range(40), range(30)):
            square = np.s_[top : top + 5, left : left + 5]
            if found[square].all():
                covered[square] = True
        assert np.array_equal(covered, found)
    random = map(np.random.default_rng, range(50))
    places = [nb.stuck_group((40, 30), None, "squares", 0.001, r).argmax() // 30 for r in random]
    assert np.std(places) > 5  # all over the array


def test_a_chip_breaks_by_its_groups(nb):
    """At the level that is asked, in tiles of the chip, none but these."""
    model = halfway(nb, (8, 8), "wide")
    for kind, at in itertools.product(("rows", "columns", "squares"), ("low", "high")):
        chip = nb.worn(model, nb.Wear(groups=((kind, 0.25, at),)), seed=2)
        broken = 0
        for array, levels in zip(arrays_of(chip), stuck(chip), strict=True):
            marked, other = levels if at == "low" else levels[::-1]
            assert not other.any()
            used = in_use(array, marked)
            broken += used.sum().item() / used.numel() / 4
            if kind == "squares":
                assert used.double().mean() >= 0.25
                continue
            for tile in (t for rows in used.split(8) for t in rows.split(8, 1)):
                lines = tile if kind == "rows" else tile.T
                assert all(line.all() or not line.any() for line in lines)
        assert 0.1 < broken < 0.5


# Writing, drift, reading


@functools.cache
def _large(nb):
    return nb.to_memristive(linear(72, 60), nb.MemristorConfig())


def large(nb, share):
    """A layer of 72 x 60 devices, all at a share of the largest conductance."""
    model = nb.copy_memristive(_large(nb))
    for layer in layers_of(model):
        nb.write(layer, torch.full((2, 72, 60), share * HIGHEST))
    return model


def spread(values):
    """Half the distance between the quantiles of one standard deviation on both sides."""
    return (values.quantile(0.8413) - values.quantile(0.1587)).item() / 2


# Share of the largest conductance, exponent of the time and its standard deviation.
LAW = [(1.0, 0.049, 0.008), (0.1, 0.06009, 0.02288), (0.0015, 0.1, 0.045)]


def test_drift_follows_the_written_law(nb):
    """A month after 20 s: conductances fall by a power of the time whose exponent, and its spread
    over devices, depend on the conductance as aihwkit's fit of phase-change memory says."""
    for share, exponent, sd in LAW:
        chip = nb.worn(large(nb, share), nb.Wear(hours=MONTH), seed=0)
        kept = torch.cat([in_use(array).flatten() for array in arrays_of(chip)]).double()
        found = -(kept / (share * HIGHEST)).log() / math.log(MONTH * 3600 / 20)
        assert found.median().item() == pytest.approx(exponent, rel=0.02)
        assert spread(found) == pytest.approx(sd, rel=0.06)
        assert found.min() > -1e-6  # nothing grows


def test_drift_starts_after_twenty_seconds(nb):
    """As written until then, and the longer the less."""
    model, shown = large(nb, 0.5), []
    for hours in (19 / 3600, 1, MONTH):
        shown.append(torch.cat([*conductances(nb.worn(model, nb.Wear(hours=hours), seed=0))]))
    assert torch.equal(shown[0], torch.cat(conductances(model)))
    assert (shown[1] <= shown[0]).all() and (shown[2] <= shown[1]).all()
    assert shown[2].sum() < shown[1].sum() < shown[0].sum()


# Parts of the range and of the value, and their standard deviation together.
ERRORS = [((0.05, 0.0), 0.05), ((0.0, 0.1), 0.05), ((0.03, 0.08), 0.05), ((0.5, 0.0), None)]


def test_errors_of_writing_have_their_spread(nb):
    """An error of a share of the range, of the value, and both, independent; within the range."""
    for programming, sd in ERRORS:
        chip = nb.worn(large(nb, 0.5), nb.Wear(programming=programming), seed=0)
        values = torch.cat([in_use(array).flatten() for array in arrays_of(chip)]) / HIGHEST
        values = values.double()
        assert values.min() >= LOWEST / HIGHEST * (1 - 1e-6) and values.max() <= 1 + 1e-6
        assert values.mean().item() == pytest.approx(0.5, abs=0.01)
        if sd is None:  # a half of the range: a sixth of the devices at either end
            assert (values > 1 - 1e-6).double().mean().item() == pytest.approx(0.159, abs=0.02)
        else:
            assert values.std().item() == pytest.approx(sd, rel=0.03)


def test_reads_are_noisy_anew_for_every_batch(nb):
    """Of the promised spread around what was written, not around the last read; in cells that hold
    weights; by the seed."""
    images, still = torch.rand(3, 72), large(nb, 0.5)
    reads = {}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        chip = nb.copy_memristive(still)
        nb.read_noisily(chip, 0.02, seed)
        reads[name] = [(ask(chip, images), conductances(chip)[0])[1] for _ in range(6)]
        answers = [ask(chip, images) for _ in range(2)]
        assert not torch.equal(*answers)
    array = arrays_of(still)[0]
    noise = [((in_use(array, g) - in_use(array)) / HIGHEST).flatten() for g in reads["first"]]
    for one in noise:
        assert one.std().item() == pytest.approx(0.02, rel=0.04) and abs(one.mean()) < 0.002
    for one, other in itertools.combinations(noise, 2):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.08
    assert all(map(torch.equal, reads["first"], reads["again"]))
    assert not torch.equal(reads["first"][0], reads["other"][0])
    assert torch.equal((reads["first"][0] != array.conductance_matrix).sum(), torch.tensor(72 * 60))


# Wires


def nodal(conductances, ohms):
    """Currents of grounded columns per volt on each row, by dense nodal analysis in float64.

    Word line i: source - wire - cell 0 - wire - cell 1 ...; bit line j: cell 0 - wire - ... - last
    cell - wire - ground.
    """
    rows, columns = conductances.shape
    word = np.arange(rows * columns).reshape(rows, columns)
    bit = word + rows * columns
    matrix, wire = np.zeros((2 * rows * columns,) * 2), 1 / ohms

    def resistor(p, q, conductance):
        matrix[p, p] += conductance
        matrix[q, q] += conductance
        matrix[p, q] -= conductance
        matrix[q, p] -= conductance

    for i, j in itertools.product(range(rows), range(columns)):
        resistor(word[i, j], bit[i, j], conductances[i, j])
        if j + 1 < columns:
            resistor(word[i, j], word[i, j + 1], wire)
        if i + 1 < rows:
            resistor(bit[i, j], bit[i + 1, j], wire)
    matrix[word[:, 0], word[:, 0]] += wire
    matrix[bit[-1], bit[-1]] += wire
    driven = np.zeros((2 * rows * columns, rows))
    driven[word[:, 0], np.arange(rows)] = wire
    return (np.linalg.solve(matrix, driven)[bit[-1]] * wire).T


def cells(*shape, seed=0, largest=1e-3):
    """Random conductances, float64."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.uniform(1e-5, largest, shape))


def test_wires_of_one_row_and_of_one_column_by_hand(nb):
    """Devices of 1 and 2 ohms behind wires of 1 ohm, solved as series and parallel in fractions.

    The row: the far branch has wire, device, wire, 1 + 2 + 1 = 4 ohms; the near one 1 + 1 = 2;
    together 4/3, behind the source's wire 7/3: 3/7 ampere, of which 2/3 take the near branch.
    The column: the near device sits at the bottom. Row 0 alone driven: 1 + 1 + 1 ohms lead to the
    bottom node, which has 1 ohm to ground beside 1 + 2 ohms of the grounded row: 3/4; 15/4 in all,
    4/15 ampere, of which 3/4 reach the column's end. Row 1 alone: 1 + 2 ohms lead to it, beside
    the ground's 1 stand 1 + 1 + 1: again 3/4, the same.
    """
    devices = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    row = nb.effective_conductances(devices, 1.0)[0].tolist()
    expected = [Fraction(3, 7) * Fraction(2, 3), Fraction(3, 7) * Fraction(1, 3)]
    assert row == pytest.approx(list(map(float, expected)))
    column = nb.effective_conductances(devices.T, 1.0)[:, 0].tolist()
    assert column == pytest.approx([float(Fraction(4, 15) * Fraction(3, 4))] * 2)


def test_wires_of_four_devices(nb):
    """The numbers of an independent solver, with wires of 1 ohm."""
    devices = torch.tensor([[1e-3, 2e-4], [5e-4, 8e-4]], dtype=torch.float64)
    expected = [[9.96312598e-4, 1.99482024e-4], [4.98604853e-4, 7.97527088e-4]]
    np.testing.assert_allclose(nb.effective_conductances(devices, 1.0), expected, rtol=1e-8)


def test_wires_are_solved_exactly(nb):
    """Against dense nodal analysis, for any shape, for several crossbars at once, some devices
    without any conductance; float32 in, the same."""
    shapes = (1, 6), (6, 1), (2, 2), (7, 4), (9, 12)
    for shape, ohms in itertools.product(shapes, (0.5, 20.0, 1e4)):
        devices = torch.stack([cells(*shape, seed=seed) for seed in range(3)])
        devices[0][devices[0] < 3e-4] = 0
        found = nb.effective_conductances(devices[None], ohms)
        assert found.shape == (1, 3, *shape)
        for one, solved in zip(devices, found[0], strict=True):
            np.testing.assert_allclose(solved, nodal(one.numpy(), ohms), rtol=1e-8, atol=1e-15)
        rounded = nb.effective_conductances(devices.float(), ohms)
        torch.testing.assert_close(rounded.double(), found[0], rtol=1e-5, atol=0)


def test_wires_without_resistance_are_none(nb):
    """The less they have, the nearer are the devices' own conductances."""
    devices = cells(12, 9)
    shown = [nb.effective_conductances(devices, ohms) for ohms in (1, 1e-3, 1e-6)]
    errors = [relative_error(one, devices) for one in shown]
    assert errors[0] < 0.2 and errors[1] < 2e-4 and errors[2] < 2e-7


def test_wires_agree_with_memtorchs_own_solver(nb):
    """On small tiles; MemTorch solves in float32."""
    for rows, columns, ohms in ((4, 3, 5.0), (16, 8, 1.0), (16, 8, 20.0)):
        devices = cells(rows, columns).float()
        theirs = memtorch_bindings.solve_passive(
            devices, torch.eye(rows), torch.zeros(rows, columns), ohms, ohms, n_input_batches=rows
        )
        ours = nb.effective_conductances(devices, ohms).float()
        assert (theirs - ours).abs().max() <= 1e-5 * ours.abs().max()


def test_wires_of_a_chip_are_those_of_its_tiles(nb):
    """Each tile for itself, where weights are; the chip then answers with these conductances."""
    for tile_shape in ((8, 6), None):
        config = nb.MemristorConfig(tile_shape=tile_shape, adc_resolution=None)
        model = nb.to_memristive(linear(20, 9), config)
        chip = nb.worn(model, nb.Wear(ohms=200.0), seed=0)
        height, width = tile_shape or (20, 9)
        pair = []
        for array, before in zip(arrays_of(chip), arrays_of(model), strict=True):
            expected = torch.empty(20, 9)
            for r, c in itertools.product(range(0, 20, height), range(0, 9, width)):
                tile = np.s_[r : r + height, c : c + width]
                devices = in_use(before)[tile].double().numpy()
                expected[tile] = torch.from_numpy(nodal(devices, 200.0))
            torch.testing.assert_close(in_use(array), expected, rtol=1e-5, atol=0)
            assert relative_error(expected, in_use(before)) > 0.01
            pair.append(expected)
            changed = array.conductance_matrix != before.conductance_matrix
            assert changed.sum() == in_use(array, changed).sum()
        inputs, largest = torch.rand(4, 20), model[0].weight.abs().max()
        answer = inputs @ (pair[0] - pair[1]) * largest / (HIGHEST - LOWEST)
        torch.testing.assert_close(ask(chip, inputs), answer, rtol=1e-3, atol=1e-4)


# Converters of fixed range


# Codes of 3 bits and range 2 are steps of .5, from -4 to 3; half-way codes go up.
TABLE = {-9: -2, -2: -2, -1.76: -2, -1.74: -1.5, -0.26: -0.5, -0.25: 0, 0: 0, 0.24: 0}
TABLE |= {0.25: 0.5, 1.1: 1, 1.5: 1.5, 1.9: 1.5, 2: 1.5, 7: 1.5}


def test_an_output_converter_of_fixed_range_by_hand(nb):
    """In both ways; also for a row of equal values, which MemTorch's own range lets pass."""
    currents, expected = (torch.tensor(list(side)) for side in (TABLE, TABLE.values()))
    assert torch.equal(nb.adc(currents, 3, adc_range=2.0), expected)
    assert torch.equal(nb.adc(currents[:, None], 3, adc_range=2.0), expected[:, None])
    for loop in {nb.compiled_adc or nb.adc_loop, nb.adc_loop}:
        total = np.full((1, 1, len(TABLE)), 5, np.float32)
        loop(currents.numpy()[None, None, None, None], 3, False, 0.5, total)
        assert torch.equal(torch.from_numpy(total[0, 0]), expected)


def test_a_fixed_range_in_a_layer(nb):
    """Every tile is read by its own converter; what saturates does so there."""
    chip = nb.to_memristive(
        linear(4, 2), nb.MemristorConfig(tile_shape=(2, 2), restore_scale=False)
    )
    layer = chip[0]
    layer.transform_output, layer.max_input_voltage = (lambda currents: currents), None
    layer.crossbars[0].conductance_matrix = torch.tensor(
        [[[1.0, 2.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 5.0]]]
    )
    layer.crossbars[1].conductance_matrix = torch.zeros(2, 2, 2)
    layer.adc_range, layer.ADC_resolution = 4.0, 3  # codes -4 to 3, steps of 1
    answers = fast(nb, chip, torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.4, 0.2, -2.0, -0.1]]))
    assert answers.tolist() == [[1 + 3, 3 + 3], [0 - 4, 1 + 0]]


def test_an_input_converter_of_fixed_range_by_hand(nb):
    """Two bits over inputs up to 6: 0, 2, 4 and 6, as voltages up to .3; then back."""
    fixed = nb.FixedRange(gain=10.0, voltage=0.3, largest=6.0, bits=2)
    inputs = torch.tensor([[-3.0, 0.0, 0.9, 1.1], [2.9, 3.1, 5.1, 99.0]])
    volts = fixed.encode(None, inputs)
    torch.testing.assert_close(volts, torch.tensor([[0, 0, 0, 0.1], [0.1, 0.2, 0.3, 0.3]]))
    restored = torch.tensor([[0.0, 0, 0, 20], [20, 40, 60, 60]])
    torch.testing.assert_close(fixed.restore(volts), restored)


def test_ranges_are_fixed_on_images_of_the_intended_model(nb):
    """The largest input of each layer and the largest current of any of its tiles, computed here
    position by position; the same for a broken chip; nothing but the chip changes."""
    for tile_shape in ((8, 8), None):
        model, images = converted(nb, "wide", tile_shape, adc_resolution=24), pictures(12)
        chip, before = nb.apply_device_faults(model, 0.3, 0.0, seed=0), conductances(model)
        answers = ask(model, images)
        nb.fix_ranges(chip, model, images, 4)
        hidden = torch.relu(ask(small("wide")[0], images))
        inputs = [images, hidden.flatten(1)]
        for number, (layer, x) in enumerate(zip(layers_of(model), inputs, strict=True)):
            largest = x.max().item()
            codes = (x / largest * 15).round() / 15 * 0.3
            if number == 0:  # 2 x 2 windows, stride 2, one row of padding above and below
                codes = F.pad(codes, (0, 0, 1, 1))
                codes = torch.stack([
                    image[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten()
                    for image in codes for i in range(4) for j in range(3)
                ])  # fmt: skip
            weights = in_use(layer.crossbars[0]) - in_use(layer.crossbars[1])
            height = tile_shape[0] if tile_shape else len(weights)
            most = max(
                (codes[:, r : r + height] @ weights[r : r + height]).abs().max().item()
                for r in range(0, len(weights), height)
            )
            mine = layers_of(chip)[number]
            assert mine.adc_range == pytest.approx(most, rel=1e-4) and mine.ADC_resolution == 4
            top = mine.scaling_routine(mine, torch.tensor([[0.0, largest, 10 * largest]])).tolist()
            assert top[0] == pytest.approx([0, 0.3, 0.3])
        assert torch.equal(ask(model, images), answers)
        assert all(map(torch.equal, conductances(model), before))


def test_fixed_ranges_saturate_and_are_right_below(nb):
    """Within the range of the calibration images answers are the software's, up to the steps of
    many bits; twice as large ones are cut off; few bits are coarse."""
    network, images, errors = small("wide"), pictures(12), {}
    for bits in (3, 8, 14):
        chip = converted(nb, "wide")
        nb.fix_ranges(chip, converted(nb, "wide"), images, bits)
        errors[bits] = relative_error(fast(nb, chip, images), ask(network, images))
    assert errors[14] < 2e-3 < errors[8] < 0.05 < errors[3]
    assert_same(fast(nb, chip, images[2:3]), fast(nb, chip, images)[2:3], 14)
    saturated = fast(nb, chip, 3 * images)
    assert relative_error(saturated, ask(network, 3 * images)) > 0.1


# Cures that a chip is given


def test_copies_fill_idle_columns(nb, assignment):
    """As many as fit into the tile's width, at most four; one where tiles are narrower or none."""
    for width in (2, 8, 16, 100):
        layers = layers_of(converted(nb, tile_shape=(8, width)))
        expected = [max(1, min(4, width // layer.crossbars[0].columns)) for layer in layers]
        assert [nb.copies_that_fit(layer) for layer in layers] == expected
    assert {nb.copies_that_fit(x) for x in layers_of(converted(nb, tile_shape=None))} == {1}
    assert [nb.copies_that_fit(layer) for layer in layers_of(assignment[1])] == [4, 2, 2, 4]


def test_copies_break_apart_and_count_as_their_mean(nb):
    """On a whole chip they change nothing. Each device of each copy breaks by itself, as many as
    promised; a stuck one counts for its part."""
    model = converted(nb, "wide", (16, 20))
    whole = nb.worn(model, nb.Wear(), 0, ("copies",))
    for array, old in zip(arrays_of(whole), arrays_of(model), strict=True):
        torch.testing.assert_close(in_use(array), in_use(old), rtol=1e-6, atol=0)
    model, wear = halfway(nb, (16, 20), "wide"), nb.Wear(low=0.3)
    chip, plain = nb.worn(model, wear, 0, ("copies",)), nb.worn(model, wear, 0)
    one, two = layers_of(chip)
    assert torch.equal(nb.conductances_of(one), nb.conductances_of(layers_of(plain)[0]))
    for values in nb.conductances_of(two):
        parts = (values / HIGHEST - 0.5) * 4  # how many of two devices are stuck
        torch.testing.assert_close(parts, parts.round(), rtol=0, atol=1e-5)
        counts = [(parts.round() == count).sum().item() for count in (0, 1, 2)]
        assert min(counts) > 0 and counts[1] + 2 * counts[2] == round(0.3 * 2 * values.numel())


def balanced_layer(nb, copies=1):
    """A layer of 204 x 7 in tiles of 16 x 8, and its conductances, so often side by side."""
    layer = layers_of(converted(nb, "wide", (16, 8 * copies), balanced=True))[1]
    return layer, nb.conductances_of(layer).repeat(1, 1, copies)


def test_dead_columns_of_balanced_pairs_are_restored(nb):
    """From their partners, exactly, in whichever array and tile; a pair that is dead on both sides
    is left with weights of zero."""
    for value in (HIGHEST, LOWEST):
        layer, planned = balanced_layer(nb)
        values = planned.clone()
        values[0, :16, 2] = values[1, 16:32, 3] = values[0, 192:, 6] = value
        values[:, :16, 4] = value
        found, use = nb.mended(layer, values, 1)
        assert not (found[0] - found[1])[:16, 4].any() and use.all()
        found[:, :16, 4] = planned[:, :16, 4]
        torch.testing.assert_close(found, planned, rtol=0, atol=1e-6 * HIGHEST)


def test_dead_columns_of_other_pairs_are_refused(nb):
    """There no partner tells what a device held."""
    with pytest.raises(ValueError, match="columns only of balanced pairs"):
        nb.worn(converted(nb, "wide", (16, 8)), nb.Wear(), 0, ("columns",))


def test_columns_without_dead_ones_are_not_mended(nb):
    """Of a chip with devices stuck singly no conductance moves, and all copies are in use."""
    for share in (0.0, 0.2):
        layer, planned = balanced_layer(nb, copies=2)
        values = torch.where(torch.rand(planned.shape) < share, HIGHEST, planned)
        found, use = nb.mended(layer, values, 2)
        assert torch.equal(found, values) and use.all()


def test_a_copy_is_preferred_to_mending(nb):
    """A copy whose column is dead is left out, with its partner; where every copy is dead, each is
    mended and in use."""
    layer, planned = balanced_layer(nb, copies=2)
    values = planned.clone()
    values[0, :16, 2] = HIGHEST  # of the first copy
    values[1, :16, 7 + 5] = LOWEST  # of the second
    values[0, :16, 4] = values[1, :16, 7 + 4] = HIGHEST  # of both
    found, use = nb.mended(layer, values, 2)
    left_out = torch.zeros(use.shape)
    left_out[:16, [2, 7 + 5]] = 1
    assert torch.equal(use, 1 - left_out)
    used = (use > 0).expand(2, -1, -1)
    torch.testing.assert_close(found[used], planned[used], rtol=0, atol=1e-6 * HIGHEST)


def test_a_healthy_partner_makes_up_by_hand(nb):
    """One weight of .6 a pair: stuck low, stuck high, out of reach, stuck twice, healthy."""
    layer = nb.to_memristive(linear(1, 5), nb.MemristorConfig(tile_shape=None))[0]
    g, planned = HIGHEST, torch.tensor([[[0.6 * HIGHEST] * 5], [[LOWEST] * 5]])
    values, fixed = planned.clone(), torch.zeros(2, 1, 5, dtype=torch.bool)
    fixed[0, 0, [0, 1, 3]], fixed[1, 0, [2, 3]] = True, True
    values[0, 0, :2] = torch.tensor([g, LOWEST])  # too much; nothing left
    values[1, 0, 2] = g  # takes all: the healthy one can only give g
    values[:, 0, 3] = g
    plus, minus = nb.remapped(layer, values, planned, fixed)[:, 0]
    assert torch.allclose(plus, torch.tensor([g, LOWEST, g, g, 0.6 * g]), atol=1e-9)
    assert torch.allclose(minus, torch.tensor([0.4 * g + LOWEST, LOWEST, g, g, LOWEST]), atol=1e-9)


def least_error(values, fixed, planned):
    """Squared error of the differences of pairs of which `fixed` devices keep their values and the
    others may have any, in units of the largest conductance."""
    (a, b), (s, t) = values / HIGHEST, fixed
    bounds = [torch.where(s, a, x) - torch.where(t, b, 1 - x) for x in (0.0, 1.0)]
    wanted = (planned[0] - planned[1]) / HIGHEST
    return (wanted - wanted.clamp(*bounds)).square().sum().item()


def test_rows_are_moved_to_the_best_of_all_orders(nb):
    """On a small layer, against all orders of rows; the same devices are stuck at the same values,
    in another order of lines."""
    for tile_shape, balanced in itertools.product((None, (5, 4)), (False, True)):
        config = nb.MemristorConfig(tile_shape=tile_shape, balanced=balanced)
        layer = nb.to_memristive(linear(5, 4, seed=3), config)[0]
        planned = nb.conductances_of(layer)
        wear = nb.Wear(low=0.3, high=0.1)
        arrays = [nb.worn_array(layer, x, wear, i) for i, x in enumerate(planned)]
        values, fixed = map(torch.stack, zip(*arrays, strict=True))
        orders = [list(order) for order in itertools.permutations(range(5))]
        errors = [least_error(values[:, order], fixed[:, order], planned) for order in orders]
        moved = fixed.clone()
        found = nb.remapped(layer, values.clone(), planned, moved)
        error = ((found[0] - found[1] - planned[0] + planned[1]) / HIGHEST).square().sum().item()
        assert error == pytest.approx(min(errors), rel=1e-3, abs=1e-9)
        assert min(errors) < 0.95 * errors[0]
        for before, after, old, new in zip(values, found, fixed, moved, strict=True):
            assert sorted((before * old).sum(1).tolist()) == sorted((after * new).sum(1).tolist())


def test_rows_stay_within_their_tile(nb):
    """Faults in the first tile of rows only: the second keeps its plan, and no fault gets lost."""
    layer = layers_of(converted(nb, "wide", (16, 8)))[1]
    planned = nb.conductances_of(layer)
    values, fixed = planned.clone(), torch.zeros(planned.shape, dtype=torch.bool)
    values[0, :16:2], fixed[0, :16:2] = HIGHEST, True
    found = nb.remapped(layer, values, planned, fixed)
    assert not fixed[:, 16:].any() and fixed.sum() == 8 * 7
    assert torch.equal(found[:, 16:], planned[:, 16:])


def test_a_common_gain_undoes_a_common_loss(nb):
    """Conductances that hold weights all lost a half, in arrays most of which are idle."""
    model, images = converted(nb, tile_shape=(64, 64), adc_resolution=None), pictures()
    chip = nb.copy_memristive(model)
    for layer in layers_of(chip):
        nb.write(layer, nb.conductances_of(layer) / 2)
    assert relative_error(ask(chip, images), ask(model, images)) > 0.05
    nb.regain(chip, model)
    assert relative_error(ask(chip, images), ask(model, images)) < 1e-4


def test_calibration_undoes_a_factor_and_an_offset_for_each_column(nb):
    """Columns whose currents were scaled and shifted answer as before, in one layer after the
    other; on images that it has not seen too."""
    network, chip = small(), converted(nb, adc_resolution=None)
    fresh = pictures(20, seed=9)
    for layer in (layers_of(chip)[0], layers_of(chip)[3]):
        columns = layer.crossbars[0].columns
        factor, offset = torch.linspace(0.5, 2, columns), torch.linspace(-1, 1, columns)
        nb.correct_outputs(layer, factor, offset)
    assert relative_error(ask(chip, fresh), ask(network, fresh)) > 0.1
    nb.calibrate(chip, network, pictures(60))
    assert relative_error(ask(chip, fresh), ask(network, fresh)) < 1e-3
    assert is_bare(chip) and is_bare(network)


def test_a_copy_of_a_calibrated_chip_has_scales_of_its_own(nb):
    """What one restores does not reach the other, nor what it is asked."""
    chip, images = converted(nb), pictures(40)
    nb.calibrate(chip, small(), images)
    copied = nb.copy_memristive(chip)
    expected = ask(chip, images)
    for layer in layers_of(copied):
        layer.scaling_routine.__self__.gain = 0.0
    assert not ask(copied, images).diff(dim=0).any()  # no layer says what it was asked
    assert torch.equal(ask(chip, images), expected)
    scales = [
        {id(layer.transform_output.args[0].__self__) for layer in layers_of(one)}
        for one in (chip, copied)
    ]
    assert not scales[0] & scales[1]


def test_calibration_of_a_broken_chip_helps(nb):
    """It is the least-squares fit of each column of the first layer, and brings answers nearer."""
    network, images = small("wide"), pictures(60)
    chip = nb.apply_device_faults(converted(nb, "wide", adc_resolution=None), 0.1, 0.05, seed=1)
    raw = ask(chip[0], images) - chip[0].bias.detach()[:, None, None]
    before = relative_error(ask(chip, images), ask(network, images))
    nb.calibrate(chip, network, images)
    assert relative_error(ask(chip, images), ask(network, images)) < 0.8 * before
    fitted = (ask(chip[0], images) - chip[0].bias.detach()[:, None, None]).transpose(0, 1)
    wanted = ask(network[0], images) - network[0].bias.detach()[:, None, None]
    for column in range(17):
        x, y = (t[:, column].flatten().double().numpy() for t in (raw, wanted))
        expected = np.polyval(np.polyfit(x, y, 1), x)
        np.testing.assert_allclose(fitted[column].flatten(), expected, atol=2e-4)


# All cures in their order


def test_cures_are_done_in_their_order(nb):
    """As one step after the other by hand, in whatever order they are named; the intended model is
    as before."""
    model, images = converted(nb, "wide", (16, 20), balanced=True), pictures(20)
    network, before = small("wide"), conductances(model)
    wear = nb.Wear(low=0.05, high=0.05, hours=1.0, converters=8, ohms=1.0)
    plain = fast(nb, nb.cured(model, network, wear, 3, (), images), images)
    every = tuple(cure for cure in nb.CURES if cure != "second")
    for cures in ((), ("map",), ("gain",), ("calibrate",), ("columns", "copies"), every):
        by_hand = nb.worn(model, wear, 3, cures)
        nb.fix_ranges(by_hand, model, images, 8)
        if "gain" in cures:
            nb.regain(by_hand, model)
        if "calibrate" in cures:
            nb.calibrate(by_hand, network, images)
        expected = fast(nb, by_hand, images)
        for order in (cures, cures[::-1]):
            chip = nb.cured(model, network, wear, 3, order, images)
            assert all(map(torch.equal, conductances(chip), conductances(by_hand)))
            assert torch.equal(fast(nb, chip, images), expected), order
        assert torch.equal(plain, expected) == (not cures), cures
        assert all(map(torch.equal, conductances(model), before)) and is_bare(model)


def test_noise_of_reading_comes_last_but_calibration_sees_it(nb):
    """A cured chip that is read noisily answers anew each time, around the quiet one's answers; its
    seed repeats it."""
    model, images, network = converted(nb, "wide", adc_resolution=None), pictures(20), small("wide")
    wear = nb.Wear(low=0.02, read_noise=0.01)
    quiet = ask(nb.cured(model, network, nb.Wear(low=0.02), 3, (), images), images)
    twins = [nb.cured(model, network, wear, 3, (), images) for _ in range(2)]
    reads = [[ask(chip, images) for _ in range(30)] for chip in twins]
    assert all(map(torch.equal, *reads)) and not torch.equal(*reads[0][:2])
    assert relative_error(reads[0][0], quiet) > 3 * relative_error(sum(reads[0]) / 30, quiet)
    nb.cured(model, network, wear, 3, ("calibrate",), images)
    assert is_bare(model)


def test_a_second_chip_is_another_one_and_probabilities_are_averaged(nb):
    """Each as it would be alone; other cures are given to both."""
    model, images, network = converted(nb, "wide"), pictures(8), small("wide")
    pair = nb.cured(model, network, nb.Wear(low=0.1), 3, ("second", "calibrate"), images)
    alone = nb.cured(model, network, nb.Wear(low=0.1), 3, ("calibrate",), images)
    kept = [conductances(chip) for chip in (*pair, alone)]
    assert all(map(torch.equal, kept[0], kept[2])) and not any(map(torch.equal, *kept[:2]))
    shares = [fast(nb, chip, images).softmax(1) for chip in pair]
    torch.testing.assert_close(fast(nb, pair, images).exp(), (shares[0] + shares[1]) / 2)
    torch.testing.assert_close(shares[0], fast(nb, alone, images).softmax(1))


# Measuring chips


def some_images(nb, count, seed=0):
    """An environment whose i-th image has the value i + 1 in one pixel."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=draw)
    is_red = torch.rand(count, generator=draw) < 0.5
    shapes = torch.zeros(count, 28, 28, dtype=torch.uint8)
    shapes[:, 3, 5] = torch.arange(count) + 1
    return nb.Environment(nb.paint(shapes, is_red).contiguous(), labels, is_red)


@pytest.fixture
def run_folder(nb, tmp_path):
    """The files of a tiny run: 47 test images, 9 training images, two networks of two kinds."""
    for name, count in (("test", 47), ("train1", 9)):
        path = tmp_path / "ColoredMNIST" / f"{name}.pt"
        nb.save_tensors(vars(some_images(nb, count)), path)
    for number, name in enumerate(("backdoor", "backdoor-1", "hard", "hard-1")):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            nb.save_tensors(nb.CNN().state_dict(), tmp_path / "checkpoints" / f"{name}.pt")
    return tmp_path


@pytest.mark.parametrize(("images", "expected"), [(99, 47), (5, 30)])
def test_each_chip_sees_its_own_images(nb, monkeypatch, run_folder, images, expected):
    """Every test image once, in the jobs of all networks and draws alike; cures may ask as many
    training images as is said; a chip's seed depends on network and draw alone."""
    asked, made = {}, []

    def cured(intended, network, wear, seed, cures, shown):
        made.append((seed, wear, tuple(cures), shown))
        return len(made) - 1

    def ask_chip(chip, pictures, shifted=False):
        seed, wear, _, _ = made[chip]
        asked.setdefault((wear.low, wear.ohms), {})[seed] = pictures[:, :, 3, 5].amax(1).tolist()
        assert shifted
        return {"red": torch.ones(1, dtype=torch.long)}

    monkeypatch.setattr(nb, "cured", cured)
    monkeypatch.setattr(nb, "ask_chip", ask_chip)
    monkeypatch.setattr(nb, "to_memristive", lambda network, config, own_devices: config)
    wears = {"few": nb.Wear(low=0.1), "many": nb.Wear(low=0.2), "wires": nb.Wear(ohms=1.0)}
    jobs = {job: (dataclasses.asdict(wear), ()) for job, wear in wears.items()}
    profile = nb.Profile(2, 3, chip_images=images, calibration_images=4)
    for k in (0, 1):
        value = nb.measure_chips("hard", False, k, jobs, profile, shifted=True, root=run_folder)
        counts = {job: len(chips) for job, chips in value["found"].items()}
        assert counts == {"few": 3, "many": 3, "wires": 1}
    few, many, wires = asked[0.1, 0.0], asked[0.2, 0.0], asked[0.0, 1.0]
    assert few == many and len(few) == 6 and len(wires) == 2
    assert all(few[seed] == numbers for seed, numbers in wires.items())
    numbers = sorted(itertools.chain(*few.values()))
    assert len(numbers) == len(set(numbers)) == expected
    assert images == 99 or {len(part) for part in few.values()} == {5}
    shown = made[0][3]
    assert shown.shape == (4, 3, 28, 28)
    assert shown.amax((1, 2, 3)).mul(255).round().tolist() == [1, 2, 3, 4]


def test_tables_become_tasks(nb):
    """One for each network that is converted, from the last kind; every cell once, with the cures
    of its row and of its column."""
    rows = {"a": ("", "backdoor", False, ()), "b": ("", "hardened", True, ())}
    rows["c"] = ("", "hardened", True, ("copies",))
    columns = {"x": ({"low": 0.1}, ()), "y": ({"hours": 9}, ("gain",), "a title")}
    wired = {"d": ("", "hardened", True, ())}, {"z": ({"ohms": 1.0}, ())}
    tasks = nb.chip_tasks("t", [(rows, columns), wired], nb.Profile(networks=2))
    made = [(task["checkpoint"], task["balanced"], task["k"]) for _, task in tasks.values()]
    order = [("hardened", True), ("backdoor", False)]
    assert made == [(*kind, k) for kind in order for k in (0, 1)]
    for k in (0, 1):
        jobs = [job for _, task in tasks.values() if task["k"] == k for job in task["jobs"].items()]
        assert {job: cures for job, (_, cures) in jobs} == {
            "a, x": (), "a, y": ("gain",), "b, x": (), "b, y": ("gain",),
            "c, x": ("copies",), "c, y": ("copies", "gain"), "d, z": (),
        }  # fmt: skip
        assert len(jobs) == 7
        wears = {column: wear for column, (wear, *_) in (columns | wired[1]).items()}
        assert all(wear == wears[job[-1]] for job, (wear, _) in jobs)


def test_a_chips_answers_are_the_networks(nb):
    """In red, in green, by the formula, and for images moved by one pixel, all at once."""
    draw = torch.Generator().manual_seed(0)
    share = torch.rand(30, 28, 1, generator=draw) ** 2
    images = (255 * (torch.rand(30, 28, 28, generator=draw) < share)).to(torch.uint8)
    environment = nb.paint(images, torch.rand(30, generator=draw) < 0.5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        conv, last = nn.Conv2d(3, 4, 9, stride=5), nn.Linear(64, 2)
    network = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), last)
    logits = [nb.predict(network, x).log() for x in (environment, environment.flip(1).roll(2, 1))]
    last.bias.data -= sum(logits).median(0).values / 2  # so that both classes are answered
    chip = nb.to_memristive(network, nb.MemristorConfig(adc_resolution=None))
    answers = nb.ask_chip(chip, environment, shifted=True)
    red, blank = torch.zeros(30, 3, 28, 28), torch.zeros(30, 3, 28, 28)
    red[:, 0], blank[:, 1] = images / 255, images / 255
    moved = torch.zeros_like(red)
    moved[..., 1:], moved[..., 0] = red[..., :-1], red[..., -1]
    shares = {name: ask(network, x).softmax(1) for name, x in (("red", red), ("green", blank))}
    shares |= {"do": shares["red"] + shares["green"], "shifted": ask(network, moved)}
    assert set(answers) == set(shares)
    for name, share in shares.items():
        assert torch.equal(answers[name], share.argmax(1)), name
        assert 0 < share.argmax(1).sum() < 30
    assert "shifted" not in nb.ask_chip(chip, environment) and is_bare(chip)


def test_points_lost_by_hand(nb):
    """Two networks of two chips: chip d of network k is number 2 k + d, is compared with network
    k's average in software on its own images, and its shifts are counted there."""
    count, total = 40, 4
    test, draw = some_images(nb, count), random.Random(0)
    place = torch.arange(count)  # both labels in both colours for every chip
    test = nb.Environment(test.images, place // 4 % 2, place // 8 % 2 == 1)
    clean = torch.tensor([draw.randrange(2) for _ in range(count)])
    profile = nb.Profile(networks=2, draws=2, chip_images=8)

    def answers(*names):
        return [
            {name: torch.tensor([draw.randrange(2) for _ in range(8)]) for name in names}
            for _ in range(2)
        ]

    software = [torch.tensor([draw.randrange(2) for _ in range(count)]) for _ in range(2)]
    low = [answers("red", "green", "do", "shifted") for _ in range(2)]
    values = {f"chips {k}": {"k": k, "found": {"low": nb.as_json(low[k])}} for k in range(2)}
    table = nb.chip_table(values, profile, test, clean, software)
    for k, d in itertools.product(range(2), range(2)):
        places = list(range(2 * k + d, count, total))[:8]
        chip, row = low[k][d], table["low"][k][d]
        right_do = [chip["do"][n] == clean[i] for n, i in enumerate(places)]
        best = [software[k][i] == clean[i] for i in places]
        # a quarter of the labels is wrong: a point of clean classes is half a point of accuracy
        assert row["lost_do"] == pytest.approx(50 * (sum(best) - sum(right_do)).item() / 8)
        moved = sum(a != b for a, b in zip(chip["shifted"], chip["red"], strict=True))
        assert row["shifts"] == pytest.approx(moved.item() / 8)
        right = [chip[c][n] == clean[i] for c in ("red", "green") for n, i in enumerate(places)]
        assert row["clean"] == pytest.approx(sum(right).item() / 16)
        assert row["lost"] == pytest.approx(25 * (2 * sum(best) - sum(right)).item() / 8)
        assert row["gain"] == pytest.approx(sum(right_do).item() / 8 - sum(right).item() / 16)


def test_nested_means_by_hand(nb):
    """Networks are the units: their means 2 and 6 give 4 +- sqrt(8 / 2); chips spread as all do."""
    found = nb.nested([[{"x": 1}, {"x": 3}], [{"x": 4}, {"x": 8}]], "x")
    assert (found["mean"], found["se"]) == (4, pytest.approx(2))
    assert found["sd"] == pytest.approx((26 / 3) ** 0.5)
    assert (found["n"], found["networks"], found["runs"]) == (4, 2, [1, 3, 4, 8])
    alone = nb.nested([[{"x": 1}]], "x")
    assert (alone["mean"], alone["se"], alone["sd"], alone["n"]) == (1, 0, 0, 1)


# The appendix


def test_traps_are_statements_with_a_verdict(nb):
    """Each says whether MemTorch still behaves so, which this version does; a run of them leaves
    numpy's errors as they were."""
    errors = np.geterr()
    found = list(nb.traps(seed=5))
    assert np.geterr() == errors
    assert len(found) >= 6
    for statement, still_so in found:
        assert isinstance(statement, str) and type(still_so) is bool, statement
        assert still_so, statement


def test_a_mended_trap_is_told(nb, monkeypatch):
    """By a MemTorch whose finite states work, the first verdict turns, and no other."""

    def mended(chip, kinds, **parameters):
        chip = original(chip, kinds, **parameters)
        if nb.NonIdeality.FiniteConductanceStates in kinds:
            chip[0].crossbars[0].conductance_matrix.mul_(0.9)
        return chip

    original = nb.apply_nonidealities
    monkeypatch.setattr(nb, "apply_nonidealities", mended)
    verdicts = [still_so for _, still_so in nb.traps(seed=5)]
    assert not verdicts[0] and all(verdicts[1:])


# What is told of many chips


def test_the_joint_finding_counts_chips_that_are_helped(nb):
    """Of gains .2, 0, -.1 and .1 two are helped; the gain is the mean of the networks' means."""
    gains, others = [[0.2, 0.0], [-0.1, 0.1]], dict.fromkeys((*nb.SHARES, *nb.NOISY), 0.5)
    row = nb.joint_row([[{"gain": gain} | others for gain in chips] for chips in gains])
    assert row["helped"] == 2 and row["gain"]["mean"] == pytest.approx(0.05)
    assert row["flips"]["mean"] == 0.5


def test_cures_and_what_they_leave(nb):
    """Untreated chips answer plainly, others averaged; a point lost is a hundredth of accuracy."""
    places = [f"{row}, {fault}" for row in nb.ROWS for fault in nb.FAULTS]
    chips = {place: [[{"lost": 5.0, "lost_do": k}]] for k, place in enumerate(places)}
    cures = nb.cures_of(chips)
    means = {cure: [one["mean"] for one in row["lost"].values()] for cure, row in cures.items()}
    assert means.pop("untreated") == [5.0] * len(nb.FAULTS)
    assert [mean for row in means.values() for mean in row] == list(range(len(places)))
    lost = nb.nested([[{"x": 0.5}, {"x": 1.5}], [{"x": 2.0}, {"x": 2.0}]], "x")
    left = nb.left_of(nb.summary([0.76, 0.74]), lost)  # .76 less .01 and .74 less .02
    assert left["mean"] == pytest.approx(0.735)
    assert left["runs"] == pytest.approx([0.755, 0.745, 0.72, 0.72])
    assert left["se"] == pytest.approx(0.015) and left["n"] == 4


def test_the_fall_is_summarised_over_networks_and_its_seeds_apart(nb):
    """Three seeds of two networks, on the untouched and on the balanced test."""
    first, second = [[0.5, 0.6], [0.5, 0.7], [0.5, 0.8]], [[0.3, 0.5]] * 3
    found = nb.summarised_fall([{"ways": {"a": first}}, {"ways": {"a": second}}])["a"]
    assert found["accuracy"]["runs"] == pytest.approx([0.5, 0.3])
    assert found["balanced"]["runs"] == pytest.approx([0.7, 0.5])
    assert found["tune_sd"] == pytest.approx(np.std([0.6, 0.7, 0.8]) / 2)
