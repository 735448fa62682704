"""Render coloredmnist.ipynb as one page that fetches nothing: build/coloredmnist.html.

Started by `make html`. Formulas become MathML, which browsers draw themselves; pictures and styles
are inside the page. What the page adds to nbconvert's own stands in page.html.j2.
"""

import re
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from .files import NOTEBOOK, ROOT, replacing
from .pictures import TITLE, describe_pictures

PAGE = ROOT / "build" / "coloredmnist.html"
TEMPLATE = Path(__file__).with_name("page.html.j2")
# Code is left alone; then displayed and inline formulas, not preceded by a backslash.
FORMULA = re.compile(r"```.*?```|`[^`\n]*`|\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+?)\$", re.DOTALL)


def with_mathml(markdown):
    """Markdown with its formulas as MathML."""

    def drawn(match):
        displayed, inline = match.groups()
        if displayed is None and inline is None:
            return match[0]
        tex = (displayed or inline).replace(r"\|", "|")  # escaped in tables
        mathml = convert(" ".join(tex.split()), display="block" if displayed else "inline")
        return mathml.replace("\n", "")

    return FORMULA.sub(drawn, markdown)


def rendered(notebook):
    """The notebook as HTML that refers to nothing outside itself."""
    notebook.metadata["title"] = TITLE
    describe_pictures(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = with_mathml(output.data["text/markdown"])
    exporter = HTMLExporter(template_file=str(TEMPLATE), embed_images=True)
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(NOTEBOOK.parent)}})
    return page


def main():
    """Write the page."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with replacing(PAGE) as temporary:
        temporary.write_text(rendered(notebook), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {PAGE.stat().st_size / 1e6:.1f} MB, complete in itself")


if __name__ == "__main__":
    main()
