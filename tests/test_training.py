"""Strata, methods, the training step against plain loops, self-training, choices and measures, and
what is kept of a run."""

import ast
import contextlib
import copy
import itertools
import json
import math
import random as python_random
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import NOTEBOOK, rng_states
from torch.overrides import TorchFunctionMode

from tools.definitions import load_notebook

METHODS = (
    "erm repetition strata ipw group_dro irm vrex recolouring grayscale strata_shuffled strata_coin"
).split()


def small(nb, n=64, seed=0):
    """An environment of n random pictures in which colour tells the label in four of five cases."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    is_red = (labels == 0) ^ (torch.rand(n, generator=random) < 0.2)
    is_red[:4] = torch.tensor([True, True, False, False])  # no stratum is empty
    shapes = torch.randint(0, 256, (n, 28, 28), generator=random, dtype=torch.uint8)
    return nb.Environment(nb.paint(shapes, is_red), labels, is_red)


def pair(nb, n=64, seed=0):
    """Both training environments."""
    return {"train1": small(nb, n, 2 * seed + 1), "train2": small(nb, n, 2 * seed + 2)}


class Unreadable:
    """An environment that must not be read."""

    def __getattr__(self, name):
        raise AssertionError(f"the test environment was read: .{name}")

    def __len__(self):
        raise AssertionError("the test environment was read: its length")


def recipe(nb, **changes):
    """A recipe of a few small steps."""
    return nb.Recipe(**{"images": 64, "examples": 64, "batch_size": 16} | changes)


def trained(nb, chosen, environments, seed=0, **given):
    """One network of a recipe, and its losses."""
    given = {name: [value] for name, value in given.items()}
    (network,), losses = nb.train(chosen, [environments], [seed], device="cpu", **given)
    return network, losses


def far(a, b):
    """The largest difference between the weights of two networks."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max((p - q).abs().max().item() for p, q in pairs)


@pytest.fixture
def single(nb, monkeypatch):
    """Single precision, so that other orders of computing agree to rounding."""
    monkeypatch.setattr(nb, "HALF", False)


# Strata


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
    with pytest.raises(ValueError, match="one label"):
        nb.repeated_within_colour(torch.tensor([0, 0, 1]), torch.tensor([True, True, False]))


def test_images_are_drawn_as_often_as_they_weigh(nb):
    """Weights of mean 1.25: an image of weight w occurs w / 1.25 times, rounded up or down, on the
    average exactly; as many are drawn as there are; another draw gives another order."""
    weights = torch.tensor([0.25, 1.0, 1.25, 2.5] * 50)
    random, draws = torch.Generator().manual_seed(0), []
    for _ in range(200):
        indices = nb.drawn_by_weight(weights, random)
        assert abs(len(indices) - 200) <= 1
        draws.append(torch.bincount(indices, minlength=200))
    counts = torch.stack(draws).double()
    expected = (weights / 1.25).double()
    assert ((counts >= expected.floor()) & (counts <= expected.ceil() + 1e-9)).all()
    error = (expected % 1 * (1 - expected % 1) / 200).sqrt()
    assert ((counts.mean(0) - expected).abs() <= 5 * error + 1e-9).all()
    first, second = (nb.drawn_by_weight(weights, random) for _ in range(2))
    assert not torch.equal(first, second)


def test_copies_of_an_image_are_spread_over_the_pass(nb):
    """Of 950 places next to one another fewer than 20 hold the same image twice (by chance: 1)."""
    weights = torch.tensor([10 / 3] * 100 + [10 / 17] * 850)
    indices = nb.drawn_by_weight(weights, torch.Generator().manual_seed(0))
    assert (indices[1:] == indices[:-1]).sum() < 20


def pool_of(nb, environments, **changes):
    """What one network trains on."""
    random = torch.Generator().manual_seed(0)
    return nb.Pool(recipe(nb, images=4_000, **changes), environments, random)


def classes_believed(nb, network, environment):
    """By Bayes' rule, in NumPy: the likelier class, given a network's averaged answers and labels
    of which a quarter is flipped."""
    clean = nb.predict_do(network, environment.images).numpy()
    own = np.where(np.arange(2) == environment.labels.numpy()[:, None], 0.75, 0.25)
    return torch.from_numpy((clean * own).argmax(1))


def opinionated(nb, images):
    """A network that is sure of a class for each image, whatever its label and colour."""
    torch.manual_seed(0)
    network = nb.GrayscaleCNN().eval()
    with torch.no_grad():
        network.fc2.weight.mul_(20_000)
        network.fc2.bias[1] -= network(images.float() / 255).diff(dim=1).median()
    return network


def test_strata_balance_label_and_colour(nb, single):
    """In the weighted sample, and in what a pass draws, both labels are equally frequent within
    each colour; labels are the images' own, or the classes that a network believes in."""
    environments = pair(nb, 2_000)
    whole = nb.joined(list(environments.values()))
    network, red = opinionated(nb, whole.images), whole.is_red
    believed = classes_believed(nb, network, whole)
    assert 0.1 < (believed != whole.labels).float().mean() < 0.9
    for labels in (whole.labels, believed):
        pool = pool_of(nb, environments, method="strata")
        if labels is believed:
            pool.believe(network)
            assert torch.equal(pool.told["targets"], F.one_hot(labels, 2).float())
            assert torch.equal(pool.told["cells"], 2 * labels + red)
        drawn, weights = pool.drawn(), pool.told["weights"].double()
        p_label = labels.double().mean().item()
        for colour in (True, False):
            mine = red == colour
            share = (weights * labels)[mine].sum() / weights[mine].sum()
            assert share.item() == pytest.approx(p_label, abs=1e-6)
            share = labels[drawn][mine[drawn]].double().mean().item()
            assert share == pytest.approx(p_label, abs=0.01)  # by chance alone .011
        assert (weights.sum() ** 2 / (weights**2).sum()).item() == pytest.approx(
            1 / (sum_of_squares(labels, red)), rel=1e-5
        )


def sum_of_squares(labels, red):
    """1 / n_eff of the weights of a table, in fractions: the sum over cells of their weighted share
    squared over their count."""
    cells = {(y, c): ((labels == y) & (red == c)).sum().item() for y in (0, 1) for c in (0, 1)}
    n, total = sum(cells.values()), Fraction(0)
    for (y, c), count in cells.items():
        row, column = cells[y, 0] + cells[y, 1], cells[0, c] + cells[1, c]
        total += (Fraction(row, n) * Fraction(column, n)) ** 2 / count
    return float(total)


def test_shuffled_strata_weigh_as_much_and_balance_nothing(nb):
    """The refutation: each label has as many red strata and the same weights as with its own
    colours, images repeat as often, but colour tells the label as it did before."""
    environments = pair(nb, 2_000)
    labels = torch.cat([part.labels for part in environments.values()])
    red = torch.cat([part.is_red for part in environments.values()])
    own, pool = (pool_of(nb, environments, method=m) for m in ("strata", "strata_shuffled"))
    for label in (0, 1):
        mine = labels == label
        weights = [p.told["weights"][mine].sort().values for p in (own, pool)]
        assert torch.equal(*weights) and not torch.equal(pool.stratum[mine], red[mine])
    assert torch.equal(pool.is_red, red)
    drawn = pool.drawn()
    assert labels[drawn][red[drawn]].double().mean().item() < 0.25


def test_a_pool_tells_what_it_is_told(nb):
    """Environments in the recipe's order and their numbers, cells, one-hot labels."""
    parts = {"train1": small(nb, 10, seed=1), "train2": small(nb, 6, seed=2)}
    told, labels = pool_of(nb, parts).told, torch.cat([p.labels for p in parts.values()])
    red = torch.cat([p.is_red for p in parts.values()])
    assert told["environments"].tolist() == [0] * 10 + [1] * 6
    assert told["targets"].tolist() == [[1 - y, y] for y in labels.tolist()]
    assert told["cells"].tolist() == (2 * labels + red).tolist()


