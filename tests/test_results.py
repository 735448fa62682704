"""The committed results keep what the project promises, and agree with each other."""

import hashlib
import math
import re

import nbformat
import pytest
from conftest import NOTEBOOK, by_section, tags

from tools.files import FIGURES, read_json

# What the full profile promises, by role: {place in results.json: (least, most)}. Shares are of 1,
# `lost` and `lost_do` are points of accuracy below the headline network in software. Promises of
# hardware leave the target two of the standard errors that three networks have.
MARGIN = 0.001
README = FIGURES / "README.md"
LOST = {
    "cures/hardened/lost": {"low 10%": 0.25, "low 20%": 0.35, "low 30%": 0.45, "low 50%": 2.0},
    "cures/copies/lost": {"low 30%": 0.35, "low 50%": 1.2},
    "cures/map/lost": {"low 50%": 0.45},
    "realistic/hardened": {"all": 0.8},
    "realistic/copies": {"all": 0.5},
    "columns/mended": {"2% of columns at low/lost_do": 1.0, "5% of columns at high/lost_do": 0.5},
}
PROMISES = {
    "the shortcut": {
        "software/erm/accuracy/mean": (0, 0.15),
        "software/erm/flips/mean": (0.8, 1),
        "software/erm/accuracy_do/mean": (0.70, 1),  # averaged
    },
    "told the colours, or blind to them": {
        "software/strata/accuracy/mean": (0.70, 1),
        "software/recolouring/accuracy/mean": (0.70, 1),
        "software/grayscale/accuracy/mean": (0.70, 1),
        "software/grayscale/flips/mean": (0, 0),
    },
    "headline": {
        "headline/share_of_ceiling": (0.992 - MARGIN, 1),
        "headline/share_of_ceiling_do": (0.994 - MARGIN, 1),
        "headline/clean_below_oracle/mean": (-1, 0.0015 + MARGIN),
    },
    "broken chips": {
        "cures/untreated/lost/low 30%/mean": (10, 100),
        "columns/dead headline/2% of columns at low/lost_do/mean": (10, 100),
    },
    "chips that hold": {
        f"{place}/{column}/mean": (-5, most)
        for place, row in LOST.items()
        for column, most in row.items()
    },
    "confirmation": {
        "confirmation/erm/accuracy/mean": (0, 0.15),
        "confirmation/erm/accuracy_do/mean": (0.70, 1),
        "confirmation/backdoor/accuracy_do/mean": (0.73, 1),
        "confirmation/hardened/accuracy_do/mean": (0.72, 1),
    },
}
WORK = {"images_trained": 6_500_000, "chip_answers": 2_500_000}


@pytest.fixture(scope="module")
def results():
    """The numbers of the committed run."""
    return read_json(FIGURES / "results.json")


@pytest.fixture(scope="module")
def full(results):
    """The same, if they are of the full profile."""
    if results["profile"] != "full":
        pytest.skip(f"results.json is of the profile {results['profile']}; full keeps the promises")
    return results


def at(results, place):
    """What stands at a place, its keys separated by strokes."""
    for key in place.split("/"):
        results = results[key]
    return results


def summaries(value, place=""):
    """(place, summary) of everything that has runs."""
    if isinstance(value, dict) and "runs" in value:
        yield place, value
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from summaries(part, f"{place}/{key}")


def test_promises(full):
    """The measured value lies between what is promised as least and as most."""
    for role, promised in PROMISES.items():
        found = {place: (at(full, place), bounds) for place, bounds in promised.items()}
        assert {p: f for p, f in found.items() if not f[1][0] <= f[0] <= f[1][1]} == {}, role


def test_averaging_over_colours_helps_broken_chips(full):
    """At each rate at which chips still work, and more of them than it hurts."""
    for rate in ("1%", "2%", "5%"):
        row = full["joint"][rate]
        hurt = sum(gain < 0 for gain in row["gain"]["runs"])
        assert row["gain"]["mean"] > 0 and row["helped"] > hurt, rate
        assert row["flips"]["mean"] > row["shifts"]["mean"], rate


def test_restored_scale_loses_nothing(full):
    """Of either network; the course's conversion loses points of the sample's."""
    for name, ways in full["fall"].items():
        restored, software = (ways[w]["accuracy"]["mean"] for w in ("scale restored", "software"))
        assert restored == pytest.approx(software, abs=0.005), name
    sample = full["fall"]["sample"]
    lost = sample["software"]["balanced"]["mean"] - sample["as the sample"]["balanced"]["mean"]
    assert lost > 0.01


def test_fast_crossbars_on_record(full):
    """Much faster than MemTorch, with the same numbers as the contract defines that."""
    chips = full["fast_crossbars"].values()
    assert all(chip["times_faster_than_memtorch"] >= 20 for chip in chips)
    images = sum(chip["images"] for chip in chips)
    assert sum(chip["images_that_differ"] for chip in chips) <= images / 200
    assert sum(chip["predictions_that_differ"] for chip in chips) <= images / 1000


def test_work_and_record_of_a_fresh_run(full):
    """Not more than was allowed; nothing reused; timed by the bench; made by the committed code."""
    for what, most in WORK.items():
        assert 0 < sum(row[what] for row in full["ledger"]) <= most, what
    assert not full["resumed"] and not any(row["kept"] for row in full["ledger"])
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = "\0".join(cell.source for cell in cells if cell.cell_type == "code")
    assert full["code_hash"] == hashlib.sha256(code.encode()).hexdigest()
    bench = read_json(FIGURES / "bench.json")
    assert bench["full_code_hash"] == full["code_hash"]
    assert bench["full_seconds"] == pytest.approx(full["run_seconds"], abs=0.1)


