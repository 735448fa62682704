"""The report, the slides and the forms: built from these results, complete, and within bounds."""

import io
import itertools
import json
import re
import zipfile

import pypdf
import pytest
import typst
from docx import Document
from fontTools.ttLib import TTFont
from PIL import Image
from pptx import Presentation
from pptx.enum.shapes import MSO_SHAPE_TYPE, PP_PLACEHOLDER
from pptx.oxml.ns import qn
from pptx.util import Pt

from report import build as report
from slides import build as slides
from tools.files import FIGURES, NOTEBOOK, ROOT
from tools.records import fixed

REPORT, SLIDES = ROOT / "report", ROOT / "slides"
LANGUAGES = ("en", "zh")
each_language = pytest.mark.parametrize("language", LANGUAGES)  # where much is built
PICTURE = MSO_SHAPE_TYPE.PICTURE


@pytest.fixture(scope="module")
def chinese_figures():
    """The figures that the Chinese report includes."""
    report.draw_in_chinese()


def report_text(language):
    """The source of a report's words."""
    return (REPORT / f"text.{language}.typ").read_text(encoding="utf-8")


# Report


@each_language
def test_the_body_has_at_most_five_pages(language, chinese_figures):
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
    assert page <= appendix < len(pages)  # counted from nought: the references come between


def test_reports_belong_to_these_results():
    """The PDF carries the hash of all that it was made of; `make report` renews it."""
    for language in LANGUAGES:
        metadata = pypdf.PdfReader(report.PDFS[language]).metadata
        assert metadata["/Keywords"] == report.sources(language), "stale: run `make report`"
        assert "/Author" not in metadata


def test_every_character_has_a_glyph():
    """In the fonts that ship with the requirements, whatever the other fonts lack."""
    for language in LANGUAGES:
        texts = {
            report.FONT: report_text(language),
            slides.FONT: (SLIDES / f"text.{language}.toml").read_text(encoding="utf-8"),
        }
        for path, text in texts.items():
            with TTFont(path) as font:
                known = set(font.getBestCmap())
            assert {c for c in text if ord(c) not in known and c not in "\n·"} == set()


def test_only_fonts_that_ship_are_embedded():
    """All fonts of the PDF are in it: the report's own, and matplotlib's in the figures."""
    for language in LANGUAGES:
        reader = pypdf.PdfReader(report.PDFS[language])
        numbers = {*itertools.chain(*reader.xref.values()), *reader.xref_objStm}
        objects = (reader.get_object(number) for number in sorted(numbers) if number)
        described = [
            o for o in objects if isinstance(o, dict) and o.get("/Type") == "/FontDescriptor"
        ]
        assert all({"/FontFile2", "/FontFile3"} & set(font) for font in described)
        shipped = r"/(?:[A-Z]{6}\+)?(NotoSansSC|LibertinusSerif|NewCM|DejaVu|Cmsy)"
        found = {font["/FontName"]: re.match(shipped, font["/FontName"]) for font in described}
        assert all(found.values()), found
        families = {match[1] for match in found.values()}
        assert {"LibertinusSerif", "NewCM", "DejaVu"} <= families
        assert ("NotoSansSC" in families) == (language == "zh")


def test_chinese_is_simplified_and_has_its_own_bold():
    """The Simplified build, embedded in two weights; full-width quotes in the words."""
    reader = pypdf.PdfReader(report.PDFS["zh"])
    fonts = reader.pages[0]["/Resources"]["/Font"].values()
    names = [font.get_object()["/BaseFont"] for font in fonts]
    assert sum("NotoSansSC" in name for name in names) == 2
    shown = re.sub(r'"[^"\n]*"', "", without_code(report_text("zh")))
    assert "精度" not in shown and '"' not in shown


def test_no_letter_is_smaller_than_seven_points():
    """In words of its own; figures are included as large as they are drawn (test_figures)."""
    for source in REPORT.glob("*.typ"):
        sizes = re.findall(r"size: ([\d.]+)pt", source.read_text(encoding="utf-8"))
        assert all(float(size) >= 7 for size in sizes)
    images = re.findall(r"image\((.*?)\)", (REPORT / "numbers.typ").read_text(encoding="utf-8"))
    assert images == ['drawn + name + ".pdf"']