def test_batches_hold_what_belongs_together(nb):
    """Each picture with its own label, environment and weight; its own colour, or, where the method
    paints, a random one; a pass has nearly as many images as there are to draw from."""
    environments = pair(nb, 200)
    whole = nb.joined(list(environments.values()))
    place = {shape.numpy().tobytes(): i for i, shape in enumerate(whole.images.amax(1))}
    repeated = len(nb.repeated_within_colour(whole.labels, whole.is_red))
    for method in ("erm", "repetition", "strata", "recolouring", "strata_coin"):
        pool = pool_of(nb, environments, method=method, augment=0.0)
        painted, drawn = 0, 0
        for batch in pool.batches():
            assert len(batch["grey"]) == 16
            for k, grey in enumerate(batch["grey"]):
                i = place[(255 * grey).round().to(torch.uint8).numpy().tobytes()]
                assert batch["targets"][k].argmax() == whole.labels[i]
                assert batch["environments"][k] == (i >= 200)
                assert batch["weights"][k] == pool.told["weights"][i]
                painted += int(batch["is_red"][k] != whole.is_red[i])
            drawn += len(batch["grey"])
        if method in ("recolouring", "strata_coin"):
            assert painted / drawn == pytest.approx(0.5, abs=0.13)
        else:
            assert painted == 0, method
        expected = repeated if method == "repetition" else 400
        assert expected - 17 <= drawn <= expected, method


# Methods


def test_every_method_is_one_line_and_tested():
    """Each entry of the registry stands on one line; a method that joins it joins these tests."""
    sources = ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"]]
    (registry,) = [
        node.value
        for source in sources
        if "\nMETHODS = {" in source
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "METHODS"
    ]
    assert [key.value for key in registry.keys] == METHODS
    for key, value in zip(registry.keys, registry.values, strict=True):
        assert key.lineno == value.end_lineno, key.value


def batch(nb, logits, labels, environments, is_red=None, penalty=0.0, weights=None):
    """What methods are given of hard labels."""
    labels = torch.as_tensor(labels)
    targets = F.one_hot(labels, 2).to(logits.dtype)
    is_red = torch.zeros_like(labels) if is_red is None else torch.tensor(is_red)
    losses = -(targets * logits.log_softmax(1)).sum(1)
    weights = torch.ones_like(losses) if weights is None else torch.tensor(weights).to(losses)
    return SimpleNamespace(
        logits=logits,
        targets=targets,
        losses=losses,
        weights=weights,
        cells=2 * labels + is_red,
        environments=torch.as_tensor(environments),
        penalty=torch.tensor(penalty),
        memory=torch.ones(4).to(losses),
    )


def with_losses(nb, losses, environments, penalty=1.0):
    """What methods are given, with these losses."""
    made = batch(nb, torch.zeros(len(losses), 2), [0] * len(losses), environments, penalty=penalty)
    made.losses = torch.tensor(losses)
    return made


def objective(nb, method, given):
    """What a method minimises."""
    return nb.METHODS[method].objective(**vars(given))[0]


def test_plain_and_weighted_risk_by_hand(nb):
    """Losses 1, 2 and 6 with weights .5, 2 and .5: 3, and 7.5 / 3 = 2.5."""
    given = with_losses(nb, [1.0, 2.0, 6.0], [0, 0, 1])
    given.weights = torch.tensor([0.5, 2.0, 0.5])
    assert objective(nb, "erm", given).item() == 3
    assert objective(nb, "ipw", given).item() == 2.5
    assert objective(nb, "strata", given).item() == 3  # the weights are in what is drawn


def test_vrex_by_hand(nb):
    """Even places: risks 1 and 5; odd places: 3 and 5. Variances 4 and 1, without bias the product
    of the differences, -4 and -2, over 4: 2. Mean of the risks 2 and 5: 3.5."""
    given = with_losses(nb, [0.0, 3.0, 2.0, 3.0, 5.0, 5.0], [0, 0, 0, 0, 1, 1])
    assert objective(nb, "vrex", given).item() == 3.5 + 2
    given.penalty = torch.tensor(50.0)
    assert objective(nb, "vrex", given).item() == pytest.approx((3.5 + 50 * 2) / 50)


def test_irm_by_hand(nb):
    """Logits (z, 0) and label 1: the slope in a scale is sigmoid(z) z. With z = ln 3 it is
    .75 ln 3 = a, with z = 0 nothing: in environment 0 halves (a, a), in 1 (a, 0); penalty a²/2."""
    z = math.log(3.0)
    logits = torch.tensor([[z, 0.0], [z, 0.0], [z, 0.0], [0.0, 0.0]], dtype=torch.float64)
    given = batch(nb, logits, [1, 1, 1, 1], [0, 0, 1, 1], penalty=1.0)
    risk = (math.log(4) + (math.log(4) + math.log(2)) / 2) / 2
    assert objective(nb, "irm", given).item() == pytest.approx(risk + (0.75 * z) ** 2 / 2)


