"""Training, selection, measures and what is kept on disk."""

import json

import memtorch
import pytest
import torch


def small(nb, n=64, seed=0):
    """An environment of n random pictures with every (label, colour) cell filled."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    is_red = torch.arange(n) % 3 == 0
    shapes = torch.randint(0, 256, (n, 28, 28), generator=random, dtype=torch.uint8)
    return nb.Environment(nb.paint(shapes, is_red), labels, is_red)


class Unreadable:
    """An environment that must not be read."""

    def __getattr__(self, name):
        raise AssertionError(f"the test environment was read: .{name}")


def recipe(nb, **changes):
    """A recipe of a single short epoch."""
    return nb.Recipe(**{"images": 64, "epochs": 1, "batch_size": 16} | changes)


# The sample's stratification


def test_repetition_worked_by_hand(nb):
    """Red: labels 0 0 0 1, so the 1 appears three times; green: 0 1 1 1 1 1, the 0 five times."""
    labels = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1, 1, 1])
    is_red = torch.tensor([True] * 4 + [False] * 6)
    indices = nb.repeated_within_colour(labels, is_red)
    expected = [0, 1, 2, 3, 3, 3, 4, 4, 4, 4, 4, 5, 6, 7, 8, 9]
    assert sorted(indices.tolist()) == expected


def test_repetition_takes_turns(nb):
    """Of the rarer label every image is repeated before any is repeated once more."""
    labels = torch.tensor([0] * 5 + [1] * 2 + [0, 1])
    is_red = torch.tensor([True] * 7 + [False] * 2)
    counts = torch.bincount(nb.repeated_within_colour(labels, is_red), minlength=9)
    assert counts.tolist() == [1, 1, 1, 1, 1, 3, 2, 1, 1]


def test_repetition_needs_both_labels(nb):
    """A colour with one label only cannot be balanced."""
    with pytest.raises(ValueError, match="one label"):
        nb.repeated_within_colour(torch.tensor([0, 0, 1]), torch.tensor([True, True, False]))


# Training


@pytest.mark.parametrize("adjustment", ["none", "weights", "repetition"])
@pytest.mark.parametrize("noise_aware", [False, True])
def test_training_is_seeded_and_leaves_the_generators_alone(nb, adjustment, noise_aware):
    """The same seed gives the same network bit for bit, another seed another one."""
    environments = {"train1": small(nb, seed=1), "train2": small(nb, seed=2)}
    chosen = recipe(nb, adjustment=adjustment, noise_aware=noise_aware)
    before = torch.get_rng_state()
    first, again, other = (nb.train(chosen, environments, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs)


def test_training_does_not_read_the_test(nb):
    """Neither training nor the choice of a recipe touches the test environment."""
    environments = {"train1": small(nb, seed=1), "train2": small(nb, seed=2)}
    environments["test"] = Unreadable()
    with pytest.raises(AssertionError, match="test environment was read"):
        nb.train(recipe(nb, environments=("train1", "test")), environments, 0)
    larger, held_out = nb.hold_out(environments, 0.25, seed=0)
    assert set(larger) == {"train1", "train2"} and len(held_out) == 32
    nb.train(recipe(nb), larger | {"test": Unreadable()}, 0)


def test_choosing_works_without_a_test_file(nb, tmp_path):
    """The recipe is chosen with only the training files on the disk."""
    for name in ("train1", "train2"):
        path = tmp_path / "ColoredMNIST" / f"{name}.pt"
        nb.save_environment(small(nb, 400, seed=3), path, seed=0)
    score = nb.try_recipe("try", recipe(nb, images=400), 0, {}, tmp_path)["accuracy"]
    assert 0 <= score <= 1


def test_held_out_images_are_not_trained_on(nb):
    """The two parts are disjoint and together everything."""
    environments = {"train1": small(nb, seed=1), "train2": small(nb, seed=2)}
    larger, held_out = nb.hold_out(environments, 0.25, seed=0)

    def keys(environment):
        return {bytes(image.flatten().tolist()) for image in environment.images}

    kept = keys(larger["train1"]) | keys(larger["train2"])
    assert not kept & keys(held_out)
    assert kept | keys(held_out) == keys(environments["train1"]) | keys(environments["train2"])


def test_noise_aware_loss_by_hand(nb):
    """P(noisy label 1) = .25 * .2 + .75 * .8 = .65 for a clean probability of .8."""
    logits = torch.tensor([[0.2, 0.8]]).log()
    loss = nb.label_loss(logits, torch.tensor([1]), noise_aware=True)
    torch.testing.assert_close(loss.exp(), torch.tensor([1 / 0.65]))
    loss = nb.label_loss(logits, torch.tensor([1]), noise_aware=False)
    torch.testing.assert_close(loss.exp(), torch.tensor([1 / 0.8]))


def test_sample_network_sees_pixels_up_to_255(nb):
    """The sample's network on [0, 1] is the assignment's on 0..255."""
    sample, plain = nb.SampleCNN().eval(), nb.CNN().eval()
    plain.load_state_dict(sample.state_dict())
    images = torch.rand(4, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(sample(images), plain(images * 255))


# Kept on disk


def test_cache_believes_only_what_matches(nb, tmp_path):
    """Reused if made from the same; computed again if outdated, damaged or foreign."""
    path, calls = tmp_path / "a" / "value.json", []

    def compute():
        calls.append(1)
        return {"x": len(calls)}

    assert nb.cached(path, {"k": (1, 2)}, compute) == {"x": 1}
    assert nb.cached(path, {"k": (1, 2)}, compute) == {"x": 1}
    assert nb.cached(path, {"k": (1, 3)}, compute) == {"x": 2}
    for content in ("", '{"made_from', "[1]", "{}", "null"):
        path.write_text(content)
        count = len(calls)
        nb.cached(path, {"k": (1, 3)}, compute)
        assert len(calls) == count + 1
    assert [file.name for file in path.parent.iterdir()] == ["value.json"]


def test_network_is_reused_unless_its_recipe_or_file_changes(nb, tmp_path):
    """A finished checkpoint is kept; another recipe or a damaged file is trained anew."""
    for name in ("train1", "train2"):
        nb.save_environment(small(nb), tmp_path / "ColoredMNIST" / f"{name}.pt", seed=0)
    path = tmp_path / "checkpoints" / "net.pt"

    def train(**changes):
        return nb.train_network("net", recipe(nb, **changes), 0, {}, tmp_path)

    first = train()
    written = path.stat().st_mtime_ns
    assert train() == first and path.stat().st_mtime_ns == written
    state = torch.load(path, weights_only=True)
    nb.CNN().load_state_dict(state)
    path.write_bytes(path.read_bytes()[:-100])
    assert train() == first
    assert all(torch.equal(torch.load(path, weights_only=True)[k], v) for k, v in state.items())
    assert train(learning_rate=1e-4)["sha256"] != first["sha256"]
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"net.pt", "net.json"}


def test_interrupted_write_leaves_the_old_file(nb, tmp_path):
    """A failing block changes nothing and leaves no temporary file."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), nb.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# Measures


