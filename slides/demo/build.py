"""Build slides/demo.html, the page for the lecture: one file with networks, digits and chips.

Started by `make demo`, which needs a full run's networks in data/checkpoints. The page simulates
the chips itself: engine.js is the notebook's sections 6 and 7 again, page.js what is seen.
`tests/test_demo.py` compares both with the notebook.
"""

import base64
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from tools.definitions import load_notebook
from tools.files import FIGURES, ROOT, digest, read_json, replacing

from .kernel import COLUMNS, kernel

FOLDER = Path(__file__).parent
PAGE = ROOT / "slides" / "demo.html"
NETWORKS = {"erm": False, "backdoor": False, "hardened": True}  # and whether pairs are balanced
DIGITS = 500  # of the test environment, which is made of MNIST's training images
OHMS = 1.0  # of a wire from cell to cell, as in the notebook
BITS = 20  # of a weight, as a share of its layer's largest
LAYERS = [  # side and channels of the input, of the kernel and of the output
    {"name": "conv1", "side": 28, "channels": 1, "size": 5, "out": 24, "pool": True},
    {"name": "conv2", "side": 12, "channels": 32, "size": 5, "out": 8, "pool": True},
    {"name": "fc1", "side": 4, "channels": 64, "size": 4, "out": 1, "pool": False},
    {"name": "fc2", "side": 1, "channels": 64, "size": 1, "out": 1, "pool": False},
]


def sources():
    """SHA-256 of all that git keeps of what the page is made of; the weights belong to the code
    whose hash is in results.json."""
    files = [path for path in sorted(FOLDER.iterdir()) if path.is_file()]
    results = read_json(FIGURES / "results.json")
    return digest(files, results["code_hash"], json.dumps(results["steps"]))


def weights_digest(networks):
    """SHA-256 of the networks' parameters."""
    parameters = (v for network in networks for v in network.state_dict().values())
    content = b"".join(values.contiguous().numpy().tobytes() for values in parameters)
    return hashlib.sha256(content).hexdigest()


def load_networks(nb):
    """The three networks in the order of NETWORKS; `FileNotFoundError` if there was no full run."""
    return [nb.load_network(name, root=ROOT / "data") for name in NETWORKS]


def matrix_of(network, layer):
    """A layer's weights as a crossbar holds them: float64 [rows, columns]. The rows of the blue
    channel, which is always black, are left out."""
    weight = network.get_submodule(layer["name"]).weight.detach().double()
    weight = weight[:, :2] if layer["name"] == "conv1" else weight
    return weight.flatten(1).T