def test_irm_penalty_against_finite_differences(nb):
    """With each half of a batch the same, it is the squared slope of each risk, averaged."""
    random = torch.Generator().manual_seed(0)
    half = torch.randn(6, 2, generator=random, dtype=torch.float64)
    labels, environments = [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1]
    logits = half.repeat_interleave(2, 0)  # even and odd rows are the two halves
    twice = [[x for x in values for _ in "ab"] for values in (labels, environments)]
    given = batch(nb, logits, *twice, penalty=1.0)

    def risk(scale, number):
        mine = given.environments == number
        return batch(nb, scale * logits, *twice).losses[mine].mean()

    h = 1e-5
    slopes = [(risk(1 + h, e) - risk(1 - h, e)) / (2 * h) for e in (0, 1)]
    expected = (risk(1, 0) + risk(1, 1)) / 2 + (slopes[0] ** 2 + slopes[1] ** 2) / 2
    torch.testing.assert_close(objective(nb, "irm", given), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("method", ["irm", "vrex"])
def test_penalties_are_unbiased(nb, method):
    """Over random batches their mean is near that of all images, where the square of a small
    batch's own estimate is far above it."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 2, generator=random, dtype=torch.float64)
    labels = torch.randint(0, 2, (2000,), generator=random)
    losses = F.cross_entropy(logits, labels, reduction="none")
    slopes = ((logits.softmax(1) - F.one_hot(labels, 2)) * logits).sum(1)
    environments = torch.arange(2000) % 2

    def value(i):
        """The penalty as the square of one estimate."""
        parts = [i[environments[i] == e] for e in (0, 1)]
        if method == "irm":
            return sum(slopes[part].mean().item() ** 2 for part in parts) / 2
        return (losses[parts[0]].mean() - losses[parts[1]].mean()).item() ** 2 / 4

    draws, squares = [], []
    for _ in range(400):
        a, b = (2 * torch.randperm(1000, generator=random)[:8] + e for e in (0, 1))
        i = torch.stack([a[:4], b[:4], a[4:], b[4:]]).reshape(2, 8).T.flatten()
        given = batch(nb, logits[i], labels[i], environments[i], penalty=1.0)
        risk = sum(losses[part].mean() for part in (a, b)) / 2
        draws.append((objective(nb, method, given) - risk).item())
        squares.append(value(i))
    truth, error = value(torch.arange(2000)), np.std(draws) / 400**0.5
    assert abs(np.mean(draws) - truth) < 5 * error
    assert np.mean(squares) - truth > 5 * error


def test_group_dro_two_steps_by_hand(nb):
    """Shares start even, grow by exp(rate * risk) where the risk is high, and add up to 1."""
    given = batch(nb, torch.tensor([[2.0, 0.0], [2.0, 0.0]]), [0, 1], [0, 0])
    low, high = given.losses.tolist()
    factors, q = torch.tensor([low, 0.0, high, 0.0]).mul(0.01).exp(), torch.full((4,), 0.25)
    for _ in range(2):
        q = q * factors / (q * factors).sum()
        found, given.memory = nb.METHODS["group_dro"].objective(**vars(given))
        assert found.item() == pytest.approx((q[0] * low + q[2] * high).item(), rel=1e-6)
        torch.testing.assert_close(given.memory, q)


def test_methods_accept_any_mixture_of_environments(nb):
    """One image of an environment or none, one cell or all: loss and gradient stay finite, and each
    image influences the loss."""
    random = torch.Generator().manual_seed(0)
    mixtures = [0] * 6, [0, 1, 1, 1, 1, 1], [1], [0, 0, 0, 1, 1, 1]
    for method, environments in itertools.product(METHODS, mixtures):
        logits = torch.randn(len(environments), 2, generator=random, requires_grad=True)
        labels = torch.arange(len(environments)) % 2
        found = objective(nb, method, batch(nb, logits, labels, environments, penalty=100.0))
        found.backward()
        assert found.isfinite() and logits.grad.isfinite().all(), method
        assert logits.grad.any(1).all(), method


def test_label_loss_by_hand(nb):
    """P(clean label 1) = .8: plain -ln .8; with flips of one in four the network is held to
    P(noisy label 1) = .25 * .2 + .75 * .8 = .65; half of each label: the mean of both losses;
    smoothed by .1: .9 and .1 of them."""
    logits = torch.tensor([[0.2, 0.8]]).log()
    one, half = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]])
    for targets, *how, expected in (
        (one, 0.0, 0.0, -math.log(0.8)),
        (one, 0.25, 0.0, -math.log(0.65)),
        (half, 0.0, 0.0, -(math.log(0.8) + math.log(0.2)) / 2),
        (half, 0.25, 0.0, -(math.log(0.65) + math.log(0.35)) / 2),
        (one, 0.0, 0.1, -(0.9 * math.log(0.8) + 0.1 * math.log(0.2))),
    ):
        assert nb.label_loss(logits, targets, *how).item() == pytest.approx(expected)


# The step


def test_updates_are_muons_and_adamws(nb, monkeypatch):
    """PyTorch's Muon on matrices (kernels flattened) and its AdamW on biases at .15 of the rate,
    for each network of a stack, over five steps of falling rate. PyTorch's Muon rounds to bfloat16;
    here it must not, so that they agree to rounding."""
    for networks in (1, 3):
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
        models, random = [nb.CNN() for _ in range(networks)], torch.Generator().manual_seed(0)
        stack, oracles = nb.Stack(recipe(nb), models, "cpu"), []
        for model in models:
            own = {n: torch.nn.Parameter(v.flatten(1) if v.ndim > 1 else v.clone())
                   for n, v in model.state_dict().items()}  # fmt: skip
            matrices = [p for p in own.values() if p.ndim > 1]
            biases = [p for p in own.values() if p.ndim == 1]
            muon = torch.optim.Muon(matrices, lr=1.0, weight_decay=0.0)
            adamw = torch.optim.AdamW(biases, lr=1.0, weight_decay=0.01, betas=(0.95, 0.999))
            oracles.append((own, muon, adamw))
        for count, rate in enumerate((0.02, 0.015, 0.01, 0.005, 0.001), start=1):
            gradient = torch.randn(stack.parameters.shape, generator=random)
            nb.update(stack, gradient, rate, torch.tensor(float(count)))
            for name, values in stack.named(gradient).items():
                for k, (own, _, _) in enumerate(oracles):
                    own[name].grad = values[k].reshape(own[name].shape).clone()
            for _, muon, adamw in oracles:
                muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"] = rate, 0.15 * rate
                muon.step()
                adamw.step()
        for name, values in stack.named(stack.parameters).items():
            for k, (own, _, _) in enumerate(oracles):
                expected = own[name].detach().view_as(values[k])
                torch.testing.assert_close(values[k], expected, rtol=1e-4, atol=1e-5)


def schedule(number, steps):
    """One cycle, written out: from .04 up to 1 at three tenths, then down to 0."""
    t = number / steps
    if t < 0.3:
        return 0.52 - 0.48 * math.cos(math.pi * t / 0.3)
    return 0.5 + 0.5 * math.cos(math.pi * (t - 0.3) / 0.7)


def plain_loop(nb, chosen, environments, seed, start):
    """Training as a textbook writes it: one network, PyTorch's own optimisers."""
    network = nb.CNN()
    network.load_state_dict(start)
    random = torch.Generator().manual_seed(seed)
    pool = nb.Pool(chosen, environments, random)
    own = {
        name: torch.nn.Parameter(
            p.detach().flatten(1).clone() if p.ndim > 1 else p.detach().clone()
        )
        for name, p in network.named_parameters()
    }
    if chosen.optimiser == "sgd":
        optimisers = [(torch.optim.SGD(own.values(), lr=1.0), 1.0)]
    else:
        matrices = [p for p in own.values() if p.ndim == 2]
        others = [p for p in own.values() if p.ndim == 1]
        optimisers = [
            (torch.optim.Muon(matrices, lr=1.0, weight_decay=0.0), 1.0),
            (torch.optim.AdamW(others, lr=1.0, weight_decay=0.01, betas=(0.95, 0.999)), 0.15),
        ]
    bounds = {n: chosen.clip * v.std() for n, v in start.items() if v.ndim > 1}
    averages = {name: value.clone() for name, value in start.items()}
    steps, number, history = chosen.examples // chosen.batch_size, 0, []
    while number < steps:
        losses = []
        for given in pool.batches():
            if number == steps:
                break
            grey, red = given["grey"], given["is_red"][:, None, None]
            images = torch.stack([grey * red, grey * ~red, 0 * grey], 1)
            broken = {}
            if any(chosen.stuck):
                (low, high), share = chosen.stuck, torch.rand((), generator=random)
                stuck = low * share**2, high * (1 - share)
                matrices = [(n, p) for n, p in network.named_parameters() if n in bounds]
                sizes = [p.numel() for _, p in matrices]
                fates = torch.rand(2, sum(sizes), generator=random).split(sizes, 1)
                for (name, p), fate in zip(matrices, fates, strict=True):
                    how = bounds[name], fate.view(2, *p.shape), stuck
                    broken[name] = nb.with_stuck_pairs(p, *how)
            logits = torch.func.functional_call(network, broken, images)
            if chosen.flip_rate:
                flip = chosen.flip_rate
                p = flip + (1 - 2 * flip) * logits.softmax(1)
                each = F.nll_loss(p.log(), given["targets"].argmax(1), reduction="none")
            else:
                smoothed = {"label_smoothing": 2 * chosen.smoothing, "reduction": "none"}
                each = F.cross_entropy(logits, given["targets"].argmax(1), **smoothed)
            loss = (each * given["weights"]).mean() if chosen.method == "ipw" else each.mean()
            losses.append(each.mean().item())
            network.zero_grad()
            loss.backward()
            for name, p in network.named_parameters():
                own[name].grad = p.grad.reshape(own[name].shape)
            share = 1.0 if chosen.optimiser == "sgd" else schedule(number, steps)
            for optimiser, factor in optimisers:
                optimiser.param_groups[0]["lr"] = factor * chosen.learning_rate * share
                optimiser.step()
            decay = min(chosen.averaging, (number + 1) / (number + 10)) if chosen.averaging else 0
            with torch.no_grad():
                for name, p in network.named_parameters():
                    if chosen.clip and name in bounds:
                        own[name].clamp_(-bounds[name], bounds[name])
                    p.copy_(own[name].view_as(p))
                    averages[name] = decay * averages[name] + (1 - decay) * p
            number += 1
        history.append(losses)
    network.load_state_dict(averages)
    return network, history


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "erm", "flip_rate": 0.25},
        {"method": "ipw", "averaging": 0.9, "clip": 1.5, "stuck": (0.4, 0.1)},
        {"method": "strata", "augment": 0.0, "averaging": 0.0, "smoothing": 0.1},
        {"method": "recolouring", "optimiser": "sgd", "learning_rate": 0.1, "averaging": 0.0},
    ],
    ids=lambda changes: changes["method"],
)
def test_training_is_the_plain_loop(nb, single, monkeypatch, changes):
    """The same losses, and weights that have moved the same way, to rounding: two passes and a part
    of a third."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    chosen, environments = recipe(nb, examples=16 * 5, **changes), pair(nb, 16)
    torch.manual_seed(3)
    start = nb.CNN().state_dict()
    first = nb.CNN()
    first.load_state_dict(start)
    found, losses = trained(nb, chosen, environments, 5, starts=first)
    expected, history = plain_loop(nb, chosen, environments, 5, start)
    assert [len(rows) for rows in losses] == [len(rows) for rows in history] == [2, 2, 1]
    expected_losses = [*itertools.chain.from_iterable(history)]
    assert torch.cat(losses).flatten().tolist() == pytest.approx(expected_losses, rel=1e-4)
    for name, value in expected.state_dict().items():
        moved, wanted = found.state_dict()[name] - start[name], value - start[name]
        assert wanted.norm() > 0
        assert (moved - wanted).norm() < 0.02 * wanted.norm(), name


class Types(TorchFunctionMode):
    """Notes the types of all tensors of numbers that PyTorch's functions return."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **kwargs or {})
        for value in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.seen.add(value.dtype)
        return found


