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
    assert accuracy["ipw"] >= 0.72
    assert accuracy["backdoor"] >= 0.735
    assert max(accuracy.values()) <= results["ceiling"]["test"]


def test_headline_is_at_the_ceiling(results, accuracy):
    """At least 99.5% of what the label noise of the test allows."""
    share = accuracy["backdoor"] / results["ceiling"]["test"]
    assert share == pytest.approx(results["share_of_ceiling"])
    assert share >= 0.995
    best = results["best_rung"]
    assert best["share_of_ceiling"] == best["accuracy"]["mean"] / results["ceiling"]["test"]
    assert share <= best["share_of_ceiling"] <= 1
    assert best["wilson"][0] < best["accuracy"]["mean"] < best["wilson"][1]
    averaged = results["software"][best["rung"]]["accuracy_do"]["mean"]
    assert 0.996 <= averaged / results["ceiling"]["test"] <= 1


def test_methods_behave_as_theory_says(results):
    """Blind or adjusted methods are near the ceiling; the grayscale oracle never flips; averaged
    over colours no method needs its colour."""
    software = results["software"]
    for method in ("resampling", "ipw", "group_dro", "recolouring", "grayscale", "backdoor"):
        assert software[method]["accuracy"]["mean"] > 0.72, method
        low, high = software[method]["wilson"]
        assert low < software[method]["accuracy"]["mean"] < high
    assert software["grayscale"]["flips"]["mean"] == 0
    assert software["erm"]["flips"]["mean"] > 0.9
    assert software["backdoor"]["flips"]["mean"] < 0.02
    for method in ("irm", "vrex"):
        assert 0.1 < software[method]["accuracy"]["mean"] < 0.72, method


def test_refutations(results):
    """A placebo gains nothing over ERM; half of the data gives nearly what all give."""
    software, placebo = results["software"], list(results["sensitivity"].values())[-1]
    assert placebo["mean"] == pytest.approx(software["erm"]["accuracy"]["mean"], abs=0.03)
    assert results["subset"]["mean"] == pytest.approx(software["ipw"]["accuracy"]["mean"], abs=0.02)
    means = [row["mean"] for row in results["sensitivity"].values()]
    assert means == sorted(means, reverse=True)


def test_networks_agree_with_the_exact_table(results):
    """Median probabilities lie near the generator's exact ones, by hand from its rates."""
    rows = list(results["calibration"].values())
    exact = [[0.10625 / 0.1625, 17 / 18], [1 - 151 / 234, 151 / 234], [1 / 4, 3 / 4]]
    for row, values in zip(rows, exact, strict=True):
        assert row["exact"] == pytest.approx(values)
        assert row["median"] == pytest.approx(values, abs=0.08)


def test_balance(results):
    """Weights bring colour to nothing and leave the shape where it was."""
    before, after = results["balance"]["before"], results["balance"]["after"]
    assert before["colour is green"] > 1 and abs(after["colour is green"]) < 1e-6
    for name in set(before) - {"colour is green"}:
        assert after[name] == pytest.approx(before[name], abs=0.05)


def test_conversion_loses_and_keeps(results, accuracy):
    """Stock MemTorch brings the sample to chance or below; restored, nothing is lost."""
    assert accuracy["sample_memristive_stock"] < min(0.56, accuracy["sample_memristive"] - 0.03)
    for method in ("sample", "backdoor"):
        assert accuracy[f"{method}_memristive"] == pytest.approx(accuracy[method], abs=0.003)
    exact = results["conversion"]["scale restored, no ADC"]
    assert exact["relative_error"] <= 1e-5 and exact["batch_dependence"] <= 1e-5


def test_fast_crossbars_on_record(results):
    """At least 20 times faster, with the same numbers as the contract defines that: its share of
    images, over the whole chip and both broken ones, for a few hundred images alone say little."""
    measured = results["fast_crossbars"]
    chips = [measured, measured["faults"], measured["faults_anywhere"]]
    assert all(chip["times_faster_than_memtorch"] >= 20 for chip in chips)
    images = sum(chip["images"] for chip in chips)
    assert sum(chip["images_that_differ"] for chip in chips) <= images / 200
    assert sum(chip["predictions_that_differ"] for chip in chips) <= images / 1000


def test_every_step_has_spread(results):
    """Three networks or five broken chips, no two runs the same."""
    for step in results["steps"]:
        needed = 5 if "faults" in step["id"] else 3
        assert step["accuracy"]["n"] >= needed
        assert len(set(step["accuracy"]["runs"])) > 1, step["id"]
        assert "e = 0.9" in step["test_set"] and "20,000" in step["test_set"]