def test_measures_worked_by_hand(nb):
    """Four images; the predictions as classes: red 0 1 0 1, green 0 0 1 1."""
    labels = torch.tensor([0, 0, 1, 1])
    is_red = torch.tensor([True, False, True, False])
    environment = nb.Environment(torch.zeros(4, 3, 28, 28, dtype=torch.uint8), labels, is_red)
    p = {0: [0.9, 0.1], 1: [0.2, 0.8]}
    red = torch.tensor([p[0], p[1], p[0], p[1]])
    green = torch.tensor([p[0], p[0], p[1], p[1]])
    measured = nb.measure(red, green, environment, p_red=0.5)
    assert measured["accuracy"] == 3 / 4  # 0 0 0 1 in their own colours
    # averages: .9, (.2 + .9)/2 = .55, .55, .2 for class 0, so classes 0 0 0 1
    assert measured["accuracy_do"] == 3 / 4
    assert measured["flips"] == 2 / 4
    assert measured["pull"] == 0
    assert measured["agree"] == 3 / 4  # 0s red: 0 1; 1s green: 1 1
    assert measured["disagree"] == 3 / 4  # 0s green: 0 0; 1s red: 0 1
    measured = nb.measure(red, green, environment, p_red=1.0)
    assert measured["accuracy_do"] == 2 / 4  # classes 0 1 0 1