def test_half_precision_is_off_when_it_is_off(nb, monkeypatch):
    """`HALF = False`: no number of training is a bfloat16; otherwise products are, weights not."""
    for half in (False, True):
        monkeypatch.setattr(nb, "HALF", half)
        with Types() as types:
            network, _ = trained(
                nb, recipe(nb, examples=32, flip_rate=0.25, stuck=(0.1, 0.1), clip=1.0), pair(nb)
            )
        assert (torch.bfloat16 in types.seen) is half
        assert {p.dtype for p in network.parameters()} == {torch.float32}


STACKED = [
    {"method": "repetition", "stuck": (0.2, 0.1), "clip": 1.0},  # of other lengths
    {"method": "erm", "network": "GrayscaleCNN", "flip_rate": 0.25},
    *[{"method": m, "penalty": 10.0} for m in ("ipw", "group_dro", "irm", "vrex", "recolouring")],
]


def test_stacked_networks_are_those_trained_one_by_one(nb, single):
    """Two networks of other seeds, images and weights, together and one after the other: the same
    to rounding; also if they teach themselves."""
    for changes in STACKED:
        chosen = recipe(nb, examples=16 * 6, batch_size=16, **changes)
        data, seeds = [pair(nb, 20, 1), pair(nb, 20, 2)], [3, 4]
        starts, taught = [], 2 if chosen.method == "strata" else 0
        for seed in seeds:
            torch.manual_seed(seed)
            starts.append(nb.NETWORKS[chosen.network]())
        together, losses = nb.train(chosen, data, seeds, starts, taught, device="cpu")
        for k, seed in enumerate(seeds):
            (alone,), own = nb.train(chosen, [data[k]], [seed], [starts[k]], taught, device="cpu")
            assert far(together[k], alone) < 2e-3
            assert losses[0][0, k].item() == pytest.approx(own[0][0, 0].item(), rel=1e-4)
        assert far(*together) > 0.01


# Training


def test_training_is_seeded_and_leaves_the_generators_alone(nb):
    """The same seed gives the same network bit for bit, another seed another one; networks stay
    finite and are ready to predict."""
    for method in METHODS:
        chosen = recipe(nb, method=method, penalty=10.0, examples=48)
        before = rng_states()
        (first, _), (again, _), (other, _) = (trained(nb, chosen, pair(nb), s) for s in (0, 0, 1))
        assert rng_states() == before and not first.training, method
        assert far(first, again) == 0 < far(first, other) < math.inf, method


def test_what_cannot_see_colour_learns_none(nb):
    """Colours swapped in training: recolouring and grayscale give the same network (but for the
    order in a batch), erm another."""
    environment = small(nb)
    swapped = nb.Environment(
        environment.images[:, [1, 0, 2]], environment.labels, ~environment.is_red
    )
    for method, network in (("recolouring", "CNN"), ("grayscale", "GrayscaleCNN"), ("erm", "CNN")):
        chosen = recipe(nb, method=method, network=network, environments=("train1",), examples=32)
        a, b = (trained(nb, chosen, {"train1": e})[0] for e in (environment, swapped))
        assert (far(a, b) < 1e-3) is (method != "erm")


