"""Build slides/slides.pptx and slides/slides.zh.pptx from slides/text.*.toml, figures/ and
figures/results.json. Started by `make slides`.

Every number in the texts is a name in braces, looked up in the results. A text that does not fit
its box is an error: it is measured with the font that ships with the project's requirements.
"""

import io
import tomllib
from pathlib import Path

import cvttf_NotoSansCJK_Regular
from PIL import Image, ImageFont
from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
from pptx.util import Emu, Inches, Pt

from tools.files import FIGURES, ROOT, digest, read_json, replacing
from tools.pictures import slim_png
from tools.records import fixed, is_earlier

SLIDES = {"en": ROOT / "slides" / "slides.pptx", "zh": ROOT / "slides" / "slides.zh.pptx"}
FONT = next(Path(cvttf_NotoSansCJK_Regular.__file__).parent.glob("*.otf"))
WIDTH, HEIGHT, MARGIN = 13.333, 7.5, 0.6  # inches
TITLE, LINE, CELL, SMALL = 28, 20, 15, 11  # points
LEADING = 1.25
WIDER = 1.12  # than FONT's Latin letters are those of the fonts that may replace ours
INK, GREY, BLUE = RGBColor(0x22, 0x22, 0x22), RGBColor(0x6E, 0x6E, 0x6E), RGBColor(0, 0x72, 0xB2)


def text_of(language):
    """The words of the slides in `en` or `zh`."""
    path = ROOT / "slides" / f"text.{language}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def numbers(results):
    """`{name: text}`: what may stand in braces in the texts."""
    steps = {entry["id"]: entry["accuracy"] for entry in results["steps"]}
    software = results["software"]
    chips = results["headline_chips"]

    def share(value, digits=1):
        return f"{fixed(100 * value, digits)}%"

    return {
        "ceiling": share(results["ceiling"]["test"]),
        "share": share(results["share_of_ceiling"]),
        "places": share(software[results["best_rung"]["rung"]]["accuracy_do"]["mean"], 2),
        "faster": f"{results['fast_crossbars']['times_faster_than_memtorch']:.0f}",
        "broken": share(chips["accuracy"]["mean"]),
        "broken_do": share(chips["accuracy_do"]["mean"]),
        "rate": share(results["settings"]["headline_rate"], 0),
        "flips": share(chips["flips"]["mean"]),
        "sample_stock": share(steps["sample_memristive_stock"]["mean"]),
        "restored": share(steps["backdoor_memristive"]["mean"]),
        "hard": share(steps["hardware_memristive_faults"]["mean"]),
        "copies": share(steps["hardware_memristive_redundant"]["mean"]),
        "mended": share(steps["hardware_memristive_repaired"]["mean"]),
        **{
            method: share(software[method]["accuracy"]["mean"])
            for method in ("sample", "erm", "ipw", "recoloured", "backdoor", "grayscale")
        },
    }


def tables(results, text):
    """`{name: rows}` of the native tables; the first row is the header."""
    names, headers = text.get("names", {}), text["headers"]

    def spread(row):
        return f"{100 * row['mean']:.1f} ± {100 * row['sd']:.1f}%"

    methods = [
        [names.get(m["id"], m["title"])]
        + [spread(results["software"][m["id"]][key]) for key in ("accuracy", "accuracy_do")]
        for m in results["methods"]
    ]
    layers = [
        [label.removeprefix("only ")]
        + [spread(ways["nothing"][key]) for key in ("accuracy", "accuracy_do", "flips")]
        for label, ways in results["chips"]["backdoor"].items()
        if label.startswith("only ")
    ]
    lost, faults = results["points_lost"], list(text["faults"])
    cures = [
        [title, *(fixed(lost[cure][fault]["mean"], 2) for fault in faults)]
        for cure, title in text["cures"].items()
    ]
    fast = results["fast_crossbars"]
    bench = read_json(FIGURES / "bench.json")
    run = f"{bench['full_seconds'] / 60:.0f} min"  # of one that reused nothing
    if is_earlier(bench, results):
        run += text["earlier"]
    measured = {
        "run": run,
        "stock": f"{24 * fast['stock_days']:.0f} h",
        "faster": f"{fast['times_faster_than_memtorch']:.0f} ×",
        "plain": f"{fast['times_slower_than_plain_network']:.1f} ×",
        "images": f"{fast['images_asked'] / 1e6:.1f} M",
    }
    return {
        "methods": [headers["methods"], *methods],
        "layers": [headers["layers"], *layers],
        "cures": [[headers["cures"], *text["faults"].values()], *cures],
        "times": [headers["times"], *([text["times"][key], measured[key]] for key in measured)],
    }


def wrapped(text, points, inches):
    """How many lines a text takes in a box of that width, and whether any word is too wide."""
    font = ImageFont.truetype(str(FONT), 10 * points)  # ten units a point
    room, lines, length = 720 * inches, 1, 0.0
    parts = text.replace(" ", " \0").split("\0")  # words keep the space behind them
    parts = [p for word in parts for p in ([word] if word.isascii() else list(word))]
    for part in parts:
        factor = WIDER if part.isascii() else 1.0
        wide = factor * font.getlength(part)
        if length and length + factor * font.getlength(part.rstrip()) > room:
            lines, length = lines + 1, 0.0
        length += wide
    return lines, WIDER * max(font.getlength(part.rstrip()) for part in parts) <= room


def height_of(paragraphs, points, inches):
    """The height in inches that paragraphs take; `ValueError` if a word is too wide for its box."""
    lines = 0
    for paragraph in paragraphs:
        count, narrow = wrapped(paragraph, points, inches)
        if not narrow:
            raise ValueError(f"a word is wider than {inches:.1f} inches: {paragraph!r}")
        lines += count
    return lines * points * LEADING / 72