def test_every_step_has_an_interval(results):
    """Wilson's interval holds the mean and is about four standard errors wide."""
    for step in results["steps"]:
        low, high = step["wilson"]
        mean = step["accuracy"]["mean"]
        assert low < mean < high
        assert high - low == pytest.approx(3.92 * (mean * (1 - mean) / 20_000) ** 0.5, rel=0.01)


def test_sweeps_cover_the_rates(results):
    """Every kind of fault, five chips each, plain and averaged; faults bring colour back."""
    chips = results["chips"]["backdoor"]
    low = [f"low {rate}%" for rate in (1, 2, 5, 10, 20, 30, 50)]
    high = [f"high {rate}%" for rate in (10, 30, 50)]
    assert {"none", *low, *high, "low 5% + high 10%"} <= set(chips)
    for label, ways in chips.items():
        row = ways["nothing"]
        for key in ("accuracy", "accuracy_do", "flips", "pull"):
            assert row[key]["n"] >= (1 if label == "none" else 5)  # whole chips are all alike
        assert label == "none" or len(set(row["accuracy"]["runs"])) >= 3, label
    assert chips["none"]["nothing"]["flips"]["mean"] < chips["low 5%"]["nothing"]["flips"]["mean"]


def test_other_wear_has_five_draws(results):
    """Levels (one draw: chance has no part), spread, drift and the hardware's settings, for both
    networks."""
    for sweeps in results["wear"].values():
        assert len(sweeps) >= 7
        for kind, ticks in sweeps.items():
            assert len(ticks) >= 2
            needed = 1 if kind == "conductance levels" else 5
            assert all(row[key]["n"] >= needed for row in ticks.values() for key in row)


def test_cures_hold(results, accuracy):
    """With 30% of its devices stuck, the network made for hardware loses less than a point, and
    half of that with calibration and a fault map; the untreated one falls to chance."""
    lost = {
        cure: {fault: points["mean"] for fault, points in row.items()}
        for cure, row in results["points_lost"].items()
    }
    assert lost["untreated"]["low 30%"] > 10
    assert lost["clipping and injection"]["low 10%"] < 0.5
    assert lost["clipping and injection"]["low 30%"] < 1.5
    assert lost["… compensation, calibration"]["low 30%"] < 0.5
    assert set(map(len, lost.values())) == {len(lost["untreated"])}, "a cell of the matrix is empty"
    for way in ("redundancy", "calibration", "compensation", "rows moved, compensation"):
        assert f"… {way}" in lost and lost[f"… {way}"]["low 50%"] < lost[way]["low 50%"]
        assert lost[f"… {way}"]["low 50%"] < lost["clipping and injection"]["low 50%"], way
    for rest in ("compensation", "compensation, calibration"):
        for label in ("low 20%", "low 30%", "low 50%", "high 50%"):
            assert lost[f"… rows moved, {rest}"][label] < lost[f"… {rest}"][label], (rest, label)
    assert accuracy["hardware_memristive_faults"] > 0.72


def test_the_chosen_strength_has_the_best_held_out_score(results):
    """The networks of section 7 were chosen by held-out images, whole and broken in every way."""
    scores = results["hardware_choice"]
    means = {name: sum(row.values()) / len(row) for name, row in scores.items()}
    assert results["hardware_chosen"] == max(("hardened", "harder"), key=means.get)
    assert all(len(row) == len(results["chips"]["backdoor"]) - 4 for row in scores.values())


def test_the_choice_follows_the_held_out_score(results):
    """The rung with the best held-out score is the best; the best of those that ask a network
    once became the headline network."""
    rungs, software = results["ladder"], results["software"]
    once = [rung for rung in rungs if rung["rung"] != "places"]
    best, headline = (max(of, key=lambda rung: rung["held_out_do"]["mean"]) for of in (rungs, once))
    assert best["rung"] == results["best_rung"]["rung"]
    assert best["test"] == results["best_rung"]["accuracy"]
    for rung, chosen in ((best, best["rung"]), (headline, "backdoor")):
        assert rung["test"] == software[chosen]["accuracy"]
        assert rung["test_do"] == software[chosen]["accuracy_do"]


def test_seeds_and_versions_are_recorded(results):
    """What a stranger needs to repeat the run."""
    assert results["seeds"]["root"] == 0
    assert len(set(results["seeds"]["networks"])) == 3
    assert {"python", "torch", "numpy", "memtorch-cpu"} <= set(results["versions"])
    assert {"cores", "threads", "processor", "instructions"} == set(results["machine"])
    assert all(results["machine"].values())
