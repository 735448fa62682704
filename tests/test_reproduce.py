"""What `make reproduce` compares: every number but what a clock measured."""

import json

from tools import reproduce
from tools.reproduce import differences


def test_differences_by_hand():
    """Each difference is named by its place; types count."""
    for one, other, found in (
        ({"a": 1}, {"a": 1}, {}),
        ({"a": [1.0, {"b": 2.0}]}, {"a": [1.0, {"b": 2.5}]}, {"/a/1/b": (2.0, 2.5)}),
        ({"a": 1}, {"a": 1, "b": 2}, {"/b": (None, 2)}),
        ([1, 2], [1], {"": ([1, 2], [1])}),
        (1, 1.0, {"": (1, 1.0)}),
        (0.1 + 0.2, 0.3, {"": (0.1 + 0.2, 0.3)}),
        (float("nan"), float("nan"), {}),
        ({"a": {"run_seconds": 1, "b": 2}}, {"a": {"run_seconds": 9, "b": 2}}, {}),
    ):
        assert differences(one, other) == found


def test_only_what_a_clock_measured_may_differ():
    """By its key; an accuracy never."""
    timed = ["run_seconds", "seconds", "stock_seconds_an_image", "memtorch_ratio", "machine"]
    timed.append("times_slower_than_plain_network")
    for key in (*timed, "accuracy", "second", "images"):
        assert (differences({key: 1}, {key: 2}) == {}) == (key in timed), key


def test_a_number_or_a_figure_that_differs_fails(tmp_path, monkeypatch):
    """Two runs have to agree in both, and to draw the same figures."""
    found = []
    monkeypatch.setattr(reproduce, "quick_run", lambda folder: folders.pop(0))
    for number, drawn in ((1, b"same"), (2, b"same"), (1, b"other"), (1, None)):
        folders = [tmp_path / f"{name} {len(found)}" for name in ("first", "second")]
        for folder, value, figure in zip(folders, (1, number), (b"same", drawn), strict=True):
            folder.mkdir()
            record = {"a": value, "run_seconds": len(folder.name)}
            (folder / "results.json").write_text(json.dumps(record))
            if figure:
                (folder / "x.png").write_bytes(figure)
        found.append(reproduce.main())
    assert found == [0, 1, 1, 1]
