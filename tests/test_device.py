"""Another device than the CPU, without having one: PyTorch's meta device computes shapes only. It
refuses to mix with tensors of the CPU as a GPU would, but for products: those are looked at."""

import contextlib

import joblib
import pytest
import torch
from torch import nn

META = torch.device("meta")


def test_the_device_is_one_that_exists(nb):
    """A GPU where there is one; a tensor can be made there."""
    assert nb.DEVICE.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.zeros(1, device=nb.DEVICE).device.type == nb.DEVICE.type


def test_one_process_drives_the_gpu(nb, monkeypatch):
    """Networks are trained and asked in this process where there is a GPU, chips by all workers."""
    networks = [*nb.training_tasks({"a": {}}, [1, 2]).values()]
    networks += nb.testing_tasks({"a": "CNN"}, 1, 9).values()
    chips = [(nb.measure_chips, {})]
    monkeypatch.setattr(nb, "WORKERS", 2)
    for device, tasks, jobs in (("cuda", networks, 1), ("cuda", chips, 2), ("cpu", networks, 2)):
        monkeypatch.setattr(nb, "DEVICE", torch.device(device))
        with nb.workers(tasks=tasks):
            assert joblib.effective_n_jobs(None) == jobs
    monkeypatch.setattr(nb, "DEVICE", torch.device("cuda"))
    (both,) = nb.training_tasks({"a": {}}, [1, 2]).values()
    assert both[1]["seeds"] == {0: 1, 1: 2}


def test_predictions_are_made_where_the_network_is(nb):
    """Images of the CPU go to the network's device, answers come back."""

    class Elsewhere(nn.Module):
        """Says where its images are."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, device=META))
            self.asked = set()

        def forward(self, x):
            self.asked.add(x.device)
            return torch.zeros(len(x), 2)

    network = Elsewhere()
    images = torch.zeros(5, 3, 28, 28, dtype=torch.uint8)
    assert nb.predict_do(network, images).device.type == "cpu"
    assert network.asked == {META}


def environment(nb):
    """A few images of every stratum."""
    shapes = torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8)
    is_red = torch.arange(40) % 4 > 1
    return nb.Environment(nb.paint(shapes, is_red), torch.arange(40) % 2, is_red)


def test_a_step_stays_on_its_device(nb, monkeypatch):
    """From the pool's images to the average of the weights, with random numbers of the CPU."""
    monkeypatch.setattr(nb, "half_precision", lambda device: contextlib.nullcontext())
    for method in ("strata", "ipw", "group_dro", "irm", "vrex", "recolouring"):
        stuck = (0.1, 0.1) if method in ("strata", "irm") else (0.0, 0.0)
        random = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        recipe = nb.Recipe(method=method, batch_size=8, penalty=10.0, stuck=stuck, clip=1.0)
        parts = {"train1": environment(nb), "train2": environment(nb)}
        pools = [nb.Pool(recipe, parts, generator, device=META) for generator in random]
        stack = nb.Stack(recipe, [nb.CNN(), nb.CNN()], META)
        given = [next(pool.batches()) for pool in pools]
        assert {value.device for part in given for value in part.values()} == {META}
        how = [nb.scheduled(recipe, 3, 9, stack.matrices, generator) for generator in random]
        given = [part | more for part, more in zip(given, how, strict=True)]
        batch = {name: torch.stack([one[name] for one in given]).to(META) for name in given[0]}
        stack.work(batch)
        kept = [stack.parameters, stack.averages, stack.first, stack.second, stack.largest]
        kept += [stack.memory, stack.losses]
        assert {value.device for value in kept} == {META}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captured_steps_are_those_of_the_cpu(nb, monkeypatch):
    """In single precision, for a stack of two, to rounding."""
    monkeypatch.setattr(nb, "HALF", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recipe = nb.Recipe(method="group_dro", examples=40, batch_size=8, stuck=(0.1, 0.1), clip=1.5)
    parts = {"train1": environment(nb), "train2": environment(nb)}
    found, expected = (
        nb.train(recipe, [parts, parts], [1, 2], device=device) for device in ("cuda", "cpu")
    )
    assert found[1][0][0].tolist() == pytest.approx(expected[1][0][0].tolist(), rel=1e-3)
    for a, b in zip(found[0], expected[0], strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert (p - q).abs().max() < 0.005


def test_crossbars_are_multiplied_where_the_inputs_are(nb, monkeypatch):
    """Conductances stay on the CPU, where MemTorch keeps them, and follow the inputs."""
    network = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Flatten(), nn.Linear(8 * 24 * 24, 8))
    config = nb.MemristorConfig(tile_shape=(64, 8))
    chip = nb.to_memristive(network, config).to(META)
    monkeypatch.setattr(
        nb, "check_batch", lambda model, inputs: None
    )  # meta tensors hold no numbers
    with nb.fast_crossbars(chip):
        answers = chip(torch.zeros(4, 3, 28, 28, device=META))
    assert answers.device == META and answers.shape == (4, 8)
    held = [
        array.conductance_matrix
        for layer in nb.memristive_layers(chip)
        for array in layer.crossbars
    ]
    assert {values.device.type for values in held} == {"cpu"}