def pull(nb, method, **changes):
    """How much more often a network calls red 0 than green, trained where colour is all there is:
    all shapes alike but for a few pixels of noise."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (800,), generator=random)
    is_red = (labels == 0) ^ (torch.rand(800, generator=random) < 0.15)
    shapes = torch.full((800, 28, 28), 90, dtype=torch.uint8)
    shapes[:, :2] = torch.randint(0, 256, (800, 2, 28), generator=random, dtype=torch.uint8)
    environment = nb.Environment(nb.paint(shapes, is_red), labels, is_red)
    chosen = recipe(
        nb,
        method=method,
        images=800,
        environments=("train1",),
        examples=3_200,
        batch_size=32,
        augment=0.0,
        learning_rate=0.005,
        averaging=0.9,
        **changes,
    )
    network, _ = trained(nb, chosen, {"train1": environment})
    red, green = nb.predict_both(network, environment.images[:40])
    return (red - green)[:, 0].mean().item()


# Method, least and most that a network calls red 0 more often than green.
PULLS = [
    ("erm", 0.3, 1),
    ("strata_shuffled", 0.3, 1),
    ("strata", -0.15, 0.15),
    ("ipw", -0.15, 0.15),
]


def test_strata_of_colour_take_the_colour_away(nb):
    """Usual training answers by colour, and so do strata of something else."""
    for method, low, high in PULLS:
        assert low < pull(nb, method) < high, method


def test_the_penalty_waits_and_the_rate_goes_round(nb):
    """A share of 190 / 501 of the steps at a penalty of at most 1, then the full one; the rate as
    in a cycle, for SGD constant."""
    for penalty, early in ((100.0, 1.0), (0.5, 0.5)):
        chosen = recipe(nb, penalty=penalty)
        rows = [nb.scheduled(chosen, n, 501, 9, None) for n in range(501)]
        assert [row["penalty"].item() for row in rows] == [early] * 190 + [penalty] * 311
    for n in (0, 50, 150, 151, 300, 500):
        assert rows[n]["rate"].item() == pytest.approx(
            chosen.learning_rate * schedule(n, 501), abs=1e-8
        )
    sgd = recipe(nb, optimiser="sgd", learning_rate=0.5)
    assert nb.scheduled(sgd, 3, 501, 9, None)["rate"].item() == 0.5


def test_augmentation_moves_as_far_as_it_says(nb):
    """A dot in the middle: at a vanishing strength it is shifted by up to 2 pixels each way; at
    strength 1 a bar through the middle is turned by up to 10 degrees and slanted by up to a tenth,
    and its area changes by up to 8% each way twice. Strength 0 changes nothing."""
    random = torch.Generator().manual_seed(0)
    shapes = torch.zeros(1_500, 28, 28, dtype=torch.uint8)
    shapes[:, 13:15, 13:15] = 200
    assert torch.equal(nb.augmented(shapes, 0.0, random), shapes.float() / 255)
    moved = nb.augmented(shapes, 1e-6, random)
    rows = torch.arange(28.0) - 13.5
    mass = moved.sum((1, 2))
    torch.testing.assert_close(mass, torch.full_like(mass, 800 / 255))
    for axis in (1, 2):
        shift = (moved.sum(axis) * rows).sum(1) / mass
        assert 1.9 < shift.max() < 2.001 and -2.001 < shift.min() < -1.9
        assert shift.mean().abs() < 0.15
    shapes[:] = 0
    shapes[:, 13:15, 5:23] = 200
    moved = nb.augmented(shapes, 1.0, random)
    x, y = rows[None, None, :], rows[None, :, None]
    mass = moved.sum((1, 2))
    dx, dy = ((moved * axis).sum((1, 2)) / mass for axis in (x, y))
    cross = (moved * (x - dx[:, None, None]) * (y - dy[:, None, None])).sum((1, 2))
    along = (moved * (x - dx[:, None, None]) ** 2).sum((1, 2))
    angle = (cross / along).atan().rad2deg()
    assert 8 < angle.max() < 17 and -17 < angle.min() < -8
    area = mass / (36 * 200 / 255)
    assert 0.84 < area.min() < 0.9 and 1.1 < area.max() < 1.2


def test_passes_are_as_long_as_the_samples(nb):
    """Red: 16 images of label 0 and 4 of 1; green the other way round: 40, repeated 64. Three
    passes are of this length for each method, in batches of 8."""
    labels, is_red = torch.arange(40) % 2, torch.arange(40) % 2 == 0
    is_red[:8] = ~is_red[:8]
    shapes = torch.zeros(40, 28, 28, dtype=torch.uint8)
    part = nb.Environment(nb.paint(shapes, is_red), labels, is_red)
    for method, lengths in (("strata", [40] * 4 + [32]), ("repetition", [64] * 3)):
        chosen = recipe(nb, method=method, environments=("train1",), passes=3, batch_size=8)
        _, losses = trained(nb, chosen, {"train1": part})
        assert [8 * len(rows) for rows in losses] == lengths


def test_a_loss_that_is_not_finite_ends_training(nb, monkeypatch):
    """With four batches a pass and an infinite rate at the sixth step, the seventh loss is none:
    method, seed, pass 2, batch 3 are named."""
    plain = nb.scheduled

    def scheduled(chosen, number, *rest):
        given = plain(chosen, number, *rest)
        if number == 5:
            given["rate"] = given["rate"] * math.inf
        return given

    monkeypatch.setattr(nb, "scheduled", scheduled)
    environments = [pair(nb, 32), pair(nb, 32, 1)]
    with pytest.raises(FloatingPointError) as error:
        chosen = recipe(nb, method="ipw", examples=16 * 12)
        nb.train(chosen, environments, [71, 72], device="cpu")
    assert all(part in str(error.value) for part in ("ipw", "71", "pass 2", "batch 3"))
    with pytest.raises(FloatingPointError):  # at the last step no loss tells
        nb.train(recipe(nb, examples=16 * 6), environments[:1], [7], device="cpu")


def test_nothing_is_kept_of_training_that_diverges(nb, tmp_path, monkeypatch):
    """Neither a checkpoint nor a record; the next run starts anew."""
    save(nb, tmp_path / "data", pair(nb))
    chosen = recipe(nb, optimiser="sgd", learning_rate=1e30)
    monkeypatch.chdir(tmp_path)
    given = {"stages": {"x": (chosen, None, 0)}, "seeds": {0: 1}}
    with pytest.raises(FloatingPointError, match="erm"):
        nb.run_task(0, "x", nb.train_networks, given, "d")
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"train1.pt", "train2.pt"}


# Selection and self-training


def save(nb, root, environments):
    """Environments as files below a folder."""
    for name, part in environments.items():
        nb.save_tensors(vars(part), root / "ColoredMNIST" / f"{name}.pt")


@pytest.fixture(autouse=True)
def threads(nb, monkeypatch):
    """Tasks set the number of threads of their process."""
    number = torch.get_num_threads()
    monkeypatch.setattr(nb, "keep_freed_memory", lambda: None)
    yield
    torch.set_num_threads(number)


def test_training_does_not_read_the_test(nb):
    """Training reads the environments of its recipe and no other."""
    environments = pair(nb) | {"test": Unreadable()}
    trained(nb, recipe(nb, method="strata", examples=16), environments)
    with pytest.raises(AssertionError, match="test environment was read"):
        trained(nb, recipe(nb), environments | {"train2": Unreadable()})


def test_choosing_works_without_a_test_file(nb, tmp_path, monkeypatch):
    """Networks, students and their held-out scores are made with only the training files there, and
    nothing else is opened."""
    save(nb, tmp_path, pair(nb, 300))
    opened, load = set(), torch.load
    monkeypatch.setattr(torch, "load", lambda p, **k: opened.add(p.name) or load(p, **k))
    first = recipe(nb, method="strata", images=300, flip_rate=0.25)
    second = nb.replace(first, flip_rate=0.0)
    stages = {"first": (first, None, 0), "second": (second, "first", 2)}
    record = nb.train_networks(stages, {1: 7}, tmp_path, scored=True)
    assert opened == {"train1.pt", "train2.pt", "first-1.pt"}
    assert set(record["held_out"]) == {"first", "second"}
    assert all(len(scores[0]) == 60 for scores in record["held_out"].values())
    assert set(record["files"]) == {f"checkpoints/{name}-1.pt" for name in ("first", "second")}
    assert record["images_trained"] == 128
    assert json.dumps(nb.as_json(record), allow_nan=False)


def test_held_out_answers_by_hand(nb, single):
    """A network that answers by colour alone, of which green tells more: averaged over colours all
    are called 1."""
    cells = [(0, True)] * 4 + [(0, False)] + [(1, True)] * 2 + [(1, False)] * 3
    labels, is_red = (torch.tensor(column) for column in zip(*cells, strict=True))
    shapes = torch.full((10, 28, 28), 200, dtype=torch.uint8)
    held_out = nb.Environment(nb.paint(shapes, is_red), labels, is_red)

    class ByColour(torch.nn.Module):
        def forward(self, x):
            red, green = x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2))
            return torch.stack([1.5 * red, 2 * green], 1)

    assert nb.held_out_answers(ByColour(), held_out).tolist() == [False] * 5 + [True] * 5


def test_held_out_images_are_not_trained_on(nb):
    """The two parts are disjoint and together everything, of each environment a share; the seed
    decides which."""
    environments = pair(nb)
    larger, held_out = nb.hold_out(environments, 0.25, seed=0)
    assert len(held_out) == 32 and [len(larger[name]) for name in environments] == [48, 48]

    def keys(environment):
        return {bytes(image.flatten().tolist()) for image in environment.images}

    kept = keys(larger["train1"]) | keys(larger["train2"])
    assert not kept & keys(held_out)
    assert kept | keys(held_out) == keys(environments["train1"]) | keys(environments["train2"])
    assert keys(nb.hold_out(environments, 0.25, seed=0)[1]) == keys(held_out)
    assert keys(nb.hold_out(environments, 0.25, seed=1)[1]) != keys(held_out)


def test_beliefs_by_hand(nb, monkeypatch):
    """P(clean 1) = .8: seen 1, (.8 * .75) / (.8 * .75 + .2 * .25) = 12/13, so 1; seen 0, 4/7, so 1
    too. P(clean 1) = .7: seen 0, 7/16, so 0. And the mirror image."""
    shares, labels = [0.8, 0.8, 0.7, 0.2, 0.2, 0.3], torch.tensor([1, 0, 0, 0, 1, 1])
    is_red = torch.tensor([True, False, True, False, True, False])
    shapes = torch.full((6, 28, 28), 9, dtype=torch.uint8)
    part = nb.Environment(nb.paint(shapes, is_red), labels, is_red)
    pool = pool_of(nb, {"train1": part[:3], "train2": part[3:6]}, method="strata")
    clean = torch.tensor([[1 - share, share] for share in shares])
    monkeypatch.setattr(nb, "predict_do", lambda network, images: clean)
    pool.believe(None)
    assert pool.told["targets"].argmax(1).tolist() == [1, 1, 0, 0, 0, 1]


def test_a_student_teaches_itself(nb, tmp_path, monkeypatch, single):
    """Bit for bit what `train` makes of nine tenths of the images and the teacher's weights. Before
    the first pass the teacher says the classes, before the second one the student; untaught, the
    labels stay."""
    parts, believe, asked = pair(nb, 60), nb.Pool.believe, []
    save(nb, tmp_path, parts | {"test": small(nb, 10)})
    first = recipe(nb, method="strata", images=50, flip_rate=0.25)
    second = nb.replace(first, flip_rate=0.0, examples=240)  # two passes and a part
    stages = {"first": (first, None, 0), "taught": (second, "first", 2)}
    stages["longer"] = (first, "first", 0)

    def watched(pool, network):
        believe(pool, network)
        told = pool.told["targets"].argmax(1)
        assert torch.equal(told, classes_believed(nb, network, whole))
        asked.append(copy.deepcopy(network))

    larger, _ = nb.hold_out({n: part[:50] for n, part in parts.items()}, nb.HELD_OUT, 7)
    whole = nb.joined(list(larger.values()))
    monkeypatch.setattr(nb.Pool, "believe", watched)
    nb.train_networks(stages, {0: 7}, tmp_path)
    teacher = trained(nb, first, larger, nb.seed_for(7, "first"))[0]
    assert far(teacher, nb.load_network("first", root=tmp_path)) == 0
    assert len(asked) == 2 and far(teacher, asked[0]) == 0 < far(*asked)
    for name, chosen, taught in (("taught", second, 2), ("longer", first, 0)):
        given = [nb.seed_for(7, name)], [teacher], taught
        (expected,), _ = nb.train(chosen, [larger], *given, device="cpu")
        assert far(expected, nb.load_network(name, root=tmp_path)) == 0


def test_the_simplest_rung_that_is_not_worse(nb):
    """100 images, of which the best get 90. 80 of the same: 10 ± 3 below, worse; 5 lost and
    4 gained: 1 ± 3, not worse; among equals the first; order decides, not rank."""
    best = np.arange(100) < 90
    other = best.copy()
    other[:5], other[95:99] = False, True
    scores = {"a": np.arange(100) < 80, "b": other, "c": best, "d": best}
    assert nb.simplest_not_worse(scores) == "b"
    del scores["b"]
    assert nb.simplest_not_worse(scores) == "c"
    assert nb.simplest_not_worse({"a": best, "b": np.arange(100) < 95}) == "b"  # 5 ± 2.2
    assert nb.simplest_not_worse({"a": best, "b": other}) == "a"


def test_values_of_a_network(nb):
    """One a task, of this network and of none whose name begins alike."""
    values = {"train a": 1, "train a-1": 2, "train a_b": 3, "train b": 4, "test a": 5}
    assert nb.values_of("train", "a", values) == [1, 2]
    assert nb.values_of("test", "a", values) == [5]


def test_a_prediction_holds_within_its_range(nb):
    """Ends included; the mean decides."""
    found = nb.summary([0.1, 0.3])
    for low, high, holds in ((0.0, 0.2, True), (0.0, 0.1, False), (0.25, 1.0, False)):
        assert nb.refutation("x", found, low, high)["holds"] is holds


def test_methods_are_compared_network_by_network(nb, monkeypatch):
    """Of three images the reference's two networks get 3 and 1; a method of one network that gets 2
    is a third below the first of them, whatever the second does."""
    monkeypatch.setattr(nb, "show_table", lambda header, rows: None)
    answers = {"a": [[1, 1, 1], [1, 0, 0]], "b": [[1, 1, 0]]}
    correct = {name: {"do": torch.tensor(rows).bool()} for name, rows in answers.items()}
    found = dict.fromkeys(answers, dict.fromkeys(nb.MEASURES, nb.summary([0.5])))
    less = nb.show_methods({name: (name, "") for name in answers}, found, correct, "a")
    assert less["a"]["mean"] == 0 and less["b"]["mean"] == pytest.approx(-1 / 3)
    assert less["b"]["n"] == 1


def test_recipes_of_the_methods_compared_differ_in_the_method_only(nb):
    """The same images, length, optimiser for all; the sample's network is trained as the sample
    says: train1, SGD of 1e-3, batches of 32, images as they are."""
    profile = nb.PROFILES["full"]
    recipes = [nb.asdict(nb.compared_recipe(profile, method)) for method in METHODS]
    assert len({str(dict(row, method="")) for row in recipes}) == 1
    assert recipes[0]["examples"] == profile.compared and recipes[0]["images"] == 20_000
    sample = nb.sample_recipe(profile)
    assert (sample.environments, sample.optimiser, sample.batch_size) == (("train1",), "sgd", 32)
    assert (sample.learning_rate, sample.augment, sample.averaging) == (1e-3, 0, 0)
    assert (sample.method, sample.network, sample.passes) == ("repetition", "SampleCNN", 10)
    stages = nb.chain_stages(profile, "strata", prefix="x_")
    (aware, start, taught), (student, *how) = stages["x_aware"], stages["x_taught"]
    assert (aware.flip_rate, student.flip_rate) == (0.25, 0) and student.smoothing == 0.05
    assert (aware.method, student.method, start) == ("strata", "strata", "strata")
    assert not taught and how == ["x_aware", 3]
    (longer, *start), *_ = nb.controls(profile)["longer"].values()
    assert longer == nb.replace(student, flip_rate=0.25, smoothing=0) and start == ["aware", 0]


def test_beliefs_are_those_of_the_averaged_weights(nb):
    """Of the network that is asked for, not of the weights that the step has just left."""
    networks = [nb.CNN(), nb.CNN()]
    stack = nb.Stack(recipe(nb), copy.deepcopy(networks), "cpu")
    stack.averages.mul_(2)
    for (k, network), name in itertools.product(enumerate(networks), networks[0].state_dict()):
        asked = stack.averaged(k).state_dict()[name]
        assert torch.equal(asked, 2 * network.state_dict()[name]), name


def test_grey_images_are_answered_as_painted_ones(nb):
    """Reds first, all of them or none, by each kind of network; and what the first layer makes of
    one colour alone lies channels last, or the next layer would take three times as long."""
    grey = torch.rand(6, 28, 28, generator=torch.Generator().manual_seed(0))
    for kind, reds in itertools.product(nb.NETWORKS.values(), (0, 2, 6)):
        torch.manual_seed(1)
        network = kind().eval().to(memory_format=torch.channels_last)
        given = grey[:, None].contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            painted = network(nb.paint(grey, torch.arange(6) < reds))
            torch.testing.assert_close(network(given, reds), painted, rtol=1e-4, atol=1e-4)
            first = network.first(given, reds)
        assert first.is_contiguous(memory_format=torch.channels_last), (kind, reds)


def test_sample_network_sees_pixels_up_to_255(nb):
    """The sample's network on [0, 1] is the assignment's on 0..255; the blind one's answer does not
    change when channels are swapped."""
    torch.manual_seed(0)
    sample, plain = nb.SampleCNN().eval(), nb.CNN().eval()
    plain.load_state_dict(sample.state_dict())
    images = torch.rand(4, 3, 28, 28)
    images[:, 2] = 0
    with torch.no_grad():
        torch.testing.assert_close(sample(images), plain(images * 255))
        blind = nb.GrayscaleCNN().eval()
        assert torch.equal(blind(images), blind(images[:, [1, 0, 2]]))


# Training for hardware


def test_clipping_keeps_to_the_first_weights(nb):
    """The result stays within so many standard deviations of the weights that training starts from,
    and reaches them; biases are free."""
    torch.manual_seed(0)
    start = {key: 2 * value for key, value in nb.CNN().state_dict().items()}
    start["fc2.bias"] += 9
    for stuck in ((0.0, 0.0), (0.1, 0.1)):
        chosen = recipe(nb, clip=0.8, stuck=stuck, averaging=0.0)
        first = nb.CNN()
        first.load_state_dict(start)
        network, _ = trained(nb, chosen, pair(nb), starts=first)
        for name, weights in network.named_parameters():
            if weights.ndim > 1:
                bound = 0.8 * start[name].std().item()
                assert weights.abs().max().item() == pytest.approx(bound, rel=1e-5)
        assert network.fc2.bias.min() > 8


def test_proportions_of_stuck_devices_in_a_step(nb):
    """Within what is asked for, the mean of a square at low resistance (a third of the most) and of
    a uniform number at high (half); many of one mean few of the other."""
    asked = recipe(nb, clip=1.0, stuck=(0.45, 0.06)), 0, 1, 1, torch.Generator().manual_seed(0)
    drawn = torch.stack([nb.scheduled(*asked)["stuck"] for _ in range(4_000)])
    low, high = drawn.T
    assert 0 <= low.min() < 0.01 and 0.44 < low.max() <= 0.45
    assert 0 <= high.min() and high.max() <= 0.06
    assert low.mean().item() == pytest.approx(0.15, abs=0.01)
    assert high.mean().item() == pytest.approx(0.03, abs=0.002)
    assert torch.corrcoef(drawn.T)[0, 1] < -0.9


def test_stuck_pairs_by_hand(nb):
    """Weights 2, -1 and .5 of a range of 2: each device alone at low or at high resistance."""
    weights, top = torch.tensor([2.0, -1.0, 0.5], requires_grad=True), torch.tensor(2.0)
    healthy, low, high = (torch.full((3,), x) for x in (0.5, 0.0, 1.0))
    expected = {  # fates of the pair: weights. Its parts: (2 + w) / 4 and (2 - w) / 4 of the range
        (healthy, healthy): [2, -1, 0.5],
        (low, healthy): [2, 0.5, 1.25],
        (healthy, low): [0, -1.5, -0.75],
        (low, low): [0, 0, 0],
        (high, healthy): [0, -1.5, -0.75],
        (healthy, high): [2, 0.5, 1.25],
        (low, high): [2, 2, 2],
    }
    stuck = torch.tensor([0.1, 0.1])
    for fates, row in expected.items():
        found = nb.with_stuck_pairs(weights, top, torch.stack(fates), stuck)
        assert found.tolist() == pytest.approx(row), fates
    # each healthy device of a pair holds half of the slope
    found = nb.with_stuck_pairs(weights, top, torch.stack([low, healthy]), stuck)
    (slope,) = torch.autograd.grad(found.sum(), weights)
    assert slope.tolist() == [0.5] * 3


# Measures


def test_measures_worked_by_hand(nb):
    """Four images, labels 0 0 1 1, own colours red, green, red, green; answers in red 0 1 0 1, in
    green 0 0 1 1, by the formula 0 0 0 1; clean classes 0 1 1 1."""
    labels, clean = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    is_red = torch.tensor([True, False, True, False])
    part = nb.Environment(torch.zeros(4, 3, 28, 28, dtype=torch.uint8), labels, is_red)
    answers = {"red": [0, 1, 0, 1], "green": [0, 0, 1, 1], "do": [0, 0, 0, 1]}
    found = nb.measure({k: torch.tensor(v) for k, v in answers.items()}, part, clean)
    assert found == {
        "accuracy": 3 / 4,  # 0 0 0 1
        "accuracy_do": 3 / 4,
        "balanced": 3 / 4,  # every stratum holds one image
        "clean": (3 / 4 + 3 / 4) / 2,  # red: right, right, wrong, right; green: wrong in the second
        "clean_do": 2 / 4,
        "flips": 2 / 4,
        "pull": 0,
    }


def test_balanced_accuracy_repeats_the_rarer_label(nb):
    """Red 0 0 0 1 and green 0 1: who calls red 0 and green 1 is right in 4 of 6 as they are;
    balanced in 3 of 6 reds and 1 of 2 greens."""
    labels = torch.tensor([0, 0, 0, 1, 0, 1])
    part = nb.Environment(
        torch.zeros(6, 3, 28, 28, dtype=torch.uint8), labels, torch.tensor([True] * 4 + [False] * 2)
    )
    zeros, ones = torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.long)
    found = nb.measure({"red": zeros, "green": ones, "do": zeros}, part, labels)
    assert (found["accuracy"], found["balanced"]) == (4 / 6, 4 / 8)
    assert found["pull"] == 1 and found["flips"] == 1
    assert nb.measure({"red": ones, "green": zeros, "do": zeros}, part, labels)["pull"] == -1


def test_the_line_in_e_mixes_its_ends(nb, environments):
    """Answers in each colour's own way: on images whose colour contradicts the label in a share e,
    accuracy is (1 - e) of one end and e of the other, to five standard errors."""
    part, random = environments["test"][:5_000], torch.Generator().manual_seed(0)
    wrong = torch.rand(2, 5_000, generator=random) < torch.tensor([[0.1], [0.3]])
    red = torch.where(wrong[0], 1 - part.labels, part.labels) * (torch.arange(5_000) % 3 > 0)
    answers = {"red": red, "green": torch.where(wrong[1], 1 - part.labels, 1)}
    agree, disagree = nb.line_in_e(nb.as_json(answers), part)
    own = torch.where(part.is_red, answers["red"], answers["green"])
    found = (own == part.labels).double().mean().item()
    assert abs(found - (0.1 * agree + 0.9 * disagree)) < 5 * (0.25 / 5_000) ** 0.5
    assert abs(agree - disagree) > 0.1


def test_answers_are_the_models_in_both_colours(nb):
    """Argmax of the probabilities in red, in green and by the backdoor formula; lists of
    them, as JSON keeps them, measure the same."""
    torch.manual_seed(0)
    network, part = nb.CNN().eval(), small(nb, 27)
    with torch.no_grad():  # as many answers 0 as 1
        gap = nb.predict_do(network, part.images)[:, 1].logit().median()
        network.fc2.bias += torch.tensor([gap, 0])
    answers = nb.answers_of(network, part.images)
    assert torch.equal(answers["do"], nb.predict_do(network, part.images).argmax(1))
    own = torch.where(part.is_red, answers["red"], answers["green"])
    assert torch.equal(own, nb.predict(network, part.images).argmax(1))
    assert 0 < answers["do"].double().mean() < 1
    found = [nb.measure(given, part, part.labels) for given in (answers, nb.as_json(answers))]
    assert found[0] == found[1]


def test_paired_differences_by_hand(nb):
    """Differences of two networks on three images: (1, 0, 0) and (1, 1, -1). Means 1/3 and 1/3: no
    spread over networks; by image 1, .5 and -.5, of variance 7/12: se = sqrt(7/36)."""
    ours = np.array([[1, 1, 0], [1, 1, 0]])
    theirs = np.array([[0, 1, 0], [0, 0, 1]])
    found = nb.paired(ours, theirs)
    assert found["n"] == 2 and found["mean"] == pytest.approx(1 / 3)
    assert found["se"] == pytest.approx((7 / 36) ** 0.5)
    # means 1 and 0 over networks: variance 1/2 over 2; by image all .5: no spread
    found = nb.paired([[1, 1], [0, 0]], [[0, 0], [0, 0]])
    assert found == {"mean": 0.5, "se": 0.5, "n": 2}
    found = nb.paired([[1, 0, 1]], [[0, 0, 0]])  # one network: variance 1/3 over three images
    assert found["se"] == pytest.approx(1 / 3)


def test_summary_is_sample_statistics(nb):
    """Mean 2, sample standard deviation 1, count 3; a single run has a spread that JSON can write,
    and none that is shown."""
    assert nb.summary([1, 2, 3]) == {"mean": 2.0, "sd": 1.0, "n": 3, "runs": [1.0, 2.0, 3.0]}
    found = {"x": {"a": nb.summary([0.5]), "b": nb.summary([0.25])}}
    assert nb.percent_rows({"x": "X"}, found, ("b", "a")) == [["X", "25.0", "50.0"]]
    json.dumps(nb.summary([0.5]), allow_nan=False)
    assert nb.percent(nb.summary([0.5])) == "50.0"
    assert nb.percent(nb.summary([0.5, 0.7])) == "60.0 ± 14.1"
    assert nb.percent(nb.summary([-0.0])) == "0.0"


# What is kept of a run


def test_kept_believes_only_what_matches(nb, tmp_path):
    """Reused if it is of the same task; computed again if it is of another, damaged or foreign, or
    if a file that it names was changed or is gone."""
    path, calls = tmp_path / "results" / "value.json", []

    def kept(task):
        def compute():
            calls.append(1)
            file = tmp_path / "file.pt"
            file.write_text("good")
            return {"x": (1, 2), "files": {"file.pt": nb.sha256_of(file)}}

        value, fresh = nb.kept("value", task, compute, tmp_path)
        assert value["x"] == [1, 2] and (tmp_path / "file.pt").read_text() == "good"
        return fresh

    assert kept({"k": (1, 2)}) and not kept({"k": (1, 2)}) and not kept({"k": [1, 2]})
    assert kept({"k": [1, 3]}) and not kept({"k": [1, 3]})
    for content in ("", '{"task', "[1]", "{}", "null", '{"task": {"k": [1, 3]}}'):
        path.write_text(content)
        assert kept({"k": [1, 3]}) and not kept({"k": [1, 3]}), content
    (tmp_path / "file.pt").write_text("bad")
    assert kept({"k": [1, 3]}) and not kept({"k": [1, 3]})
    (tmp_path / "file.pt").unlink()
    assert kept({"k": [1, 3]})
    assert [file.name for file in path.parent.iterdir()] == ["value.json"]


def test_interrupted_write_leaves_the_old_file(nb, tmp_path):
    """A failing block changes nothing and leaves no temporary file."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), nb.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def here(nb, tmp_path, monkeypatch):
    """Tasks run in this process, in a folder of their own."""
    monkeypatch.setattr(nb, "workers", lambda address, tasks: contextlib.nullcontext())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_resumed_run_equals_a_fresh_one(nb, here, monkeypatch):
    """Of two networks and their tests one record and one checkpoint are lost: only these are made
    again, all values and files are as before, and as in another folder."""
    answers = []
    for folder in ("one", "two"):
        monkeypatch.chdir(here)
        save(nb, here / folder / "data", pair(nb, 300) | {"test": small(nb, 30, seed=9)})
        monkeypatch.chdir(here / folder)
        stages = {"net": (recipe(nb, images=300, examples=32), None, 0)}
        training = nb.training_tasks({"net": stages}, [5, 6])
        testing = nb.testing_tasks({"net": "CNN"}, 2, 30)
        for lost in (
            (),
            ("results/train net.json", "results/test net-1.json"),
            ("checkpoints/net.pt",),
        ):
            for name in lost:
                (here / folder / "data" / name).unlink()
            ledger = []
            values = nb.run_tasks("a", training, ledger)
            values |= nb.run_tasks("b", testing, ledger)
            answers.append(values)
            made = sum(2 - row["kept"] for row in ledger)
            assert made == (len(lost) or 4)
            assert [row["section"] for row in ledger] == ["a", "b"]
            assert ledger[0]["images_trained"] == 64
    assert all(values == answers[0] for values in answers)
    assert list(answers[0]) == ["train net", "train net-1", "test net", "test net-1"]
    assert answers[0]["test net"] != answers[0]["test net-1"]


