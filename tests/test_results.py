"""The committed results keep what the project promises, and agree with each other."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).resolve().parent.parent / "figures" / "results.json"


@pytest.fixture(scope="module")
def results():
    """The numbers of the committed full run."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def accuracy(results):
    """The mean accuracy of every step by its id."""
    return {step["id"]: step["accuracy"]["mean"] for step in results["steps"]}


def test_shortcut_and_adjustment(results, accuracy):
    """ERM follows the colour; both forms of the adjustment undo it; nobody beats the ceiling."""
    assert accuracy["erm"] < 0.15
    assert accuracy["erm_do"] >= 0.72
    assert accuracy["backdoor"] >= 0.735
    assert max(accuracy.values()) <= results["ceiling"]["test"]


def test_conversion_loses_and_keeps(results, accuracy):
    """Stock MemTorch brings the sample to chance; restored, nothing is lost."""
    assert abs(accuracy["sample_memristive_stock"] - 0.5) < 0.06
    for method in ("sample", "backdoor"):
        assert accuracy[f"{method}_memristive"] == pytest.approx(accuracy[method], abs=0.003)
    exact = results["conversion"]["scale restored, no ADC"]
    assert exact["relative_error"] <= 1e-5 and exact["batch_dependence"] <= 1e-5


def test_fast_crossbars_on_record(results):
    """At least 20 times faster, with the same numbers as the contract defines that."""
    measured = results["fast_crossbars"]
    assert measured["times_faster_than_memtorch"] >= 20
    assert measured["images_that_differ"] <= measured["images"] / 200
    assert measured["predictions_that_differ"] <= measured["images"] / 1000


def test_every_step_has_spread(results):
    """Three networks or five broken chips, no two runs the same."""
    for step in results["steps"]:
        needed = 5 if "faults" in step["id"] else 3
        assert step["accuracy"]["n"] >= needed
        assert len(set(step["accuracy"]["runs"])) > 1, step["id"]
        assert "e = 0.9" in step["test_set"] and "20,000" in step["test_set"]


def test_sweep_covers_the_rates(results):
    """Low-resistance faults of 0, 1, 2, 5, 10 and 20%, five chips each, plain and averaged."""
    sweep = results["faults"]["sweep"]
    assert [float(rate) for rate in sweep] == [0, 0.01, 0.02, 0.05, 0.1, 0.2]
    for rate, row in sweep.items():
        for key in ("accuracy", "accuracy_do", "flips", "pull"):
            assert row[key]["n"] >= 5
        if rate != "0":
            assert len(set(row["accuracy"]["runs"])) >= 5
    assert sweep["0"]["flips"]["mean"] < sweep["0.05"]["flips"]["mean"]


def test_the_choice_follows_the_held_out_score(results):
    """The recipe with the best held-out score was chosen."""
    scores = {name: score["accuracy"] for name, score in results["trials"]["scores"].items()}
    assert results["trials"]["chosen"] == max(scores, key=scores.get)


def test_seeds_and_versions_are_recorded(results):
    """What a stranger needs to repeat the run."""
    assert results["seeds"]["root"] == 0
    assert len(set(results["seeds"]["networks"])) == 3
    assert {"python", "torch", "numpy", "memtorch-cpu"} <= set(results["versions"])
