"""Colored MNIST against the assignment's specification, and files that are not what they say."""

import gzip
import hashlib
import re
import shutil
import urllib.error
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision
from conftest import ENVIRONMENTS, MNIST, MNIST_FILES, Evil, rng_states

COLOUR_FLIP = {"train1": 0.2, "train2": 0.1, "test": 0.9}
START = {"train1": 0, "train2": 20_000, "test": 40_000}
CURE = r"(?i)delet|remov|restor|checkout|download"


def flips(environment, digits):
    """Which labels and which colours were flipped."""
    label_flip = environment.labels != (digits >= 5).long()
    return label_flip, environment.is_red != (environment.labels == 0)


def assert_rate(flags, p):
    """The share of true flags is within five standard errors of p."""
    n = flags.numel()
    assert abs(flags.double().mean().item() - p) < 5 * (p * (1 - p) / n) ** 0.5, (n, p)


def assert_unrelated(a, b):
    """Two series of equal length have no correlation beyond five standard errors."""
    a, b = a.double(), b.double()
    r = ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())
    assert abs(r) < 5 / len(a) ** 0.5


def same(a, b):
    """Two environments hold the same tensors."""
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("images", "labels", "is_red"))


# MNIST


def test_load_mnist_gives_the_original_order(nb, mnist, empty_root):
    """Images and digits as a reader of our own finds them, and nothing is written."""
    images, digits = nb.load_mnist(empty_root)
    assert images.shape == (60_000, 28, 28) and images.dtype == torch.uint8
    assert digits.dtype == torch.int64 and digits[:5].tolist() == [5, 0, 4, 1, 9]
    assert torch.equal(images, mnist[0]) and torch.equal(digits, mnist[1])
    assert sorted(p.name for p in (empty_root / "mnist").iterdir()) == sorted(MNIST_FILES)


