"""README.md shows the committed results, no other numbers, and no broken links."""

import copy
import json
import re
from pathlib import Path

import pytest
import readme

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

RESULTS = {
    "profile": "full",
    "run_seconds": 431.6,
    "code_hash": "of this run",
    "ceiling": {"test": 0.7512},
    "steps": [
        {
            "id": "erm",
            "title": "ERM",
            "test_set": "test, 20,000 images",
            "accuracy": {"mean": 0.10449, "sd": 0.00213, "n": 5, "runs": [0.1] * 5},
        },
        {
            "id": "stock",
            "title": "Memristive",
            "test_set": "test, 20,000 images",
            "accuracy": {"mean": 0.5, "sd": None, "n": 1, "runs": [0.5]},
        },
    ],
    "methods": [{"id": "irm", "title": "IRM", "told": "environments"}],
    "software": {
        "irm": {
            "accuracy": {"mean": 0.61, "sd": 0.02, "n": 3, "runs": [0.61] * 3},
            "accuracy_do": {"mean": 0.68, "sd": 0.01, "n": 3, "runs": [0.68] * 3},
        }
    },
    "share_of_ceiling": 0.98765,
    "best_rung": {"rung": "last"},
    "ladder": [
        {"rung": "plain", "title": "weights"},
        {
            "rung": "last",
            "title": "+ one more",
            "test": {"mean": 0.7, "sd": 0.001, "n": 3, "runs": [0.7] * 3},
            "test_do": {"mean": 0.75, "sd": 0.003, "n": 3, "runs": [0.75] * 3},
        },
    ],
}
EMPTY = "Above.\n<!-- results:steps -->\n<!-- /results -->\nBelow.\n"


# The generator


def test_steps_block_shows_mean_spread_and_count():
    """A mean has its spread and count; a single measurement has no spread."""
    text = readme.fill(EMPTY, RESULTS, None)
    assert "| ERM | test, 20,000 images | 0.1045 ± 0.0021 (5) |" in text
    assert "| Memristive | test, 20,000 images | 0.5000 (1) |" in text
    assert "0.7512" in text
    assert text.startswith("Above.\n") and text.endswith("\nBelow.\n")


def test_filling_again_changes_nothing_and_new_results_do():
    """The block is replaced, not added to."""
    once = readme.fill(EMPTY, RESULTS, None)
    assert readme.fill(once, RESULTS, None) == once
    changed = copy.deepcopy(RESULTS)
    changed["steps"][0]["accuracy"]["mean"] = 0.2
    assert "0.2000 ± 0.0021 (5)" in readme.fill(once, changed, None)
    assert "0.1045" not in readme.fill(once, changed, None)


def test_cures_block_has_a_column_for_each_fault():
    """Points with two decimals, faults in the notebook's order."""
    points = {"none": {"mean": -0.002, "n": 1}, "low 10%": {"mean": 1.234, "sd": 0.567, "n": 5}}
    lost = {"points_lost": {"none at all": points}}
    text = readme.fill(EMPTY.replace("steps", "cures"), RESULTS | lost, None)
    assert "| cure | none | low 10% |" in text
    assert "| none at all | 0.00 | 1.23 ± 0.57 |" in text


def test_methods_block_says_what_each_is_told():
    """One row a method: title, what it is told, plain and averaged."""
    text = readme.fill(EMPTY.replace("steps", "methods"), RESULTS, None)
    assert "| IRM | environments | 0.6100 ± 0.0200 (3) | 0.6800 ± 0.0100 (3) |" in text
    assert "98.77%" in text and "(one more) reaches 93.18%, and 99.84%" in text
    assert text.split("as well: ")[1].startswith("0.7500 ± 0.0030 (3).")


def test_times_block_says_what_was_not_measured():
    """Times and memory come from the benchmark, where `make run` notes its own."""
    empty = EMPTY.replace("steps", "times")
    assert readme.fill(empty, RESULTS, None).count("not measured yet") == 6
    bench = {
        "date": "2026-01-02",
        "cpu_count": 2,
        "install_seconds": 201.4,
        "quick_seconds": 88.8,
        "full_seconds": 543.2,
        "full_memory": 5_000_000_000,
        "memory": 3_000_000_000,
        "checkout": 17_400_000,
        "one_thread": {"values": 1234, "differ": 5, "largest": 1.2e-07},
        "budgets": {"install": 300, "quick": 120, "full": 900},
        "speed": {
            "whole": {
                "times_faster_than_memtorch": 211.3,
                "times_slower_than_plain_network": 1.456,
                "times_slower_than_channels_last": 2.345,
                "images": 256,
            }
        },
    }
    text = readme.fill(empty, RESULTS, bench)
    assert "whole chip: 211 times as fast as stock MemTorch and 1.46 times" in text
    assert "2.35 times that of its fastest layout" in text
    assert (
        "instead of 2, 5 of the 1,234 values of a quick run differ, by at most 1.2e-07 of their"
        in text
    )
    assert "| memory of the quick run | 3,000 MB | 6,442 MB |" in text
    assert "| memory of `make run` | 5,000 MB | 6,442 MB |" in text
    assert "| checkout | 17 MB | 25 MB |" in text
    assert "| `make install` | 201 s | 300 s |" in text
    assert "| `make run` | 543 s | 900 s |" in text
    other = readme.fill(empty, RESULTS, bench | {"full_code_hash": "another"})
    assert "| `make run` | 543 s, an earlier version | 900 s |" in other
    same = readme.fill(empty, RESULTS, bench | {"full_code_hash": RESULTS["code_hash"]})
    assert "| `make run` | 543 s | 900 s |" in same