def test_contributions_and_the_hero_are_on_the_first_page():
    """Three or four of them."""
    for language in LANGUAGES:
        text = report_text(language)
        first = " ".join(pypdf.PdfReader(report.PDFS[language]).pages[0].extract_text().split())
        heading, figure = {"en": ("Contributions", "Figure 1"), "zh": ("贡献", "图 1")}[language]
        assert heading in first and figure in first
        listed = text.split(f"*{heading}")[1].split("#picture(")[0]
        assert 3 <= len(re.findall(r"(?m)^- \*", listed)) <= 4


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


def test_no_number_is_typed():
    """What the texts show is read from the results, or from the assignment's numbers."""
    for language in LANGUAGES:
        assert re.findall(r".{0,20}\d.{0,20}", without_code(report_text(language))) == []


def test_typst_rounds_as_python_does():
    """The notebook's and the slides' numbers are rounded by Python, the report's by typst: all
    that the results hold, and what lies half-way."""
    values = sorted({*numbers_of(RESULTS)} | {0.125, 0.375, 2.675, 0.015, 0.74425, 74.25, -0.005})
    asked = [(100 * value, digits) for value in values if abs(value) < 1e6 for digits in (0, 1, 2)]
    source = ROOT / "build" / "rounding.typ"
    source.parent.mkdir(exist_ok=True)
    source.write_text(
        '#import "../report/numbers.typ": fixed\n#let asked = yaml(bytes(sys.inputs.asked))\n'
        "#metadata(asked.map(((value, digits)) => fixed(value, digits))) <answers>",
        encoding="utf-8",
    )
    inputs = {"asked": json.dumps(asked)}
    try:
        (found,) = json.loads(
            typst.query(source, "<answers>", field="value", root=ROOT, sys_inputs=inputs)
        )
    finally:
        source.unlink()
    assert found == [fixed(value, digits).replace("-", "−") for value, digits in asked]


def test_numbers_that_appear_twice_are_the_same():
    """On the slides and in README as in the report."""
    for language in LANGUAGES:
        pages = pypdf.PdfReader(report.PDFS[language]).pages
        printed = "".join("".join(page.extract_text().split()) for page in pages[:5])
        values = slides.numbers(RESULTS)
        told = values.keys() - {"small", "large", "cores"}  # too short to be found
        assert len(told) > 20
        assert [name for name in told if values[name].rstrip("%") not in printed] == []
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        story = readme.split("results:story")[1].split("<!-- /results")[0]
        told = set(re.findall(r"\d+\.\d%", story))
        assert len(told) >= 7 and [number for number in told if number not in printed] == []


def numbers_of(item):
    """All numbers of a nested record."""
    if isinstance(item, dict):
        item = list(item.values())
    if isinstance(item, list):
        return [number for part in item for number in numbers_of(part)]
    return [item] if isinstance(item, int | float) and not isinstance(item, bool) else []


def test_the_assignments_numbers_are_the_notebooks(nb):
    """`given` in numbers.typ against the notebook's constants."""
    text = (REPORT / "numbers.typ").read_text(encoding="utf-8")
    given = dict(re.findall(r'^  ([\w-]+): "([^"]+)",$', text, re.MULTILINE))
    hardware = nb.MemristorConfig()
    broken = nb.hardware_recipes(nb.PROFILES["full"])["hardened"].stuck
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
        "most-low": f"{broken[0]:.0%}",
        "most-high": f"{broken[1]:.0%}",
        "wire": f"{nb.EFFECTS['wires'][0]['ohms']:.0f} Ω",
        "prior": "20%",  # of the last row of `exact`
        "rare-noise": "5%",
        "confirmed": "10,000",
    }
    assert list(RESULTS["exact"])[-1] == "one class rare: prior .2, e = .05"
    right = 1 - (nb.COLOUR_NOISE["train1"] + nb.COLOUR_NOISE["train2"]) / 2
    assert f'#let colour-right = "{right:.0%}"' in text
    assert f'#let colour-right-test = "{1 - nb.COLOUR_NOISE["test"]:.0%}"' in text