def test_pull_has_a_sign(nb):
    """Calling red 0 and green 1 is the training shortcut: pull 1; the reverse: -1."""
    environment = small(nb)
    zero, one = torch.tensor([[1.0, 0.0]] * 64), torch.tensor([[0.0, 1.0]] * 64)
    assert nb.measure(zero, one, environment)["pull"] == 1
    assert nb.measure(one, zero, environment)["pull"] == -1


def test_accuracy_over_colour_noise_mixes_agree_and_disagree(nb):
    """On images painted with noise e, accuracy is (1 - e) agree + e disagree in expectation."""
    environment, e = small(nb, 4000), 0.3
    shapes = environment.images.amax(1)
    torch.manual_seed(0)
    network = nb.CNN().eval()
    with torch.no_grad():  # make it look at the colour
        network.conv1.weight[:, 0] *= 3
    measured = nb.evaluate(network, environment)
    flips = torch.rand(4000, generator=torch.Generator().manual_seed(1)) < e
    painted = nb.paint(shapes, (environment.labels == 0) ^ flips)
    found = nb.accuracy(nb.predict(network, painted), environment.labels)
    expected = (1 - e) * measured["agree"] + e * measured["disagree"]
    assert abs(found - expected) < 5 * (0.25 / 4000) ** 0.5


def test_summary_is_sample_statistics(nb):
    """Mean 2, sample standard deviation 1, count 3."""
    assert nb.summary([1, 2, 3]) == {"mean": 2.0, "sd": 1.0, "n": 3, "runs": [1.0, 2.0, 3.0]}


def test_results_hold_no_unpublishable_number(nb):
    """A single run has a spread that JSON can write."""
    json.dumps(nb.summary([0.5]), allow_nan=False)


# The ADC


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("overflow", [0.0, 0.1, 0.5, 1.0])
def test_adc_is_memtorchs_quantiser(nb, bits, overflow):
    """Row by row the same numbers as MemTorch's compiled quantiser, powers of two included."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 9, generator=random) * torch.logspace(-12, 3, 40)[:, None]
    rows[0], rows[1], rows[2] = 0, 0.37, torch.arange(9) - 4.0
    just_above = torch.nextafter(torch.tensor(2.0**-9), torch.tensor(1.0))
    rows[3] = torch.linspace(0, 1, 9) * just_above
    rows[4] = torch.linspace(-1, 1, 9) * 2.0**-7
    expected = torch.stack(
        [
            memtorch.bh.Quantize.quantize(
                row, quant=bits, overflow_rate=overflow, quant_method="linear"
            )
            for row in rows
        ]
    )
    assert torch.equal(nb.adc(rows, bits, overflow), expected)


@pytest.mark.parametrize("beside_zeros", [False, True])
def test_compiled_adc_is_the_plain_one(nb, beside_zeros):
    """The loop that numba compiles, as Python and compiled, adds what `adc` returns."""
    currents = torch.randn(50, 2, 7, generator=torch.Generator().manual_seed(0)) * 1e-3
    currents[0], currents[1] = 0, 2e-4
    expected = 1.0 + nb.adc(currents, 6, 0.0, beside_zeros)[..., :5]
    for loop in (nb.add_adc_loop, nb.compiled_adc):
        total = torch.ones(50, 2, 5)
        loop(currents.numpy(), 6, beside_zeros, total.numpy())
        assert torch.equal(total, expected)