def flip_a_bit(data):
    """Bytes with the lowest bit in their middle flipped."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


MNIST_DAMAGE = {
    "bit flipped in the archive": flip_a_bit,
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "not an archive": lambda data: b"<html>404</html>",
    "bit flipped before packing": lambda data: gzip.compress(flip_a_bit(gzip.decompress(data)), 1),
    "another file": lambda data: gzip.compress(b"another file"),
}


def test_damaged_mnist_is_refused(nb, empty_root):
    """The error names the file, the reason or both hashes, and the cure."""
    for i, (damage, change) in enumerate(MNIST_DAMAGE.items()):
        name = MNIST_FILES[i % 2]
        good, path = (MNIST / name).read_bytes(), empty_root / "mnist" / name
        bad = change(good)
        path.unlink()
        path.write_bytes(bad)
        with pytest.raises(RuntimeError) as error:
            nb.load_mnist(empty_root)
            pytest.fail(damage)
        message = str(error.value)
        assert name in message and re.search(CURE, message), message
        assert path.read_bytes() == bad  # the evidence is left for the reader to judge
        if damage in ("bit flipped before packing", "another file"):
            for data in (good, bad):  # expected and found hash, of the file or of what it holds
                hashes = [hashlib.sha256(d).hexdigest() for d in (data, gzip.decompress(data))]
                assert any(h[:8] in message for h in hashes), message
        path.write_bytes(good)


def test_other_files_are_read_the_same_way(nb, tmp_path):
    """Two images of 28 x 28 and their digits, packed by hand; a wrong hash is refused."""
    (tmp_path / "mnist").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
    raw = {
        "images.gz": bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + pixels.tobytes(),
        "digits.gz": bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3]),
    }
    for name, content in raw.items():
        (tmp_path / "mnist" / name).write_bytes(gzip.compress(content))
    files = {name: hashlib.sha256(content).hexdigest() for name, content in raw.items()}
    images, digits = nb.load_mnist(tmp_path, files)
    assert np.array_equal(images, pixels) and digits.tolist() == [7, 3]
    with pytest.raises(RuntimeError, match=r"digits\.gz"):
        nb.load_mnist(tmp_path, files | {"digits.gz": files["images.gz"]})


def test_missing_mnist_is_fetched_or_named(nb, tmp_path, monkeypatch):
    """Without the files it asks the network; without the network it names what is missing."""
    asked = []

    def no_network(request, *args, **kwargs):
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(RuntimeError, match=MNIST_FILES[0]):
        nb.load_mnist(tmp_path / "data")
    assert any("train-images" in url for url in asked)


# make_environments


def test_images_are_mnist_in_the_right_channel(environments, mnist):
    """Types and order of the contract; MNIST's pixels in the colour's channel, zero elsewhere."""
    for env in ENVIRONMENTS:
        environment, start = environments[env], START[env]
        assert list(environments) == list(ENVIRONMENTS)
        assert environment.images.shape == (20_000, 3, 28, 28)
        assert environment.images.dtype == torch.uint8
        assert environment.labels.shape == environment.is_red.shape == (20_000,)
        assert environment.labels.dtype == torch.int64 and environment.is_red.dtype == torch.bool
        assert set(environment.labels.tolist()) == {0, 1}
        grey, red = mnist[0][start : start + 20_000], environment.is_red
        assert torch.equal(environment.images[red, 0], grey[red])
        assert torch.equal(environment.images[~red, 1], grey[~red])
        assert not environment.images[red, 1].any() and not environment.images[~red, 0].any()
        assert not environment.images[:, 2].any()


def test_flips_follow_the_specification(environments, mnist):
    """Labels flip with 25%, colours with 20/10/90%, whatever the digit and the other flip."""
    for env in ENVIRONMENTS:
        digits = mnist[1][START[env] : START[env] + 20_000]
        label_flip, colour_flip = flips(environments[env], digits)
        assert_rate(label_flip, 0.25)
        assert_rate(colour_flip, COLOUR_FLIP[env])
        assert_rate(colour_flip[label_flip], COLOUR_FLIP[env])
        assert_unrelated(label_flip, colour_flip)
        for digit in range(10):
            assert_rate(label_flip[digits == digit], 0.25)
            assert_rate(colour_flip[digits == digit], COLOUR_FLIP[env])


def test_environments_draw_independently(environments, mnist):
    """No environment repeats the draws of another."""
    drawn = [
        flips(environments[env], mnist[1][START[env] : START[env] + 20_000]) for env in ENVIRONMENTS
    ]
    for (label_a, colour_a), (label_b, colour_b) in zip(drawn, drawn[1:] + drawn[:1], strict=True):
        assert_unrelated(label_a, label_b)
        assert_unrelated(colour_a, colour_b)


def test_make_environments_is_pure_and_seeded(nb, mnist, environments):
    """Same seed, same tensors; nothing global or given is touched."""
    images, digits = (tensor.clone() for tensor in mnist)
    states = rng_states()
    again = nb.make_environments(images, digits, 0)
    assert rng_states() == states
    assert torch.equal(images, mnist[0]) and torch.equal(digits, mnist[1])
    assert all(same(again[env], environments[env]) for env in ENVIRONMENTS)
    other = nb.make_environments(images, digits, 1)
    for env in ENVIRONMENTS:
        assert not torch.equal(other[env].labels, environments[env].labels)
        assert not torch.equal(other[env].is_red, environments[env].is_red)
    again["train1"].images.zero_()
    assert torch.equal(images, mnist[0])  # the result shares no memory with the argument


def test_impossible_arguments_are_refused(nb, mnist):
    """Anything but MNIST's 60,000 byte images, whole digits and a whole seed, by its name."""
    images, digits = mnist
    for name, *wrong in (
        ("images", images.float(), digits, 0),
        ("images", images.reshape(60_000, 784), digits, 0),
        ("images", images[:100], digits[:100], 0),
        ("digits", images, digits[:-1], 0),
        ("digits", images, digits.float(), 0),
        ("digits", images, digits + 1, 0),
        ("seed", images, digits, -1),
        ("seed", images, digits, 1.5),
    ):
        with pytest.raises(ValueError, match=name):
            nb.make_environments(*wrong)


# ColoredMNIST


def test_items_are_picture_label_colour(nb, shared_root, environments):
    """RGB picture, int and bool, equal to make_environments' tensors; `test` by default."""
    for env in ENVIRONMENTS:
        given = {} if env == "test" else {"env": env}  # as in the sample
        dataset, expected = nb.ColoredMNIST(shared_root, **given), environments[env]
        assert isinstance(dataset, torchvision.datasets.VisionDataset) and len(dataset) == 20_000
        for i in (0, 1, 2, 777, 19_999):
            picture, label, is_red = dataset[i]
            assert isinstance(picture, PIL.Image.Image) and picture.mode == "RGB"
            assert type(label) is int and type(is_red) is bool
            assert label == expected.labels[i] and is_red == expected.is_red[i]
            assert np.array_equal(np.array(picture), expected.images[i].permute(1, 2, 0).numpy())


