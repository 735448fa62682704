"""The figures: drawn from recorded numbers in both languages and sizes, legible, in one style."""

import inspect
import itertools
import json
import re
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from report import build as report
from tools.files import FIGURES, ROOT, read_json

LEAST = {"print": 7, "screen": 18}  # points of a letter
NAMES = sorted(path.stem for path in FIGURES.glob("*.png"))
CHINESE = re.compile(r"[\u3400-\u9fff]")


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    """Where the notebook finds the glossary."""
    monkeypatch.chdir(ROOT)
    yield
    plt.close("all")


def texts_drawn(figure):
    """(text, its box in pixels) of every text that is drawn. A glyph that is missing is a warning,
    and that an error."""
    drawn, draw = [], Text.draw

    def note(text, renderer):
        draw(text, renderer)
        if text.get_visible() and text.get_text().strip():
            drawn.append((text, text.get_window_extent(renderer)))

    with mock.patch.object(Text, "draw", note):
        FigureCanvasAgg(figure).draw()
    return drawn


def contrast(colour):
    """With white, by WCAG."""
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 1.05 / (np.dot((0.2126, 0.7152, 0.0722), parts) + 0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("language", "size"), itertools.product(("en", "zh"), LEAST))
def test_every_figure_can_be_read(language, size):
    """Every glyph is there, no text lies over another or leaves the figure, letters are large and
    dark enough for where they are shown, and no number of a reference stands among them."""
    results, seen = read_json(FIGURES / "results.json"), []
    for name, figure in report.figures(results, language, size):
        width, height = figure.get_size_inches()
        assert width <= 17.5 / 2.54 if size == "print" else width / height == pytest.approx(16 / 9)
        texts, page = texts_drawn(figure), figure.bbox.padded(1)
        for text, box in texts:
            shown = (name, text.get_text())
            assert text.get_fontsize() >= LEAST[size], shown
            assert contrast(text.get_color()) >= 4.5, shown
            assert page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1), shown
            assert not re.search(r"\[\d+\]", text.get_text()), shown
        boxes = np.array([box.padded(-1).extents for _, box in texts])
        apart = (boxes[:, None, :2] >= boxes[None, :, 2:]).any(2)
        for one, other in np.argwhere(~(apart | apart.T)):
            assert one == other, (name, texts[one][0].get_text(), texts[other][0].get_text())
        assert not [axis for axis in figure.axes if axis.get_legend()]
        chinese = [text for text, _ in texts if CHINESE.search(text.get_text())]
        assert bool(chinese) == (language == "zh"), name
        seen.append(name)
    assert seen == NAMES


def test_red_and_green_are_the_digits(nb):
    """The palette's red and green are drawn in the examples' bars and nowhere else."""
    functions = [value for value in vars(nb).values() if inspect.isfunction(value)]
    users = {f.__name__ for f in functions if {"RED", "GREEN"} & set(f.__code__.co_names)}
    assert users == {"draw_examples"}


def test_steps_differ_within_a_group_only(nb):
    """The first step of a group stands on images of its own, so nothing is subtracted from it."""
    shares = {"software_a": 0.1, "software_b": 0.3, "memristors_a": 0.5, "broken_a": 0.4}
    shares["broken_b"] = 0.2
    steps = [{"id": n, "title": "wires", "accuracy": nb.summary([x])} for n, x in shares.items()]
    figure = nb.draw_accuracy_of_every_step({"steps": steps, "ceiling": {"test": 0.75}})
    texts = [text.get_text() for text in figure.axes[0].texts]
    told = texts[texts.index("difference") + 1 :][: len(steps) + 3]
    assert told == ["", "", "+20.0", "", "", "", "", "−20.0"]


def test_rows_of_dots_show_what_was_found(nb):
    """Each run a dot in its row, the mean in per cent beside it below the series' name, a level at
    its place; a row without runs stays empty."""
    figure, say = nb.canvas(2)
    axis, more = figure.add_subplot(), {"more": ["a", "b", "-1"]}
    runs = (([0.1, 0.3], None), (None, [0.25]), ([0.5], None))
    rows = [
        {key: one and nb.summary(one) for key, one in zip("ab", row, strict=True)} for row in runs
    ]
    shown = {"a": ("one", "#000000"), "b": ("two", "#0000FF")}
    nb.dot_plot(axis, say, "axis", ["x", "y", "z"], rows, shown, {"level": 0.4}, more)
    dots = {
        (round(float(x), 6), round(float(y)))
        for line in axis.lines
        if line.get_marker() in ("o", "D")
        for x, y in zip(*line.get_data(), strict=True)
    }
    assert dots == {(10, 0), (30, 0), (50, 2), (25, 1)}
    texts = [text.get_text() for text in axis.texts]
    assert texts == [
        *("one", "20.0", "", "50.0"),
        *("two", "", "25.0", ""),
        *("more", "a", "b", "−1"),
        "level",
    ]
    assert [list(line.get_xdata()) for line in axis.lines if line.get_ls() == "--"] == [[40, 40]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["x", "y", "z"]
    assert axis.get_xlabel() == "axis" and axis.yaxis_inverted()


def test_small_numbers_have_two_decimals(nb):
    """Others one, and nothing is minus nought."""
    found = [nb.decimals(value) for value in (74.31, 1.0, 0.999, -0.16, -1.25, -0.001, 0.0)]
    assert found == ["74.3", "1.0", "1.00", "-0.16", "-1.2", "0.00", "0.00"]


def test_what_cannot_be_drawn_is_refused(nb):
    """A language, a size or a word that is unknown is named; numbers need no word."""
    for wrong in ({"language": "fr"}, {"size": "poster"}):
        with pytest.raises(ValueError, match=next(iter(wrong.values()))):
            nb.canvas(2, **wrong)
    _, say = nb.canvas(2, "zh")
    assert say("10%") == "10%" and say("ceiling") == "上限"
    with pytest.raises(ValueError, match=r"glossary\.zh\.json.*no such word"):
        say("no such word")


def test_glossary_has_each_word_once():
    """In English and Chinese, punctuation in full width."""
    pairs = json.loads(report.GLOSSARY.read_text(encoding="utf-8"), object_pairs_hook=list)
    assert len(dict(pairs)) == len(pairs) > 80
    assert not [english for english, _ in pairs if CHINESE.search(english)]
    assert not [chinese for _, chinese in pairs if re.search(r"[,;:()]|\.\.|精度", chinese)]