def test_rates_that_the_texts_speak_of_are_in_the_results():
    """`rates` in numbers.typ names keys of the results."""
    text = (REPORT / "numbers.typ").read_text(encoding="utf-8")
    rates = dict(re.findall(r'([a-z]+): "(\d+%)"', re.search(r"#let rates = (.*)", text)[1]))
    assert {rates["few"], rates["some"]} <= set(RESULTS["joint"])
    faults = {f"low {rates[name]}" for name in ("some", "many", "half")}
    assert faults | {f"high {rates['high']}"} <= set(RESULTS["cures"]["untreated"]["lost"])
    columns = {f"{rates['dead']} of columns at low", f"{rates['deadhigh']} of columns at high"}
    assert columns == set(RESULTS["columns"]["mended"])


def test_all_is_cited_and_all_citations_resolve():
    """The keys of the text are those of the bibliography."""
    for language in LANGUAGES:
        entries = re.findall(
            r"@\w+\{(\w+),", (REPORT / "references.bib").read_text(encoding="utf-8")
        )
        labels = re.findall(r"<([\w-]+)>|tag: \"(\w+)\"", report_text(language))
        cited = set(re.findall(r"@([\w-]+)", report_text(language)))
        assert cited - set(itertools.chain(*labels)) == set(entries)


def test_lists_of_authors_are_whole():
    """In English; GB/T 7714 names three."""
    reader = pypdf.PdfReader(report.PDFS["en"])
    text = "".join(page.extract_text() for page in reader.pages).split("References")[1]
    listed = text.split("Settings for reproduction")[0]
    assert "Courville" in listed and "D’Amour" in listed.replace("'", "’")
    assert not re.search("et al|and others", listed)


def test_every_figure_exists():
    """Those of the report, as vector graphics."""
    for language in LANGUAGES:
        pictures = re.findall(r'#picture\(\s*"(\w+)"', report_text(language))
        assert len(pictures) >= 10
        assert all((FIGURES / f"{name}.pdf").is_file() for name in pictures)


# Slides


