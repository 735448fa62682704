"""README.md shows the committed results, no other numbers, and no broken links."""

import copy
import json
import re
import subprocess

import pytest

from tools import readme
from tools.files import ROOT, read_json

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def measured(mean, sd=0.0021, n=5):
    """A summary as the notebook writes it."""
    return {"mean": mean, "sd": sd, "n": n, "runs": [mean] * n}


def step(name, title, mean, **more):
    """A step as the notebook writes it."""
    return {
        "id": name,
        "title": title,
        "test_set": "20,000 images",
        "accuracy": measured(mean, **more),
    }


RESULTS = {
    "profile": "full",
    "run_seconds": 431.6,
    "resumed": False,
    "code_hash": "of this run",
    "machine": {"cores": 2},
    "ceiling": {"test": 0.7512},
    "software": {"strata": {"accuracy_do": measured(0.7322)}},
    "fast_crossbars": {
        "whole chip": {
            "times_faster_than_memtorch": 211.3,
            "times_slower_than_plain_network": 1.845,
        }
    },
    "steps": [
        step("software_erm", "trained as usual", 0.10449),
        step("software_erm_do", "averaged", 0.7213),
        step("software_strata", "not shown in README", 0.7333),
        step("software_backdoor_do", "headline", 0.7456),
        step("memristors_stock", "on MemTorch", 0.5, sd=0.0, n=1),
        step("broken_headline", "10% stuck", 0.6042),
        step("broken_hardened", "30% stuck", 0.7399),
    ],
    "fall": {
        "backdoor": {"software": {"accuracy": measured(0.7401)}},
        "sample": {
            way: {"balanced": measured(mean)}
            for way, mean in (
                ("software", 0.593),
                ("as the sample", 0.512),
                ("scale restored", 0.592),
            )
        },
    },
}
EMPTY = "Above.\n<!-- results:steps -->\n<!-- /results -->\nBelow.\n"


# The generator


def test_steps_block_shows_mean_spread_and_count():
    """In per cent; a mean has its spread and count, a single measurement has no spread."""
    text = readme.fill(EMPTY, RESULTS, None)
    assert "| trained as usual | 10.4 ± 0.2 (5) | 20,000 images |" in text
    assert "| on MemTorch | 50.0 (1) | 20,000 images |" in text
    assert "75.1%" in text and "not shown" not in text and "software has 74.0%" in text
    assert text.startswith("Above.\n") and text.endswith("\nBelow.\n")


def test_filling_again_changes_nothing_and_new_results_do():
    """The block is replaced, not added to."""
    once = readme.fill(EMPTY, RESULTS, None)
    assert readme.fill(once, RESULTS, None) == once
    changed = copy.deepcopy(RESULTS)
    changed["steps"][0]["accuracy"]["mean"] = 0.2
    assert "20.0 ± 0.2 (5)" in readme.fill(once, changed, None)
    assert "10.4" not in readme.fill(once, changed, None)


def test_the_story_has_three_sentences_in_two_languages_with_the_same_numbers():
    """Each number of the English sentence stands in the Chinese one beside it, and is measured."""
    text = readme.fill(EMPTY.replace("steps", "story"), RESULTS, None)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| **")]
    assert len(rows) == 3
    for english, chinese in rows:
        numbers = [re.findall(r"\d+\.\d%", part) for part in (english, chinese)]
        assert numbers[0] == numbers[1] and len(numbers[0]) >= 2
    assert "reach 73.2%, with self-training 74.6%" in text
    assert "10.4% where colour misleads" in text and "51.2%" in text and "74.0%" in text


def test_the_rates_in_the_story_are_those_of_the_steps():
    """ "A tenth" and "three in ten" are words; the steps that they speak of say so too."""
    results = committed("results")
    titles = {s["id"]: s["title"] for s in results["steps"]}
    assert "10%" in titles["broken_headline"] and "30%" in titles["broken_hardened"]


def test_commands_block_says_how_long_they_take():
    """By the bench if it timed this code, else by a run that reused nothing."""
    empty = EMPTY.replace("steps", "commands")
    assert "notebook: 7 minutes on 2 cores" in readme.fill(empty, RESULTS, None)
    bench = {"full_seconds": 850.0, "full_code_hash": "of this run", "test_seconds": 600.0}
    text = readme.fill(empty, RESULTS, bench)
    assert "notebook: 14 minutes on 2 cores" in text and "checks: 10 minutes" in text
    other = readme.fill(empty, RESULTS | {"resumed": True}, bench | {"full_code_hash": "another"})
    assert other.count("not timed yet") == 1 and "14 minutes" not in other
    assert readme.fill(empty, None, None).count("not timed yet") == 2


