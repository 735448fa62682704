"""Build the report's PDFs with typst and the forms with python-docx, in English and Chinese, from
report/, figures/ and figures/results.json. Started by `make report`."""

import functools
import io
import zipfile
from pathlib import Path

import justmytype_intl_cjk
import matplotlib.pyplot as plt
import typst
from docx import Document
from docx.enum.section import WD_ORIENT
from docx.enum.table import WD_CELL_VERTICAL_ALIGNMENT
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml.ns import qn
from docx.shared import Cm, Pt
from fontTools.subset import Subsetter
from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import instantiateVariableFont
from matplotlib.font_manager import fontManager

from tools.definitions import load_notebook
from tools.files import FIGURES, ROOT, digest, read_json, replacing

REPORT = ROOT / "report"
# Noto Sans SC, the Simplified Chinese build, in all weights; typst brings the Latin fonts.
FONTS = Path(justmytype_intl_cjk.__file__).parent / "fonts" / "ofl" / "notosanssc"
FONT = FONTS / "NotoSansSC[wght].ttf"
GLOSSARY = REPORT / "glossary.zh.json"  # what the notebook's figures say in Chinese
DRAWN = ROOT / "build" / "figures.zh"  # the figures in Chinese, made anew for each report
PDFS = {"en": REPORT / "report.pdf", "zh": REPORT / "report.zh.pdf"}
FORMS = {"en": REPORT / "division-of-labour.docx", "zh": REPORT / "division-of-labour.zh.docx"}
WORDS = {
    "en": {
        "title": "Colored MNIST, causal and memristive: division of labour",
        "how": "Write in each cell the member's share of the task in %. Each row adds up to 100.",
        "head": ["task", "member 1", "member 2", "member 3", "total, %"],
        "who": "name and student number",
        "tasks": [
            "data, and its checks",
            "causal graphs, derivation, exact table",
            "stratification, other methods, refutations",
            "self-training and its controls",
            "conversion: diagnosis and cure",
            "fast_crossbars, exact wires",
            "broken chips and colour",
            "networks for hardware, realistic chip",
            "figures and notebook text",
            "report",
            "slides and talk",
        ],
        "share": "share of the whole work",
        "sign": "signature",
        "date": "date",
    },
    "zh": {
        "title": "彩色MNIST：因果推断与忆阻器——分工表",
        "how": "每格填写该成员在此项任务中的占比（%）；每行合计为100。",
        "head": ["任务", "成员一", "成员二", "成员三", "合计（%）"],
        "who": "姓名与学号",
        "tasks": [
            "数据及其检验",
            "因果图、推导与精确数值表",
            "分层训练、其他方法与反驳检验",
            "自训练及其对照",
            "忆阻器转换：诊断与修正",
            "fast_crossbars与精确导线模型",
            "故障芯片与颜色敏感性",
            "面向硬件的网络与真实芯片条件",
            "图与笔记本文字",
            "报告",
            "幻灯片与展示",
        ],
        "share": "总工作量占比",
        "sign": "签名",
        "date": "日期",
    },
}


def sources(language):
    """SHA-256 of everything a report is made of; the PDF carries it as its keyword."""
    words = REPORT / f"text.{language}.typ"
    paths = [REPORT / name for name in ("report.typ", "numbers.typ", "references.bib")]
    paths += [Path(__file__), words, FIGURES / "results.json"]
    text = words.read_text(encoding="utf-8")
    paths += [GLOSSARY] if language == "zh" else []
    paths += sorted(f for f in FIGURES.glob("*.pdf") if f'"{f.stem}"' in text)
    return digest(paths)


@functools.cache
def font_for_figures():
    """Let matplotlib, which takes no variable font, find the regular Noto Sans SC, with the
    glossary's characters and all that are not Chinese."""
    with TTFont(FONT) as font:
        subsetter = Subsetter()
        kept = {*map(ord, GLOSSARY.read_text(encoding="utf-8"))}
        subsetter.populate(unicodes=kept | {code for code in font.getBestCmap() if code < 0x2E80})
        subsetter.subset(font)
        instantiateVariableFont(font, {"wght": 400}, inplace=True)
        for number, name in ((1, "Noto Sans SC"), (2, "Regular"), (6, "NotoSansSC-Regular")):
            font["name"].setName(name, number, 3, 1, 0x409)
        with replacing(ROOT / "build" / "NotoSansSC-Regular.ttf") as temporary:
            font.save(temporary)
    fontManager.addfont(ROOT / "build" / "NotoSansSC-Regular.ttf")