def test_all_train_is_train1_then_train2(nb, shared_root, environments):
    """40,000 items, in this order."""
    dataset = nb.ColoredMNIST(str(shared_root), env="all_train")
    assert len(dataset) == 40_000
    for i, env, j in ((0, "train1", 0), (19_999, "train1", -1), (20_000, "train2", 0)):
        picture, label, is_red = dataset[i]
        assert np.array_equal(np.array(picture), environments[env].images[j].permute(1, 2, 0))
        assert (label, is_red) == (environments[env].labels[j], environments[env].is_red[j])


def test_transforms_are_applied(nb, shared_root):
    """To the picture and to the label, never to the colour."""
    plain = nb.ColoredMNIST(shared_root, env="train1")
    dataset = nb.ColoredMNIST(
        shared_root,
        env="train1",
        transform=lambda picture: picture.size,
        target_transform=lambda target: f"label {target}",
    )
    _, label, is_red = plain[3]
    assert dataset[3] == ((28, 28), f"label {label}", is_red)


def test_works_in_a_data_loader(nb, shared_root, environments):
    """With ToTensor, batches are the tensors over 255."""
    dataset = nb.ColoredMNIST(shared_root, transform=torchvision.transforms.ToTensor())
    images, labels, is_red = next(iter(torch.utils.data.DataLoader(dataset, batch_size=64)))
    expected = environments["test"]
    torch.testing.assert_close(images, expected.images[:64].float() / 255)
    assert torch.equal(labels, expected.labels[:64])
    assert torch.equal(is_red, expected.is_red[:64])


def test_unknown_environment_names_the_valid_ones(nb, shared_root):
    """The error lists all four."""
    with pytest.raises(ValueError) as error:
        nb.ColoredMNIST(shared_root, env="Test")
    assert all(name in str(error.value) for name in (*ENVIRONMENTS, "all_train"))


def test_missing_files_and_folders_are_made(nb, empty_root, environments):
    """What is asked for is made, what is there is left alone, and nothing else appears."""
    assert len(nb.ColoredMNIST(empty_root, env="train2")) == 20_000
    folder = empty_root / "ColoredMNIST"
    made = (folder / "train2.pt").stat().st_mtime_ns
    for env in ENVIRONMENTS:
        assert nb.ColoredMNIST(empty_root, env=env)[0][1] == environments[env].labels[0]
    assert (folder / "train2.pt").stat().st_mtime_ns == made
    assert sorted(p.name for p in folder.iterdir()) == ["test.pt", "train1.pt", "train2.pt"]


# Files


def tensors_of(payload):
    """Every tensor of a file; anything but tensors and their names fails."""
    if isinstance(payload, torch.Tensor):
        return [payload]
    if isinstance(payload, dict):
        assert all(isinstance(key, str) for key in payload)
        payload = payload.values()
    assert not isinstance(payload, (str, bytes, int, float)), payload
    return [tensor for part in payload for tensor in tensors_of(part)]


def stored(path):
    """The tensors of an environment's file, with names."""
    return SimpleNamespace(**torch.load(path, weights_only=True))


def test_files_hold_tensors_only(nb, shared_root, environments):
    """torch.load(weights_only=True) reads them, and they are the environment's."""
    for env in ENVIRONMENTS:
        path = shared_root / "ColoredMNIST" / f"{env}.pt"
        assert tensors_of(torch.load(path, weights_only=True))
        assert same(stored(path), environments[env])


def flip_in_tensor(path, index):
    """Flip the lowest bit of a byte amid the index-th of the file's three long tensors."""
    tensors = tensors_of(torch.load(path, weights_only=True))
    tensor = [t for t in tensors if t.dim() and len(t) == 20_000][index].contiguous()
    stored, data = tensor.view(torch.uint8).numpy().tobytes(), bytearray(path.read_bytes())
    place = data.find(stored)
    assert place > 0
    data[place + tensor[0].numel() * tensor.element_size() * 10_000] ^= 1
    path.write_bytes(data)


def rewrite(change):
    """A damage that stores changed tensors in the file's own form."""

    def damage(path):
        payload = torch.load(path, weights_only=True)
        torch.save({key: change(tensor) for key, tensor in payload.items()}, path)

    return damage


def sample_file(path):
    """What the assignment's sample code stores: a list of pictures, labels and colours."""
    torch.save([(PIL.Image.new("RGB", (28, 28)), 0, True)] * 3, path)