RESULTS = json.loads((FIGURES / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shows():
    """The committed presentations by language."""
    return {language: Presentation(slides.SLIDES[language]) for language in LANGUAGES}


def words_in(item, leave=()):
    """All texts in a nested entry but those under some keys."""
    if isinstance(item, dict):
        item = [value for key, value in item.items() if key not in leave]
    if isinstance(item, list):
        return [text for part in item for text in words_in(part, leave)]
    return [item] if isinstance(item, str) else []


def runs_of(show, notes=False):
    """The XML of all runs of text on the slides, and in their notes."""
    parts = [slide._element for slide in show.slides]
    parts += [slide.notes_slide._element for slide in show.slides] if notes else []
    return [run for part in parts for run in part.iter(qn("a:r"))]


def test_slides_belong_to_these_results(shows):
    """The presentation carries the hash of all that it was made of; `make slides` renews it."""
    for language, show in shows.items():
        assert show.core_properties.keywords == slides.sources(language), "stale: run `make slides`"
        assert show.core_properties.author == ""


@pytest.mark.slow
@each_language
def test_slides_have_the_same_bytes_when_built_again(language, shows):
    """Whatever the time of day: those of the committed file."""
    content = slides.presentation(language, RESULTS)
    assert content == slides.SLIDES[language].read_bytes(), "stale: run `make slides`"
    with zipfile.ZipFile(slides.SLIDES[language]) as file:
        assert {member.date_time for member in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    dates = shows[language].core_properties
    assert dates.created == dates.modified == slides.DATE


def test_the_talk_takes_340_seconds(shows):
    """At most nine slides, the graph among the first three, said at a pace that can be followed;
    then backup slides."""
    for language, show in shows.items():
        entries = slides.entries_of(language, RESULTS)
        talk = [entry for entry in entries if "seconds" in entry]
        assert 7 <= len(talk) <= 9 and len(entries) >= len(talk) + 5
        assert talk == entries[: len(talk)]
        assert sum(entry["seconds"] for entry in talk) == 340
        assert "graphs" in [entry["draw"] for entry in talk[:3]]
        assert talk[-1]["draw"] == "columns"
        notes = [slide.notes_slide.notes_text_frame.text for slide in show.slides]
        assert len(notes) == len(entries)
        seconds = [re.match(r"\[(\d+) ", note) for note in notes]
        assert [int(m[1]) for m in seconds if m] == [entry["seconds"] for entry in talk]
        for entry in talk:
            length = len(entry["notes"].split()) if language == "en" else len(entry["notes"])
            slowest, fastest = {"en": (1.5, 2.5), "zh": (3.0, 4.7)}[language]
            assert slowest <= length / entry["seconds"] <= fastest, entry["title"]


def test_both_languages_tell_the_same():
    """The same slides, drawings, rows and seconds."""

    def shape(item, key=""):
        if isinstance(item, dict):
            return {name: shape(value, name) for name, value in item.items()}
        if isinstance(item, list):
            return [shape(part) for part in item]
        return "" if isinstance(item, str) and key not in ("draw", "table") else item

    assert shape(slides.text_of("en")) == shape(slides.text_of("zh"))


def test_chinese_words_are_the_glossarys():
    """Whatever is in the glossary is called so on the slides; the report reads it from there."""
    glossary = json.loads(report.GLOSSARY.read_text(encoding="utf-8"))
    words = (words_in(slides.text_of(name), leave=("table", "draw")) for name in LANGUAGES)
    pairs = list(zip(*words, strict=True))
    known = [pair for pair in pairs if pair[0] in glossary]
    assert len(known) > 30
    assert [pair for pair in known if pair[1] != glossary[pair[0]]] == []
    assert report_text("zh").count("zh(") > 10


def test_no_number_is_typed_on_slides():
    """What they show is read from the results; years of publications are no results."""
    for language in LANGUAGES:
        texts = words_in(slides.text_of(language), leave=("others", "draw", "table"))
        assert [t for t in texts if re.search(r"\d", re.sub(r"\{\w+\}", "", t))] == []


def test_every_source_named_on_slides_is_a_reference():
    """Name and year stand in one line of the notebook's list of references."""
    for language in LANGUAGES:
        cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        texts = ("".join(cell["source"]) for cell in cells)
        (listed,) = (text for text in texts if re.match(r"## \d+ References", text))
        (entry,) = (e for e in slides.text_of(language)["slide"] if e["draw"] == "columns")
        named, count = " ".join(entry["others"]), 0
        for name, year, more in re.findall(r"([A-Z][a-z]+) (\d{4})(?:[,、] ?(\d{4}))?", named):
            for one in filter(None, (year, more)):
                count += 1
                assert re.search(rf"(?m)^\d+\. .*\b{name}\b.*\b{one}\b", listed), (name, one)
                assert any(line.startswith(name) and one in line for line in slides.references())
        assert count >= 12


def test_references_come_from_the_bibliography():
    """A line for each entry: author, year and title, without marks of LaTeX."""
    text = slides.BIBLIOGRAPHY.read_text(encoding="utf-8")
    lines = slides.references()
    assert len(lines) == len(re.findall(r"(?m)^@\w+\{\w", text)) > 20
    assert [line for line in lines if re.search(r"[{}\\]", line)] == []
    assert slides.plain(r"Ram{\'e} \& {REx}, L{\'{e}}on a\_b, 2--3") == "Ramé & REx, Léon a_b, 2–3"


def text_frames(show):
    """(text frame, width and height in inches) of all boxes and cells."""
    for slide in show.slides:
        for shape in slide.shapes:
            if shape.has_text_frame and shape.text_frame.text:
                yield shape.text_frame, shape.width.inches, shape.height.inches
            elif shape.has_table:
                for row in shape.table.rows:
                    for cell, column in zip(row.cells, shape.table.columns, strict=True):
                        if cell.text_frame.text:
                            yield cell.text_frame, column.width.inches - 0.2, row.height.inches


def test_every_text_is_large_and_fits_its_box(shows):
    """Measured with a font at least as wide as those it will be shown in; no picture holds text."""
    for show in shows.values():
        frames = list(text_frames(show))
        assert len(frames) > 200
        for frame, width, height in frames:
            sizes = {run.font.size for paragraph in frame.paragraphs for run in paragraph.runs}
            (size,) = sizes
            assert size >= Pt(18), frame.text
            paragraphs = [paragraph.text for paragraph in frame.paragraphs]
            assert slides.height_of(paragraphs, size.pt, width) <= height + 0.01, frame.text


def test_words_stand_out(shows):
    """WCAG's contrast of every coloured run with a white slide."""
    for show in shows.values():
        runs = (r for frame, *_ in text_frames(show) for p in frame.paragraphs for r in p.runs)
        colours = {str(r.font.color.rgb) for r in runs if r.font.color.type}
        assert len(colours) >= 4
        for colour in colours:
            parts = (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
            light = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
            dark = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]
            assert 1.05 / (dark + 0.05) >= 4.5, colour


def test_titles_are_placeholders_on_one_line(shows):
    """So that outline, navigation and screen readers find them; no other placeholder is left."""
    for show in shows.values():
        titles = [slide.shapes.title for slide in show.slides]
        assert len({title.text_frame.text for title in titles}) == len(titles)
        for slide, title in zip(show.slides, titles, strict=True):
            assert slides.wrapped(title.text_frame.text, slides.TITLE, title.width.inches)[0] == 1
            assert [p.placeholder_format.type for p in slide.placeholders] == [PP_PLACEHOLDER.TITLE]


def test_every_run_names_language_and_typefaces(shows):
    """Otherwise Chinese is shown in whatever face the machine finds, and spelt as English."""
    for language, show in shows.items():
        tag = {"en": "en-GB", "zh": "zh-CN"}[language]
        runs = runs_of(show, notes=True)
        assert len(runs) > 200
        for run in runs:
            properties = run.find(qn("a:rPr"))
            assert properties.get("lang") == tag
            for name in ("a:latin", "a:ea"):
                assert len(properties.find(qn(name)).get("typeface")) > 3
        chinese = [slide for slide in show.slides if re.search(r"[一-鿿]", slide.shapes.title.text)]
        assert len(chinese) == (len(show.slides) if language == "zh" else 0)


def test_all_lies_inside_the_slide_and_pictures_are_described(shows):
    """No name is left open, and every slide shows something."""
    for show in shows.values():
        assert (show.slide_width.inches, show.slide_height.inches) == pytest.approx((13.333, 7.5))
        for slide in show.slides:
            assert len(slide.shapes) >= 3
            for shape in slide.shapes:
                assert shape.left >= 0 and shape.left + shape.width <= show.slide_width
                assert shape.top >= 0 and shape.top + shape.height <= show.slide_height
                if shape.shape_type == PICTURE:
                    assert len(shape._element.nvPicPr.cNvPr.get("descr")) > 5
        assert not any(
            mark in run.findtext(qn("a:t")) for run in runs_of(show, True) for mark in "{}"
        )


def replaced(item, share, points, key=""):
    """Results with every mean and run replaced by a share or, where points are lost, by points."""
    if isinstance(item, dict):
        pointed = key in ("cures", "realistic", "columns")
        inside = {k: replaced(v, points if pointed else share, points, k) for k, v in item.items()}
        return inside | {k: share for k in ("mean",) if k in item}
    if isinstance(item, list):
        return [share if key == "runs" else replaced(part, share, points) for part in item]
    return item


@pytest.mark.slow
@each_language
def test_any_results_can_be_shown(language):
    """Texts fit and charts stay inside whatever a run finds."""
    for share, points in ((1.0, 88.88), {"en": (0.7444, -12.34), "zh": (0.0, -0.004)}[language]):
        content = slides.presentation(language, replaced(RESULTS, share, points))
        show = Presentation(io.BytesIO(content))
        assert "-0.00" not in " ".join(run.findtext(qn("a:t")) for run in runs_of(show))
        for slide in show.slides:
            for shape in slide.shapes:
                assert shape.left >= 0 and shape.left + shape.width <= show.slide_width


def test_the_hero_shows_a_red_and_a_green_digit():
    """The digit that the notebook's picture shows, in one channel each."""
    for channel in (0, 1):
        with Image.open(slides.digit(RESULTS, channel)) as image:
            bands = [band.getextrema()[1] for band in image.split()]
        assert [bool(most) for most in bands] == [place == channel for place in range(3)]


def test_one_chip_is_shown_broken_and_cured(shows):
    """Its answers are the recorded ones, and they tell what the title says."""
    for show in shows.values():
        answers = RESULTS["hero"]["answers"]
        told = [
            int(p > 0.5) for name in ("stratified", "broken", "hardened") for p in answers[name]
        ]
        assert told == [0, 0, 0, 1, 0, 0]
        large = [
            frame.text
            for frame, *_ in text_frames(show)
            if frame.paragraphs[0].runs[0].font.size == Pt(slides.ANSWER)
        ]
        assert large == [str(answer) for answer in told]


@pytest.mark.slow
def test_the_demo_has_a_slide_if_there_is_a_demo(monkeypatch, tmp_path):
    """Its picture leads to the page; without it the slide is left out."""
    monkeypatch.setattr(slides, "DEMO", tmp_path)
    without = slides.entries_of("en", RESULTS)
    before = slides.sources("en")
    Image.new("RGB", (192, 108)).save(tmp_path / "demo.png")
    entries = slides.entries_of("en", RESULTS)
    (entry,) = (e for e in entries if e not in without)
    assert entry["draw"] == "demo" and slides.sources("en") != before
    show = Presentation(io.BytesIO(slides.presentation("en", RESULTS)))
    (picture,) = (s for s in show.slides[entries.index(entry)].shapes if s.shape_type == PICTURE)
    assert picture.click_action.hyperlink.address.startswith("demo.html")


def test_a_text_that_is_too_long_is_refused():
    """Before anything is written."""
    show = Presentation()
    slide = show.slides.add_slide(show.slide_layouts[6])
    with pytest.raises(ValueError, match=r"needs .* inches"):
        slides.add_text(slide, ["word " * 100], (0, 0, 2, 1), 20)
    with pytest.raises(ValueError, match="wider"):
        slides.add_text(slide, ["W" * 100], (0, 0, 2, 9), 20)
    entry = {"title": "word " * 40, "list": ["one"], "notes": ""}
    with pytest.raises(ValueError, match="two lines"):
        slides.add_slide(show, "en", entry, 1, slides.text_of("en"), RESULTS)


# Forms


def test_the_form_can_be_filled_in():
    """Three members' cells and their signatures are empty; the shares of each task make 100."""
    for language in LANGUAGES:
        (table,) = Document(report.FORMS[language]).tables
        rows = [[cell.text for cell in row.cells] for row in table.rows]
        assert {len(row) for row in rows} == {5} and all(rows[0])
        assert all(row[0] and not any(row[1:4]) for row in rows[1:])
        shared = [row[4] for row in rows[1:] if row[4]]
        assert shared == ["100"] * len(shared) and len(shared) >= 9


def test_the_chinese_form_is_marked_as_chinese():
    """Or its punctuation stands in the middle of a square, as in Japanese or Korean."""
    styles = report.form("zh").styles.element
    marked = [spoken.get(qn("w:eastAsia")) for spoken in styles.iter(qn("w:lang"))]
    assert marked and set(marked) == {"zh-CN"}


def test_a_form_has_the_same_bytes_in_every_build():
    """No part of it carries a time."""
    for language in LANGUAGES:
        made = report.undated(report.form(language))
        assert made == report.undated(report.form(language)) == report.FORMS[language].read_bytes()


def test_builders_are_part_of_what_they_build(monkeypatch):
    """A changed builder makes its documents stale."""
    for builder in (report, slides):
        before = [builder.sources(language) for language in LANGUAGES]
        monkeypatch.setattr(builder, "__file__", str(ROOT / "LICENSE"))
        after = [builder.sources(language) for language in LANGUAGES]
        assert before[0] != after[0] and before[1] != after[1]