def test_results_of_other_code_or_arguments_are_stale(nb, here, monkeypatch, capsys):
    """Another argument, or another definition when tasks start: computed again. Each task that ends
    says so."""
    calls = []

    def double(x):
        calls.append(x)
        return {"y": 2 * x, "images_trained": 3, "chip_answers": x}

    def kept(x, rate=1):
        ledger = []
        monkeypatch.setattr(nb, "RATE", rate, raising=False)
        tasks = {"a": (double, {"x": x}), "b": (double, {"x": 9})}
        values = nb.run_tasks("s", tasks, ledger)
        assert values["a"]["y"] == 2 * x and values["b"]["y"] == 18
        assert (ledger[0]["images_trained"], ledger[0]["chip_answers"]) == (6, x + 9)
        return ledger[0]["kept"]

    assert [kept(1), kept(1), kept(2), kept(2, 3), kept(2, 3)] == [0, 2, 1, 0, 2]
    assert calls == [1, 9, 2, 2, 9]
    assert capsys.readouterr().out.count("[2/2] b") == 5


SMALL = {
    "parameters": 'PROFILE = "full"\nSEED = 0\nCLUSTER = ""',
    "definitions": """# A small notebook.
from dataclasses import dataclass

RATE = 0.1


@dataclass(frozen=True)
class Settings:
    \"\"\"One number.\"\"\"

    number: int = 3

    def doubled(self):
        \"\"\"Twice the number.\"\"\"
        return 2 * self.number


def used(x):
    \"\"\"A helper.\"\"\"
    return RATE * x


TABLE = {"a": Settings(), "b": used}
""",
}


