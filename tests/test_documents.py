"""The report, the slides and the forms: built from these results, complete, and within bounds."""

import itertools
import json
import re
import tomllib

import pypdf
import pytest
import typst
from docx import Document
from fontTools.ttLib import TTFont
from pptx import Presentation
from pptx.util import Pt

from report import build as report
from slides import build as slides
from tools.files import FIGURES, ROOT

REPORT, SLIDES = ROOT / "report", ROOT / "slides"
LANGUAGES = ("en", "zh")


@pytest.fixture(params=LANGUAGES)
def language(request):
    """Both languages in turn."""
    return request.param


def report_text(language):
    """The source of a report's words."""
    return (REPORT / f"text.{language}.typ").read_text(encoding="utf-8")


# Report


def test_the_body_has_at_most_five_pages(language):
    """By the page number that a label at the body's end has, and by the committed PDF."""
    (page,) = json.loads(
        typst.query(
            REPORT / "report.typ",
            "<body-ends>",
            field="value",
            root=ROOT,
            font_paths=[report.FONTS],
            ignore_system_fonts=True,
            sys_inputs={"lang": language},
        )
    )
    assert page <= 5
    first = {"en": "Settings for reproduction", "zh": "复现设置"}[language]
    pages = [page.extract_text() for page in pypdf.PdfReader(report.PDFS[language]).pages]
    appendix = next(number for number, text in enumerate(pages) if first in text)
    assert page <= appendix <= 5 < len(pages)


def test_reports_belong_to_these_results(language):
    """The PDF carries the hash of all that it was made of; `make report` renews it."""
    metadata = pypdf.PdfReader(report.PDFS[language]).metadata
    assert metadata["/Keywords"] == report.sources(language), "stale: run `make report`"
    assert "/Author" not in metadata


def test_every_character_has_a_glyph(language):
    """In the font that ships with the requirements, whatever the other fonts lack."""
    with TTFont(slides.FONT) as font:
        known = set(font.getBestCmap())
    texts = report_text(language), (SLIDES / f"text.{language}.toml").read_text(encoding="utf-8")
    assert {c for text in texts for c in text if ord(c) not in known and c not in "\n·"} == set()


def test_only_fonts_that_ship_are_embedded(language):
    """All fonts of the PDF are in it: the report's own, and matplotlib's in the figures."""
    reader = pypdf.PdfReader(report.PDFS[language])
    numbers = {*itertools.chain(*reader.xref.values()), *reader.xref_objStm}
    objects = (reader.get_object(number) for number in sorted(numbers) if number)
    described = [o for o in objects if isinstance(o, dict) and o.get("/Type") == "/FontDescriptor"]
    assert all({"/FontFile2", "/FontFile3"} & set(font) for font in described)
    shipped = r"/(?:[A-Z]{6}\+)?(NotoSansCJK|LibertinusSerif|NewCM|DejaVu|Cmsy)"
    found = {font["/FontName"]: re.match(shipped, font["/FontName"]) for font in described}
    assert all(found.values()), found
    families = {match[1] for match in found.values()}
    assert {"LibertinusSerif", "NewCM", "DejaVu"} <= families
    assert ("NotoSansCJK" in families) == (language == "zh")


def without_code(text):
    """A Typst text without comments, formulas, citations and calls of functions."""
    text = re.sub(r"(?m)^//.*$|(?<=\s)// .*$", "", text)
    text = re.sub(r"`[^`]*`|\$[^$]*\$|@\w+", "", text)
    text = re.sub(r'"[^"\n]*"', '""', text)
    previous = None
    while text != previous:  # innermost parentheses first
        previous = text
        text = re.sub(r"#?[A-Za-z][\w.-]*\([^()\[\]]*\)", "", text)
    text = re.sub(r"#[A-Za-z][\w.-]*|\], \d+\)", "", text)  # a name, the end of a call
    return re.sub(r"\bwidth: \d+%|\b\d+(\.\d+)?(cm|pt|em|fr)\b", "", text)


def test_no_number_is_typed(language):
    """What the texts show is read from the results, or from the assignment's numbers."""
    assert re.findall(r".{0,20}\d.{0,20}", without_code(report_text(language))) == []
    slide_text = tomllib.loads((SLIDES / f"text.{language}.toml").read_text(encoding="utf-8"))
    shown = [
        part
        for entry in [*slide_text["slide"], *slide_text["backup"]]
        for part in (entry["title"], *entry["lines"], entry["notes"])
    ]
    typed = [text for text in shown if re.search(r"\d", re.sub(r"\{\w+\}", "", text))]
    assert typed == []


def test_the_assignments_numbers_are_the_notebooks(nb):
    """`given` in numbers.typ against the notebook's constants."""
    text = (REPORT / "numbers.typ").read_text(encoding="utf-8")
    given = dict(re.findall(r'^  ([\w-]+): "([^"]+)",$', text, re.MULTILINE))
    hardware = nb.MemristorConfig()
    assert given == {
        "label-noise": f"{nb.LABEL_NOISE:.0%}",
        **{name: f"{noise:.0%}" for name, noise in nb.COLOUR_NOISE.items()},
        "tile": "{} × {}".format(*hardware.tile_shape),
        "voltage": f"{hardware.max_input_voltage} V",
        "bits": f"{hardware.adc_resolution}",
        "calibration": f"{nb.PROFILES['full'].calibration_images}",
        "digits": f"{3 * nb.ENVIRONMENT_SIZE:,}",
        "low-digits": "0–4",
        "high-digits": "5–9",
        "clip": f"{nb.hardware_recipes(nb.PROFILES['full'])['hardened'][1].clip}",
    }
    right = 1 - (nb.COLOUR_NOISE["train1"] + nb.COLOUR_NOISE["train2"]) / 2
    assert f'#let colour-right = "{right:.0%}"' in text


