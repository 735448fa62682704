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