def small_notebook(path, **changes):
    """A notebook of two cells, in which texts are replaced: its definitions."""
    cells = []
    for tag, source in SMALL.items():
        for old, new in changes.get(tag, {}).items():
            assert old in source
            source = source.replace(old, new)
        cells.append({"cell_type": "code", "metadata": {"tags": [tag]}, "source": [source]})
    path.write_text(json.dumps({"cells": cells}))
    return vars(load_notebook(path))


def test_the_digest_is_of_definitions_and_not_of_the_profile(nb, tmp_path):
    """A helper, a method, a default, a constant, the seed: each changes it; PROFILE, CLUSTER and
    loading once more do not."""
    number = iter(range(99))

    def digest(**changes):
        folder = tmp_path / str(next(number))
        folder.mkdir()
        return nb.digest_of(small_notebook(folder / "small.ipynb", **changes))

    before = digest()
    assert digest() == before
    assert digest(parameters={'"full"': '"quick"'}) == before
    assert digest(parameters={'CLUSTER = ""': 'CLUSTER = "tcp://10.0.0.1:8786"'}) == before
    assert digest(parameters={"SEED = 0": "SEED = 1"}) != before
    for old, new in (
        ("RATE * x", "RATE * x * x"),
        ("RATE = 0.1", "RATE = 0.2"),
        ("number: int = 3", "number: int = 4"),
        ("2 * self.number", "3 * self.number"),
        ('"a": Settings()', '"a": Settings(5)'),
        ("number: int = 3", "number: float = 3"),
    ):
        assert digest(definitions={old: new}) != before, new