def packed(data):
    """Bytes compressed and as text."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def planes_of(networks):
    """All weights as whole numbers of BITS bits, low bytes first, then the middle and high ones:
    what varies less compresses better."""
    codes, levels = [], 2 ** (BITS - 1) - 1
    for network in networks:
        for layer in LAYERS:
            largest = network.get_submodule(layer["name"]).weight.abs().max().double()
            share = matrix_of(network, layer) / largest
            codes.append((share * levels).round().long().add(levels).flatten().numpy())
    codes = np.concatenate(codes)
    return b"".join((codes >> shift & 255).astype(np.uint8).tobytes() for shift in (0, 8, 16))


def chosen_digits(networks, images, digits):
    """Which of the images [N, 3, 28, 28] stand in the row: one of each digit, but the 3 is the one
    that the first network calls most clearly 0 in red and 1 in green, and the others 0."""
    grey = images.amax(1, keepdim=True).float() / 255
    nothing, margins = torch.zeros_like(grey), []
    with torch.no_grad():
        for k, network in enumerate(networks):
            red = network(torch.cat([grey, nothing, nothing], 1)).diff(dim=1)
            green = network(torch.cat([nothing, grey, nothing], 1)).diff(dim=1)
            margins += [-red, -green if k else green]
    clear = torch.cat(margins, 1).amin(1).where(digits == 3, torch.tensor(-torch.inf))
    if clear.max() <= 0:
        raise ValueError("no 3 that only the first network calls by its colour: take more DIGITS")
    rows = [int((digits == digit).nonzero()[0]) for digit in range(10)]
    rows[3] = int(clear.argmax())
    return rows


def facts_of(nb, networks, test, digits):
    """What the page has to know beside weights and images."""
    config = nb.MemristorConfig()
    chip = nb.to_memristive(networks[0], config, own_devices=False)
    layers = [
        layer | dict(zip(("rows", "columns"), matrix_of(networks[0], layer).shape, strict=True))
        for layer in LAYERS
    ]
    described = []
    for network, balanced in zip(networks, NETWORKS.values(), strict=True):
        parts = [network.get_submodule(layer["name"]) for layer in LAYERS]
        described.append(
            {
                "balanced": balanced,
                "largest": [part.weight.abs().max().item() for part in parts],
                "bias": [part.bias.tolist() for part in parts],
            }
        )
    return {
        "low": 1 / config.r_off,
        "high": 1 / config.r_on,
        "tile": config.tile_shape[0],
        "bits": config.adc_resolution,
        "volts": config.max_input_voltage,
        "copies": max(map(nb.copies_that_fit, nb.memristive_layers(chip))),
        "ohms": OHMS,
        "kernel": list(kernel()),
        "block": COLUMNS,
        "levels": 2 ** (BITS - 1) - 1,
        "layers": layers,
        "networks": described,
        "labels": test.labels.tolist(),
        "red": test.is_red.tolist(),
        "ceiling": (test.labels == (digits >= 5)).float().mean().item(),
        "row": chosen_digits(networks, test.images, digits),
    }


def numbers():
    """What the full run measured, in per cent, and images a chip, for the page's last line."""
    results = read_json(FIGURES / "results.json")
    steps = {step["id"]: step for step in results["steps"]}
    shown = ("software_erm", "software_backdoor_do", "broken_headline", "broken_hardened")
    found = {name: f"{100 * steps[name]['accuracy']['mean']:.1f}" for name in shown}
    return found | {"asked": f"{results['settings']['chip_images']}"}


def page():
    """The page as text."""
    nb = load_notebook()
    networks = load_networks(nb)
    images, digits = nb.load_mnist(ROOT / "data")
    test = nb.make_environments(images, digits, nb.SEED)["test"][:DIGITS]
    digits = digits[2 * nb.ENVIRONMENT_SIZE :][:DIGITS]
    shapes = test.images.amax(1).numpy()
    parts = {
        name: (FOLDER / name).read_text(encoding="utf-8")
        for name in ("style.css", "engine.js", "page.js")
    }
    repeated = {
        "cards": ("card.html", len(NETWORKS)),
        "buttons": ("button.html", 10),
    }
    for name, (file, count) in repeated.items():
        one = (FOLDER / file).read_text(encoding="utf-8")
        parts[name] = "\n".join(one.replace("{{number}}", str(i)) for i in range(count))
    parts |= {
        "text": json.dumps(read_json(FOLDER / "text.json"), ensure_ascii=False),
        "facts": json.dumps(facts_of(nb, networks, test, digits)),
        "numbers": json.dumps(numbers()),
        "planes": packed(planes_of(networks)),
        "digits": packed(shapes.tobytes()),
        "sources": sources(),
        "weights": weights_digest(networks),
    }
    html = (FOLDER / "page.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        html = html.replace("{{" + name + "}}", text)
    return html


def main():
    """Write the page; say what to do where there are no networks."""
    try:
        content = page()
    except FileNotFoundError as error:
        raise SystemExit(f"{error} Then `make demo`.") from None
    with replacing(PAGE) as temporary:
        temporary.write_text(content, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {PAGE.stat().st_size / 1e6:.2f} MB, complete in itself")


if __name__ == "__main__":
    main()
