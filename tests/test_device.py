"""Another device than the CPU, without having one: PyTorch's meta device computes shapes only. It
refuses to mix with tensors of the CPU as a GPU would, but for products: those are looked at."""

import pytest
import torch
from torch import nn

META = torch.device("meta")


def test_the_device_is_one_that_exists(nb):
    """A GPU where there is one; a tensor can be made there."""
    assert nb.DEVICE.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.zeros(1, device=nb.DEVICE).device.type == nb.DEVICE.type


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


@pytest.mark.parametrize("objective", ["mean_risk", "weighted_risk", "worst_cell_risk"])
def test_a_training_step_stays_on_its_device(nb, objective):
    """From augmentation to the gradient, with random numbers of the CPU."""
    network, random = nb.CNN().to(META), torch.Generator().manual_seed(0)
    shapes = torch.zeros(6, 1, 28, 28, device=META)
    moved = nb.augmented(shapes, 1.0, random).squeeze(1)
    images = nb.paint(moved, torch.tensor([True, False] * 3))
    assert moved.device == images.device == META
    targets = torch.zeros(6, 2, device=META)
    for logits in (network(images), nb.broken_forward(network, images, (0.1, 0.1), random)):
        losses = nb.label_loss(logits, targets, True)
        cells = torch.zeros(6, dtype=torch.long, device=META)
        batch = nb.Batch(logits, targets, losses, losses.detach(), cells, cells)
        loss = getattr(nb, objective)(batch, 0.0, {})
        loss.backward()
        assert loss.device == META and network.conv1.weight.grad.device == META
    nb.clip_weights(network, nb.clip_bounds(network, 1.5))


def test_crossbars_are_multiplied_where_the_inputs_are(nb, monkeypatch):
    """Conductances stay on the CPU, where MemTorch keeps them, and follow the inputs; so do the
    factors of a calibration."""
    network = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Flatten(), nn.Linear(8 * 24 * 24, 8))
    config = nb.MemristorConfig(tile_shape=(64, 8))
    chip = nb.to_memristive(network, config).to(META)
    for layer in nb.memristive_layers(chip):
        layer.transform_output = nb.Corrected(layer.transform_output, torch.ones(8), torch.zeros(8))
    seen, summed = set(), nb.summed_currents

    def watched(layer, voltages, conductances, columns):
        seen.update((voltages.device, conductances.device))
        return summed(layer, voltages, conductances, columns)

    monkeypatch.setattr(nb, "summed_currents", watched)
    monkeypatch.setattr(nb, "check_batch", lambda images: None)  # meta tensors hold no numbers
    with nb.fast_crossbars(chip):
        answers = chip(torch.zeros(4, 3, 28, 28, device=META))
    assert seen == {META} and answers.device == META and answers.shape == (4, 8)
    held = [
        array.conductance_matrix
        for layer in nb.memristive_layers(chip)
        for array in layer.crossbars
    ]
    assert {values.device.type for values in held} == {"cpu"}
