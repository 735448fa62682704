"""What `make reproduce` compares: every number but what a clock measured."""

import json

import pytest

from tools import reproduce
from tools.reproduce import differences


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


@pytest.mark.parametrize(
    ("key", "timed"),
    [
        ("run_seconds", True),
        ("seconds", True),
        ("stock_seconds_an_image", True),
        ("memtorch_ratio", True),
        ("times_slower_than_plain_network", True),
        ("machine", True),
        ("accuracy", False),
        ("second", False),
        ("images", False),
    ],
)
def test_only_what_a_clock_measured_may_differ(key, timed):
    """By its key; an accuracy never."""
    assert (differences({key: 1}, {key: 2}) == {}) == timed


@pytest.mark.parametrize(
    ("number", "drawn", "code"), [(1, b"same", 0), (2, b"same", 1), (1, b"other", 1), (1, None, 1)]
)
def test_a_number_or_a_figure_that_differs_fails(tmp_path, monkeypatch, number, drawn, code):
    """Two runs have to agree in both, and to draw the same figures."""
    runs = []
    for name, value, figure in (("first", 1, b"same"), ("second", number, drawn)):
        runs.append(tmp_path / name)
        runs[-1].mkdir()
        (runs[-1] / "results.json").write_text(json.dumps({"a": value, "run_seconds": len(name)}))
        if figure:
            (runs[-1] / "x.png").write_bytes(figure)
    monkeypatch.setattr(reproduce, "quick_run", lambda folder: runs.pop(0))
    assert reproduce.main() == code
