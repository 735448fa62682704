"""Build slides/slides.pptx and slides/slides.zh.pptx from slides/text.*.toml, figures/results.json,
figures/bench.json, report/references.bib and one digit of data/mnist. Started by `make slides`.

Charts are drawn here of PowerPoint's own shapes, so that their words have a slide's size and its
language. Every number in the texts is a name in braces, looked up in the results. A text that does
not fit its box is an error: it is measured with the font that ships with the project's
requirements. The same input gives the same bytes.
"""

import datetime
import functools
import gzip
import io
import re
import tomllib
import unicodedata
import zipfile
from pathlib import Path

import cvttf_NotoSansCJK_Regular
from PIL import Image, ImageFont
from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.enum.dml import MSO_LINE
from pptx.enum.shapes import MSO_CONNECTOR, MSO_SHAPE
from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
from pptx.oxml.ns import qn
from pptx.util import Emu, Inches, Pt

from tools.files import FIGURES, ROOT, digest, read_json, replacing
from tools.records import fixed, is_earlier

SLIDES = {"en": ROOT / "slides" / "slides.pptx", "zh": ROOT / "slides" / "slides.zh.pptx"}
BIBLIOGRAPHY = ROOT / "report" / "references.bib"
DEMO = ROOT / "slides"  # where pictures of the page for the lecture are; without, no slide of it
MNIST = ROOT / "data" / "mnist" / "train-images-idx3-ubyte.gz"
TEST_FROM = 40_000  # the first image of the environment `test`
FONT = next(Path(cvttf_NotoSansCJK_Regular.__file__).parent.glob("*.otf"))
FACES = {  # language: its tag, the typefaces of Latin and of East Asian letters
    "en": ("en-GB", "Arial", "Microsoft YaHei"),
    "zh": ("zh-CN", "Arial", "Microsoft YaHei"),
}
DATE = datetime.datetime(2000, 1, 1)  # written instead of the time of building
WIDTH, HEIGHT, MARGIN = 13.333, 7.5, 0.6  # inches
INNER = WIDTH - 2 * MARGIN
PLACE = (MARGIN, 1.3, INNER, 4.6)  # of a slide's picture: left, top, width, height
LISTED = 5.8  # height of a list that fills a slide
TITLE, LINE, TEXT, FORMULA, ANSWER = 28, 20, 18, 24, 40  # points; TEXT is the smallest
BULLET, APART = 0.25, 0.06  # inches: in front of a list's lines, between them
LEADING = 1.25
WIDER = 1.12  # than FONT's Latin letters are those of the fonts that may replace ours
INK, GREY, PALE = RGBColor(0x22, 0x22, 0x22), RGBColor(0x6E, 0x6E, 0x6E), RGBColor(0xE4, 0xE4, 0xE4)
BLUE, VERMILION = RGBColor(0, 0x72, 0xB2), RGBColor(0xC4, 0x4E, 0)  # as in the notebook
TEAL = RGBColor(0, 0x79, 0x5A)
TREATMENT, OUTCOME = RGBColor(0x9C, 0xCB, 0xEA), RGBColor(0xF6, 0xCE, 0x7F)
SUBSCRIPT = re.compile(r"_([a-z])\b")  # in formulas
RATE, HALF = "low 30%", "low 50%"  # of the cures' table
BROKEN = "10%"  # of the joint experiment, as in the hero picture
DEAD, DEAD_HIGH = "2% of columns at low", "5% of columns at high"


# Words and numbers


def text_of(language):
    """The words of the slides in `en` or `zh`."""
    path = ROOT / "slides" / f"text.{language}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def share(value, digits=1):
    """A share as text, in per cent; a `summary` stands for its mean."""
    return f"{fixed(100 * (value['mean'] if isinstance(value, dict) else value), digits)}%"


def points(value):
    """Points of accuracy: one decimal, two below one point."""
    value = value["mean"] if isinstance(value, dict) else value
    return fixed(value, 1 if abs(value) >= 1 else 2).replace("-", "−")


def gained(found):
    """A share gained as points with their sign, and `± its standard error`."""
    mean, error = 100 * found["mean"], 100 * found["se"]
    sign = "+" if round(mean, 2) > 0 else ""
    return sign + points(mean), f"± {fixed(error, 1 if abs(mean) >= 1 else 2)}"