# Of any profile


def test_every_summary_follows_from_its_runs(results):
    """Counts, means and spreads; as many networks and chips as the profile says."""
    settings, found = results["settings"], dict(summaries(results))
    assert len(found) > 100
    networks = settings["networks"]
    counts = {1, networks, networks * settings["draws"]}
    for place, summary in found.items():
        runs = summary["runs"]
        mean = sum(runs) / len(runs)
        assert all(map(math.isfinite, runs)), place
        spread = (sum((x - mean) ** 2 for x in runs) / max(1, len(runs) - 1)) ** 0.5
        assert summary["n"] == len(runs) and len(runs) in counts, place
        assert (summary["mean"], summary["sd"]) == pytest.approx((mean, spread), abs=1e-9), place
        assert summary.get("networks", networks) == networks, place


def test_nobody_beats_the_ceiling_by_more_than_chance(results):
    """Neither in the steps nor among the methods."""
    ceiling, count = results["ceiling"]["test"], results["settings"]["test_images"]
    most = ceiling + 4 * (ceiling * (1 - ceiling) / count) ** 0.5
    assert max(row["accuracy_do"]["mean"] for row in results["software"].values()) <= most


def test_steps_are_told_apart(results):
    """Every step has an identifier of its own, a title and the images that it was measured on."""
    steps = results["steps"]
    assert len({step["id"] for step in steps}) == len(steps) >= 7
    assert all(step["title"] and "e = 0.9" in step["test_set"] for step in steps)


def test_steps_are_what_the_sections_found(results):
    """In software, and on chips the headline network less the points that its chips lose."""
    step = {row["id"]: row["accuracy"]["mean"] for row in results["steps"]}
    software, headline = results["software"], results["headline"]["accuracy_do"]["mean"]
    assert step["software_erm"] == software["erm"]["accuracy"]["mean"]
    assert step["software_erm_do"] == software["erm"]["accuracy_do"]["mean"]
    assert step["software_backdoor_do"] == headline
    for name, cure, fault in (("hardened", "hardened", "30%"), ("copies", "copies", "50%")):
        lost = results["cures"][cure]["lost"][f"low {fault}"]["mean"]
        assert step[f"broken_{name}"] == pytest.approx(headline - lost / 100)
    assert step["broken_headline"] == results["joint"]["10%"]["accuracy"]["mean"]


def test_headline_is_what_held_out_images_chose(results):
    """The headline network is a rung, and its numbers are those among the methods."""
    headline, software = results["headline"], results["software"]
    assert headline["rung"] in results["held_out"]
    for key in ("accuracy", "accuracy_do", "clean_do"):
        assert headline[key] == software["backdoor"][key] == software[headline["rung"]][key]
    ceiling = results["ceiling"]["test"]
    assert headline["share_of_ceiling_do"] == headline["accuracy_do"]["mean"] / ceiling
    assert headline["share_of_ceiling"] == headline["accuracy"]["mean"] / ceiling
    gap = software["gray_taught"]["clean_do"]["mean"] - headline["clean_do"]["mean"]
    assert headline["clean_below_oracle"]["mean"] == pytest.approx(gap, abs=1e-9)


def test_refutations_say_what_was_found(results):
    """Each holds if and only if the found mean lies in what was predicted."""
    assert len(results["refutations"]) == 3
    software, (shuffled, *averaged) = results["software"], results["refutations"]
    assert shuffled["found"] == software["strata_shuffled"]["accuracy"]
    for row, name in zip(averaged, ("strata_coin", "strata_half"), strict=True):
        assert row["found"] == software[name]["accuracy_do"]
    for row in results["refutations"]:
        assert row["holds"] == (row["low"] <= row["found"]["mean"] <= row["high"]), row["title"]


def test_what_a_stranger_needs_to_repeat_the_run(results):
    """Seeds, versions, machine."""
    seeds = results["seeds"]["networks"]
    assert results["seeds"]["root"] == 0
    assert len(set(seeds)) == len(seeds) == results["settings"]["networks"]
    assert {"python", "torch", "numpy", "memtorch-cpu"} <= set(results["versions"])
    assert {"cores", "processor", "arithmetic", "device"} <= set(results["machine"])
    assert all(results["machine"].values())


def test_the_page_of_keys_is_complete(results):
    """Each key of results.json has a row in figures/README.md, with the sections that write it."""
    rows = re.findall(r"^\| (`.+`) \| .+ \| ([\d, ]+) \| .+ \|$", README.read_text("utf-8"), re.M)
    told = {key: where for keys, where in rows for key in re.findall("`(.+?)`", keys)}
    assert list(told) == list(dict.fromkeys(told)) and set(told) == set(results)
    wrote = {key: [] for key in results}
    for heading, cell in by_section(nbformat.read(NOTEBOOK, as_version=4).cells):
        if cell.cell_type == "code" and "definitions" not in tags(cell):
            for key in re.findall(r"""results\["(\w+)"\](?:, \w+|\[.+\])? = """, cell.source):
                wrote[key].append(heading.split()[0])
    for key, sections in wrote.items():
        assert not sections or told[key].split(", ") == [*dict.fromkeys(sections)], key
