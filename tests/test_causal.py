"""The backdoor adjustment against tables worked by hand, and the criterion against textbooks."""

import itertools
import random
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

# (label, is_red): how often. P(y=0) = 1/2, P(red) = 3/5.
TABLE = {(0, True): 4, (0, False): 1, (1, True): 2, (1, False): 3}
# w = P(y) P(c) / P(y, c), by hand.
WEIGHTS = {
    (0, True): Fraction(3, 4),
    (0, False): Fraction(2),
    (1, True): Fraction(3, 2),
    (1, False): Fraction(2, 3),
}


def spread(table):
    """The labels and colours of a table of counts, in a mixed order."""
    cells = [cell for cell, count in table.items() for _ in range(count)]
    random.Random(0).shuffle(cells)
    labels, is_red = zip(*cells, strict=True)
    return torch.tensor(labels), torch.tensor(is_red)


# backdoor_weights


def test_weights_of_a_table_worked_by_hand(nb):
    """Each cell gets P(y) P(c) / P(y, c)."""
    labels, is_red = spread(TABLE)
    weights = nb.backdoor_weights(labels, is_red)
    cells = zip(labels.tolist(), is_red.tolist(), strict=True)
    expected = torch.tensor([float(WEIGHTS[cell]) for cell in cells])
    assert weights.is_floating_point() and weights.shape == labels.shape
    torch.testing.assert_close(weights.double(), expected.double(), rtol=1e-6, atol=0)


def test_weighted_label_and_colour_are_independent(nb):
    """The mean weight is 1, no marginal moves, and the joint becomes their product."""
    for counts in ((4, 1, 2, 3), (1, 1, 1, 1), (900, 7, 13, 80), (8000, 2000, 2000, 8000)):
        labels, is_red = spread(dict(zip(TABLE, counts, strict=True)))
        weights = nb.backdoor_weights(labels, is_red).double()
        assert weights.mean().item() == pytest.approx(1, abs=1e-6)
        weights = weights / weights.sum()
        y, c = labels.double(), is_red.double()
        p_y, p_c = (weights * y).sum().item(), (weights * c).sum().item()
        assert p_y == pytest.approx(y.mean().item(), rel=1e-6)
        assert p_c == pytest.approx(c.mean().item(), rel=1e-6)
        assert (weights * y * c).sum().item() == pytest.approx(p_y * p_c, rel=1e-6)


def effective_size(weights):
    """Kish's effective sample size."""
    return (weights.sum() ** 2 / (weights**2).sum()).item()


def test_effective_sample_size_is_known(nb):
    """Labels even, colour flipped with e: Kish's size is 4 e (1 - e) N."""
    for e in (0.05, 0.15, 0.5):
        common, rare = round(1000 * (1 - e)), round(1000 * e)
        table = {(0, True): common, (0, False): rare, (1, True): rare, (1, False): common}
        size = effective_size(nb.backdoor_weights(*spread(table)).double())
        assert size == pytest.approx(4 * e * (1 - e) * 2000, rel=1e-5)


def test_effective_size_of_believed_classes_is_larger(nb):
    """40 images, e = .1, a quarter of the labels wrong. Strata of labels hold 18 and 2, and
    4 * .1 * .9 * 40 = 14.4 images count. Of the 18 reds of label 0, three quarters are of class 0,
    of the 2 of label 1 one quarter: strata of classes hold 14 and 6: 4 * .3 * .7 * 40 = 33.6."""
    noisy = {(0, True): 18, (1, True): 2, (0, False): 2, (1, False): 18}
    believed = {(0, True): 14, (1, True): 6, (0, False): 6, (1, False): 14}
    sizes = [effective_size(nb.backdoor_weights(*spread(t)).double()) for t in (noisy, believed)]
    assert sizes == pytest.approx([14.4, 33.6], rel=1e-6)


def test_weights_follow_the_row_not_the_order(nb):
    """A row's weight does not depend on where it stands; the arguments are not changed."""
    labels, is_red = spread(TABLE)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    copies = labels.clone(), is_red.clone()
    weights = nb.backdoor_weights(labels, is_red)
    assert torch.equal(nb.backdoor_weights(labels[order], is_red[order]), weights[order])
    assert torch.equal(labels, copies[0]) and torch.equal(is_red, copies[1])


NO, YES = False, True