def numbers(results):
    """`{name: text}`: what may stand in braces in the texts."""
    software, headline, fall = results["software"], results["headline"], results["fall"]
    broken, lost = results["joint"][BROKEN], results["cures"]
    columns, wires = results["columns"], results["wires"]
    confirmed, fast = results["confirmation"], results["fast_crossbars"]["whole chip"]
    weights = results["weights"]
    return {
        "small": "0",  # the class of digits below five
        "large": "1",
        "ceiling": share(results["ceiling"]["test"]),
        "erm": share(software["erm"]["accuracy"]),
        "erm_do": share(software["erm"]["accuracy_do"]),
        "strata": share(software["strata"]["accuracy"]),
        "headline_do": share(headline["accuracy_do"]),
        "effective": share(weights["effective_sample_size"] / weights["images"], 0),
        "cores": f"{results['machine']['cores']}",
        "sample_stock": share(fall["sample"]["as the sample"]["balanced"]),
        "sample_restored": share(fall["sample"]["scale restored"]["balanced"]),
        "broken_rate": BROKEN,
        "flips": share(broken["flips"]),
        "shifts": share(broken["shifts"]),
        "rate": RATE.split()[1],
        "half_rate": HALF.split()[1],
        "averaged": points(lost["averaged"]["lost"][RATE]),
        "copies": points(lost["copies"]["lost"][RATE]),
        "copies_half": points(lost["copies"]["lost"][HALF]),
        "dead_rate": DEAD.split()[0],
        "dead": points(columns["dead hardened"][DEAD]["lost_do"]),
        "dead_high": points(columns["dead hardened"][DEAD_HIGH]["lost_do"]),
        "mended": points(columns["mended"][DEAD]["lost_do"]),
        "tile": f"{wires['tile_seconds']:.2f}",
        "solver": f"{wires['memtorch_ratio']:.0f}",
        "faster": f"{fast['times_faster_than_memtorch']:.0f}",
        "confirmed_ceiling": share(confirmed["ceiling"]),
    }


def filled(item, values):
    """Words with their numbers, however they are nested."""
    if isinstance(item, dict):
        return {key: filled(value, values) for key, value in item.items()}
    if isinstance(item, list):
        return [filled(value, values) for value in item]
    return item.format_map(values) if isinstance(item, str) else item


def plain(latex):
    """A field of a bibliography as plain text."""
    marks = {
        "'": "\u0301",
        "`": "\u0300",
        '"': "\u0308",
        "^": "\u0302",
        "~": "\u0303",
        "c": "\u0327",
    }
    latex = re.sub(r"\\(['`\"^~]|c(?=\{))\s*\{?(\w)\}?", lambda m: m[2] + marks[m[1]], latex)
    return unicodedata.normalize("NFC", re.sub(r"[{}]|\\(?=[\W_])", "", latex)).replace("--", "–")


def references():
    """A line for each entry of the report's bibliography: author, title, year."""
    lines = []
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    for entry in re.split(r"(?m)^\s*@", text)[1:]:
        nested = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*"
        found = re.findall(rf"(\w+)\s*=\s*(?:\{{({nested})\}}|\"([^\"]*)\"|(\d+))", entry)
        fields = {name.lower(): " ".join("".join(value).split()) for name, *value in found}
        if "title" not in fields:
            continue
        people = re.split(r"\s+and\s+", fields.get("author", ""))
        names = [plain(person.partition(",")[0]) for person in people if person]
        who = f"{names[0]} et al." if len(names) > 2 else " & ".join(names)
        year = f" {fields['year']}" if "year" in fields else ""
        lines.append(f"{who}{year}: {plain(fields['title'])}".removeprefix(": "))
    return lines


# Text


@functools.cache
def font_of(size):
    """The font that measures, in tenths of a point."""
    return ImageFont.truetype(str(FONT), 10 * size)


def wrapped(text, size, inches):
    """How many lines a text takes in a box of that width, and whether any word is too wide."""
    font = font_of(size)
    room, lines, length = 720 * inches, 1, 0.0
    parts = SUBSCRIPT.sub(r"\1", text).replace(" ", " \0").split("\0")  # words keep their space
    parts = [p for word in parts for p in ([word] if word.isascii() else list(word))]
    for part in parts:
        factor = WIDER if part.isascii() else 1.0
        wide = factor * font.getlength(part)
        if length and length + factor * font.getlength(part.rstrip()) > room:
            lines, length = lines + 1, 0.0
        length += wide
    return lines, WIDER * max(font.getlength(part.rstrip()) for part in parts) <= room


def height_of(paragraphs, size, inches):
    """The height in inches that paragraphs take; `ValueError` if a word is too wide for its box."""
    lines = 0
    for paragraph in paragraphs:
        count, narrow = wrapped(paragraph, size, inches)
        if not narrow:
            raise ValueError(f"a word is wider than {inches:.1f} inches: {paragraph!r}")
        lines += count
    return lines * size * LEADING / 72


def write(frame, paragraphs, size, colour=INK, bold=False, align=None, listed=False):
    """Fill a text frame; an underscore before a letter makes it a subscript. `listed`: from the
    top, each paragraph with a bullet and hanging behind it."""
    frame.word_wrap = True
    frame.vertical_anchor = MSO_ANCHOR.TOP if listed else MSO_ANCHOR.MIDDLE
    frame.margin_left = frame.margin_right = frame.margin_top = frame.margin_bottom = 0
    for number, text in enumerate(paragraphs):
        paragraph = frame.paragraphs[0] if number == 0 else frame.add_paragraph()
        paragraph.alignment = align
        if listed:
            properties = paragraph._p.get_or_add_pPr()
            properties.set("marL", str(Inches(BULLET)))
            properties.set("indent", str(-Inches(BULLET)))
            paragraph.space_before = Inches(APART)
            properties.append(properties.makeelement(qn("a:buChar"), {"char": "•"}))
        for place, part in enumerate(SUBSCRIPT.split(text)):
            if part:
                run = paragraph.add_run()
                run.text = part
                run.font.size, run.font.bold, run.font.color.rgb = Pt(size), bold, colour
                if place % 2:
                    run.font._element.set("baseline", "-25000")


