"""README.md shows the committed results, no other numbers, and no broken links."""

import copy
import json
import re

import pytest

from tools import readme
from tools.files import ROOT, read_json

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
    """Each quantity beside its budget; what is missing is said so and is no error."""
    empty = EMPTY.replace("steps", "times")
    assert readme.fill(empty, RESULTS, None).count("not measured yet") == 6
    partly = {"date": "2026-01-02", "cpu_count": 2, "quick_seconds": 44.4}
    assert readme.fill(empty, RESULTS, partly).count("not measured yet") == 5


def test_times_block_shows_the_benchmark():
    """Times, memory, the ratio to the sample's run, and what of that was timed."""
    bench = {
        "date": "2026-01-02",
        "cpu_count": 2,
        "install_seconds": 201.4,
        "quick_seconds": 48.8,
        "full_seconds": 543.2,
        "full_memory": 4_567_000_000,
        "memory": 3_000_000_000,
        "sample": {"train_images_timed": 6400, "test_images_timed": 96},
        "sample_seconds": 1234.5,
        "ratio_to_sample": 0.4567,
        "speed": {
            "whole": {
                "times_faster_than_memtorch": 211.3,
                "times_slower_than_channels_last": 1.845,
                "images": 256,
            }
        },
    }
    empty = EMPTY.replace("steps", "times")
    text = readme.fill(empty, RESULTS, bench)
    for row in ("| 201 s | 300 s |", "| 49 s | 60 s |", "| 543 s | 900 s |"):
        assert row in text
    for row in ("| 3.0 GB | 5.0 GB |", "| 4.6 GB | 5.0 GB |", "| 0.46 | 0.90 |"):
        assert row in text
    assert {"6,400", "96", "1,234", "211", "1.84"} <= set(re.findall(r"[\d,.]*\d", text))
    assert "earlier" not in text
    assert "earlier" in readme.fill(empty, RESULTS, bench | {"full_code_hash": "another"})
    same = bench | {"full_code_hash": RESULTS["code_hash"]}
    assert "earlier" not in readme.fill(empty, RESULTS, same)


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
    return read_json(ROOT / "figures" / f"{name}.json", missing=None)


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