def test_impossible_strata_are_refused(nb):
    """Without all four cells (positivity) there is no adjustment; labels and colours are two."""
    for labels, is_red in (
        ([0, 1, 0], [NO, YES]),
        ([], []),
        ([[0, 1]], [[NO, YES]]),
        ([0, 0, 1, 2], [NO, YES, NO, YES]),
        ([0, 0, 1, -1], [NO, YES, NO, YES]),
        ([0, 1, 0, 1], [0, 0, 1, 7]),
        ([0, 1, 0, 1], [0, 0, 1, 0.5]),
        ([0, 1, 0, 1], [0, 0, 1, float("nan")]),
        ([0, 0, 1, 1], [NO, YES, NO, NO]),
        ([0, 0, 1, 1], [NO, NO, YES, YES]),
        ([1, 1, 1, 1], [NO, NO, YES, YES]),
    ):
        with pytest.raises(ValueError):
            nb.backdoor_weights(torch.tensor(labels).long(), torch.tensor(is_red))
    numbers = nb.backdoor_weights(torch.tensor([0, 1, 0, 1]), torch.tensor([0.0, 0, 1, 1]))
    assert numbers.tolist() == [1, 1, 1, 1]


# predict_do


class Tiny(nn.Module):
    """A network that sees shape and colour: two logits, linear in each channel's mean."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[5.0, -3.0, 40.0], [-1.0, 7.0, -20.0]]))
            self.fc.bias.copy_(torch.tensor([0.3, -0.4]))

    def forward(self, images):
        return self.fc(images.mean((2, 3)))


@pytest.fixture
def pictures():
    """Six float images, three red and three green, with their shapes."""
    shape = torch.rand(6, 28, 28, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(6, 3, 28, 28)
    images[:3, 0], images[3:, 1] = shape[:3], shape[3:]
    return images, shape


def test_predict_do_is_the_formula(nb, pictures):
    """P(red) P(y | shape, red) + P(green) P(y | shape, green); one half each by default."""
    images, shape = pictures
    model, nothing = Tiny(), torch.zeros_like(shape)
    red = model(torch.stack([shape, nothing, nothing], 1)).softmax(1)
    green = model(torch.stack([nothing, shape, nothing], 1)).softmax(1)
    assert (red - green).abs().max() > 0.3  # this network does look at the colour
    for p, given in ((0.5, {}), (0.3, {"p_red": 0.3}), (1.0, {"p_red": 1.0})):
        probabilities = nb.predict_do(model, images, **given)
        torch.testing.assert_close(probabilities, p * red + (1 - p) * green, rtol=1e-5, atol=1e-6)
        assert not probabilities.requires_grad


def test_predict_do_does_not_see_the_colour(nb, pictures):
    """Swapping the colour channels changes nothing; rows are distributions."""
    images, _ = pictures
    before = images.clone()
    torch.manual_seed(0)
    model = nb.CNN()
    probabilities = nb.predict_do(model, images, p_red=0.3)
    swapped = nb.predict_do(model, images[:, [1, 0, 2]], p_red=0.3)
    torch.testing.assert_close(probabilities, swapped, rtol=0, atol=1e-6)
    assert probabilities.shape == (6, 2)
    assert probabilities.min() >= 0 and probabilities.max() <= 1
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6))
    assert torch.equal(images, before)


def test_predict_do_does_not_depend_on_the_batch(nb, pictures):
    """One image at a time gives what all give at once, also for more images than a batch."""
    images, _ = pictures
    model = Tiny()
    together = nb.predict_do(model, images)
    one_by_one = torch.cat([nb.predict_do(model, image[None]) for image in images])
    many = nb.predict_do(model, images.repeat(500, 1, 1, 1))
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-6)
    torch.testing.assert_close(many, together.repeat(500, 1), rtol=0, atol=1e-6)


def test_predict_do_scales_bytes_only(nb, pictures):
    """uint8 images are divided by 255; float images are taken as they are."""
    images, _ = pictures
    pixels = (images * 255).round().to(torch.uint8)
    model = Tiny()
    expected = nb.predict_do(model, pixels.float() / 255)
    torch.testing.assert_close(nb.predict_do(model, pixels), expected, rtol=0, atol=1e-6)


def test_predict_do_leaves_the_model_as_it_was(nb, pictures):
    """It predicts without dropout and puts every module's mode back."""
    images, _ = pictures
    model = nn.Sequential(Tiny(), nn.Dropout(0.9))
    expected = nb.predict_do(model.eval(), images)
    for training in (True, False):
        model.train(training)
        model[1].train(not training)  # a mode of its own
        probabilities = nb.predict_do(model, images)
        torch.testing.assert_close(probabilities, expected)
        assert [m.training for m in model] == [
            training,
            not training,
        ] and model.training == training
        assert all(p.grad is None and p.requires_grad for p in model.parameters())