def figures(results, language="en", size="print"):
    """Draw the notebook's figures from its recorded numbers and MNIST: yields (name, figure)."""
    if language == "zh":
        font_for_figures()
    nb = load_notebook()
    environments = nb.make_environments(*nb.load_mnist(ROOT / "data"), results["seeds"]["root"])
    shape = environments["test"].images[results["hero"]["example"]].amax(0)
    more = {"examples": [environments], "hero": [shape]}
    for name in sorted(path.stem for path in FIGURES.glob("*.pdf")):
        draw = getattr(nb, f"draw_{name}")
        figure = draw(results, *more.get(name, []), language=language, size=size)
        yield name, figure
        plt.close(figure)


def draw_in_chinese():
    """Write the notebook's figures in Chinese, for the Chinese report."""
    for name, figure in figures(read_json(FIGURES / "results.json"), "zh"):
        with replacing(DRAWN / f"{name}.pdf") as temporary:
            figure.savefig(temporary, metadata={"CreationDate": None})


def build_pdf(language):
    """Compile one report; every font comes from typst or from the font package."""
    if language == "zh":
        draw_in_chinese()
    with replacing(PDFS[language]) as temporary:
        typst.compile(
            REPORT / "report.typ",
            output=temporary,
            root=ROOT,
            font_paths=[FONTS],
            ignore_system_fonts=True,
            sys_inputs={"lang": language, "sources": sources(language)},
        )
    print(PDFS[language].relative_to(ROOT))


def undated(document):
    """The bytes of a document whose parts carry no time: the same for the same content."""
    saved, file = io.BytesIO(), io.BytesIO()
    document.save(saved)
    with zipfile.ZipFile(saved) as parts, zipfile.ZipFile(file, "w") as kept:
        for name in parts.namelist():
            kept.writestr(zipfile.ZipInfo(name), parts.read(name), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def form(language):
    """The table of who did what, ready to be filled in, printed and signed."""
    words, document = WORDS[language], Document()
    section = document.sections[0]
    section.orientation = WD_ORIENT.LANDSCAPE
    section.page_width, section.page_height = Cm(29.7), Cm(21)
    section.left_margin = section.right_margin = Cm(2)
    section.top_margin = section.bottom_margin = Cm(1.5)
    style = document.styles["Normal"]
    style.font.name, style.font.size = "Calibri", Pt(11)
    style.element.rPr.rFonts.set(qn("w:eastAsia"), "SimSun")
    if language == "zh":  # or punctuation stands in the middle of its square
        for spoken in document.styles.element.iter(qn("w:lang")):
            spoken.set(qn("w:eastAsia"), "zh-CN")
    document.core_properties.author, document.core_properties.title = "", words["title"]
    heading = document.add_paragraph().add_run(words["title"])
    heading.bold, heading.font.size = True, Pt(16)
    document.add_paragraph(words["how"])
    rows = [words["head"], [words["who"]], *([task] for task in words["tasks"])]
    rows += [[words["share"], "", "", "", "100"], [words["sign"]], [words["date"]]]
    table = document.add_table(len(rows), 5, style="Table Grid")
    table.autofit = False
    for number, column in enumerate(table.columns):
        column.width = Cm(4.4) if number else Cm(8.1)
    for row, texts in zip(table.rows, rows, strict=True):
        row.height = Cm(1.4) if texts[0] == words["sign"] else Cm(0.85)
        for number, cell in enumerate(row.cells):
            cell.width = Cm(8.1) if number == 0 else Cm(4.4)
            cell.vertical_alignment = WD_CELL_VERTICAL_ALIGNMENT.CENTER
            paragraph = cell.paragraphs[0]
            paragraph.alignment = WD_ALIGN_PARAGRAPH.CENTER if number else WD_ALIGN_PARAGRAPH.LEFT
            text = texts[number] if number < len(texts) else ""
            if number == 4 and texts[0] in words["tasks"]:
                text = "100"
            run = paragraph.add_run(text)
            run.bold = texts is rows[0] or texts[0] == words["share"]
    return document


def build_form(language):
    """Write a form."""
    with replacing(FORMS[language]) as temporary:
        temporary.write_bytes(undated(form(language)))
    print(FORMS[language].relative_to(ROOT))


def main():
    """Build everything."""
    for language in PDFS:
        build_pdf(language)
        build_form(language)


if __name__ == "__main__":
    main()