@pytest.mark.parametrize(
    "text",
    [EMPTY.replace("steps", "stepps"), EMPTY.replace("<!-- /results -->", "")],
    ids=["unknown block", "block not closed"],
)
def test_a_wrong_block_is_an_error(text):
    """A typing error does not pass silently."""
    with pytest.raises(ValueError, match=r"README\.md"):
        readme.fill(text, RESULTS, None)


# The committed README


def committed(name):
    """A committed JSON file of figures/, or None."""
    return readme.load(ROOT / "figures" / f"{name}.json")


def test_blocks_hold_the_committed_results():
    """`make readme` would change nothing."""
    assert committed("results"), "figures/results.json is missing: make run"
    assert {m["name"] for m in readme.BLOCK.finditer(TEXT)} == {
        "steps",
        "methods",
        "cures",
        "times",
    }
    assert readme.fill(TEXT, committed("results"), committed("bench")) == TEXT


def numbers_in(value):
    """All numbers of the results, except single runs and versions."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in ("runs", "versions", "code_hash"):
                yield from numbers_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers_in(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def foreign_numbers(text, results, pins):
    """The decimal numbers and percentages of a text that the results do not hold.

    Blocks, links, identifiers of papers, versions and names of licences are left out.
    """
    text = readme.BLOCK.sub("", text)
    text = re.sub(r"\]\([^)]*\)|https?://\S+|(?:arXiv|doi):\S+", " ", text)
    text = re.sub(r"CC BY-SA \d\.\d|Python \d\.\d+|python\d\.\d+", " ", text)
    for pin in pins:
        text = re.sub(rf"(?<![\d.]){re.escape(pin)}(?![\d.])", " ", text)
    known = list(numbers_in(results))
    foreign = []
    for match in re.finditer(r"(?P<number>\d*\.\d+|\d+)(?P<percent>\s*[%％])?", text):
        number, percent = match["number"], match["percent"]
        if "." not in number and not percent:
            continue  # whole numbers are counts and names, not measurements
        decimals = len(number.partition(".")[2])
        scale = 100 if percent else 1
        if not any(round(k * scale, decimals) == float(number) for k in known):
            foreign.append(match[0])
    return foreign


def test_foreign_numbers_are_found():
    """The check below can fail."""
    text = "Python 3.11, CC BY-SA 3.0, torch 2.14.1, 20000 images: .739, 0.1045 and 10.4% or 55 %."
    results = {"mean": 0.10449, "runs": [0.739], "versions": {"x": 0.55}}
    assert foreign_numbers(text, results, ["2.14.1"]) == [".739", "55 %"]
    assert foreign_numbers(readme.fill(EMPTY, RESULTS, None), {}, []) == []


def test_no_number_outside_the_results():
    """Measured numbers appear in prose only if the results hold them."""
    pins = re.findall(r"==([\w.]+)", (ROOT / "requirements.txt").read_text())
    pins += re.findall(r"==([\w.]+)", (ROOT / "requirements-dev.txt").read_text())
    assert foreign_numbers(TEXT, committed("results") or {}, pins) == []


@pytest.mark.parametrize(
    "page", ["README.md", "data/README.md", "report/README.md", "slides/README.md"]
)
def test_links_and_pictures_exist(page):
    """Every relative link leads to a file."""
    path = ROOT / page
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    relative = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in relative if not (path.parent / link).exists()] == []


def test_headline_figure_is_on_the_first_screen():
    """What it is, and the figure, before anything else."""
    first = "\n".join(TEXT.splitlines()[:20])
    assert "](figures/accuracy_of_every_step.png)" in first
    assert "make run" in first and "make test" in first


def test_results_are_json_that_others_can_read():
    """No NaN or Infinity, which JSON does not have."""

    def refuse(name):
        raise AssertionError(f"figures/results.json holds {name}")

    json.loads((ROOT / "figures" / "results.json").read_text(), parse_constant=refuse)