def test_all_is_cited_and_all_citations_resolve(language):
    """The keys of the text are those of the bibliography."""
    entries = re.findall(r"@\w+\{(\w+),", (REPORT / "references.bib").read_text(encoding="utf-8"))
    labels = re.findall(r"<(\w+)>|tag: \"(\w+)\"", report_text(language))
    cited = set(re.findall(r"@(\w+)", report_text(language)))
    assert cited - set(itertools.chain(*labels)) == set(entries)


def test_every_figure_exists(language):
    """Those of the report as vector graphics, those of the slides as pictures."""
    pictures = re.findall(r'#picture\(\s*"(\w+)"', report_text(language))
    assert len(pictures) >= 10
    assert all((FIGURES / f"{name}.pdf").is_file() for name in pictures)
    entries = slides.text_of(language)
    shown = [e["figure"] for k in ("slide", "backup") for e in entries[k] if "figure" in e]
    assert all((FIGURES / f"{name}.png").is_file() for name in shown)


# Slides


@pytest.fixture
def show(language):
    """A committed presentation."""
    return Presentation(slides.SLIDES[language])


def test_slides_belong_to_these_results(language, show):
    """The presentation carries the hash of all that it was made of; `make slides` renews it."""
    assert show.core_properties.keywords == slides.sources(language), "stale: run `make slides`"
    assert show.core_properties.author == ""


def test_the_talk_takes_six_minutes(language, show):
    """Seven to nine slides of six minutes in all, said in so many words; then backup slides."""
    entries = slides.text_of(language)
    assert 7 <= len(entries["slide"]) <= 9 and len(entries["backup"]) >= 4
    assert sum(entry["seconds"] for entry in entries["slide"]) == 360
    notes = [slide.notes_slide.notes_text_frame.text for slide in show.slides]
    assert len(notes) == len(entries["slide"]) + len(entries["backup"])
    seconds = [re.match(r"\[(\d+) ", note) for note in notes]
    assert [m and int(m[1]) for m in seconds[: len(entries["slide"])]] == [
        entry["seconds"] for entry in entries["slide"]
    ]
    said = "\n".join(note.partition("\n")[2] for note in notes[: len(entries["slide"])])
    if language == "en":
        assert 400 <= len(said.split()) <= 850
    else:
        assert 600 <= len(said) <= 1500


def text_frames(show):
    """(paragraphs, points, width and height in inches) of all boxes and cells."""
    for slide in show.slides:
        for shape in slide.shapes:
            if shape.has_text_frame and shape.text_frame.text:
                yield shape.text_frame, shape.width.inches, shape.height.inches
            elif shape.has_table:
                for row in shape.table.rows:
                    for cell, column in zip(row.cells, shape.table.columns, strict=True):
                        yield cell.text_frame, column.width.inches - 0.2, row.height.inches


def test_every_text_fits_its_box(show):
    """Measured with a font at least as wide as those it will be shown in."""
    frames = list(text_frames(show))
    assert len(frames) > 40
    for frame, width, height in frames:
        size = frame.paragraphs[0].runs[0].font.size
        assert size >= Pt(11)
        paragraphs = [paragraph.text for paragraph in frame.paragraphs]
        assert slides.height_of(paragraphs, size.pt, width) <= height + 0.01, frame.text


def test_slides_have_one_sentence_one_figure_or_table_and_lines_inside(show):
    """Nothing lies outside the slide, every picture says what it shows, no name is left open."""
    assert (show.slide_width.inches, show.slide_height.inches) == pytest.approx((13.333, 7.5))
    for slide in show.slides:
        shapes = list(slide.shapes)
        assert sum(shape.has_table or shape.shape_type == 13 for shape in shapes) == 1
        for shape in shapes:
            assert shape.left >= 0 and shape.left + shape.width <= show.slide_width
            assert shape.top >= 0 and shape.top + shape.height <= show.slide_height
            if shape.shape_type == 13:
                assert len(shape._element.nvPicPr.cNvPr.get("descr")) > 5
            if shape.has_text_frame:
                assert "{" not in shape.text_frame.text
        assert "{" not in slide.notes_slide.notes_text_frame.text


def test_a_text_that_is_too_long_is_refused():
    """Before anything is written."""
    show = Presentation()
    slide = show.slides.add_slide(show.slide_layouts[6])
    with pytest.raises(ValueError, match=r"needs .* inches"):
        slides.add_text(slide, ["word " * 100], (0, 0, 2, 1), 20)
    with pytest.raises(ValueError, match="wider"):
        slides.add_text(slide, ["W" * 100], (0, 0, 2, 9), 20)


# Forms


def test_the_form_can_be_filled_in(language):
    """Three members' cells and their signatures are empty; the shares of each task make 100."""
    (table,) = Document(report.FORMS[language]).tables
    rows = [[cell.text for cell in row.cells] for row in table.rows]
    assert {len(row) for row in rows} == {5} and all(rows[0])
    assert all(row[0] and not any(row[1:4]) for row in rows[1:])
    shared = [row[4] for row in rows[1:] if row[4]]
    assert shared == ["100"] * len(shared) and len(shared) >= 9


def test_builders_are_part_of_what_they_build(language, monkeypatch):
    """A changed builder makes its documents stale."""
    for builder in (report, slides):
        before = builder.sources(language)
        monkeypatch.setattr(builder, "__file__", str(ROOT / "LICENSE"))
        assert builder.sources(language) != before
