"""Training, selection, measures and what is kept on disk."""

import json
from types import SimpleNamespace

import memtorch
import numpy as np
import pytest
import torch
import torch.nn.functional as F


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

    def __len__(self):
        raise AssertionError("the test environment was read: its length")


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


METHODS = "erm repetition resampling ipw group_dro irm vrex recolouring grayscale".split()


def test_the_registry_is_tested(nb):
    """A method that joins the registry joins the tests below."""
    assert list(nb.METHODS) == METHODS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("changes", [{}, {"noise_aware": True, "averaging": 0.9, "penalty": 10.0}])
def test_training_is_seeded_and_leaves_the_generators_alone(nb, method, changes):
    """The same seed gives the same network bit for bit, another seed another one."""
    environments = {"train1": small(nb, seed=1), "train2": small(nb, seed=2)}
    chosen = recipe(nb, method=method, **changes)
    before = torch.get_rng_state()
    first, again, other = (nb.train(chosen, environments, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs)


@pytest.mark.parametrize("method", ["recolouring", "grayscale"])
def test_what_cannot_see_colour_learns_none(nb, method):
    """Colours swapped in training: recolouring and grayscale give the same network."""
    environment = small(nb)
    swapped = nb.Environment(
        environment.images[:, [1, 0, 2]], environment.labels, ~environment.is_red
    )
    network = "GrayscaleCNN" if method == "grayscale" else "CNN"
    chosen = recipe(nb, method=method, network=network, environments=("train1",))
    a, b = (nb.train(chosen, {"train1": e}, 0)[0] for e in (environment, swapped))
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_soft_targets_replace_the_labels(nb):
    """One-hot targets of the labels change nothing, other targets do; labels are then not used."""
    environment = {"train1": small(nb)}
    chosen = recipe(nb, environments=("train1",))
    own = torch.nn.functional.one_hot(environment["train1"].labels, 2).float()
    plain, same, flipped = (
        nb.train(chosen, environment, 0, targets=t)[0].fc2.bias for t in (None, own, own.flip(1))
    )
    assert torch.equal(plain, same) and not torch.equal(plain, flipped)


def test_a_wrong_colour_label_reaches_the_weights_only(nb):
    """ERM, which uses no colour label, ignores that they are wrong; the weights do not."""
    environments = {"train1": small(nb, seed=1), "train2": small(nb, seed=2)}
    for method, equal in (("erm", True), ("ipw", False)):
        a, b = (
            nb.train(recipe(nb, method=method, wrong_colours=w), environments, 0)[0].fc2.bias
            for w in (0.0, 0.4)
        )
        assert torch.equal(a, b) is equal


# What the methods minimise


def batch(nb, logits, labels, environments, is_red=None):
    """A Batch of hard labels."""
    labels = torch.tensor(labels)
    targets = torch.nn.functional.one_hot(labels, 2).to(logits.dtype)
    is_red = torch.zeros_like(labels) if is_red is None else torch.tensor(is_red)
    losses = nb.label_loss(logits, targets, noise_aware=False)
    weights = torch.arange(1.0, len(labels) + 1).double()
    return nb.Batch(
        logits, targets, losses, weights, 2 * labels + is_red, torch.tensor(environments)
    )


def test_irm_penalty_against_finite_differences(nb):
    """With each half of a batch the same, it is the squared slope of each risk, averaged."""
    random = torch.Generator().manual_seed(0)
    half = torch.randn(6, 2, generator=random, dtype=torch.float64)
    labels, environments = [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1]
    logits = half.repeat_interleave(2, 0)  # even and odd rows are the two halves
    b = batch(
        nb, logits, [y for y in labels for _ in "ab"], [e for e in environments for _ in "ab"]
    )

    def risk(scale, number):
        mine = b.environments == number
        return nb.label_loss(scale * logits, b.targets, noise_aware=False)[mine].mean()

    h = 1e-5
    slopes = [(risk(1 + h, e) - risk(1 - h, e)) / (2 * h) for e in (0, 1)]
    expected = (slopes[0] ** 2 + slopes[1] ** 2) / 2
    found = nb.irm_penalty(b.logits, b.targets, b.environments)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def test_irm_penalty_is_unbiased(nb):
    """Over random orders of a batch its mean is near the squared slope, where the square of a
    small sample's slope is far above it."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 2, generator=random, dtype=torch.float64)
    targets = torch.eye(2).double()[torch.randint(0, 2, (2000,), generator=random)]
    slopes = ((logits.softmax(1) - targets) * logits).sum(1)
    draws, squares = [], []
    for _ in range(3000):
        i = torch.randperm(2000, generator=random)[:8]
        draws.append(nb.irm_penalty(logits[i], targets[i], torch.zeros(8)).item())
        squares.append(slopes[i].mean().item() ** 2)
    truth = slopes.mean().item() ** 2
    error = torch.tensor(draws).std().item() / 3000**0.5
    assert abs(sum(draws) / 3000 - truth) < 4 * error
    assert sum(squares) / 3000 - truth > 10 * error


def test_vrex_penalty_by_hand(nb):
    """Risks 1 and 4: mean 2.5, variance 2.25."""
    losses, environments = torch.tensor([0.0, 2.0, 4.0]), torch.tensor([0, 0, 1])
    assert nb.vrex_penalty(losses, environments).item() == pytest.approx(2.25)


@pytest.mark.parametrize("progress", [0.2, 0.9])
def test_penalties_are_annealed_and_scaled_back(nb, progress):
    """Early: risk + value. Late: (risk + penalty * value) / penalty."""
    b = batch(nb, torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.5, 0.1]]).double(), [0, 0, 1], [0, 0, 1])
    risk = (b.losses[:2].mean() + b.losses[2]) / 2
    value = ((b.losses[:2].mean() - b.losses[2]) / 2) ** 2
    found = nb.vrex_risk(b, 50.0, {"progress": progress})
    torch.testing.assert_close(found, risk + value if progress < 0.3 else risk / 50 + value)


def test_group_dro_two_steps_by_hand(nb):
    """q starts even, grows by exp(rate * loss) where the loss is high, and is normalised."""
    b = batch(nb, torch.tensor([[2.0, 0.0], [2.0, 0.0]]), [0, 1], [0, 0])
    low, high = b.losses.tolist()
    memory = {}
    first = nb.worst_cell_risk(b, 0.0, memory).item()
    q = torch.tensor([low, 0.0, high, 0.0]).mul(0.01).exp() / 4  # cells 0 and 2 are present
    q /= q.sum()
    assert first == pytest.approx((q[0] * low + q[2] * high).item(), rel=1e-6)
    nb.worst_cell_risk(b, 0.0, memory)
    q = q * torch.tensor([low, 0.0, high, 0.0]).mul(0.01).exp()
    torch.testing.assert_close(memory["q"], (q / q.sum()).to(memory["q"].dtype))


def test_weighted_risk_by_hand(nb):
    """Weights 1 and 2."""
    b = batch(nb, torch.tensor([[2.0, 0.0], [2.0, 0.0]]).double(), [0, 1], [0, 0])
    expected = (b.losses[0] + 2 * b.losses[1]) / 2
    torch.testing.assert_close(nb.weighted_risk(b, 0.0, {}), expected)


def test_resampling_balances_the_labels_within_each_colour(nb):
    """4,000 draws from cells of 800, 200, 100 and 900: colour says nothing about the label."""
    counts = {(0, True): 800, (0, False): 200, (1, True): 100, (1, False): 900}
    labels = torch.tensor([y for (y, _), n in counts.items() for _ in range(n)])
    is_red = torch.tensor([c for (_, c), n in counts.items() for _ in range(n)])
    i = nb.resampled(labels, is_red, torch.Generator().manual_seed(0))
    assert len(i) == len(labels)
    for colour in (True, False):
        share = labels[i][is_red[i] == colour].double().mean().item()
        assert share == pytest.approx(0.5, abs=4 * 0.5 / 900**0.5)


def test_posterior_of_the_clean_label_by_hand(nb):
    """P(clean 1) = .8: seen 1, (.8 * .75) / (.8 * .75 + .2 * .25) = 12/13; seen 0, 4/7."""
    clean = torch.tensor([[0.2, 0.8], [0.2, 0.8]])
    found = nb.clean_label_posterior(clean, torch.tensor([1, 0]))
    torch.testing.assert_close(found[:, 1], torch.tensor([12 / 13, 4 / 7]))
    torch.testing.assert_close(found.sum(1), torch.ones(2))


# Invariance and placebo on a network small enough to reason about


def shortcut_and_adjusted(nb, wrong_colours):
    """The pull of a network trained by ERM, and by weights, where colour is all there is."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (600,), generator=random)
    is_red = (labels == 0) ^ (torch.rand(600, generator=random) < 0.15)
    environment = nb.Environment(
        nb.paint(torch.full((600, 28, 28), 90, dtype=torch.uint8), is_red), labels, is_red
    )
    pulls = []
    for method in ("erm", "ipw"):
        chosen = recipe(
            nb,
            method=method,
            images=600,
            environments=("train1",),
            epochs=4,
            augment=False,
            wrong_colours=wrong_colours,
            learning_rate=1e-3,
        )
        network, _ = nb.train(chosen, {"train1": environment}, 0)
        red, green = nb.predict_both(network, environment.images[:1])
        pulls.append((red - green)[0, 0].item())
    return pulls


def test_weights_take_the_colour_away_and_placebo_weights_do_not(nb):
    """All shapes alike: ERM's answer depends on colour; with weights it does not; with weights
    from colour labels that are coin tosses it does again."""
    erm, adjusted = shortcut_and_adjusted(nb, 0.0)
    _, placebo = shortcut_and_adjusted(nb, 0.5)
    assert erm > 0.5 and placebo > 0.5
    assert abs(adjusted) < 0.1


# Selection


def test_training_does_not_read_the_test(nb):
    """Training reads the environments of its recipe and no other."""
    environments = {"train1": small(nb, seed=1), "train2": small(nb, seed=2), "test": Unreadable()}
    with pytest.raises(ValueError, match="environments train1, train2 or both"):
        recipe(nb, environments=("train1", "test"))
    nb.train(recipe(nb), environments, 0)
    with pytest.raises(AssertionError, match="test environment was read"):
        nb.train(recipe(nb), environments | {"train2": Unreadable()}, 0)


def test_choosing_works_without_a_test_file(nb, tmp_path):
    """Networks, students and their held-out scores are made with only the training files there."""
    for name in ("train1", "train2"):
        path = tmp_path / "ColoredMNIST" / f"{name}.pt"
        nb.save_environment(small(nb, 400, seed=3), path, seed=0)
    teacher = recipe(nb, method="ipw", noise_aware=True, images=400)
    student = recipe(nb, method="recolouring", images=400)
    rungs = {"teacher": ("", teacher, None), "student": ("", student, "teacher")}
    records = nb.train_chain("chain", rungs, 1, seed=0, made_from={}, root=tmp_path)
    for rung in rungs:
        (record,) = records[rung]["history"]
        assert {"held_out", "held_out_reweighted", "held_out_do"} <= set(record)
        assert (tmp_path / "checkpoints" / f"{rung}-1.pt").exists()
    assert records["teacher"]["sha256"] != records["student"]["sha256"]
    assert records["teacher"]["discount"] is None
    assert records["student"]["discount"] in nb.DISCOUNTS


def test_neighbours_vote_by_angle(nb):
    """By hand: the two nearest directions vote, lengths do not matter, nobody votes for itself."""
    known = torch.tensor([[1.0, 0.0], [0.1, 0.01], [9.0, 3.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 0, 0])
    queries = torch.tensor([[5.0, 0.1], [0.0, 7.0]])  # nearest: 0 and 1; 3 and 2
    assert nb.neighbour_votes(queries, known, labels, count=2).tolist() == [0.0, 0.0]
    assert nb.neighbour_votes(queries, known, labels, count=1).tolist() == [-1.0, -1.0]
    votes = nb.neighbour_votes(known, known, labels, count=1)  # of 1, 0, 1, 2 and 3
    assert votes.tolist() == [1.0, -1.0, 1.0, 1.0, -1.0]


class Undecided(torch.nn.Module):
    """A teacher that has no opinion and sees two kinds of shape: thick ones and thin ones."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))  # says on which device it is

    def features(self, x):
        thick = (x.amax(1).mean((1, 2)) > 0.1).float()[:, None]
        return F.pad(torch.cat([thick, 1 - thick], 1), (0, 62)) + 1e-3 * x.amax(1)[:, 0, :1]

    def classify(self, features):
        return torch.zeros(len(features), 2)


def test_neighbours_correct_a_wrong_label(nb):
    """Shapes of two kinds, a quarter of the labels wrong: the posterior follows the kind; where
    neighbours say nothing (labels are coin tosses), the discount is 0 and the own label stands."""
    random = torch.Generator().manual_seed(5)
    for informative in (True, False):
        parts = []
        for n in (1500, 500):
            thick = torch.rand(n, generator=random) < 0.5
            shapes = torch.zeros(n, 28, 28, dtype=torch.uint8)
            shapes[thick, 5:20, 5:20] = 255
            shapes[~thick, 10:13, 10:13] = 255
            shapes[:, 0, 0] = torch.randint(0, 256, (n,), generator=random, dtype=torch.uint8)
            clean = thick.long() if informative else torch.randint(0, 2, (n,), generator=random)
            wrong = torch.rand(n, generator=random) < nb.LABEL_NOISE
            red = torch.rand(n, generator=random) < 0.5
            parts.append((nb.Environment(nb.paint(shapes, red), clean ^ wrong.long(), red), clean))
        (pool, clean), (held_out, _) = parts
        posterior, discount = nb.taught_labels(Undecided(), pool, held_out)
        assert posterior.sum(1).allclose(torch.ones(len(pool)))
        right = (posterior.argmax(1) == clean).double().mean().item()
        if informative:
            assert discount > 0 and right > 0.97
        else:
            assert discount == 0 and right == pytest.approx(0.75, abs=0.04)


def test_views_average_both_colours(nb):
    """The answer is predict_do's, and the features do not depend on the colour shown."""
    torch.manual_seed(0)
    network, seen = nb.CNN().eval(), small(nb, 16)
    answers, features = nb.shape_view(network, seen.images, batch_size=5)
    assert torch.allclose(answers, nb.predict_do(network, seen.images), atol=1e-6)
    assert features.shape == (16, 1024) and (features >= 0).all()
    swapped = nb.shape_view(network, seen.images[:, [1, 0, 2]])[1]
    assert torch.allclose(features, swapped, atol=1e-6)


def test_a_network_is_tested_where_the_digit_is_or_in_nine_places(nb, tmp_path):
    """Plain and moved answers are measured apart, and one is never taken for the other."""
    test, network = small(nb, 300, seed=3), nb.CNN()
    with torch.no_grad():  # half of the answers are 1, many are close
        gap = nb.predict(network, test.images)[:, 1].logit().median()
        network.fc2.bias += torch.tensor([gap, 0])
    nb.save_environment(test, tmp_path / "ColoredMNIST" / "test.pt", seed=0)
    nb.save_tensors(network.state_dict(), tmp_path / "checkpoints" / "new.pt")
    expected = [
        nb.evaluate(model, test.first(200), 0.3) for model in (network, nb.NinePlaces(network))
    ]
    assert expected[0] != expected[1]
    for places in (False, True, False):
        kept = nb.evaluate_network("x", "new", "CNN", 200, 0.3, {}, tmp_path, places=places)
        assert kept == expected[places]


def test_training_pool_numbers_images_by_environment(nb):
    """Environments in the recipe's order, their numbers, and one-hot labels unless taught."""
    parts = {"train1": small(nb, 5, seed=1), "train2": small(nb, 3, seed=2)}
    pool, number, targets = nb.training_pool(nb.Recipe(), parts)
    assert number.tolist() == [0] * 5 + [1] * 3
    assert torch.equal(pool.images, torch.cat([part.images for part in parts.values()]))
    assert targets.tolist() == [[1 - y, y] for y in pool.labels.tolist()]
    taught = torch.rand(8, 2)
    assert nb.training_pool(nb.Recipe(), parts, taught)[2] is taught
    for wrong in (torch.rand(8), torch.rand(7, 2), torch.rand(8, 2) + 1):
        with pytest.raises(ValueError, match="targets"):
            nb.training_pool(nb.Recipe(), parts, wrong)


def test_what_made_a_network_names_all_its_code(nb):
    """A digest changes with a constant, a helper or an objective that training uses, and neither
    with a new method nor with a figure."""
    erm = nb.Recipe()
    before = nb.made_by(erm)

    def changed(name, value):
        old = getattr(nb, name)
        setattr(nb, name, value)
        try:
            return nb.made_by(erm) != before
        finally:
            setattr(nb, name, old)

    assert not changed("CNN", nb.CNN)
    for name in ("LABEL_NOISE", "HELD_OUT", "DISCOUNTS", "COMPONENTS"):
        assert changed(name, 0.123), name
    for name in ("augmented", "mean_risk", "accuracy", "training_batches", "neighbour_votes"):
        assert changed(name, nb.summary) == (name != "mean_risk"), name  # the registry holds it
    assert not changed("broken_forward", nb.summary)
    assert nb.made_by(nb.Recipe(clip=2.0)) != before
    assert nb.made_by(nb.Recipe("ipw")) != before
    assert not changed("METHODS", nb.METHODS | {"new": nb.Method("new", "nothing")})
    assert not changed("draw_ladder", nb.summary)


def test_a_recipe_that_continues_starts_from_its_teacher(nb, tmp_path):
    """At a vanishing learning rate the student is its teacher; one that starts anew is not."""
    for name in ("train1", "train2"):
        path = tmp_path / "ColoredMNIST" / f"{name}.pt"
        nb.save_environment(small(nb, 200, seed=3), path, seed=0)
    nb.train_network("teacher", recipe(nb, images=200), 0, {}, tmp_path)
    teacher = nb.load_network("teacher", root=tmp_path).state_dict()
    for continues in (True, False):
        still = recipe(nb, images=200, learning_rate=1e-12, continues=continues)
        nb.train_network("student", still, 1, {}, tmp_path, teacher="teacher")
        student = nb.load_network("student", root=tmp_path).state_dict()
        same = all(torch.allclose(student[key], teacher[key], atol=1e-6) for key in teacher)
        assert same == continues


def test_a_noise_aware_recipe_keeps_the_noisy_labels(nb, tmp_path):
    """The control: it continues its teacher, and what it learns are the labels as they are."""
    parts = {"train1": small(nb, 200, seed=1), "train2": small(nb, 200, seed=2)}
    for name, part in parts.items():
        nb.save_environment(part, tmp_path / "ColoredMNIST" / f"{name}.pt", seed=0)
    nb.train_network("teacher", recipe(nb, images=200), 0, {}, tmp_path)
    chosen = recipe(nb, images=200, noise_aware=True, continues=True)
    record = nb.train_network("control", chosen, 0, {}, tmp_path, teacher="teacher")
    assert record["discount"] is None
    start = nb.load_network("teacher", root=tmp_path).state_dict()
    expected, _ = nb.train(chosen, nb.hold_out(parts, 0.1, 0)[0], 0, start=start)
    kept = nb.load_network("control", root=tmp_path).state_dict()
    assert all(torch.equal(kept[key], value) for key, value in expected.state_dict().items())


# Training for hardware


def test_clipping_by_hand(nb):
    """Weights -3, -1, 1, 3 have the standard deviation sqrt(20 / 3); biases are left alone, and a
    bound does not follow the weights that it has made smaller."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    network[0].weight.data = torch.tensor([[-3.0, -1.0], [1.0, 3.0]])
    network[0].bias.data = torch.tensor([9.0, -9.0])
    bounds = nb.clip_bounds(network, 1.0)
    bound = (20 / 3) ** 0.5
    for _ in range(2):
        nb.clip_weights(network, bounds)
        assert torch.allclose(network[0].weight, torch.tensor([[-bound, -1.0], [1.0, bound]]))
    assert network[0].bias.tolist() == [9.0, -9.0]


def test_proportions_of_stuck_devices_in_a_step(nb):
    """Within what is asked for, the mean of a square at low resistance (a third of the most) and of
    a uniform number at high (half); many of one mean few of the other."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.tensor([nb.drawn_proportions((0.45, 0.06), random) for _ in range(4_000)])
    low, high = drawn.T
    assert 0 <= low.min() < 0.01 and 0.44 < low.max() <= 0.45
    assert 0 <= high.min() and high.max() <= 0.06
    assert low.mean().item() == pytest.approx(0.15, abs=0.01)
    assert high.mean().item() == pytest.approx(0.03, abs=0.002)
    assert torch.corrcoef(drawn.T)[0, 1] < -0.9


def test_stuck_pairs_by_hand(nb):
    """One device at the largest weight or at nothing changes a pair by simple arithmetic."""
    weights = torch.tensor([2.0, -1.0, 0.5])
    random = torch.Generator().manual_seed(0)
    assert torch.equal(nb.with_stuck_pairs(weights, 0.0, 0.0, random), weights)
    assert nb.with_stuck_pairs(weights, 1.0, 0.0, random).tolist() == [0.0, 0.0, 0.0]
    assert nb.with_stuck_pairs(weights, 0.0, 1.0, random).tolist() == [0.0, 0.0, 0.0]
    weights = torch.full((20_000,), 0.5)
    weights[0] = 2.0
    low = nb.with_stuck_pairs(weights, 0.1, 0.0, random)[1:]
    # healthy .5; positive stuck: 2; negative stuck: .5 - 2; both stuck: 0
    for value, share in ((0.5, 0.81), (2.0, 0.09), (-1.5, 0.09), (0.0, 0.01)):
        assert (low == value).double().mean().item() == pytest.approx(share, abs=0.012)
    high = nb.with_stuck_pairs(weights, 0.0, 0.3, random)[1:]
    assert (high == 0).double().mean().item() == pytest.approx(0.3, abs=0.02)


def test_stuck_pairs_agree_with_the_crossbars(nb):
    """The mean over draws of what training sees and of what MemTorch's cells hold is the same."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(30, 20))
    memristive = nb.to_memristive(network, nb.MemristorConfig(adc_resolution=None))
    probe, low, high = torch.eye(30), 0.2, 0.3
    weights, random = network[0].weight.detach(), torch.Generator().manual_seed(1)
    seen = torch.stack([nb.with_stuck_pairs(weights, low, high, random) for _ in range(300)])
    with torch.no_grad():
        held = [
            (nb.apply_device_faults(memristive, low, high, seed)(probe) - network[0].bias).T
            for seed in range(300)
        ]
    held = torch.stack(held)
    for statistic in (torch.mean, torch.std):
        a, b = statistic(seen, 0), statistic(held, 0)
        assert (a - b).abs().mean() < 0.01 and (a - b).abs().max() < 0.06


def test_training_with_broken_devices_keeps_weights_clipped(nb):
    """The result stays within the clip, which is that of the weights that training starts from;
    stuck devices influence training and leave it finite."""
    environments = {"train1": small(nb, seed=1), "train2": small(nb, seed=2)}
    plain, _ = nb.train(recipe(nb), environments, 0)
    start = {key: 2 * value for key, value in plain.state_dict().items()}
    stuck, clip = (0.1, 0.1), 0.8
    clipped, _ = nb.train(recipe(nb, clip=clip), environments, 0, start=start)
    broken, _ = nb.train(recipe(nb, clip=clip, stuck=stuck), environments, 0, start=start)
    for name in nb.weight_names(broken):
        weights = broken.get_parameter(name)
        bound = clip * start[name].std()
        assert weights.isfinite().all()
        assert weights.abs().max().item() == pytest.approx(bound.item(), rel=1e-5)
    assert not torch.equal(clipped.fc2.weight, broken.fc2.weight)


def test_what_is_watched_influences_nothing(nb, tmp_path):
    """The same network, whether or not its accuracy on the test is written down on the way."""
    for name in ("train1", "train2", "test"):
        path = tmp_path / "ColoredMNIST" / f"{name}.pt"
        nb.save_environment(small(nb, 400, seed=4), path, seed=0)
    shas = [
        nb.train_network(f"w{n}", recipe(nb, images=400), 0, {}, tmp_path, watched_images=n)
        for n in (0, 200)
    ]
    assert "test" in shas[1]["history"][0] and "test" not in shas[0]["history"][0]
    states = [torch.load(tmp_path / "checkpoints" / f"w{n}.pt") for n in (0, 200)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_kept_network_has_seen_nine_tenths(nb, tmp_path):
    """The checkpoint is, bit for bit, what `train` makes of the larger parts alone."""
    parts = {"train1": small(nb, 400, seed=1), "train2": small(nb, 400, seed=2)}
    for name, part in parts.items():
        nb.save_environment(part, tmp_path / "ColoredMNIST" / f"{name}.pt", seed=0)
    chosen = recipe(nb, images=400)
    nb.train_network("net", chosen, 7, {}, tmp_path)
    larger, held_out = nb.hold_out(parts, 0.1, seed=7)
    assert len(held_out) == 80
    expected, _ = nb.train(chosen, larger, 7)
    kept = torch.load(tmp_path / "checkpoints" / "net.pt", weights_only=True)
    assert all(torch.equal(kept[key], value) for key, value in expected.state_dict().items())


def test_held_out_images_are_not_trained_on(nb):
    """The two parts are disjoint and together everything."""
    environments = {"train1": small(nb, seed=1), "train2": small(nb, seed=2)}
    larger, held_out = nb.hold_out(environments, 0.25, seed=0)
    assert len(held_out) == 32

    def keys(environment):
        return {bytes(image.flatten().tolist()) for image in environment.images}

    kept = keys(larger["train1"]) | keys(larger["train2"])
    assert not kept & keys(held_out)
    assert kept | keys(held_out) == keys(environments["train1"]) | keys(environments["train2"])


def test_noise_aware_loss_by_hand(nb):
    """P(noisy label 1) = .25 * .2 + .75 * .8 = .65 for a clean probability of .8."""
    logits = torch.tensor([[0.2, 0.8]]).log()
    one = torch.tensor([[0.0, 1.0]])
    loss = nb.label_loss(logits, one, noise_aware=True)
    torch.testing.assert_close(loss.exp(), torch.tensor([1 / 0.65]))
    loss = nb.label_loss(logits, one, noise_aware=False)
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
        nb.save_environment(small(nb, 400), tmp_path / "ColoredMNIST" / f"{name}.pt", seed=0)
    path = tmp_path / "checkpoints" / "net.pt"

    def train(**changes):
        return nb.train_network("net", recipe(nb, images=400, **changes), 0, {}, tmp_path)

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
    assert measured["worst_cell"] == 0  # the 1 in red is called 0
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


def test_wilson_interval(nb):
    """Solves |p - q| = z sqrt(q (1 - q) / n) for q at both ends; Newcombe's 15 of 148."""
    for share, count in ((15 / 148, 148), (0.0, 10), (0.744, 20_000)):
        for q in nb.wilson(share, count, 1.96):
            assert (share - q) ** 2 == pytest.approx(1.96**2 * q * (1 - q) / count, abs=1e-12)
    low, high = nb.wilson(15 / 148, 148)
    assert (round(low, 4), round(high, 4)) == (0.0624, 0.1605)


def test_epochs_are_chosen_by_their_key(nb):
    """The accuracy reported is that of the epoch with the best score, run by run."""
    runs = [[{"a": 1, "test": 0.1}, {"a": 2, "test": 0.7}], [{"a": 5, "test": 0.2}]]
    assert nb.selected(runs, "a")["runs"] == [0.7, 0.2]


def test_occlusion_finds_the_only_pixel_that_counts(nb):
    """A network that reads one pixel changes where a square covers it, and nowhere else."""

    class OnePixel(torch.nn.Module):
        def forward(self, x):
            return torch.stack([torch.zeros(len(x)), 4 * x[:, 0, 10, 20]], 1)

    image = torch.zeros(3, 28, 28, dtype=torch.uint8)
    image[0] = 255
    found = nb.occlusion(OnePixel(), image, side=6) < -0.1
    rows, columns = torch.nonzero(found).T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 13, 18, 23)
    assert found.sum() == 36


def test_labels_are_spread_out_in_their_order(nb):
    """Close heights keep the gap and their order; distant ones stay."""
    moved = nb.spread_out([0.5, 0.1, 0.51, 0.52], 0.05)
    assert moved[1] == 0.1
    assert (torch.tensor(sorted(moved)).diff() >= 0.05 - 1e-6).all()
    assert moved[0] < moved[2] < moved[3]


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


@pytest.mark.parametrize("beside", ["nothing", "zeros", "currents"])
def test_compiled_adc_is_the_plain_one(nb, beside):
    """The loop that numba compiles, as Python and compiled, adds what `adc` returns, or puts it in
    place of what was there, be that the currents themselves; whatever columns are left out."""
    everything = torch.randn(50, 2, 7, generator=torch.Generator().manual_seed(0)) * 1e-3
    everything[0], everything[1], everything[2, :, 5] = 0, 2e-4, 3.0
    extremes, currents = nb.NO_COLUMNS, everything
    if beside == "zeros":
        extremes = (0, 0)
    if beside == "currents":  # of one tile
        everything, currents = everything[:, :1], everything[:, :1, :5].contiguous()
    extremes = np.full((1, 2), extremes, np.float32)
    if beside == "currents":
        extremes = torch.stack(torch.aminmax(everything[:, 0, 5:], dim=1), 1).numpy()
    read = nb.adc(everything, 6, 0.0, beside == "zeros")[..., : currents.shape[2]]
    expected = 1.0 + read[..., :5]
    for loop in (nb.add_adc_loop, nb.compiled_adc):
        total = torch.ones_like(expected)
        loop(currents.numpy(), 6, extremes, total.numpy(), False)
        assert torch.equal(total, expected)
        loop(currents.numpy(), 6, extremes, total.numpy(), True)
        assert torch.equal(1.0 + total, expected)
        own = currents.clone()
        loop(own.numpy(), 6, extremes, own.numpy(), True)
        assert torch.equal(own, read)


@pytest.mark.parametrize("loop", ["extremes_loop", "compiled_extremes"])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_idle_extremes_are_those_of_a_convolution(nb, monkeypatch, loop, density):
    """Whole numbers, so that every order of summation gives the same; rows from 4 to 12 belong to
    the first and the second channel of a 3 by 3 kernel."""
    random = torch.Generator().manual_seed(0)
    planes = torch.randint(-9, 10, (3, 2, 6, 7), generator=random).float()
    cells = torch.randint(1, 9, (9, 5), generator=random).float()
    cells *= torch.rand(9, 5, generator=random) < density
    kernel = torch.zeros(18, 5)
    kernel[4:13] = cells
    currents = F.conv2d(planes, kernel.T.reshape(5, 2, 3, 3)).permute(0, 2, 3, 1).reshape(-1, 5)
    expected = torch.stack(torch.aminmax(currents, dim=1), 1)
    monkeypatch.setattr(nb, "compiled_extremes", getattr(nb, loop))
    found = nb.idle_extremes(SimpleNamespace(kernel_size=(3, 3)), planes, cells, 4)
    assert torch.equal(torch.from_numpy(found).expand_as(expected), expected)


# The choice between networks for hardware


def test_the_choice_asks_held_out_images_for_the_headlines_answers(nb, tmp_path, monkeypatch):
    """A chip of the headline network answers as it does, whatever the labels say; it is asked
    about held-out images only, and every chip's idle columns are filled."""
    parts = {}
    for number, name in enumerate(("train1", "train2")):
        parts[name] = small(nb, 200, seed=number)
        nb.save_environment(parts[name], tmp_path / "ColoredMNIST" / f"{name}.pt", seed=0)
    torch.manual_seed(0)
    network = nb.CNN()
    network.fc2.weight.data.mul_(100)  # no answer close to a tie
    nb.save_tensors(network.state_dict(), tmp_path / "checkpoints" / "backdoor.pt")
    asked, filled, ask, fill = [], [], nb.predict_do, nb.fill_idle_columns
    monkeypatch.setattr(nb, "predict_do", lambda m, x: asked.append(x) or ask(m, x))
    monkeypatch.setattr(nb, "fill_idle_columns", lambda *args: filled.append(args) or fill(*args))
    wears = [("none", {}), ("low 50%", {"low": 0.5})]
    scores = nb.score_held_out("choice", "backdoor", 3, wears, 2, 30, {}, root=tmp_path)
    held_out = nb.hold_out(parts, nb.HELD_OUT, 3)[1].first(30)
    assert len(asked) == 5 and all(torch.equal(images, held_out.images) for images in asked)
    assert len(filled) == 4
    assert scores["none"] == 1 > scores["low 50%"]


# Bad input


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "irmv2"},
        {"network": "ResNet"},
        {"optimiser": "adam"},
        {"epochs": 0},
        {"batch_size": 2.5},
        {"images": 0},
        {"learning_rate": -1.0},
        {"averaging": 1.0},
        {"penalty": -1.0},
        {"wrong_colours": 1.5},
        {"wrong_colours": float("nan")},
    ],
    ids=lambda changes: "-".join(f"{k}={v}" for k, v in changes.items()),
)
def test_impossible_recipes_are_refused(nb, changes):
    """The error names the field before any training starts."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        nb.Recipe(**changes)


@pytest.mark.parametrize(("share", "count"), [(-0.1, 10), (1.1, 10), (0.5, 0)])
def test_impossible_proportions_are_refused(nb, share, count):
    """An interval needs a proportion and trials."""
    with pytest.raises(ValueError, match="share"):
        nb.wilson(share, count)