def add_text(slide, paragraphs, box, size=TEXT, **style):
    """A text box at (left, top, width, height) inches; `ValueError` if the text does not fit."""
    if style.get("listed"):
        needed = height_of(paragraphs, size, box[2] - BULLET) + APART * len(paragraphs)
    else:
        needed = height_of(paragraphs, size, box[2])
    if needed > box[3] + 1e-6:
        raise ValueError(f"needs {needed:.2f} inches of {box[3]:.2f}: {paragraphs}")
    shape = slide.shapes.add_textbox(*map(Inches, box))
    write(shape.text_frame, paragraphs, size, **style)


def add_table(slide, rows, box, first=0.3):
    """A native table; its first column takes that share of the width and is left-aligned."""
    left, top, width, height = box
    row_height = min(height / len(rows), 0.75)
    shape = slide.shapes.add_table(
        len(rows), len(rows[0]), *map(Inches, (left, top, width, row_height * len(rows)))
    )
    widths = [first * width] + [(1 - first) * width / (len(rows[0]) - 1)] * (len(rows[0]) - 1)
    for column, inches in zip(shape.table.columns, widths, strict=True):
        column.width = Inches(inches)
    for r, row in enumerate(rows):
        shape.table.rows[r].height = Inches(row_height)
        for c, text in enumerate(row):
            cell = shape.table.cell(r, c)
            cell.margin_top = cell.margin_bottom = Emu(0)
            cell.vertical_anchor = MSO_ANCHOR.MIDDLE
            if r == 0:
                cell.fill.solid()
                cell.fill.fore_color.rgb = BLUE
            if height_of([text], TEXT, widths[c] - 0.2) > row_height:
                raise ValueError(f"does not fit its cell: {text!r}")
            paragraph = cell.text_frame.paragraphs[0]
            paragraph.alignment = PP_ALIGN.RIGHT if c else PP_ALIGN.LEFT
            run = paragraph.add_run()
            run.text = text
            run.font.size, run.font.bold = Pt(TEXT), r == 0


# Shapes


def add_shape(slide, kind, box, colour, outline=None):
    """A filled shape at (left, top, width, height) inches."""
    left, top, width, height = box
    shape = slide.shapes.add_shape(kind, *map(Inches, (left, top, max(width, 0.01), height)))
    shape._element.remove(shape._element.find(qn("p:style")))  # the theme's shadow
    shape.fill.solid()
    shape.fill.fore_color.rgb = colour
    if outline is None:
        shape.line.fill.background()
    else:
        shape.line.color.rgb, shape.line.width = outline, Pt(2)
    return shape


def add_dot(slide, x, y, colour, size=0.2, hollow=False):
    """A dot, filled or hollow."""
    box = (x - size / 2, y - size / 2, size, size)
    fill = RGBColor(255, 255, 255) if hollow else colour
    return add_shape(slide, MSO_SHAPE.OVAL, box, fill, outline=colour)


def add_line(slide, start, end, colour=INK, width=2.0, dashed=False, arrow=False):
    """A straight line between two points in inches."""
    shape = slide.shapes.add_connector(MSO_CONNECTOR.STRAIGHT, *map(Inches, (*start, *end)))
    shape._element.remove(shape._element.find(qn("p:style")))  # the theme's shadow
    shape.line.color.rgb, shape.line.width = colour, Pt(width)
    if dashed:
        shape.line.dash_style = MSO_LINE.DASH
    if arrow:
        head = shape.line._get_or_add_ln().makeelement(qn("a:tailEnd"), {"type": "triangle"})
        shape.line._get_or_add_ln().append(head)


class Axis:
    """Values from `low` to `high` laid over a width in inches; what lies outside is clipped."""

    def __init__(self, left, width, low, high):
        self.left, self.width, self.low, self.high = left, width, low, high

    def __call__(self, value):
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.left + part * self.width