def write(frame, paragraphs, points, colour=INK, bold=False, align=None):
    """Fill a text frame."""
    frame.word_wrap = True
    frame.margin_left = frame.margin_right = frame.margin_top = frame.margin_bottom = 0
    for number, text in enumerate(paragraphs):
        paragraph = frame.paragraphs[0] if number == 0 else frame.add_paragraph()
        paragraph.alignment = align
        run = paragraph.add_run()
        run.text = text
        run.font.size, run.font.bold, run.font.color.rgb = Pt(points), bold, colour


def add_text(slide, paragraphs, box, points, **style):
    """A text box at (left, top, width, height) inches; `ValueError` if the text does not fit."""
    needed = height_of(paragraphs, points, box[2])
    if needed > box[3] + 1e-6:
        raise ValueError(f"needs {needed:.2f} inches of {box[3]:.2f}: {paragraphs}")
    shape = slide.shapes.add_textbox(*(Inches(x) for x in box))
    shape.text_frame.vertical_anchor = MSO_ANCHOR.MIDDLE
    write(shape.text_frame, paragraphs, points, **style)


def add_picture(slide, name, box, described):
    """A figure in a palette of 256 colours, as large as its box allows, centred, with its title
    as alternative text."""
    small = io.BytesIO(slim_png((FIGURES / f"{name}.png").read_bytes()))
    with Image.open(small) as image:
        ratio = image.width / image.height
    left, top, width, height = box
    shown = min(width, height * ratio), min(height, width / ratio)
    picture = slide.shapes.add_picture(
        small,
        Inches(left + (width - shown[0]) / 2),
        Inches(top + (height - shown[1]) / 2),
        Inches(shown[0]),
        Inches(shown[1]),
    )
    picture._element.nvPicPr.cNvPr.set("descr", described)


def add_table(slide, rows, box):
    """A native table; its first column is wide and left-aligned."""
    left, top, width, height = box
    row_height = min(height / len(rows), 0.5)
    shape = slide.shapes.add_table(
        len(rows), len(rows[0]), *(Inches(x) for x in (left, top, width, row_height * len(rows)))
    )
    first = 0.62 * width if len(rows[0]) == 2 else 0.34 * width
    others = (width - first) / (len(rows[0]) - 1)
    for number, column in enumerate(shape.table.columns):
        column.width = Inches(others if number else first)
    for r, row in enumerate(rows):
        shape.table.rows[r].height = Inches(row_height)
        for c, text in enumerate(row):
            cell = shape.table.cell(r, c)
            cell.margin_top = cell.margin_bottom = Emu(0)
            cell.vertical_anchor = MSO_ANCHOR.MIDDLE
            room = (others if c else first) - 0.2
            if height_of([text], CELL, room) > row_height:
                raise ValueError(f"does not fit its cell: {text!r}")
            paragraph = cell.text_frame.paragraphs[0]
            paragraph.alignment = PP_ALIGN.LEFT if c == 0 else PP_ALIGN.RIGHT
            run = paragraph.add_run()
            run.text = text
            run.font.size, run.font.bold = Pt(CELL), r == 0


def add_slide(show, entry, number, text, found, values):
    """One slide: a sentence, a figure or table, at most three lines, and what is said."""
    slide = show.slides.add_slide(show.slide_layouts[6])  # blank
    title = entry["title"].format_map(values)
    inner = WIDTH - 2 * MARGIN
    add_text(slide, [title], (MARGIN, 0.3, inner, 1.0), TITLE, colour=BLUE, bold=True)
    lines = [line.format_map(values) for line in entry["lines"]]
    below = 0.45 * len(lines)
    box = (MARGIN, 1.4, inner, HEIGHT - 1.4 - 0.55 - below - (0.15 if lines else 0))
    if "figure" in entry:
        add_picture(slide, entry["figure"], box, title)
    else:
        add_table(slide, found[entry["table"]], box)
    if lines:
        place = (MARGIN, HEIGHT - 0.55 - below, inner, below)
        add_text(slide, lines, place, LINE, align=PP_ALIGN.CENTER)
    footer = f"{text['headline']} · {number}"
    add_text(slide, [footer], (MARGIN, HEIGHT - 0.4, inner, 0.25), SMALL, colour=GREY)
    said = f"{entry['seconds']} {text['said']}" if "seconds" in entry else text["rest"]
    notes = slide.notes_slide.notes_text_frame
    notes.text = f"[{said}]\n{entry['notes'].format_map(values)}"


def sources(language):
    """SHA-256 of everything a presentation is made of."""
    paths = [Path(__file__), ROOT / "slides" / f"text.{language}.toml"]
    paths += [FIGURES / "results.json", FIGURES / "bench.json"]
    entries = [e for kind in ("slide", "backup") for e in text_of(language)[kind]]
    paths += [FIGURES / f"{entry['figure']}.png" for entry in entries if "figure" in entry]
    return digest(paths)


def build(language, results):
    """Write one presentation."""
    text, values = text_of(language), numbers(results)
    show = Presentation()
    show.slide_width, show.slide_height = Inches(WIDTH), Inches(HEIGHT)
    found = tables(results, text)
    entries = [*text["slide"], *text["backup"]]
    for number, entry in enumerate(entries, start=1):
        add_slide(show, entry, number, text, found, values)
    show.core_properties.title, show.core_properties.author = text["headline"], ""
    show.core_properties.keywords = sources(language)  # a test compares: stale or not
    with replacing(SLIDES[language]) as temporary:
        show.save(temporary)
    print(f"{SLIDES[language].relative_to(ROOT)}: {len(entries)} slides")


def main():
    """Build both."""
    results = read_json(FIGURES / "results.json")
    for language in SLIDES:
        build(language, results)


if __name__ == "__main__":
    main()