def test_times_block_says_what_was_not_measured():
    """What is missing is said so and is no error."""
    empty = EMPTY.replace("steps", "times")
    assert readme.fill(empty, RESULTS, None).count("not measured yet") == 4
    partly = {"date": "2026-01-02", "cpu_count": 2, "quick_seconds": 44.4}
    assert readme.fill(empty, RESULTS, partly).count("not measured yet") == 3


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
    }
    empty = EMPTY.replace("steps", "times")
    text = readme.fill(empty, RESULTS, bench)
    for value in ("201 s", "49 s, 3.0 GB", "543 s, 4.6 GB", "0.46"):
        assert f"| {value} |" in text
    assert {"6,400", "96", "1,234", "211", "1.8"} <= set(re.findall(r"[\d,.]*\d", text))
    assert "earlier" not in text
    assert "earlier" in readme.fill(empty, RESULTS, bench | {"full_code_hash": "another"})
    same = bench | {"full_code_hash": RESULTS["code_hash"]}
    assert "earlier" not in readme.fill(empty, RESULTS, same)


def test_a_wrong_block_is_an_error():
    """An unknown one, one that is not closed: a typing error does not pass silently."""
    for text in (EMPTY.replace("steps", "stepps"), EMPTY.replace("<!-- /results -->", "")):
        with pytest.raises(ValueError, match=r"README\.md"):
            readme.fill(text, RESULTS, None)


# The committed README


def committed(name):
    """A committed JSON file of figures/, or None."""
    return read_json(ROOT / "figures" / f"{name}.json", missing=None)


def test_blocks_hold_the_committed_results(monkeypatch):
    """`make readme` would change nothing; but the badge says where a checkout comes from."""
    assert committed("results"), "figures/results.json is missing: make run"
    assert {m["name"] for m in readme.BLOCK.finditer(TEXT)} == set(readme.BLOCKS)
    kept = readme.BLOCK.search(TEXT[TEXT.index("<!-- results:hosted") :])["body"].strip()
    monkeypatch.setitem(readme.BLOCKS, "hosted", lambda *_: kept)
    assert readme.fill(TEXT, committed("results"), committed("bench")) == TEXT


@pytest.mark.parametrize(
    ("origin", "opened"),
    [
        ("https://github.com/some/a-project.git", "/github/some/a-project/blob/main/"),
        ("git@github.com:some/a-project", "/github/some/a-project/blob/main/"),
        ("/elsewhere/a-project", "/#upload=true)"),
        (None, "/#upload=true)"),
    ],
)
def test_the_badge_opens_the_notebook(tmp_path, monkeypatch, origin, opened):
    """From GitHub, if that is where `origin` lies; else it asks for an upload."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    if origin:
        subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", origin], check=True)
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    assert opened in readme.hosted(None, None)


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


def test_links_and_pictures_exist():
    """Every relative link of every README leads to a file."""
    for page in ("README.md", "data/README.md", "report/README.md", "slides/README.md"):
        path = ROOT / page
        links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
        relative = [link for link in links if not re.match(r"[a-z]+:", link)]
        assert [link for link in relative if not (path.parent / link).exists()] == [], page


def test_the_first_screen_says_it_all():
    """Figure, sentences in two languages, commands, and where everything is."""
    first = TEXT.split("\n## ")[0]
    for part in (
        "](figures/hero.png)", "make run ", "make test ", "results:story", "因果",
        "](coloredmnist.ipynb)", "](report/report.pdf)", "](report/report.zh.pdf)",
        "](slides/slides.pptx)", "](slides/slides.zh.pptx)", "](slides/demo.html)",
    ):  # fmt: skip
        assert part in first, part
    assert TEXT.index("](figures/hero.png)") < TEXT.index("results:story")


def test_readme_is_short():
    """Three screens: at most 130 lines, and six steps."""
    assert len(TEXT.splitlines()) <= 130
    assert 5 <= len(readme.STEPS) <= 6


def test_results_are_json_that_others_can_read():
    """No NaN or Infinity, which JSON does not have."""

    def refuse(name):
        raise AssertionError(f"figures/results.json holds {name}")

    json.loads((ROOT / "figures" / "results.json").read_text(), parse_constant=refuse)