def add_bars(slide, rows, box, label, texts, axis, headers=(), level=None):
    """Horizontal bars: rows are (label, [(value, colour)], texts, colour of the texts). `label` and
    `texts` are the widths of the columns left and right of the bars; `axis` = (low, high)."""
    left, top, width, height = box
    head = 0.5 if headers or level else 0.0
    step = (height - head) / len(rows)
    room = width - label - sum(texts) - 0.3
    scale = Axis(left + label + 0.2, room, *axis)
    ends = [left + width - sum(texts[i + 1 :]) for i in range(len(texts))]
    for text, end, wide in zip(headers, ends, texts, strict=False):
        place = (end - wide + 0.1, top, wide - 0.1, head)
        add_text(slide, [text], place, colour=GREY, align=PP_ALIGN.RIGHT)
    for number, (title, bars, shown, colours) in enumerate(rows):
        y = top + head + number * step
        add_text(slide, [title], (left, y, label, step), align=PP_ALIGN.RIGHT)
        thick = 0.72 * step / len(bars)
        for place, (value, colour) in enumerate(bars):
            at = y + 0.14 * step + place * thick
            box = (scale(axis[0]), at, scale(value) - scale(axis[0]), 0.92 * thick)
            add_shape(slide, MSO_SHAPE.RECTANGLE, box, colour)
        for text, end, wide, colour in zip(shown, ends, texts, colours, strict=True):
            place = (end - wide + 0.1, y, wide - 0.1, step)
            add_text(slide, [text], place, colour=colour, bold=True, align=PP_ALIGN.RIGHT)
    add_line(slide, (scale(axis[0]), top + head), (scale(axis[0]), top + height), GREY, 1.5)
    if level:
        add_level(slide, scale, level, top, head, top + height)


def add_level(slide, scale, level, top, head, bottom):
    """A dashed line at a value with its name above; `level` = (value, name)."""
    value, name = level
    add_line(slide, (scale(value), top + head), (scale(value), bottom), INK, 2, dashed=True)
    place = (scale(value) - 1.2, top, 2.4, head)
    add_text(slide, [name], place, align=PP_ALIGN.CENTER)


# What the slides show