def test_the_digest_ignores_what_a_run_leaves_behind(nb):
    """Variables of cells that ran: a profile, a recipe, an environment."""
    before = nb.digest_of(vars(nb))
    left = {"profile": nb.PROFILES["quick"], "half": nb.Recipe(), "test": small(nb, 6)}
    assert nb.digest_of(vars(nb) | left) == before
    for text in ("def train(): return 1", "def train(): return 2"):  # of no cell, as below `%%time`
        exec(text, changed := {"__name__": nb.__name__})
        digests = [nb.digest_of(vars(nb) | {"train": changed["train"]}) for _ in range(2)]
        assert len({before, *digests}) == 2
        before = digests[0]


def test_cells_that_run_bind_no_constant():
    """An upper-case name counts as a definition: one that a cell binds on its way would make the
    results of later and of second runs stale."""
    for index, cell in enumerate(json.loads(NOTEBOOK.read_text())["cells"]):
        if cell["cell_type"] != "code" or cell["metadata"].get("tags"):
            continue
        names = {
            node.id
            for node in ast.walk(ast.parse("".join(cell["source"])))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        assert not [name for name in names if name.isupper()], f"cell {index}"


def test_seeds_are_derived_and_apart(nb):
    """The same label, the same seed; labels and numbers tell seeds apart; all are valid."""
    labels = [(0, "chip", k) for k in range(50)] + [(1, "chip", 0), (0, "chips", 0), (0, "chip")]
    python_random.Random(0).shuffle(labels)
    seeds = [nb.seed_for(*label) for label in labels]
    assert len(set(seeds)) == 53 and all(0 <= seed < 2**31 for seed in seeds)
    assert seeds == [nb.seed_for(*label) for label in labels]
