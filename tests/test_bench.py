"""What `make bench` measures: budgets, the record, and the two scripts that it starts."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tools import bench, records, sample_run, speed

GOOD = {
    **{name: 0.5 * budget for name, budget in bench.BUDGETS.items()},
    "speed": {
        chip: {"times_slower_than_channels_last": budget}
        for chip, budget in bench.SPEED_BUDGETS.items()
    },
    "full_code_hash": "abc",
    "sample_seconds": 2000.0,
}


# Budgets


@pytest.fixture
def benched(tmp_path, monkeypatch, capsys):
    """Returns a function that runs the benchmark with what it measures, beside an earlier record;
    it returns (exit status, the new record, what was printed)."""

    def run(measured, before):
        (tmp_path / "bench.json").write_text(json.dumps(before))
        monkeypatch.setattr(bench, "FIGURES", tmp_path)
        monkeypatch.setattr(bench, "output", lambda *_, **__: "")
        monkeypatch.setattr(bench, "measure", lambda *_: dict(measured))
        monkeypatch.setattr(sys, "argv", ["bench.py"])
        status = bench.main()
        return status, json.loads((tmp_path / "bench.json").read_text()), capsys.readouterr().out

    return run


def test_all_within_budget(benched):
    """Exit status 0; the full run's own numbers stay, and the ratio is of those two times."""
    status, record, said = benched(GOOD, GOOD | {"old": 1})
    assert status == 0 and "OVER" not in said and "not measured" not in said
    assert record["full_seconds"] == 450 and record["full_code_hash"] == "abc"
    assert record["ratio_to_sample"] == 0.225 and "old" not in record


def test_whatever_is_over_its_budget_fails(benched):
    """Exit status 1, after the record was written and everything was shown."""
    for name in (*bench.BUDGETS, *bench.SPEED_BUDGETS):
        record = json.loads(json.dumps(GOOD))
        if name in bench.SPEED_BUDGETS:
            record["speed"][name]["times_slower_than_channels_last"] = 99
        elif name == "ratio_to_sample":
            record["sample_seconds"] = 499
        else:
            record[name] = 1.01 * bench.BUDGETS[name]
        status, written, said = benched(record, record)
        assert status == 1 and written["full_seconds"] == record["full_seconds"], name
        assert [name in line for line in said.splitlines() if "OVER BUDGET" in line] == [True], name
        assert all(other in said for other in (*bench.BUDGETS, *bench.SPEED_BUDGETS))


def test_what_was_not_measured_is_said_and_does_not_fail(benched):
    """As before the first full run."""
    status, record, said = benched({"sample_seconds": 9.0}, {})
    assert status == 0 and record["full_seconds"] is record["ratio_to_sample"] is None
    assert said.count("not measured") == len(bench.BUDGETS) + len(bench.SPEED_BUDGETS)


def test_a_full_run_is_noted_if_it_reused_nothing(tmp_path):
    """With the ratio to the sample's run, beside what the benchmark measured."""
    before = {"sample_seconds": 864.2, "full_seconds": 1.0}
    noted = {"full_seconds": 432.1, "full_memory": 7, "full_code_hash": "abc"}
    for resumed in (False, True):
        found = {"run_seconds": 432.14, "code_hash": "abc", "resumed": resumed}
        (tmp_path / "results.json").write_text(json.dumps(found))
        (tmp_path / "bench.json").write_text(json.dumps(before))
        records.note_full_run(tmp_path, 7)
        record = json.loads((tmp_path / "bench.json").read_text())
        assert record == (before if resumed else before | noted | {"ratio_to_sample": 0.5})


def test_numbers_have_no_negative_nought():
    """Neither after rounding."""
    assert [records.fixed(x, 2) for x in (-0.001, -0.0, -0.005001, 1.234)] == [
        "0.00",
        "0.00",
        "-0.01",
        "1.23",
    ]


# The course's own sample run


def test_each_colour_is_balanced_as_in_the_sample():
    """By hand: of the reds label 1 is rarer, its images come again from the first on; of the greens
    label 0."""
    is_red = torch.tensor([1, 1, 1, 1, 1, 1, 1, 0, 0, 0]).bool()
    labels = torch.tensor([0, 1, 0, 0, 0, 1, 0, 1, 1, 0])
    rows = sample_run.balanced(labels, is_red).tolist()
    assert rows == [0, 1, 2, 3, 4, 5, 6, 1, 5, 1, 7, 8, 9, 9]


def test_a_share_is_timed_and_scaled(monkeypatch):
    """Of a clock that a step moves by a hundredth of a second an image; the first steps, which
    take longer, do not count."""
    clock, steps = [0.0], []

    def step(images, labels):
        steps.append(len(images))
        clock[0] += 0.01 * len(images) if len(steps) > sample_run.WARM_UP else 100

    monkeypatch.setattr(sample_run.time, "perf_counter", lambda: clock[0])
    pairs = [(torch.zeros(1), 0)] * 1000
    loader = torch.utils.data.DataLoader(pairs, batch_size=sample_run.BATCH)
    assert sample_run.time_share(step, loader, 5) == (160, pytest.approx(10))
    assert sum(steps) == 32 * (5 + sample_run.WARM_UP)


def test_the_samples_training_is_plain_gradient_descent():
    """One step by hand."""
    torch.manual_seed(0)
    network, images, labels = nn.Linear(3, 2), torch.rand(4, 3), torch.tensor([0, 1, 1, 0])
    before = network.weight.detach().clone()
    (slope,) = torch.autograd.grad(
        nn.functional.cross_entropy(network(images), labels), network.weight
    )
    sample_run.training_step(network)(images, labels)
    assert torch.allclose(network.weight, before - 0.001 * slope)


def printed(monkeypatch, capsys, script, notebook, *arguments):
    """The JSON in the last line that a script prints, of a notebook with these definitions."""
    monkeypatch.setattr(script, "load_notebook", lambda: notebook)
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    script.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_the_sample_run_adds_up(nb, mnist, environments, monkeypatch, capsys):
    """The images of ten epochs and of the test, and their seconds; with a small network, for
    converting the assignment's takes a quarter of a minute."""
    small = SimpleNamespace(
        load_mnist=lambda: mnist,
        make_environments=lambda *_: environments,
        CNN=lambda: nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.Flatten(), nn.Linear(144, 2)),
    )
    batches = ("--train-batches", "2", "--test-batches", "1")
    found = printed(monkeypatch, capsys, sample_run, small, *batches)
    assert found["train_images"] == pytest.approx(320_320, rel=0.01)
    assert found["software_images"] == 10 * found["test_images"]
    assert found["test_images"] == pytest.approx(35_936, rel=0.01)
    assert found["train_images_timed"] == found["software_images_timed"] == 64
    assert found["test_images_timed"] == 32
    parts = [value for key, value in found.items() if key.endswith("_seconds")]
    assert min(parts) > 0 and found["seconds"] == pytest.approx(sum(parts))


@pytest.mark.slow
def test_speed_compares_the_notebooks_own_code(nb, monkeypatch, capsys):
    """Ratios and agreement for each chip that has a budget, on a few images."""
    chips = printed(monkeypatch, capsys, speed, nb, "--images", "32")
    assert set(chips) == set(bench.SPEED_BUDGETS)
    for row in chips.values():
        assert row["images"] == 4 and row["images_that_differ"] <= 1
        # Four images on a busy machine say nothing about speed: `make bench` measures it.
        assert row["times_faster_than_memtorch"] > 0 and row["times_slower_than_channels_last"] > 0
