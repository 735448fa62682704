"""What `make reproduce` compares: every number but what a clock measured."""

import json
from pathlib import Path

import pytest
import reproduce
from reproduce import CLOCK, differences


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": [1.0, {"b": 2.0}]}, {"a": [1.0, {"b": 2.5}]}, {"/a/1/b": (2.0, 2.5)}),
        ({"a": 1}, {"a": 1, "b": 2}, {"/b": (None, 2)}),
        ([1, 2], [1], {"": ([1, 2], [1])}),
        (1, 1.0, {"": (1, 1.0)}),
        (0.1 + 0.2, 0.3, {"": (0.1 + 0.2, 0.3)}),
        (float("nan"), float("nan"), {}),
        ({"a": {"run_seconds": 1, "b": 2}}, {"a": {"run_seconds": 9, "b": 2}}, {}),
    ],
    ids=str,
)
def test_differences_by_hand(one, other, found):
    """Each difference is named by its place; types count."""
    assert differences(one, other) == found


def test_the_clocks_keys_are_in_the_results():
    """None of the keys that are left out is misspelt."""
    figures = Path(__file__).resolve().parent.parent / "figures"
    results = json.loads((figures / "results.json").read_text(encoding="utf-8"))

    def keys(value):
        parts = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict):
            yield from value
        if isinstance(value, (dict, list)):
            for part in parts:
                yield from keys(part)

    assert set(keys(results)) >= CLOCK


@pytest.mark.parametrize(
    ("number", "drawn", "options", "code"),
    [
        (1, b"same", [], 0),
        (2, b"same", [], 1),
        (1, b"other", [], 1),
        (2, b"other", ["--threads", "2"], 0),
    ],
)
def test_a_number_or_a_figure_that_differs_fails(
    tmp_path, monkeypatch, number, drawn, options, code
):
    """Two runs have to agree in both; with other threads the differences are only told."""
    runs = []
    for name, value, figure in (("first", 1, b"same"), ("second", number, drawn)):
        runs.append(tmp_path / name)
        runs[-1].mkdir()
        (runs[-1] / "results.json").write_text(json.dumps({"a": value, "run_seconds": len(name)}))
        (runs[-1] / "x.png").write_bytes(figure)
    monkeypatch.setattr(reproduce, "quick_run", lambda folder, threads=None: runs.pop(0))
    monkeypatch.setattr("sys.argv", ["reproduce.py", *options])
    assert reproduce.main() == code


def test_what_one_thread_changes_is_recorded(tmp_path, monkeypatch):
    """Counted against a run that is there already: of three values one differs by a third."""
    for name, value in (("first", 0.5), ("second", 0.75)):
        (tmp_path / name).mkdir()
        text = json.dumps({"a": [value, {"b": "c"}], "run_seconds": value, "d": None})
        (tmp_path / name / "results.json").write_text(text)
    ran = []
    monkeypatch.setattr(reproduce, "quick_run", lambda *way: ran.append(way) or tmp_path / "second")
    arguments = f"--threads 1 --first {tmp_path}/first --record {tmp_path}/record.json"
    monkeypatch.setattr("sys.argv", ["reproduce.py", *arguments.split()])
    assert reproduce.main() == 0
    assert [threads for _, threads in ran] == [1]
    record = json.loads((tmp_path / "record.json").read_text())
    assert record == {"values": 3, "differ": 1, "largest": pytest.approx(1 / 3)}