# CNN


def test_cnn_is_the_assignments(nb):
    """Layer shapes, number of parameters, and the sample's forward written out."""
    torch.manual_seed(0)
    net = nb.CNN()
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    assert shapes == {
        "conv1.weight": (32, 3, 5, 5),
        "conv1.bias": (32,),
        "conv2.weight": (64, 32, 5, 5),
        "conv2.bias": (64,),
        "fc1.weight": (64, 1024),
        "fc1.bias": (64,),
        "fc2.weight": (2, 64),
        "fc2.bias": (2,),
    }
    count = (3 * 25 + 1) * 32 + (32 * 25 + 1) * 64 + (1024 + 1) * 64 + (64 + 1) * 2
    assert sum(p.numel() for p in net.parameters()) == count == 119_426
    p = dict(net.named_parameters())
    x = images = torch.rand(7, 3, 28, 28)
    for layer in ("conv1", "conv2"):
        x = F.max_pool2d(F.relu(F.conv2d(x, p[f"{layer}.weight"], p[f"{layer}.bias"])), 2, 2)
    x = F.relu(F.linear(x.reshape(7, 1024), p["fc1.weight"], p["fc1.bias"]))
    x = F.linear(x, p["fc2.weight"], p["fc2.bias"])
    torch.testing.assert_close(net(images), x, rtol=1e-5, atol=1e-6)


# is_backdoor_set

# Edges, sets that are valid, sets that are not; the treatment is X (S in the generator).
GENERATOR = "S>Y Y>C Env>C"  # what the generator does
GRAPHS = {
    "the assignment's hint": ("E>X E>Y X>Y", ["E"], [""]),
    "generator": (GENERATOR, ["", "Env"], ["C", "C Env"]),
    "confounder": ("Z>X Z>Y X>Y", ["Z"], [""]),
    "M": ("U1>X U1>M U2>M U2>Y X>Y", ["", "M U1", "M U2"], ["M"]),
    "collider": ("X>C Y>C X>Y", [""], ["C"]),
    "mediator": ("X>M M>Y Z>X Z>Y", ["Z"], ["M", "M Z"]),
    "front door": ("U>X U>Y X>M M>Y", ["U"], ["", "M"]),
    "butterfly": ("A>X A>B D>B D>Y B>X B>Y X>Y", ["A B", "D B"], ["B", "A D"]),
    "Pearl, Causality, figure 3.4": (
        "X1>X3 X1>X4 X2>X4 X2>X5 X3>X X4>X X4>Y X5>Y X>X6 X6>Y",
        ["X3 X4", "X4 X5"],
        ["X4", "X3 X4 X6"],
    ),
}


def graph_of(edges):
    """The graph of a text such as "E>X X>Y"."""
    return nx.DiGraph(edge.split(">") for edge in edges.split())


def test_backdoor_criterion_on_textbook_graphs(nb):
    """The textbook's answers, and the graph is left as it was."""
    for name, (edges, valid, invalid) in GRAPHS.items():
        graph, treatment = graph_of(edges), "S" if edges == GENERATOR else "X"
        for adjustment in (*valid, *invalid):
            found = nb.is_backdoor_set(graph, treatment, "Y", set(adjustment.split()))
            assert found is (adjustment in valid), (name, adjustment)
        assert nx.utils.graphs_equal(graph, graph_of(edges))


def test_the_notebooks_graphs_are_the_hint_and_the_generator(nb):
    """Colour is a valid set in the first and a bad control in the second."""
    assert set(nb.HINT_GRAPH.edges) == {("C", "X"), ("C", "Y"), ("X", "Y")}
    made = set(graph_of(GENERATOR + " S>X C>X").edges)
    assert set(nb.GENERATOR_GRAPH.edges) == made
    assert nb.is_backdoor_set(nb.HINT_GRAPH, "X", "Y", {"C"})
    assert not nb.is_backdoor_set(nb.GENERATOR_GRAPH, "S", "Y", {"C"})


def blocks(graph, path, given):
    """A path is blocked by a given non-collider, or by a collider with no given descendant."""
    for a, b, c in zip(path, path[1:], path[2:], strict=False):
        if graph.has_edge(a, b) and graph.has_edge(c, b):
            if not ({b} | nx.descendants(graph, b)) & given:
                return True
        elif b in given:
            return True
    return False