DAMAGE = {  # what a file is made into, by its path; train1.pt lies beside it
    # train1 under the name of test would turn every result round
    "another environment's": lambda path: shutil.copy(path.with_name("train1.pt"), path),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "bit flipped in tensor 0": lambda path: flip_in_tensor(path, 0),
    "bit flipped in tensor 1": lambda path: flip_in_tensor(path, 1),
    "bit flipped in tensor 2": lambda path: flip_in_tensor(path, 2),
    "one row short": rewrite(lambda t: t[:-1].clone() if t.dim() and len(t) == 20_000 else t),
    "pixels as floats": rewrite(lambda t: t.float() / 255 if t.dim() == 4 else t),
    "foreign dict": lambda path: torch.save({"weights": torch.zeros(3)}, path),
    "the sample's pickled pictures": sample_file,
    "torch file with a malicious pickle": lambda path: torch.save(
        Evil(path.parent / "trace"), path
    ),
}


def test_damaged_file_is_refused(nb, full_root):
    """The error names file and cure; nothing is executed, changed or left behind."""
    folder = full_root / "ColoredMNIST"
    good = (folder / "test.pt").read_bytes()
    for title, damage in DAMAGE.items():
        (folder / "test.pt").write_bytes(good)
        damage(folder / "test.pt")
        bad = (folder / "test.pt").read_bytes()
        with pytest.raises(RuntimeError) as error:
            nb.ColoredMNIST(full_root)
            pytest.fail(title)
        assert "test.pt" in str(error.value) and re.search(CURE, str(error.value)), title
        assert (folder / "test.pt").read_bytes() == bad
        assert sorted(p.name for p in folder.iterdir()) == ["test.pt", "train1.pt", "train2.pt"]


def spoken(capfd, recwarn):
    """All that was printed or warned."""
    return "".join(capfd.readouterr()) + "".join(str(w.message) for w in recwarn)


def test_prepare_makes_damaged_files_anew(nb, full_root, environments, capfd, recwarn):
    """It says so, and leaves the intact ones alone."""
    folder = full_root / "ColoredMNIST"
    times = {env: (folder / f"{env}.pt").stat().st_mtime_ns for env in ("train1", "train2")}
    damages = "bit flipped in tensor 1", "the sample's pickled pictures", "another environment's"
    for damage in damages:
        DAMAGE[damage](folder / "test.pt")
        result = nb.prepare_environments(full_root, seed=0)
        assert "test.pt" in spoken(capfd, recwarn), damage
        assert all(same(result[env], environments[env]) for env in ENVIRONMENTS)
        assert same(stored(folder / "test.pt"), environments["test"])
        assert sorted(p.name for p in folder.iterdir()) == ["test.pt", "train1.pt", "train2.pt"]
        for env, modified in times.items():
            assert (folder / f"{env}.pt").stat().st_mtime_ns == modified


def test_prepare_leaves_intact_files_alone(nb, full_root, environments):
    """Not a byte is rewritten."""
    files = sorted((full_root / "ColoredMNIST").iterdir())
    before = [(p.name, p.stat().st_mtime_ns, p.stat().st_ino) for p in files]
    result = nb.prepare_environments(full_root)
    files = sorted((full_root / "ColoredMNIST").iterdir())
    assert [(p.name, p.stat().st_mtime_ns, p.stat().st_ino) for p in files] == before
    assert all(same(result[env], environments[env]) for env in ENVIRONMENTS)


def test_prepare_recognises_another_seed(nb, mnist, full_root, capfd, recwarn):
    """Files of seed 0 are made anew for seed 1, with a word for each."""
    result = nb.prepare_environments(full_root, seed=1)
    said, expected = spoken(capfd, recwarn), nb.make_environments(*mnist, 1)
    for env in ENVIRONMENTS:
        assert f"{env}.pt" in said
        assert same(result[env], expected[env])
        assert same(stored(full_root / "ColoredMNIST" / f"{env}.pt"), expected[env])


def test_failed_write_leaves_nothing_behind(nb, empty_root, monkeypatch):
    """A full disk leaves no half file under any name."""

    def full_disk(obj, target, *args, **kwargs):
        if isinstance(target, str) or hasattr(target, "__fspath__"):
            with open(target, "wb") as file:
                file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError):
        nb.prepare_environments(empty_root)
    folder = empty_root / "ColoredMNIST"
    assert not folder.exists() or not list(folder.iterdir())