def digit(results, channel):
    """PNG of the hero picture's digit in one colour, ten times as large."""
    start = 16 + 784 * (TEST_FROM + results["hero"]["example"])
    with gzip.open(MNIST) as file:
        shape = Image.frombytes("L", (28, 28), file.read(start + 784)[start:])
    black = Image.new("L", (28, 28))
    layers = [shape if place == channel else black for place in range(3)]
    image = Image.merge("RGB", layers).resize((280, 280), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    file.seek(0)
    return file


def draw_hero(slide, results, words):
    """A digit in both colours with the answers of two networks, and the story's five bars."""
    left, top, _, height = PLACE
    for place, colour in enumerate(("red", "green")):
        x = left + place * 2.1
        add_text(slide, [words[colour]], (x, top, 1.9, 0.4), align=PP_ALIGN.CENTER)
        picture = slide.shapes.add_picture(
            digit(results, place), *map(Inches, (x, top + 0.45, 1.9, 1.9))
        )
        picture._element.nvPicPr.cNvPr.set("descr", words["picture"])
        for line, (network, shade) in enumerate((("usual", VERMILION), ("stratified", BLUE))):
            answer = int(results["hero"]["answers"][network][place] > 0.5)
            box = (x, top + 2.5 + 0.95 * line, 1.9, 0.85)
            shown = [words[network], f"{words['says']} {answer}"]
            add_text(slide, shown, box, TEXT, colour=shade, bold=True, align=PP_ALIGN.CENTER)
    steps = {entry["id"]: entry["accuracy"]["mean"] for entry in results["steps"]}
    shades = {
        "software_erm": VERMILION,
        "software_erm_do": BLUE,
        "software_backdoor_do": BLUE,
        "broken_headline": VERMILION,
        "broken_hardened": TEAL,
    }
    rows = [
        (words[key], [(steps[key], colour)], [share(steps[key])], [colour])
        for key, colour in shades.items()
    ]
    box = (left + 4.4, top, INNER - 4.4, height)
    level = (results["ceiling"]["test"], words["ceiling"])
    add_bars(slide, rows, box, 3.5, [1.1], (0, 0.8), level=level)


def draw_chip(slide, results, words):
    """One digit in both colours, and what is answered in software, by one chip with broken devices
    and by the same chip, more of it broken, with the network made for hardware."""
    left, top, width, _ = PLACE
    label, column, digits, step = 4.7, 2.4, 1.8, 0.75
    first = top + 0.45 + digits + 0.1
    for place, colour in enumerate(("red", "green")):
        x = left + label + 0.2 + place * column
        add_text(slide, [words[colour]], (x, top, column, 0.4), align=PP_ALIGN.CENTER)
        box = (x + (column - digits) / 2, top + 0.45, digits, digits)
        picture = slide.shapes.add_picture(digit(results, place), *map(Inches, box))
        picture._element.nvPicPr.cNvPr.set("descr", words["picture"])
    shades = {"stratified": BLUE, "broken": VERMILION, "hardened": TEAL}
    for line, (network, shade) in enumerate(shades.items()):
        y, answers = first + line * step, [p > 0.5 for p in results["hero"]["answers"][network]]
        place = (left, y, label, step)
        add_text(slide, [words[network]], place, LINE, colour=shade, align=PP_ALIGN.RIGHT)
        for place, answer in enumerate(answers):  # a three is of class 0
            box = (left + label + 0.2 + place * column, y, column, step)
            shown, colour = f"{answer:d}", VERMILION if answer else INK
            add_text(
                slide, [shown], box, ANSWER, colour=colour, bold=True, align=PP_ALIGN.CENTER
            )  # fmt: skip
        verdict = "same" if answers[0] == answers[1] else "differs"
        x = left + label + 0.4 + 2 * column
        box = (x, y, left + width - x, step)
        add_text(slide, [words[verdict]], box, LINE, colour=shade, bold=True)


def draw_demo(slide, _, words):
    """The picture of the page for the lecture, which leads to it."""
    left, top, width, height = PLACE
    shown = DEMO / words["shown"]
    with Image.open(shown) as image:
        wide = height * image.width / image.height
    box = (left + (width - wide) / 2, top, wide, height)
    picture = slide.shapes.add_picture(str(shown), *map(Inches, box))
    picture._element.nvPicPr.cNvPr.set("descr", words["picture"])
    picture.click_action.hyperlink.address = words["page"]


def draw_graphs(slide, _, words):
    """The hint's graph and the generator's, each with what it says to compute."""
    left, top, _, _ = PLACE
    size, rise = 1.15, 1.85
    hint = {"C": (1.6, 0), "X": (0, 1), "Y": (3.2, 1)}
    generator = {"S": (0, 0), "Y": (2.1, 0), "X": (0, 1), "C": (2.1, 1), "Env": (4.2, 1)}
    edges = (("C", "X"), ("C", "Y"), ("X", "Y"))
    made = (("S", "Y"), ("Y", "C"), ("Env", "C"), ("S", "X"), ("C", "X"))
    for start, nodes, arrows, treatment, kind in (
        (left + 0.6, hint, edges, "X", "hint"),
        (left + 6.6, generator, made, "S", "generator"),
    ):
        wide = max(x for x, _ in nodes.values()) + size
        add_text(
            slide, [words[kind]], (start - 0.4, top, wide + 0.8, 0.5), LINE, align=PP_ALIGN.CENTER
        )
        centres = {
            name: (start + x + size / 2, top + 0.6 + y * rise + size / 2)
            for name, (x, y) in nodes.items()
        }
        for one, other in arrows:
            (x1, y1), (x2, y2) = centres[one], centres[other]
            length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
            dx, dy = size / 2 * (x2 - x1) / length, size / 2 * (y2 - y1) / length
            add_line(slide, (x1 + dx, y1 + dy), (x2 - dx, y2 - dy), width=3, arrow=True)
        for name, (x, y) in centres.items():
            fill = {treatment: TREATMENT, "Y": OUTCOME}.get(name, RGBColor(255, 255, 255))
            box = (x - size / 2, y - size / 2, size, size)
            shape = add_shape(slide, MSO_SHAPE.OVAL, box, fill, outline=INK)
            shown = [word for word in (name, words["nodes"][name]) if word]
            height_of(shown, TEXT, size)
            write(shape.text_frame, shown, TEXT, align=PP_ALIGN.CENTER)
        place = (start - 0.6, top + 3.9, wide + 1.2, 0.6)
        colour = VERMILION if kind == "hint" else BLUE
        add_text(
            slide, [words[kind + "_formula"]], place, FORMULA, colour=colour, bold=True,
            align=PP_ALIGN.CENTER,
        )  # fmt: skip


def draw_methods(slide, results, words):
    """Each method's accuracy as it answers and averaged over both colours."""
    left, top, width, height = PLACE
    label, head, methods = 3.9, 0.5, list(words["methods"])
    step, scale = (height - head) / len(methods), Axis(left + label + 0.3, 5.4, 0, 0.8)
    for value, name, dashed in (
        (results["ceiling"]["test"], words["ceiling"], True),
        (0.5, words["chance"], True),
    ):
        add_line(slide, (scale(value), top + head), (scale(value), top + height), GREY, 1.5, dashed)
        place = (scale(value) - 1, top, 2, head)
        add_text(slide, [name], place, colour=GREY, align=PP_ALIGN.CENTER)
    for place, (name, colour) in enumerate((("plain", VERMILION), ("averaged", BLUE))):
        box = (left + width - 2.4 + 1.2 * place, top, 1.2, head)
        add_text(slide, [words[name]], box, colour=colour, align=PP_ALIGN.RIGHT)
    for number, name in enumerate(methods):
        y, found = top + head + number * step, results["software"][name]
        before, after = found["accuracy"]["mean"], found["accuracy_do"]["mean"]
        add_text(slide, [words["methods"][name]], (left, y, label, step), align=PP_ALIGN.RIGHT)
        add_line(slide, (scale(before), y + step / 2), (scale(after), y + step / 2), GREY, 3)
        add_dot(slide, scale(before), y + step / 2, VERMILION, 0.24, hollow=True)
        add_dot(slide, scale(after), y + step / 2, BLUE)
        for place, (value, colour) in enumerate(((before, VERMILION), (after, BLUE))):
            box = (left + width - 2.4 + 1.2 * place, y, 1.2, step)
            add_text(slide, [share(value)], box, colour=colour, bold=True, align=PP_ALIGN.RIGHT)


def draw_ladder(slide, results, words):
    """Rungs and controls on the way to the ceiling, each network a dot."""
    left, top, width, height = PLACE
    shades = {"longer": GREY, "recolour_taught": TEAL, "gray_taught": TEAL}
    found = {name: results["software"][name]["accuracy_do"] for name in words["rungs"]}
    ceiling = results["ceiling"]["test"]
    runs = [run for row in found.values() for run in row["runs"]]
    span = max(max(*runs, ceiling) - min(runs), 0.005)
    label, head, right = 4.6, 0.5, 1.3
    scale = Axis(
        left + label + 0.3, width - label - right - 0.6,
        min(*runs, ceiling) - 0.08 * span, max(*runs, ceiling) + 0.08 * span,
    )  # fmt: skip
    step = (height - head) / len(found)
    add_level(slide, scale, (ceiling, words["ceiling"]), top, head, top + height)
    for number, (name, row) in enumerate(found.items()):
        y, colour = top + head + number * step, shades.get(name, BLUE)
        add_text(
            slide, [words["rungs"][name]], (left, y, label, step), colour=colour,
            align=PP_ALIGN.RIGHT,
        )  # fmt: skip
        add_line(
            slide, (scale(scale.low), y + step / 2), (scale(scale.high), y + step / 2), PALE, 1.5
        )
        for run in row["runs"]:
            add_dot(slide, scale(run), y + step / 2, colour)
        box = (left + width - right, y, right, step)
        add_text(slide, [share(row)], box, colour=colour, bold=True, align=PP_ALIGN.RIGHT)


def draw_fall(slide, results, words):
    """The sample's network converted in several ways; beside it, what is left of each layer."""
    left, top, width, height = PLACE
    shades = dict.fromkeys(words["ways"], VERMILION)
    shades |= {"software": BLUE, "scale restored": BLUE}
    found = {way: row["balanced"]["mean"] for way, row in results["fall"]["sample"].items()}
    rows = [
        (title, [(found[way], shades[way])], [share(found[way])], [shades[way]])
        for way, title in words["ways"].items()
    ]
    half = 6.6
    box, level = (left, top, half, height), (0.5, words["chance"])
    add_bars(slide, rows, box, 2.5, [1.1], (0, 0.8), level=level)
    x, wide = left + half + 0.4, width - half - 0.4
    for place, (name, colour) in enumerate((("stock", VERMILION), ("restored", BLUE))):
        y = top + 0.95 * place
        add_text(slide, [words[name]], (x, y, wide - 2.6, 0.8), align=PP_ALIGN.LEFT)
        formula = (x + wide - 2.6, y, 2.6, 0.8)
        add_text(
            slide, [words[name + "_formula"]], formula, FORMULA, colour=colour, bold=True,
            align=PP_ALIGN.RIGHT,
        )  # fmt: skip
    gains = results["gains"]["sample"]
    table = [words["gains"]] + [
        [layer, share(lost), share(gains["scale restored"][layer])]
        for layer, lost in gains["as the sample"].items()
    ]
    add_table(slide, table, (x, top + 2.1, wide, height - 2.1), first=0.34)


def draw_joint(slide, results, words):
    """How many answers a change of colour flips, beside a shift; under it what averaging gains."""
    left, top, width, height = PLACE
    label, joint = 2.9, results["joint"]
    step, base, room = (width - label) / len(joint), top + height - 1.3, height - 1.9
    most = max(row[key]["mean"] for row in joint.values() for key in ("flips", "shifts"))
    shades = {"flips": VERMILION, "shifts": GREY}
    for place, (key, colour) in enumerate(shades.items()):
        box = (left, top + 0.7 + 1.05 * place, label - 0.3, 0.95)
        add_text(slide, [words[key]], box, colour=colour, bold=True, align=PP_ALIGN.RIGHT)
    for y, key, colour in ((base + 0.05, "stuck", INK), (base + 0.7, "gain", BLUE)):
        box = (left, y, label - 0.3, 0.5)
        add_text(slide, [words[key]], box, colour=colour, align=PP_ALIGN.RIGHT)
    for number, (rate, row) in enumerate(joint.items()):
        x = left + label + number * step
        for place, (key, colour) in enumerate(shades.items()):
            value = row[key]["mean"]
            tall = room * value / max(most, 0.05)
            bar = (x + (0.1 + 0.4 * place) * step, base - tall, 0.36 * step, max(tall, 0.01))
            add_shape(slide, MSO_SHAPE.RECTANGLE, bar, colour)
            text = (x + (0.03 + 0.4 * place) * step, base - tall - 0.4, 0.5 * step, 0.4)
            shown = [f"{fixed(100 * value, 0)}%"]
            add_text(slide, shown, text, colour=colour, bold=True, align=PP_ALIGN.CENTER)
        add_text(slide, [rate], (x, base + 0.05, step, 0.5), align=PP_ALIGN.CENTER)
        shown, place = gained(row["gain"]), (x, base + 0.6, step, 0.7)
        add_text(slide, shown, place, colour=BLUE, bold=True, align=PP_ALIGN.CENTER)
    add_line(slide, (left + label, base), (left + width, base), GREY, 1.5)


def draw_cures(slide, results, words):
    """Points lost with each cure added to the last."""
    shades = {"averaged": VERMILION, "copies": TEAL}
    rows = []
    for cure, title in words["cures"].items():
        lost, colour = results["cures"][cure]["lost"], shades.get(cure, BLUE)
        shown = [points(lost[RATE]), points(lost[HALF])]
        rows.append((title, [(lost[RATE]["mean"], colour)], shown, [colour, GREY]))
    most = max(1.0, *(row[1][0][0] for row in rows))
    headers = [words["rate"], words["half"]]
    add_bars(slide, rows, PLACE, 3.9, [1.6, 1.6], (0, most), headers)


def draw_realistic(slide, results, words):
    """Points lost by each effect and by dead columns: the headline network and the one made for
    hardware; the latter's dead columns also found and replaced."""
    dead = {chip: found[DEAD]["lost_do"] for chip, found in results["columns"].items()}
    both, rows = results["realistic"], []
    found = {effect: (both["headline"][effect], row) for effect, row in both["hardened"].items()}
    found |= {"dead": (dead["dead headline"], dead["dead hardened"])}
    found |= {"mended": (None, dead["mended"])}
    for effect, title in words["effects"].items():
        chips = found[effect]
        bars = [
            (chip["mean"] if chip else 0, colour)
            for chip, colour in zip(chips, (VERMILION, TEAL), strict=True)
        ]
        shown = [points(chip) if chip else "–" for chip in chips]
        rows.append((title, bars, shown, [VERMILION, TEAL]))
    most = max(1.0, *(value for row in rows for value, _ in row[1]))
    headers = [words["headline"], words["ours"]]
    add_bars(slide, rows, PLACE, 4.0, [1.5, 2.9], (0, most), headers)


def draw_columns(slide, _, words):
    """Two lists side by side under their headings."""
    left, top, width, _ = PLACE
    half = (width - 0.6) / 2
    for place, (name, colour) in enumerate((("ours", BLUE), ("others", GREY))):
        x = left + place * (half + 0.6)
        box = (x, top - 0.1, half, 0.5)
        add_text(slide, [words[f"{name}_title"]], box, LINE, colour=colour, bold=True)
        box = (x, top + 0.5, half, 5.25)
        add_text(slide, words[name], box, listed=True)


def table_of(name, results, words):
    """The rows of a native table; the first one is its header."""
    software = results["software"]
    if name == "joint":
        rows = [
            [
                *(rate, share(row["clean"]), share(row["clean_do"])),
                *(" ".join(gained(row["gain"])), f"{row['helped']} / {row['gain']['n']}"),
            ]
            for rate, row in results["joint"].items()
        ]
    elif name == "gray":
        keys = ("accuracy", "accuracy_do", "clean_do")
        rows = [[t, *(share(software[n][k]) for k in keys)] for n, t in words["rows"].items()]
    elif name == "wires":
        chips = results["realistic"].values()
        rows = [
            [title, *(points(chip[effect]) for chip in chips)]
            for effect, title in words["rows"].items()
        ]
    elif name == "confirmation":
        keys = ("accuracy", "accuracy_do", "clean_do")
        found = results["confirmation"]
        rows = [[t, *(share(found[n][k]) for k in keys)] for n, t in words["rows"].items()]
    elif name == "exact":
        rows = [[title, *results["exact"][key].values()] for key, title in words["rows"].items()]
    else:
        bench, whole = read_json(FIGURES / "bench.json"), results["fast_crossbars"]["whole chip"]
        timed, earlier = bench.get("full_seconds"), is_earlier(bench, results)
        fresh = not results["resumed"] and (earlier or not timed)  # this run was timed itself
        minutes = f"{(results['run_seconds'] if fresh else timed) / 60:.0f} min"
        found = {
            "run": minutes + (words["earlier"] if earlier and not fresh else ""),
            "stock": f"{1000 * whole['stock_seconds_an_image']:.0f} ms",
            "faster": f"{whole['times_faster_than_memtorch']:.0f} ×",
            "plain": f"{whole['times_slower_than_plain_network']:.1f} ×",
            "answers": f"{sum(row['chip_answers'] for row in results['ledger']):,}",
            "differ": f"{whole['images_that_differ']} / {whole['images']}",
        }
        rows = [[title, found[key]] for key, title in words["rows"].items()]
    return [words["header"], *rows]


DRAWINGS = {
    "hero": draw_hero,
    "chip": draw_chip,
    "demo": draw_demo,
    "graphs": draw_graphs,
    "methods": draw_methods,
    "ladder": draw_ladder,
    "fall": draw_fall,
    "joint": draw_joint,
    "cures": draw_cures,
    "realistic": draw_realistic,
    "columns": draw_columns,
}


# The presentation


def speak(element, language):
    """Give every run below an XML element its language and its typefaces."""
    tag, latin, asian = FACES[language]
    for properties in element.iter(qn("a:rPr"), qn("a:endParaRPr"), qn("a:defRPr")):
        properties.set("lang", tag)
        properties.set("altLang", "en-US")
        for name in ("a:latin", "a:ea", "a:cs"):
            for old in properties.findall(qn(name)):
                properties.remove(old)
        later = (
            qn("a:sym"),
            qn("a:hlinkClick"),
            qn("a:hlinkMouseOver"),
            qn("a:rtl"),
            qn("a:extLst"),
        )
        place = next(
            (i for i, child in enumerate(properties) if child.tag in later), len(properties)
        )
        for name, face in (("a:ea", asian), ("a:latin", latin)):
            properties.insert(place, properties.makeelement(qn(name), {"typeface": face}))


def add_slide(show, language, entry, number, text, results):
    """One slide: a title, one picture or table, at most two lines, and what is said."""
    slide = show.slides.add_slide(show.slide_layouts.get_by_name("Title Only"))
    title = slide.shapes.title
    title.left, title.top, title.width, title.height = map(Inches, (MARGIN, 0.4, INNER, 0.65))
    if wrapped(entry["title"], TITLE, INNER)[0] > 1:
        raise ValueError(f"a title takes two lines: {entry['title']!r}")
    write(title.text_frame, [entry["title"]], TITLE, BLUE, bold=True, align=PP_ALIGN.LEFT)
    if "draw" in entry:
        DRAWINGS[entry["draw"]](slide, results, entry)
    elif "table" in entry:
        rows = table_of(entry["table"], results, entry)
        add_table(slide, rows, PLACE, entry.get("first", 30) / 100)
    else:
        add_text(slide, entry["list"], (MARGIN, 1.2, INNER, LISTED), listed=True)
    if lines := entry.get("lines"):
        below = 0.42 * len(lines)
        place = (MARGIN, 7.0 - below, INNER, below)
        add_text(slide, lines, place, LINE, align=PP_ALIGN.CENTER)
    place = (WIDTH - MARGIN - 0.6, 7.05, 0.6, 0.4)
    add_text(slide, [f"{number}"], place, colour=GREY, align=PP_ALIGN.RIGHT)
    said = f"{entry['seconds']} {text['said']}" if "seconds" in entry else text["rest"]
    slide.notes_slide.notes_text_frame.text = f"[{said}]\n{entry['notes']}"
    for part in (slide, slide.notes_slide):
        for paragraph in part._element.iter(qn("a:r")):
            paragraph.get_or_add_rPr()
        speak(part._element, language)


def pages_of_sources(words):
    """The bibliography in as many slides as it needs: entries like those of the texts."""
    pages, page = [], []
    for line in references():
        needed = height_of([*page, line], TEXT, INNER - BULLET) + APART * (len(page) + 1)
        if needed > LISTED:
            pages.append(page)
            page = []
        page.append(line)
    pages.append(page)
    return [
        words | {"title": f"{words['title']} {i}/{len(pages)}", "list": page}
        for i, page in enumerate(pages, start=1)
    ]


def entries_of(language, results):
    """All slides, words and numbers together: those of the talk, then those behind it."""
    text = filled(text_of(language), numbers(results))
    backup = [e for e in text["backup"] if "shown" not in e or (DEMO / e["shown"]).is_file()]
    return [*text["slide"], *backup, *pages_of_sources(text["sources"])]


def sources(language):
    """SHA-256 of everything a presentation is made of."""
    paths = [Path(__file__), ROOT / "slides" / f"text.{language}.toml", BIBLIOGRAPHY]
    paths += [p for e in text_of(language)["backup"] if (p := DEMO / e.get("shown", "")).is_file()]
    return digest([*paths, FIGURES / "results.json", FIGURES / "bench.json"])


def without_times(packed):
    """The same zip file with one date for all its members."""
    plainer = io.BytesIO()
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(plainer, "w") as new:
        for name in sorted(old.namelist(), key=lambda name: (name != "[Content_Types].xml", name)):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, old.read(name))
    return plainer.getvalue()


def presentation(language, results):
    """The bytes of one presentation."""
    text, entries = text_of(language), entries_of(language, results)
    show = Presentation()
    show.slide_width, show.slide_height = Inches(WIDTH), Inches(HEIGHT)
    for number, entry in enumerate(entries, start=1):
        add_slide(show, language, entry, number, text, results)
    properties = show.core_properties
    properties.title, properties.author, properties.language = (
        text["headline"],
        "",
        FACES[language][0],
    )
    properties.created = properties.modified = DATE
    properties.keywords = sources(language)  # a test compares: stale or not
    file = io.BytesIO()
    show.save(file)
    return without_times(file)


def main():
    """Build both."""
    results = read_json(FIGURES / "results.json")
    for language, path in SLIDES.items():
        content = presentation(language, results)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        print(f"{path.relative_to(ROOT)}: {len(entries_of(language, results))} slides")


if __name__ == "__main__":
    main()