def by_paths(graph, treatment, outcome, adjustment):
    """The criterion by its definition: enumerate every path into the treatment."""
    if nx.descendants(graph, treatment) & adjustment:
        return False
    paths = nx.all_simple_paths(graph.to_undirected(), treatment, outcome)
    backdoors = [path for path in paths if graph.has_edge(path[1], treatment)]
    return all(blocks(graph, path, adjustment) for path in backdoors)


def test_backdoor_criterion_is_its_definition(nb):
    """On 60 random graphs, every adjustment set is judged as by enumerating the paths."""
    draw, verdicts = random.Random(0), set()
    for _ in range(60):
        order = draw.sample("XYABC", 5)
        edges = [pair for pair in itertools.combinations(order, 2) if draw.random() < 0.55]
        graph = nx.DiGraph(edges)
        graph.add_nodes_from("XYABC")
        for size in range(4):
            for chosen in itertools.combinations("ABC", size):
                expected = by_paths(graph, "X", "Y", set(chosen))
                assert nb.is_backdoor_set(graph, "X", "Y", set(chosen)) == expected, (edges, chosen)
                verdicts.add(expected)
    assert verdicts == {True, False}


# The generator's exact distribution


def test_adjusting_for_the_bad_control_by_hand(nb):
    """Biased without weights, 3/4 with them, and a proper distribution both times."""
    for noises, adjusted in (
        # the mean of P(1 | s, green) and P(1 | s, red); colours are equally frequent
        (["1/5"], (Fraction(12, 13) + Fraction(3, 7)) / 2),
        (["1/10"], (Fraction(27, 28) + Fraction(1, 4)) / 2),
        (["1/5", "1/10"], (Fraction(17, 18) + Fraction(9, 26)) / 2),
    ):
        joint = nb.generator_joint(noises)
        assert joint.sum() == nb.reweighted(joint).sum() == 1
        assert joint[1, 1].sum() / joint[1].sum() == Fraction(3, 4)
        assert nb.adjusted_probability(joint) == adjusted
        assert nb.adjusted_probability(joint, s=0) == 1 - adjusted  # the generator is symmetric
        assert nb.adjusted_probability(nb.reweighted(joint)) == Fraction(3, 4)


def test_the_limit_of_averaging_by_hand(nb):
    """P(class 1) = .2, e = .05. P(1 | s = 1, green) = .75 * .95 / (.75 * .95 + .25 * .05) = 57/58
    and P(1 | s = 1, red) = 3/22; P(y = 1) = .2 * .75 + .8 * .25 = .35, so that P(green) = .35 * .95
    + .65 * .05 = .365: .445 on the average, on the wrong side, where the truth is .75."""
    joint = nb.generator_joint(["1/20"], "1/5")
    green, red, p_green = Fraction(57, 58), Fraction(3, 22), Fraction(365, 1000)
    averaged = p_green * green + (1 - p_green) * red
    assert nb.adjusted_probability(joint) == averaged and round(float(averaged), 3) == 0.445
    assert list(nb.exact_row(joint).values()) == [red, green, averaged] + 2 * [Fraction(3, 4)]


def test_an_exact_network_answers_by_colour_and_holds_the_shape(nb):
    """In both environments together: 9/26 in red is label 0, 17/18 in green label 1, and the mean
    of the two is on the shape's side."""
    row = nb.exact_row(nb.generator_joint(["1/5", "1/10"]))
    assert row["in red"] == Fraction(9, 26) < Fraction(1, 2) < row["in green"] == Fraction(17, 18)
    assert row["averaged over colours"] == (Fraction(9, 26) + Fraction(17, 18)) / 2
    assert row["averaged after balancing"] == row["truth"] == Fraction(3, 4)


def test_the_joint_is_what_the_generator_draws(nb, environments, mnist):
    """Every cell of (class, label, colour) is as frequent in train1 as the table says, within five
    standard errors."""
    part, clean = environments["train1"], mnist[1][:20_000] >= 5
    prior = Fraction(int(clean.sum()), 20_000)
    for (s, y, c), p in np.ndenumerate(nb.generator_joint(["1/5"], prior)):
        cell = (clean == s) & (part.labels == y) & (part.is_red == (c == 0))
        assert abs(cell.double().mean().item() - p) < 5 * (p * (1 - p) / 20_000) ** 0.5, (s, y, c)
